"""Images and labels from a NumPy archive."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import border
from ..errors import DataError, StorageError
from ..ir import Array
from .dataset import Dataset, require_classes_used


def read_npz(path: str | os.PathLike[str], *names: str) -> list[Array]:
    """The arrays called `names` of an `.npz` file; never unpickles.

    StorageError when the file cannot be read, DataError when it lacks a name or holds objects.
    """
    with _opened(path) as archive:
        return [_member(path, archive, name) for name in names]


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Any]]:
    """The archive, open; what goes wrong in reading it becomes an error that names the file."""
    try:
        with open(border.path("path", path), "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f'"{path}" holds one array; expected an .npz archive')
            yield archive
    except OSError as error:
        raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise StorageError(f'"{path}" is damaged or no .npz file: {error}') from None
    except ValueError as error:
        raise DataError(
            f'"{path}" does not hold plain arrays ({error}); expected an .npz file of numbers'
        ) from None


def _member(path: str | os.PathLike[str], archive: Mapping[str, Any], name: str) -> Array:
    if name not in archive:
        raise DataError(
            f'"{path}" has no array "{name}": it holds {", ".join(archive) or "nothing"}; '
            f"save it with np.savez(path, {name}=..., ...)"
        )
    member = archive[name]
    if not isinstance(member, np.ndarray):
        raise DataError(f'"{path}": "{name}" is no NumPy array')
    return member


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
        x = _member(path, archive, "x")
    return x[..., None] if x.ndim == 3 else x


def load_npz_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Images and their classes: `x_train`, `y_train`, and where present `x_test`, `y_test`.

    An archive with `x` and `y` instead has images to train on only. Images are [N,H,W,C], or
    [N,H,W] for one channel; bytes stay, other numbers become f32 with a `scale` of 1. Labels are
    integers [N] or [N,1] from 0. StorageError for a file that cannot be read or is damaged,
    DataError for missing names, other shapes and types, or labels below 0.
    """
    with _opened(path) as archive:
        names = ("x", "y") if "x" in archive else ("x_train", "y_train")
        tests = [name for name in ("x_test", "y_test") if name in archive and names[0] != "x"]
        if len(tests) == 1:
            raise DataError(f'"{path}" has {tests[0]} alone; expected both x_test and y_test')
        arrays = [_member(path, archive, name) for name in (*names, *tests)]
    x, y = _images(path, names[0], arrays[0]), _classes(path, names[1], arrays[1])
    x_test, y_test = x[:0], y[:0]
    if tests:
        x_test, y_test = _images(path, "x_test", arrays[2]), _classes(path, "y_test", arrays[3])
    require_classes_used(np.concatenate([y, y_test]), f'"{path}": {names[1]}')
    scale = 1 / 255 if x.dtype == np.uint8 else 1.0
    return Dataset(Path(path).name, x, y, x_test, y_test, None, scale)


def _images(path: str | os.PathLike[str], name: str, x: Array) -> Array:
    if x.dtype.kind not in "biuf" or x.ndim not in (3, 4):
        raise DataError(
            f'"{path}": {name} is {x.dtype} {x.shape}; expected numbers [N,H,W] or [N,H,W,C]'
        )
    images = x[..., None] if x.ndim == 3 else x
    border.require_nhwc(name, images)
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
