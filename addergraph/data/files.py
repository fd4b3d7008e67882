"""Reading the files of published data sets: as data, in memory, and checked against their sums."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from .. import border
from ..errors import DataError, DataWarning, StorageError

BYTES_LIMIT = 1 << 30  # of published files when unpacked; the largest of them has 0.2 GB
BYTES_ANYWAY, RATIO = 1 << 28, 32  # unpacked of any file; of a large one, times its own bytes
_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)


def unpacked_limit(size: int) -> int:
    """The most bytes that a file of `size` bytes is unpacked to."""
    return max(BYTES_ANYWAY, RATIO * size)


@dataclass(frozen=True)
class Source:
    """Where a data set is published, its classes and counts, and the MD5 sums of its files."""

    name: str
    page: str
    classes: tuple[str, ...]
    train_count: int
    test_count: int
    md5: dict[str, str]
    content: dict[str, str] = field(default_factory=dict)  # of files that are unpacked


def read_unpacked(path: Path) -> bytearray:
    """The bytes of a file, unpacked where it is gzip (seen by its first bytes, not its name).

    StorageError when it cannot be read, is a damaged gzip file, or is larger than BYTES_LIMIT or,
    unpacked, than `unpacked_limit`.
    """
    data = bytearray()
    try:
        with _stream(path) as (stream, limit):
            while block := stream.read(_BLOCK):
                data += block
                _require_size(f'"{path}"', len(data), limit)
    except _DAMAGED as error:
        raise StorageError(f'"{path}" is a damaged gzip file: {error}; get it again') from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return data


@contextmanager
def _stream(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The content of a plain or gzip file, and how many bytes of it are read at most."""
    with open(border.path("path", path), "rb") as file:
        packed = file.read(2) == _GZIP
        limit = min(BYTES_LIMIT, unpacked_limit(file.seek(0, os.SEEK_END)))
        file.seek(0)
        if not packed:
            yield file, BYTES_LIMIT
            return
        with gzip.open(file) as stream:
            yield cast(BinaryIO, stream), limit


def read_members(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Those members of a .tar or .tar.gz archive that are in `wanted` (whole names), by name.

    Nothing is written to disk, and other members are passed over unread, extended headers among
    them: the memory taken is that of the members that are wanted. StorageError when the archive
    cannot be read or is damaged, or when it or the members that are wanted have more bytes than
    `read_unpacked` reads; DataError for one that comes twice or is no plain file.
    """
    found: dict[str, bytes] = {}
    try:
        with _stream(path) as (stream, limit):
            left = limit
            while any(block := _exactly(stream, tarfile.BLOCKSIZE)):
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                padded = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                left -= tarfile.BLOCKSIZE + padded
                _require_size(f'"{path}"', limit - left, limit)
                name = str(PurePosixPath(member.name))
                if name in wanted and member.type not in _HEADERS:
                    _require_plain(path, member, name in found)
                    found[name] = _exactly(stream, member.size)
                    padded -= member.size
                while padded:
                    padded -= len(_exactly(stream, min(padded, _BLOCK)))
            while rest := stream.read(_BLOCK):  # to the end, where the checksum of the packing is
                left -= len(rest)
                _require_size(f'"{path}"', limit - left, limit)
    except _DAMAGED as error:
        raise StorageError(
            f'"{path}" is a damaged .tar.gz archive, or none: {error}; get it again'
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return found


# Extended headers (pax, GNU): published archives need none, and these may be as large as they like.
_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes; EOFError where there are fewer."""
    if size < 0:
        raise ValueError("a member has a negative size")
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it ends early")
    return data


def _require_plain(path: Path, member: tarfile.TarInfo, repeated: bool) -> None:
    if repeated:
        raise DataError(f'"{path}": member "{member.name}" comes twice; expected it once')
    if not member.isreg():
        raise DataError(f'"{path}": member "{member.name}" is no plain file')


def _require_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise StorageError(f"{what} has more than the {limit} bytes that are read at most")


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f'cannot read "{path}": {error.strerror or error}')


def check_sums(paths: Sequence[Path], source: Source, verify: bool) -> None:
    """Compares the MD5 of files with the published one of their names.

    MD5 because that is what the data sets' pages publish; it finds damage, not forgery. A file that
    is unpacked, or was packed again, is compared by its content where `source.content` has a sum.
    Where sums differ: DataError if `verify`, else a DataWarning; both name the two sums of the
    first such file. DataError, too, if `verify` and there is no sum for a file of this name.
    """
    found = [_difference(path, source, verify) for path in paths]
    differences = [message for message in found if message is not None]
    if not differences:
        return
    message, more = differences[0], len(differences) - 1
    if more:
        message += f"; {more} more of {source.name} differ"
    if verify:
        raise DataError(f"{message}; get it again")
    warnings.warn(message, DataWarning, stacklevel=2)


def _difference(path: Path, source: Source, verify: bool) -> str | None:
    packed = source.md5.get(path.name)
    content = source.content.get(path.name.removesuffix(".gz").replace(".idx", "-idx"))
    if packed is None and not verify:
        return None
    if packed is None and content is None:
        raise DataError(
            f'"{path}" cannot be verified: sums are published for {", ".join(source.md5)}; '
            "give the packed file as it was published"
        )
    found = _md5(path)
    if found == packed:
        return None
    if content is not None:
        unpacked = hashlib.md5(read_unpacked(path), usedforsecurity=False).hexdigest()
        if unpacked == content:
            return None
    return f'"{path}" has md5 {found}; the published file has {packed or content}'


def check_counts(source: Source, train: int, test: int) -> None:
    """A DataWarning when there are fewer or more images than were published."""
    if (train, test) != (source.train_count, source.test_count):
        warnings.warn(
            f"{source.name}: {train} images to train on and {test} to test on; "
            f"published are {source.train_count} and {source.test_count}",
            DataWarning,
            stacklevel=2,
        )


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(border.path("path", path), "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from None
    return digest.hexdigest()
