"""The on-disk cache of compiled objects: content-addressed, verified on read, written atomically.

An entry is one file: a line with the SHA-256 of its key and the rest, then a JSON line of facts,
then the object. A damaged or unreadable entry is a miss. `ADDERGRAPH_CACHE` names another folder;
empty switches the cache off.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from addergraph.errors import StorageError
from addergraph.files.storage import atomic_write


def folder() -> Path | None:
    """Where entries live, or None when the cache is off."""
    named = os.environ.get("ADDERGRAPH_CACHE")
    if named is not None:
        return Path(named) if named else None
    from platformdirs import user_cache_path

    return user_cache_path("addergraph") / "objects"


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
        data = (where / key).read_bytes()
    except OSError:
        return None
    digest, _, rest = data.partition(b"\n")
    if _digest(key, rest) != digest:
        return None
    facts, _, code = rest.partition(b"\n")
    return json.loads(facts), code


def store(key: str, facts: Any, code: bytes) -> None:
    """Writes an entry. A folder that cannot be written means no cache, not an error."""
    where = folder()
    if where is None:
        return
    rest = json.dumps(facts, sort_keys=True).encode() + b"\n" + code
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_write(where / key, _digest(key, rest) + b"\n" + rest)
    except (OSError, StorageError):
        return


def _digest(key: str, rest: bytes) -> bytes:
    """What the first line must be; with the key in it, an entry is no other one's either."""
    return hashlib.sha256(key.encode() + rest).hexdigest().encode()
