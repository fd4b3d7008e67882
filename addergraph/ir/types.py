"""Tensor types: a dtype and a shape whose leading dimension may be the open batch `N`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..border import accept, shown
from ..errors import ShapeError, nearest
from .quantization import Quantization

Dim = int | Literal["N"]
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class DType:
    """An element type: its name in the textual IR and its size in bytes."""

    name: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype that holds it (`bool` is one byte, 0 or 1)."""
        return np.dtype(_NUMPY_NAMES[self.name])

    def __str__(self) -> str:
        return self.name


_NUMPY_NAMES = {"f32": "float32", "i32": "int32", "u8": "uint8", "i8": "int8", "bool": "bool"}
f32, i32, u8, i8, bool_ = (
    DType("f32", 4),
    DType("i32", 4),
    DType("u8", 1),
    DType("i8", 1),
    DType("bool", 1),
)
DTYPES: dict[str, DType] = {d.name: d for d in (f32, i32, u8, i8, bool_)}


def dtype_named(name: str) -> DType:
    """The dtype called `name`; ShapeError with the nearest name otherwise."""
    if not isinstance(name, str) or name not in DTYPES:
        raise ShapeError(
            f'unknown dtype "{name}"{nearest(f"{name}", DTYPES)}; known: {", ".join(DTYPES)}'
        )
    return DTYPES[name]


@dataclass(frozen=True)
class TensorType:
    """`f32[N,8,8,16]`: a dtype and a shape. `N` may stand only as the leading dimension.

    `quantization` is the scale and zero point of an input or a parameter. Shape rules and
    kernels do not read it, so types that differ in it alone are equal; those of computed values
    follow by `quantization.value_quantizations`.
    """

    dtype: DType
    shape: Shape
    quantization: Quantization | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for axis, dim in enumerate(self.shape):
            if dim == "N":
                if axis:
                    raise ShapeError(f"N may only be the leading dimension, found in {self}")
            elif not isinstance(dim, int) or isinstance(dim, bool) or dim < 0:
                raise ShapeError(f"dimension {dim!r} of axis {axis} is not a size (0 or more)")
        if self.quantization is not None and self.dtype not in (u8, i8, i32):
            raise ShapeError(
                f"{self} has {self.quantization}: only integers (u8, i8, i32) have a scale"
            )

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_open(self) -> bool:
        """Whether the batch is still open (leading `N`)."""
        return bool(self.shape) and self.shape[0] == "N"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape as integers; ShapeError while the batch is open."""
        if self.is_open:
            raise ShapeError(f"the batch of {self} is open: bind N first")
        return tuple(d for d in self.shape if d != "N")

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def bind(self, batch: int) -> TensorType:
        """The same type with `N` replaced by `batch`."""
        return TensorType(self.dtype, bind_shape(self.shape, batch), self.quantization)

    @property
    def plain(self) -> TensorType:
        """The same type without a quantization."""
        return TensorType(self.dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def bind_shape(shape: Shape, batch: int) -> Shape:
    """`shape` with a leading `N` replaced by `batch`."""
    return tuple(batch if d == "N" else d for d in shape)


def tensor(
    dtype: str | DType, shape: Shape | list[Dim], quantization: Quantization | None = None
) -> TensorType:
    """`tensor("f32", ("N", 8, 8, 1))`: the public constructor."""
    if not isinstance(quantization, Quantization | None):
        raise ShapeError(f"quantization={shown(quantization)} must be a Quantization or None")
    found = dtype if isinstance(dtype, DType) else dtype_named(dtype)
    return TensorType(found, _shape(shape), quantization)


def _shape(shape: object) -> Shape:
    """The sizes as plain ints; ShapeError for anything but "N" and integers."""
    items = accept(Sequence[object], shape)
    if items is None:
        raise ShapeError(f'shape={shown(shape)} must be a tuple of sizes, as ("N", 8, 8, 1)')
    dims: list[Dim] = []
    for axis, dim in enumerate(items):
        found: Dim | None = accept(Dim, dim)
        if found is None:
            raise ShapeError(f'dimension {shown(dim)} of axis {axis} is neither a size nor "N"')
        dims.append(found)
    return tuple(dims)


def broadcast_shapes(where: str, *shapes: Shape) -> Shape:
    """The one broadcasting rule: NumPy's. Right-aligned; a missing or 1-sized dimension stretches.

    An open `N` meets only `N` or 1. Raises ShapeError that starts with `where`.
    """
    distinct = {tuple(s) for s in shapes} - {()}
    if len(distinct) < 2:  # nearly always
        return distinct.pop() if distinct else ()
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    result: list[Dim] = []
    for axis, dims in enumerate(zip(*padded, strict=True)):
        wide = {d for d in dims if d != 1}
        if len(wide) > 1:
            shown = " and ".join("[" + ",".join(map(str, s)) + "]" for s in shapes)
            raise ShapeError(
                f"{where}: shapes {shown} do not broadcast (axis {axis} of the result: "
                f"{' against '.join(map(str, dims))}); sizes must be equal or 1"
            )
        result.append(wide.pop() if wide else 1)
    return tuple(result)
