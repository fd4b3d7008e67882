"""Tensors of an ONNX file as NumPy arrays, and its types as ours.

NumPy sees a tensor when its sizes, its dtype and the number of its bytes fit together; nothing is
made that is larger than what the file holds.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError, StorageError, UnsupportedError
from ..ir import Array
from ..ir.types import DType, bool_, f32, i8, i32, u8
from .import_file import external_bytes

if TYPE_CHECKING:
    import onnx

MOST_RANK = 32
MOST_SIZES = 1 << 40  # elements, as `check` has it; of an empty tensor without its zeros

# ONNX's number of an element type: its name, NumPy's, and the list that holds it unless raw.
_ELEMENTS: dict[int, tuple[str, str, str]] = {
    1: ("FLOAT", "<f4", "float_data"), 2: ("UINT8", "u1", "int32_data"),
    3: ("INT8", "i1", "int32_data"), 4: ("UINT16", "<u2", "int32_data"),
    5: ("INT16", "<i2", "int32_data"), 6: ("INT32", "<i4", "int32_data"),
    7: ("INT64", "<i8", "int64_data"), 9: ("BOOL", "?", "int32_data"),
    10: ("FLOAT16", "<f2", ""), 11: ("DOUBLE", "<f8", "double_data"),
}  # fmt: skip
_OTHERS = {
    8: "STRING", 12: "UINT32", 13: "UINT64", 14: "COMPLEX64", 15: "COMPLEX128", 16: "BFLOAT16",
    17: "FLOAT8E4M3FN", 18: "FLOAT8E4M3FNUZ", 19: "FLOAT8E5M2", 20: "FLOAT8E5M2FNUZ", 21: "UINT4",
    22: "INT4", 23: "FLOAT4E2M1", 24: "FLOAT8E8M0", 25: "UINT2", 26: "INT2",
}  # fmt: skip
OURS: dict[int, DType] = {1: f32, 2: u8, 3: i8, 6: i32, 9: bool_}
INT64 = 7


def element_name(number: int) -> str:
    """What ONNX calls the element type of this number."""
    return _ELEMENTS[number][0] if number in _ELEMENTS else _OTHERS.get(number, f"type {number}")


def dtype_of(where: str, number: int) -> DType:
    """The dtype of an element type; UnsupportedError, which begins with `where`, for others."""
    if number not in OURS:
        known = ", ".join(element_name(n) for n in OURS)
        advice = {
            INT64: "INT64 is read where the file holds its numbers, as for a shape",
            10: "convert the network to float32 before it is exported",
            11: "convert the network to float32 before it is exported",
        }.get(number, "convert it before it is exported")
        raise UnsupportedError(f"{where} is of {element_name(number)}; known: {known}. {advice}")
    return OURS[number]


def dtype_of_array(array: Array) -> DType | None:
    """The dtype of ours that holds its elements; None for others, as of INT64."""
    return next((d for d in OURS.values() if d.numpy == array.dtype), None)


def array_of(path: str | os.PathLike[str], tensor: onnx.TensorProto, name: str) -> Array:
    """The numbers of a tensor, read-only. StorageError where sizes and bytes do not fit together,
    ShapeError for impossible sizes, UnsupportedError for elements that are not read."""
    where = f'"{path}": the tensor "{name:.200}"'
    sizes = _sizes(where, tensor.dims)
    if tensor.data_type not in _ELEMENTS:
        raise UnsupportedError(f"{where} is of {element_name(tensor.data_type)}, which is not read")
    _, kind, field = _ELEMENTS[tensor.data_type]
    dtype = np.dtype(kind)
    if tensor.HasField("segment"):
        raise UnsupportedError(f"{where} is cut into segments, which are not read")
    if tensor.data_location == tensor.EXTERNAL:
        raw = external_bytes(path, name, {e.key: e.value for e in tensor.external_data})
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        return _listed(where, tensor, dtype, field, sizes)
    count = math.prod(sizes)
    if len(raw) != count * dtype.itemsize:
        raise StorageError(
            f"{where} is damaged: {count:,} elements of {element_name(tensor.data_type)} take "
            f"{count * dtype.itemsize:,} bytes, it has {len(raw):,}"
        )
    if dtype.kind == "b":
        return np.asarray(np.frombuffer(raw, np.uint8) != 0).reshape(sizes)
    found = np.frombuffer(raw, dtype).reshape(sizes)
    return found if sys.byteorder == "little" else found.astype(dtype.newbyteorder("="))


def _sizes(where: str, dims: Any) -> tuple[int, ...]:
    sizes = tuple(int(d) for d in dims)
    if len(sizes) > MOST_RANK:
        raise ShapeError(f"{where} has {len(sizes)} dimensions, at most {MOST_RANK} are read")
    if min(sizes, default=0) < 0:
        raise ShapeError(f"{where} has the size {min(sizes)}; sizes are 0 or more")
    if math.prod(s for s in sizes if s) > MOST_SIZES:
        raise ShapeError(f"{where} has sizes {sizes}, which no memory holds")
    return sizes


def _listed(
    where: str, tensor: onnx.TensorProto, dtype: np.dtype[Any], field: str, sizes: tuple[int, ...]
) -> Array:
    """The elements of the list `field` of the message, which has the wide form of each."""
    items = getattr(tensor, field) if field else tensor.int32_data
    count = math.prod(sizes)
    if len(items) != count:
        raise StorageError(f"{where} is damaged: it holds {len(items):,} of {count:,} elements")
    if not field:  # halves stand as the bits of 16
        bits = np.array(items, np.int64)
        _require_within(where, bits, 0, 0xFFFF)
        return bits.astype(np.uint16).view(np.float16).reshape(sizes)
    wide = np.array(items, {"float_data": "f4", "double_data": "f8"}.get(field, "i8"))
    if dtype.kind == "b":
        return np.asarray(wide != 0).reshape(sizes)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        _require_within(where, wide, limits.min, limits.max)
    return wide.astype(dtype.newbyteorder("=")).reshape(sizes)


def _require_within(where: str, wide: Array, least: int, most: int) -> None:
    if wide.size and (wide.min() < least or wide.max() > most):
        raise StorageError(f"{where} is damaged: an element is not in [{least}, {most}]")
