"""Geometry shared by the ops that slide a window over an NHWC tensor.

Letters as in the paper: n batch, h w output row and column, i j kernel row and column,
k input channel, t output channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError
from ..ir import Array, Halo
from ..ir.attributes import Padding, Pair
from ..ir.types import Dim, DType, TensorType, f32


@dataclass(frozen=True)
class Window:
    """Stride, padding and dilation of a kernel of `size`, checked on construction."""

    size: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        for name, numbers, count, least in (
            ("kernel size", self.size, 2, 1),
            ("stride", self.stride, 2, 1),
            ("dilation", self.dilation, 2, 1),
            ("padding", self.padding, 4, 0),
        ):
            if len(numbers) != count:
                raise ShapeError(f"{name}={numbers} must have {count} numbers")
            if min(numbers) < least:
                raise ShapeError(f"{name}={numbers} must be at least {least} everywhere")

    def output_size(self, height: Dim, width: Dim) -> Pair:
        """Output height and width; ShapeError when either would not be positive."""
        top, bottom, left, right = self.padding
        sizes = []
        for axis, (extent, pad) in enumerate(((height, top + bottom), (width, left + right))):
            span = (self.size[axis] - 1) * self.dilation[axis] + 1
            out = (int(extent) + pad - span) // self.stride[axis] + 1
            if out < 1:
                side = "height" if axis == 0 else "width"
                raise ShapeError(
                    f"the window spans {span} but the input {side} is {extent} plus {pad} of "
                    "padding: the output would be empty; use a smaller kernel or more padding"
                )
            sizes.append(out)
        return sizes[0], sizes[1]

    def taps(self, padded: Array, out: Pair) -> Iterator[tuple[int, int, Array]]:
        """(i, j, the elements that tap (i, j) reads for each output), from a padded input."""
        for i in range(self.size[0]):
            for j in range(self.size[1]):
                h0, w0 = i * self.dilation[0], j * self.dilation[1]
                h1 = h0 + (out[0] - 1) * self.stride[0] + 1
                w1 = w0 + (out[1] - 1) * self.stride[1] + 1
                yield i, j, padded[:, h0 : h1 : self.stride[0], w0 : w1 : self.stride[1], :]

    def pad(self, x: Array, value: float = 0.0) -> Array:
        top, bottom, left, right = self.padding
        widths = ((0, 0), (top, bottom), (left, right), (0, 0))
        return np.pad(x, widths, constant_values=value)

    def crop(self, padded: Array) -> Array:
        """The inverse of `pad`."""
        top, bottom, left, right = self.padding
        _, height, width, _ = padded.shape
        return padded[:, top : height - bottom, left : width - right, :]

    def halo(self, height: int, width: int) -> Halo:
        """The zeros that the windows really reach (a stride may leave some padding unread)."""
        (oh, ow), (top, _, left, _) = self.output_size(height, width), self.padding
        reach_h = (oh - 1) * self.stride[0] + (self.size[0] - 1) * self.dilation[0] - top
        reach_w = (ow - 1) * self.stride[1] + (self.size[1] - 1) * self.dilation[1] - left
        return Halo(top, max(0, reach_h - height + 1), left, max(0, reach_w - width + 1))

    def grad_halo(self, height: int, width: int) -> Halo:
        """The zeros around an output gradient that gathering the input gradient reaches.

        Input row r takes from output rows (r + top - i * dilation) / stride, where that divides.
        """
        out = self.output_size(height, width)
        sides: list[int] = []
        for axis, extent in enumerate((height, width)):
            span = (self.size[axis] - 1) * self.dilation[axis]
            before = self.padding[2 * axis]
            sides.append(max(0, (span - before) // self.stride[axis]))
            sides.append(max(0, (extent - 1 + before) // self.stride[axis] - out[axis] + 1))
        return Halo(*sides)


def label(op: str, name: str | None) -> str:
    """How messages speak of an op that is not in a graph yet."""
    return f'{op} "{name}"' if name else op


def require_image(what: str, type: TensorType, dtypes: Sequence[DType] = (f32,)) -> None:
    """ShapeError unless `type` is NHWC and of one of `dtypes`."""
    if type.rank != 4:
        raise ShapeError(f"{what} must be NHWC (rank 4), found {type}")
    require_of(what, type, dtypes)


def require_f32(what: str, type: TensorType) -> None:
    require_of(what, type, (f32,))


def require_of(what: str, type: TensorType, dtypes: Sequence[DType]) -> None:
    """ShapeError unless `type` is of one of `dtypes`."""
    if type.dtype not in dtypes:
        raise ShapeError(f"{what} must be {' or '.join(map(str, dtypes))}, found {type}")


def require_gradient(g: TensorType, y: TensorType) -> None:
    """ShapeError unless `g` has the type of the forward layer's result `y`."""
    if g != y:
        raise ShapeError(f"the output gradient must be {y}, found {g}")


def require_operands(types: Sequence[TensorType], *names: str, optional: int = 0) -> None:
    """ShapeError unless there is an operand for each name; the last `optional` may be missing."""
    if not len(names) - optional <= len(types) <= len(names):
        least = f"{len(names) - optional} to " if optional else ""
        raise ShapeError(
            f"takes {least}{len(names)} operands ({', '.join(names)}), found {len(types)}"
        )
