"""Images and labels from a NumPy archive."""

from __future__ import annotations

import ast
import math
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import border
from ..errors import DataError, StorageError
from ..files import storage
from ..ir import Array
from .dataset import Dataset
from .files import unpacked_limit

_NPY = b"\x93NUMPY"
_HEADER_LIMIT = 1 << 14  # bytes; NumPy reads 10,000
_KIND = re.compile(r"[<>|=]?([biufc][1-9]\d?|[SU]\d{1,6})")
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile raises on damage depends on where it is; NotImplementedError is its word for a
# packing that it does not know.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, NotImplementedError,
    ValueError, LookupError, ArithmeticError,
)  # fmt: skip


def read_npz(path: str | os.PathLike[str], *names: str) -> list[Array]:
    """The arrays called `names` of an `.npz` file; never unpickles.

    StorageError when the file cannot be read, is damaged, or unpacks to more than `unpacked_limit`
    bytes; DataError when it lacks a name or holds objects.
    """
    with _opened(path) as archive:
        return [archive.read(name) for name in names]


def read_npy(path: str | os.PathLike[str]) -> Array:
    """The array of an `.npy` file; never unpickles. StorageError when the file cannot be read or is
    damaged, DataError when it holds objects or is no such file."""
    return _array(f'"{path}"', bytearray(storage.read_bytes(path)))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[_Archive]:
    """The archive, open; what goes wrong in reading it becomes an error that names the file."""
    try:
        with open(border.path("path", path), "rb") as file:
            start = file.read(len(_NPY))
            if start == _NPY:
                raise DataError(f'"{path}" holds one array; expected an .npz archive')
            if start[:2] != b"PK":
                raise StorageError(f'"{path}" is damaged or no .npz file: it is no zip archive')
            yield _Archive(path, zipfile.ZipFile(file), file.seek(0, os.SEEK_END))
    except _DAMAGED as error:
        raise StorageError(f'"{path}" is damaged or no .npz file: {error}') from None
    except OSError as error:
        raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None


class _Archive:
    """The arrays of a zip archive by name, each read as data and none larger than the file allows.

    All that are read unpack to at most `unpacked_limit` bytes; a member says how many it has, and
    no more of it is unpacked.
    """

    def __init__(self, path: str | os.PathLike[str], archive: zipfile.ZipFile, size: int) -> None:
        self.path, self.archive, self.limit = path, archive, unpacked_limit(size)
        self.left = self.limit
        self.members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> Array:
        """The array `name`; DataError where there is none, or none of plain elements."""
        if name not in self.members:
            held = ", ".join(islice(self.members, 20)) or "nothing"
            raise DataError(
                f'"{self.path}" has no array "{name}": it holds {held}; '
                f"save it with np.savez(path, {name}=..., ...)"
            )
        member, where = self.members[name], f'"{self.path}", "{name}"'
        if member.flag_bits & 1 or member.compress_type not in _PACKINGS:
            raise StorageError(f"{where} is encrypted or packed otherwise than np.savez packs")
        self.left -= member.file_size
        if self.left < 0:
            raise StorageError(
                f'"{self.path}" has more than the {self.limit} bytes that are unpacked of a file '
                "of its size; store it with np.savez"
            )
        with self.archive.open(member) as stream:
            return _array(where, bytearray(stream.read()))


def _array(where: str, data: bytearray) -> Array:
    """The array in an `.npy` file: magic, version, length of the header, header, elements."""
    if len(data) < 12:
        raise DataError(f"{where} is no NumPy array")
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], "little")
    if data[:6] != _NPY or data[6] not in (1, 2, 3) or data[7] or end > len(data):
        raise DataError(f"{where} is no NumPy array")
    if end > _HEADER_LIMIT:
        raise StorageError(f"{where} is damaged: its header has {end} bytes")
    try:
        header = ast.literal_eval(data[start:end].decode().strip())
        kind, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        raise StorageError(f"{where} is damaged: its header is none of NumPy's") from None
    dtype, sizes = _dtype(where, kind), border.accept(tuple[int, ...], shape)
    if sizes is None or len(sizes) > 32 or not all(0 <= n < 1 << 48 for n in sizes):
        raise StorageError(f"{where} is damaged: its shape is {border.shown(shape)}")
    if math.prod(sizes) * dtype.itemsize != len(data) - end:
        raise StorageError(
            f"{where} is damaged: {dtype} {sizes} has other than the {len(data) - end} bytes here"
        )
    if not all(sizes):
        return np.zeros(sizes if max(sizes) < 1 << 31 else 0, dtype)
    return np.frombuffer(data, dtype, offset=end).reshape(sizes, order="F" if fortran else "C")


def _dtype(where: str, kind: object) -> np.dtype[Any]:
    if isinstance(kind, str) and _KIND.fullmatch(kind):
        with suppress(TypeError):  # a real number of five bytes
            return np.dtype(kind)
    raise DataError(f"{where} holds {border.shown(kind)}; expected plain numbers or text")


