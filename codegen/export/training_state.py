"""States that a library saved, back in Python. Both files may be what anybody wrote."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from addergraph.errors import StorageError
from addergraph.files.records import json_object
from addergraph.files.storage import read_bytes, user_path
from addergraph.ir import Array

from .entry_parts import checksum
from .folder import METADATA
from .training_interface import CHECKED, HEAD_BYTES, MAGIC, STATE_VERSION, ZEROS

_DTYPES = {"f32": np.dtype("<f4"), "i32": np.dtype("<i4")}


def read_state(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> dict[str, Array]:
    """Name -> array of every tensor in the state `file`, which the library in `folder` saved, on
    whatever machine.

    Raises StorageError where a file cannot be read, the folder holds no library that learns, or the
    bytes are not those of a state of this library.
    """
    path = user_path(folder) / METADATA
    facts = json_object(read_bytes(path), f'"{path}" is of no export: it')
    known = facts.get("training")
    if not isinstance(known, dict):
        raise StorageError(f'"{path}" is of no library that learns; compile it with --train')
    data = read_bytes(file)
    content = _content(data, known, f'"{os.fspath(file)}"')
    try:
        return {str(one["name"]): _tensor(content, one) for one in known["state"]}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f'"{path}" is damaged ({error!r}); export again') from None


def _content(data: bytes, known: Mapping[str, Any], where: str) -> Array:
    """The bytes of the state itself; StorageError where anything before them is wrong."""
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise StorageError(f"{where} is no saved state: it does not begin as one")
    version, size = struct.unpack_from("<II", data, len(MAGIC))
    if version != STATE_VERSION:
        raise StorageError(f"{where} is of version {version}, expected {STATE_VERSION}")
    if data[16:CHECKED].hex() != known.get("fingerprint"):
        raise StorageError(
            f"{where} is the state of another network, or of one with other frozen weights: give "
            "the folder of the library that saved it"
        )
    if len(data) != HEAD_BYTES + size or size % 4:
        raise StorageError(
            f"{where} has {len(data):,} bytes, a saved state of this network "
            f"{HEAD_BYTES + size:,}: save it again"
        )
    if any(data[ZEROS:HEAD_BYTES]):
        raise StorageError(f"{where} is damaged: its head does not end in zeros; save it again")
    content = np.frombuffer(data, np.uint8, offset=HEAD_BYTES)
    if checksum(content) != data[CHECKED:ZEROS]:
        raise StorageError(f"{where} is damaged: it differs from its checksum; save it again")
    return content


def _tensor(content: Array, known: Mapping[str, Any]) -> Array:
    """A copy; ValueError for a place that is not in the state."""
    dtype, shape = _DTYPES[known["dtype"]], [int(size) for size in known["shape"]]
    count, offset = int(np.prod(shape, dtype=np.int64)), int(known["offset"])
    if min(shape, default=0) < 0 or offset < 0 or offset + count * dtype.itemsize > content.size:
        raise ValueError(f"{known['name']} is not in the state")
    found = np.frombuffer(content, dtype, count, offset).reshape(shape)
    return found.astype(dtype.newbyteorder("="))
