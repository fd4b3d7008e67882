"""Files that a killed process cannot corrupt: atomic writes, and tensors with a checksum.

A tensor file is a safetensors file whose header carries one metadata entry, `addergraph`:
JSON with sorted keys that holds the caller's metadata and `sha256`, the digest over that
metadata and over every tensor's name, dtype, shape and bytes. So any safetensors reader can
open the file, the same content gives the same bytes, and a flipped bit does not go unseen.
Reading one runs no code and imports nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import border
from ..errors import StorageError, UnsupportedError
from ..ir import Array
from ..ir.types import DTYPES

HEADER_LIMIT = 64 << 20  # bytes of JSON; larger headers are refused before they are parsed
_ENTRY = "addergraph"
_PIECE = 1 << 20  # bytes of a file that are read at once
_LONGEST_NAME = 200  # bytes that a temporary file's name takes over
_PRIVATE = 0o600
_MOST_LINKS = 40  # of one path, as Linux has it
# What file systems without such a call answer to fsync: then there is nothing to wait for.
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as users give it; see `border.path`."""
    return Path(border.path("path", path))


Pieces = Iterable[bytes | memoryview]
"""The bytes of a file, one after another: a large one need not be in memory as a whole."""


def pieces(data: bytes | memoryview | Pieces) -> Pieces:
    """`data`, as pieces."""
    return [data] if isinstance(data, bytes | memoryview) else data


def atomic_write(
    path: str | os.PathLike[str], data: bytes | Pieces, *, private: bool = False
) -> None:
    """Writes `data` to `path` so that a reader sees the old file or the new one, never a part.

    A temporary file in the same folder is written, synced and renamed over `path`, then the
    folder is synced, where the file system can. The permissions of a file that was there stay,
    unless the file is `private`: then nobody else may read or write it. StorageError when the
    folder is missing or cannot be written, for what is no plain file, and for a link that another
    user planted; the previous file then survives and the temporary file is gone.
    """
    atomic_write_all([(path, data)], private=private)


def atomic_write_all(
    files: Sequence[tuple[str | os.PathLike[str], bytes | Pieces | None]], *, private: bool = False
) -> None:
    """Writes several files as `atomic_write` does one, in their order; None removes a file.

    The bytes of all are on the disk before the first is renamed: a full disk changes none of them.
    A process that is killed may have renamed some.
    """
    places = [(path, data, *_places(path)) for path, data in files]
    try:
        for path, data, _, temporary, mode in places:
            if data is not None:
                with _reported(path):
                    _write_synced(temporary, data, _PRIVATE if private else mode)
        for path, data, target, temporary, _ in places:
            with _reported(path):
                target.unlink(missing_ok=True) if data is None else os.replace(temporary, target)
    finally:
        for _, _, _, temporary, _ in places:
            discard(temporary)
    for folder, path in {target.parent: path for path, _, target, _, _ in places}.items():
        try:
            _sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f'"{path}" is written, but the disk reports that it may not last '
                f"({error.strerror or error}); write a copy to another disk"
            ) from None


