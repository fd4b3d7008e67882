"""What the 2-D poolings share: attributes and shape rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ShapeError
from ...ir import REDUCTION, Op
from ...ir.attributes import Padding, Pair, pair
from ...ir.attributes import padding as sides
from ...ir.trace import Tensor, apply
from ...ir.types import DType, TensorType, f32
from .._window import Window, label, require_gradient, require_image


@dataclass(frozen=True)
class Pooling(Op):
    """Attributes of an op that reduces each window of each channel to one number."""

    kind: ClassVar[str] = REDUCTION
    dtypes: ClassVar[tuple[DType, ...]] = (f32,)
    window: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)

    @property
    def geometry(self) -> Window:
        return Window(self.window, self.stride, self.padding)

    @property
    def area(self) -> int:
        """Number of positions in a window, padding included."""
        return self.window[0] * self.window[1]

    def output(self, x: TensorType) -> TensorType:
        """Result type of the forward layer; ShapeError if the window does not fit."""
        require_image("input", x, self.dtypes)
        height, width = self.geometry.output_size(x.shape[1], x.shape[2])
        return TensorType(x.dtype, (x.shape[0], height, width, x.shape[3]))

    def require_gradient(self, g: TensorType, x: TensorType) -> None:
        """ShapeError unless `g` has the type of the forward layer's result."""
        require_gradient(g, self.output(x))


def pooled(
    op: type[Pooling],
    x: Tensor,
    window: int | Pair,
    stride: int | Pair | None,
    padding: int | Sequence[int],
    name: str | None,
) -> Tensor:
    """`op` with what users write; windows do not overlap unless `stride` says so."""
    where = label(op.name, name)
    size = pair(where, "window", window)
    step = size if stride is None else pair(where, "stride", stride)
    return apply(op(size, step, sides(where, padding)), x, name=name)


def require_data_in_every_window(pooling: Pooling, x: TensorType) -> None:
    """ShapeError if some window would lie wholly in padding, where there is no maximum."""
    top, bottom, left, right = pooling.padding
    for side, pads, extent, size in (
        ("height", (top, bottom), x.shape[1], pooling.window[0]),
        ("width", (left, right), x.shape[2], pooling.window[1]),
    ):
        if max(pads) >= size or extent == 0:
            raise ShapeError(
                f"a window of {side} {size} would lie wholly in the padding {pads} of an input of "
                f"{side} {extent} and have no maximum; use less padding or a larger window"
            )
