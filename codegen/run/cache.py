"""The on-disk cache of compiled objects: content-addressed, verified on read, written atomically.

An entry is one file: a line with the SHA-256 of its key and the rest, then a JSON line of facts,
then the object. A damaged or unreadable entry is a miss. `ADDERGRAPH_CACHE` names another folder;
empty switches the cache off.

Entries are code that runs, and their digest has no secret: whoever may write the folder may write
entries. So folder and entries are used only where they belong to this user, or to root, and nobody
else may write them, as ssh asks of its keys. EnvironmentWarning, once, says what is passed over.

Beyond LIMIT bytes the entries that were used least recently are removed. To look at all of them
takes 10 ms for 1,000: one new entry in _EVERY looks, and each that is large.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addergraph.errors import EnvironmentWarning, StorageError
from addergraph.files.storage import atomic_write, user_path

LIMIT = 1 << 30  # bytes of all entries
_EVERY = 64  # new entries, in the mean, to the next look; LIMIT / _EVERY bytes are large
_KEPT = 0.8  # of LIMIT, when entries are removed: not again at the next one
# Names of entries, and of what a killed process left of one: nothing else is ever removed.
_ENTRY = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True)
class Usage:
    """What the cache holds: no folder where it is off."""

    folder: Path | None
    entries: int
    nbytes: int


def folder() -> Path | None:
    """Where entries live, or None when the cache is off or this user has no home."""
    named = os.environ.get("ADDERGRAPH_CACHE")
    if named is not None:
        return user_path(named) if named else None
    from platformdirs import user_cache_path

    try:
        found = user_cache_path("addergraph") / "objects"
    except RuntimeError:  # no HOME, and a user without a name
        return None
    return found if found.is_absolute() else None  # "~/...", of some versions


def made_folder() -> Path | None:
    """The folder of entries, made if need be. None where there is none to use."""
    where = folder()
    if where is None:
        return None
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        return where if _is_own(where, os.stat(where)) else None
    except OSError:
        return None


@functools.cache
def source_digest() -> str:
    """SHA-256 over the source of the whole package: kernels import from `ops` and `plan`, and no
    list of what they need would stay complete. A changed file finds no old object.

    Contents, since times and sizes of files may be equal in two versions. 1.7 ms more of CPU time,
    once a process, than the code generator's files alone (220 files, 1.4 MB).
    """
    # In a checkout, passes and codegen are links, by which this file was imported, too.
    root, digest = str(Path(__file__).parents[2]), hashlib.sha256()
    found = os.walk(root, followlinks=True)
    paths = (os.path.join(folder, n) for folder, _, names in found for n in names)
    for path in sorted(p for p in paths if p.endswith(".py")):
        with open(path, "rb", buffering=0) as file:  # a third of the time of `read_bytes`
            data = file.read()
        digest.update(f"{path[len(root) :]}\n{len(data)}\n".encode() + data)
    return digest.hexdigest()


def key_of(*parts: str) -> str:
    """SHA-256 over the package's source and the parts, each with its length before it."""
    digest = hashlib.sha256()
    for part in (source_digest(), *parts):
        data = part.encode()
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


def load(key: str) -> tuple[Any, bytes] | None:
    """(facts, object) of an intact entry, or None."""
    where = folder()
    if where is None:
        return None
    try:
        data = _read(where / key) if _is_own(where, os.stat(where)) else None
    except OSError:
        return None
    if data is None:
        return None
    digest, _, rest = data.partition(b"\n")
    if _digest(key, rest) != digest:
        return None
    facts, _, code = rest.partition(b"\n")
    return json.loads(facts), code


def store(key: str, facts: Any, code: bytes) -> None:
    """Writes an entry. A folder that cannot be written means no cache, not an error."""
    where = made_folder()
    if where is None:
        return
    rest = json.dumps(facts, sort_keys=True).encode() + b"\n" + code
    try:
        atomic_write(where / key, _digest(key, rest) + b"\n" + rest, private=True)
        if int(key[:8], 16) % _EVERY == 0 or len(rest) > LIMIT // _EVERY:
            _evict(where)
    except (OSError, StorageError):
        return


def usage() -> Usage:
    """What the cache holds now. StorageError where its folder cannot be read."""
    where = folder()
    sizes = [status.st_size for _, status in _entries(where)]
    return Usage(where, len(sizes), sum(sizes))


def clear() -> Usage:
    """Removes every entry; what was removed. StorageError where that is not allowed."""
    before = usage()
    try:
        for path, _ in _entries(before.folder):
            _remove(path)
    except OSError as error:
        raise StorageError(f'cannot clear "{before.folder}": {error.strerror or error}') from None
    return before


def _entries(where: Path | None) -> list[tuple[str, os.stat_result]]:
    """The entries of a folder with their facts; none where there is no folder."""
    if where is None:
        return []
    try:
        with os.scandir(where) as found:
            named = (e for e in found if _ENTRY.fullmatch(e.name))
            return [(e.path, e.stat(follow_symlinks=False)) for e in named]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f'cannot read "{where}": {error.strerror or error}') from None


def _evict(where: Path) -> None:
    """Removes the entries that were used least recently where all have more than LIMIT bytes."""
    found = sorted(_entries(where), key=lambda e: e[1].st_mtime_ns)
    total = sum(status.st_size for _, status in found)
    if total <= LIMIT:
        return
    for path, status in found[:-1]:
        _remove(path)
        total -= status.st_size
        if total <= _KEPT * LIMIT:
            return


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _read(path: Path) -> bytes | None:
    """The bytes of an entry, which counts as used now. None for what is no file of this user."""
    # A link is not followed, and a pipe not waited for.
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _is_own(path, status):
            return None
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _is_own(path: Path, status: os.stat_result) -> bool:
    """Whether nobody but this user, and root, may write what stands at `path`."""
    if os.name != "posix":
        return True  # permissions are not in the mode there, and nothing is run (`lookup.host`)
    if status.st_uid not in (os.geteuid(), 0):
        _say(f'"{path}" belongs to another user (uid {status.st_uid})')
    elif status.st_mode & 0o022:
        _say(f'others may write "{path}" (mode {stat.S_IMODE(status.st_mode):o})')
    else:
        return True
    return False


@functools.cache
def _say(what: str) -> None:
    warnings.warn(
        f"the cache of compiled code is not used: {what}, who could make this process run their "
        "code; make it yours alone (chown, chmod go-w), or name another folder in "
        "ADDERGRAPH_CACHE",
        EnvironmentWarning,
        stacklevel=2,
    )


def _digest(key: str, rest: bytes) -> bytes:
    """What the first line must be; with the key in it, an entry is no other one's either."""
    return hashlib.sha256(key.encode() + rest).hexdigest().encode()