def require_writable(path: str | os.PathLike[str]) -> None:
    """StorageError unless `atomic_write` could write `path` now; leaves nothing behind.

    Long work asks first. It really makes a file, because permission bits say nothing to root and
    nothing of a file system that is read-only.
    """
    _, temporary, mode = _places(path)
    try:
        with _reported(path):
            _write_synced(temporary, b"", mode)
            temporary.unlink()
    finally:
        discard(temporary)


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str]
) -> None:
    """Writes named arrays and text metadata to `path`, atomically.

    Dtypes are those of the type table (f32, i32, u8, i8, bool). Raises StorageError for another
    dtype, or when the file cannot be written.
    """
    from safetensors.numpy import save as serialize

    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    known = {d.numpy for d in DTYPES.values()}
    for name, array in arrays.items():
        if array.dtype not in known:
            raise StorageError(
                f'cannot write "{path}": tensor "{name}" is {array.dtype}; '
                f"a file holds {', '.join(DTYPES)}"
            )
    described = dict(metadata)
    content = {"metadata": described, "sha256": content_digest(arrays, described)}
    atomic_write(path, serialize(arrays, metadata={_ENTRY: _canonical(content)}))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata that `save` wrote to `path`.

    Raises StorageError that names the file and what is wrong: unreadable, truncated, a damaged
    header, duplicate keys, not written by AdderGraph, or content that differs from its checksum.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialize

    data = read_bytes(path)
    content = _content(path, _header(path, data))
    try:
        arrays: dict[str, Array] = deserialize(data)
    except (SafetensorError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise StorageError(f'"{path}" is damaged: {error}; restore it from a copy') from None
    metadata: dict[str, str] = content["metadata"]
    found = content_digest(arrays, metadata)
    if found != content["sha256"]:
        raise StorageError(
            f'"{path}" is damaged: its content has sha256 {found[:12]}..., the file says '
            f"{content['sha256'][:12]}...; restore it from a copy"
        )
    return arrays, metadata


def content_digest(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """SHA-256 over metadata and over name, dtype, shape and bytes of every array, in order."""
    digest = hashlib.sha256(_canonical(metadata).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def is_tensor_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is called as one, or begins as one does: 8 bytes of length, then JSON."""
    text = border.path("path", path)
    if text.endswith(".safetensors"):
        return True
    try:
        with open(text, "rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


_FOREIGN = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def foreign_tensors(path: str | os.PathLike[str], data: bytes) -> dict[str, Array]:
    """The arrays of any safetensors file, of whoever's: bf16 becomes f32, which holds it exactly.

    StorageError for a damaged file, UnsupportedError for elements that NumPy has not.
    """
    header, found = _header(path, data), {}
    start = 8 + int.from_bytes(data[:8], "little")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        try:
            kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sizes = border.accept(tuple[int, ...], shape)
            ends = border.accept(tuple[int, ...], (first, last))
        except (LookupError, TypeError, ValueError):
            sizes = ends = None
        if sizes is None or ends is None or not 0 <= ends[0] <= ends[1] <= len(data) - start:
            raise StorageError(f'"{path}" is damaged: the entry of {border.shown(name)}')
        if not isinstance(kind, str) or kind not in _FOREIGN:
            raise UnsupportedError(f'"{path}": {border.shown(name)} is of {border.shown(kind)}')
        raw = data[start + ends[0] : start + ends[1]]
        dtype = np.dtype(_FOREIGN[kind])
        if min(sizes, default=0) < 0 or math.prod(sizes) * dtype.itemsize != len(raw):
            raise StorageError(f'"{path}" is damaged: {border.shown(name)} has {len(raw)} bytes')
        array = np.frombuffer(raw, dtype)
        if kind == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        found[name] = array.reshape(sizes) if array.size else np.zeros(0, array.dtype)
    return found


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; StorageError when it cannot be read."""
    file = user_path(path)
    try:
        if stat.S_ISCHR(file.stat().st_mode):
            raise StorageError(f'cannot read "{path}": it is a device, and may have no end')
        return file.read_bytes()
    except OSError as error:
        raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None


@dataclass(frozen=True)
class FilePieces:
    """The bytes of a file, read anew each time they are asked for; OSError where they cannot be."""

    path: Path

    def __iter__(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def _places(path: str | os.PathLike[str]) -> tuple[Path, Path, int | None]:
    """The file that `path` stands for, a fresh name beside it, and the permissions of a file that
    is there; StorageError for anything that is no plain file, since renaming would remove it."""
    with _reported(path):
        target = _resolved(user_path(path))
        mode = _mode(target)
    if not target.parent.is_dir():
        raise StorageError(f'cannot write "{path}": there is no folder "{target.parent}"')
    if mode is not None and not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise StorageError(f'cannot write "{path}": it is {what}; give the name of a file')
    # A name may have 255 bytes, and the temporary one has 22 more than it.
    name = os.fsdecode(os.fsencode(target.name)[:_LONGEST_NAME])
    temporary = target.with_name(f".{name}.{secrets.token_hex(8)}.tmp")
    return target, temporary, None if mode is None else stat.S_IMODE(mode)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _resolved(path: Path) -> Path:
    """`path` without links; OSError where one cannot be followed, or must not be."""
    if os.name != "posix":
        return Path(os.path.realpath(path))
    first, *rest = path.absolute().parts
    at, left, links = Path(first), rest[::-1], 0
    while left:
        name = left.pop()
        here = at.parent if name == ".." else at / name
        if not here.is_symlink():
            at = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        _require_own_link(here, os.lstat(here), os.stat(at))
        to = Path(os.readlink(here))
        at = Path(to.anchor) if to.is_absolute() else at
        left += to.parts[to.is_absolute() :][::-1]
    return at


def _require_own_link(link: Path, status: os.stat_result, folder: os.stat_result) -> None:
    """OSError for a link that another user put into a folder that everyone may write, as /tmp:
    the rule of protected_symlinks in proc(5), which the kernel cannot apply to a link that we read,
    and which it applies to the last part of a path alone."""
    shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    if shared and status.st_uid not in (os.geteuid(), folder.st_uid):
        raise OSError(
            errno.EACCES, f'"{link}" is a link that another user (uid {status.st_uid}) put there'
        )


def discard(temporary: Path) -> None:
    """Removes what a failed write left; an error here would hide the one that counts."""
    with contextlib.suppress(OSError):
        temporary.unlink()


@contextlib.contextmanager
def _reported(path: str | os.PathLike[str]) -> Iterator[None]:
    """OSErrors as StorageErrors that name `path`."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str | os.PathLike[str], error: OSError) -> StorageError:
    return StorageError(
        f'cannot write "{path}": {error.strerror or error}; '
        "check the folder's permissions and free space"
    )


def _write_synced(path: Path, data: bytes | Pieces, mode: int | None) -> None:
    """`mode`: permissions other than those of a new file; bytes are never seen by more users."""
    created = 0o666 if mode is None else mode & 0o666
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, created)
    with os.fdopen(descriptor, "wb") as file:
        if mode is not None and mode != stat.S_IMODE(os.fstat(descriptor).st_mode):
            os.chmod(path, mode)
        file.writelines(pieces(data))
        file.flush()
        _sync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened; the rename alone is what there is
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written, but not listed
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _header(path: str | os.PathLike[str], data: bytes) -> dict[str, Any]:
    """The header's JSON object: 8 bytes of length, then the text."""
    if len(data) < 8:
        raise StorageError(f'"{path}" is truncated or no model file: it has {len(data)} bytes')
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_LIMIT:
        raise StorageError(
            f'"{path}" is damaged or no model file: its header claims {length} bytes, '
            f"at most {HEADER_LIMIT} are read"
        )
    if 8 + length > len(data):
        raise StorageError(
            f'"{path}" is truncated: its header needs {8 + length} bytes, it has {len(data)}'
        )
    header = _json(path, data[8 : 8 + length])
    if not isinstance(header, dict):
        raise StorageError(f'"{path}" is damaged: its header is no JSON object')
    return header


def _content(path: str | os.PathLike[str], header: Mapping[str, Any]) -> dict[str, Any]:
    """Our own metadata entry, with its two keys checked."""
    entries = header.get("__metadata__")
    text = entries.get(_ENTRY) if isinstance(entries, dict) else None
    if not isinstance(text, str):
        raise StorageError(
            f'"{path}" is damaged or was not written by AdderGraph: its header has no '
            f'"{_ENTRY}" metadata'
        )
    content = _json(path, text.encode())
    metadata = content.get("metadata") if isinstance(content, dict) else None
    plain = isinstance(metadata, dict) and all(map(_is_text, [*metadata, *metadata.values()]))
    if not plain or not isinstance(content.get("sha256"), str):
        raise StorageError(f'"{path}" is damaged: its "{_ENTRY}" metadata is incomplete')
    return dict(content)


def _is_text(value: object) -> bool:
    """Whether it is text that can be printed: half of a surrogate pair is none."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _json(path: str | os.PathLike[str], text: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise StorageError(f'"{path}" is damaged: its header defines "{name}" twice')
            found[name] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise StorageError(f'"{path}" is damaged: its header is not JSON ({error})') from None
