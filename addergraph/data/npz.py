"""Images and labels from a NumPy archive."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, StorageError
from ..ir import Array


def read_npz(path: str | os.PathLike[str], *names: str) -> list[Array]:
    """The arrays called `names` of an `.npz` file; never unpickles.

    StorageError when the file cannot be read, DataError when it lacks a name or holds objects.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f'"{path}" holds one array; expected an .npz archive')
            return [_member(path, archive, name) for name in names]
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
    x, y = read_npz(Path(path), "x", "y")
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise DataError(
            f'"{path}": x has shape {x.shape} and y has shape {y.shape}; '
            "expected one label for each sample"
        )
    return x, y
