"""IDX files, the format of MNIST: a big-endian header, then the numbers.

Format: http://yann.lecun.com/exdb/mnist/ ("the IDX file format"). Bytes 0 and 1 are zero, byte 2
is the type of the numbers (8: unsigned bytes), byte 3 the count of dimensions; then one 32-bit
size for each dimension.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from ..errors import DataError, StorageError
from ..ir import Array
from .files import read_unpacked

_UNSIGNED_BYTES = 8


def read_idx(path: Path, dimensions: int) -> Array:
    """The u8 array of an IDX file, plain or gzip.

    DataError for another magic number (another type or count of dimensions), StorageError for a
    file that cannot be read, is damaged, or does not have exactly the bytes its header asks for.
    """
    data = read_unpacked(path)
    start = 4 + 4 * dimensions
    if len(data) < 4:
        raise StorageError(f'"{path}" is truncated: {len(data)} bytes, no IDX header')
    magic, expected = data[:4], bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    if magic != expected:
        raise DataError(
            f'"{path}" begins with 0x{magic.hex()}; an IDX file of unsigned bytes in '
            f"{dimensions} dimension(s) begins with 0x{expected.hex()}"
        )
    if len(data) < start:
        raise StorageError(f'"{path}" is truncated: {len(data)} bytes, its header has {start}')
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    if 0 in shape:
        raise StorageError(f'"{path}" is damaged: its header says {shape}, which is nothing')
    needed = start + math.prod(shape)
    if len(data) != needed:
        kind = "truncated" if len(data) < needed else "damaged"
        raise StorageError(
            f'"{path}" is {kind}: its header says {shape}, which makes {needed} bytes; '
            f"it has {len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
