"""Reading the files of published data sets: as data, in memory, and checked against their sums."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import warnings
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import DataError, DataWarning, StorageError

BYTES_LIMIT = 1 << 30  # of one file when unpacked; the largest of these data sets has 0.2 GB
_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
# tarfile lets the last two through for some broken headers.
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError)


@dataclass(frozen=True)
class Source:
    """Where a data set is published, its classes and counts, and the MD5 sums of its files."""

    name: str
    page: str
    classes: tuple[str, ...]
    train_count: int
    test_count: int
    md5: dict[str, str]


def read_unpacked(path: Path) -> bytearray:
    """The bytes of a file, unpacked where it is gzip (seen by its first bytes, not its name).

    StorageError when it cannot be read, is a damaged gzip file, or is larger than BYTES_LIMIT.
    """
    data = bytearray()
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == _GZIP
        with gzip.open(path) if packed else open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                data += block
                _require_size(f'"{path}"', len(data))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StorageError(f'"{path}" is a damaged gzip file: {error}; get it again') from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return data


def read_members(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Those members of a .tar.gz archive that are in `wanted` (whole names), by name.

    Nothing is written to disk, and other members are passed over unread. StorageError when the
    archive cannot be read or is damaged or a wanted member is larger than BYTES_LIMIT, DataError
    for one that comes twice or is no plain file.
    """
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if name not in wanted:
                    continue
                _require_plain(path, member, name in found)
                stream = archive.extractfile(member)
                assert stream is not None  # so it is for plain files
                found[name] = stream.read()
            while packed.read(_BLOCK):
                pass  # to the end, where the checksum of the packing is
    except _DAMAGED as error:
        raise StorageError(
            f'"{path}" is a damaged .tar.gz archive: {error}; get it again'
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return found


def _require_plain(path: Path, member: tarfile.TarInfo, repeated: bool) -> None:
    if repeated:
        raise DataError(f'"{path}": member "{member.name}" comes twice; expected it once')
    if not member.isreg():
        raise DataError(f'"{path}": member "{member.name}" is no plain file')
    _require_size(f'"{path}": member "{member.name}"', member.size)


def _require_size(what: str, size: int) -> None:
    if size > BYTES_LIMIT:
        raise StorageError(f"{what} has more than the {BYTES_LIMIT} bytes that are read at most")


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f'cannot read "{path}": {error.strerror or error}')


def check_sum(path: Path, source: Source, verify: bool) -> None:
    """Compares the MD5 of the file `path` with the published one of its name.

    MD5 because that is what the data sets' pages publish; it finds damage, not forgery. Where the
    sums differ: DataError if `verify`, else a DataWarning; both name the two sums. DataError, too,
    if `verify` and nothing is published for a file of this name.
    """
    expected = source.md5.get(path.name)
    if expected is None:
        if not verify:
            return
        raise DataError(
            f'"{path}" cannot be verified: sums are published for {", ".join(source.md5)}; '
            "give the packed file as it was published"
        )
    found = _md5(path)
    if found == expected:
        return
    message = f'"{path}" has md5 {found}; the published file has {expected}'
    if verify:
        raise DataError(f"{message}; get it again")
    warnings.warn(message, DataWarning, stacklevel=2)


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
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from None
    return digest.hexdigest()