def load_npz(path: str | os.PathLike[str]) -> tuple[Array, Array]:
    """`(x, y)` from an `.npz` file with arrays of these names, one row a sample.

    Types and shapes stay as stored. Raises StorageError when the file cannot be read or is
    damaged, DataError when it lacks `x` or `y`, holds Python objects, or the lengths differ.
    """
    x, y = read_npz(path, "x", "y")
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise DataError(
            f'"{path}": x has shape {x.shape} and y has shape {y.shape}; '
            "expected one label for each sample"
        )
    return x, y


def load_npz_samples(path: str | os.PathLike[str]) -> Array | None:
    """The array `x` of an archive without labels, [N,H,W] with an axis for its one channel; None
    for an archive that has `y` or no `x`. Raises StorageError and DataError as `read_npz`.
    """
    with _opened(path) as archive:
        if "x" not in archive or "y" in archive:
            return None
        x = archive.read("x")
    return x[..., None] if x.ndim == 3 else x


# The parts of an archive: the field of a Dataset, and the names that its images may have.
_PARTS = (("train", ("train", "")), ("val", ("val", "validation")), ("test", ("test",)))


def load_npz_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Images and their classes: `x_train`, `y_train`, and where present `x_val`, `y_val` (or
    `x_validation`, `y_validation`), `x_test`, `y_test`, and `classes`, the names of the classes.

    `x` and `y` stand for `x_train` and `y_train`. Images are [N,H,W,C], or [N,H,W] for one channel;
    bytes stay, other numbers become f32 with a `scale` of 1. Labels are integers [N] or [N,1] from
    0; names are words or integers. StorageError for a file that cannot be read or is damaged,
    DataError for missing names, a part that comes twice, other shapes and types, or labels out of
    range.
    """
    found: dict[str, Array] = {}
    with _opened(path) as archive:
        for part, names in _PARTS:
            own = [f"_{name}" if name else "" for name in names]
            there = [end for end in own if f"x{end}" in archive or f"y{end}" in archive]
            if len(there) > 1:
                raise DataError(
                    f'"{path}" has {" and ".join(f"x{end}" for end in there)}; expected one of them'
                )
            if not there and part != "train":
                continue
            end = there[0] if there else own[0]
            _require_both(path, archive, end, part)
            images, labels = archive.read(f"x{end}"), archive.read(f"y{end}")
            found[f"x_{part}"] = _images(path, f"x{end}", images)
            found[f"y_{part}"] = _classes(path, f"y{end}", labels)
        classes = _names(path, archive.read("classes")) if "classes" in archive else None
    x, y = found["x_train"], found["y_train"]
    parts: dict[str, Any] = {"x_test": x[:0], "y_test": y[:0], **found}
    scale = 1 / 255 if x.dtype == np.uint8 else 1.0
    return Dataset(Path(path).name, classes=classes, scale=scale, **parts)


def _require_both(path: str | os.PathLike[str], archive: _Archive, end: str, part: str) -> None:
    """DataError for a held-out part of images or labels alone; of one to train on, reading says
    what is missing."""
    both = [f"{letter}{end}" for letter in "xy"]
    there = [name for name in both if name in archive]
    if part != "train" and len(there) == 1:
        raise DataError(f'"{path}" has {there[0]} alone; expected both {" and ".join(both)}')


def _names(path: str | os.PathLike[str], names: Array) -> tuple[str, ...]:
    if names.dtype.kind not in "USiu" or names.ndim != 1:
        raise DataError(
            f'"{path}": classes is {names.dtype} {names.shape}; expected the names of the classes, '
            "in the order of their numbers"
        )
    try:
        words = names.astype(np.str_) if names.dtype.kind != "S" else np.char.decode(names, "utf-8")
        found = tuple(map(str, words.tolist()))
        "".join(found).encode()
    except ValueError:
        raise DataError(f'"{path}": classes has a name that is no text') from None
    name, count = next(iter(Counter(found).most_common(1)), ("", 0))
    if count > 1:
        raise DataError(f'"{path}": classes has {border.shown(name)} {count} times')
    return found


def _images(path: str | os.PathLike[str], name: str, x: Array) -> Array:
    if x.dtype.kind not in "biuf" or x.ndim not in (3, 4):
        raise DataError(
            f'"{path}": {name} is {x.dtype} {x.shape}; expected numbers [N,H,W] or [N,H,W,C]'
        )
    images = x[..., None] if x.ndim == 3 else x
    return images if x.dtype == np.uint8 else images.astype(np.float32)


def _classes(path: str | os.PathLike[str], name: str, y: Array) -> Array:
    labels = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f'"{path}": {name} is {y.dtype} {y.shape}; expected class numbers from 0, one a sample '
            "(addergraph.data.load_npz reads other targets)"
        )
    if labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f'"{path}": {name} has the label {labels.max()}, which i64 cannot hold')
    return labels.astype(np.int64)
