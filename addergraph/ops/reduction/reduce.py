"""Reductions over axes: reduce_sum, reduce_mean, reduce_max."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Bound, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import DType, Shape, TensorType, f32, i32
from .._elementwise import held, stored
from .._rounding import exact, sum_or_mean
from .._window import require_of, require_operands


@dataclass(frozen=True)
class _Reduce(Op):
    """`axes`: the axes that go, ascending and non-negative; () is the identity.

    They are left out of the result, or stay with size 1 (`keepdims`). Operand of one of `dtypes`,
    any shape. Raises ShapeError for axes that the operand has not.
    """

    kind: ClassVar[str] = REDUCTION
    integer_form: ClassVar[bool] = False
    dtypes: ClassVar[tuple[DType, ...]] = (f32,)
    axes: tuple[int, ...]
    keepdims: bool = False

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        """Whether the batch axis stays."""
        return 0 not in self.axes

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_of("x", x, self.dtypes)
        if list(self.axes) != sorted({axis for axis in self.axes if 0 <= axis < x.rank}):
            raise ShapeError(
                f"axes={self.axes} must be ascending, each once, and from 0 to {x.rank - 1} for {x}"
            )
        kept = _kept(x.shape, self.axes)
        dropped = tuple(d for axis, d in enumerate(x.shape) if axis not in self.axes)
        return (TensorType(x.dtype, kept if self.keepdims else dropped),)

    def spread(self, of_result: Tensor, x: Tensor) -> Tensor:
        """A tensor of the result's shape, repeated to that of the operand."""
        from ..movement.broadcast_to import broadcast_to
        from ..movement.reshape import reshape

        kept = _kept(x.shape, self.axes)
        same = of_result if of_result.shape == kept else reshape(of_result, kept)
        return same if same.shape == x.shape else broadcast_to(same, x.shape)

    def count(self, x: TensorType) -> int | None:
        """How many elements one result takes; None while that depends on the open batch."""
        sizes = [x.shape[axis] for axis in self.axes]
        return None if "N" in sizes else math.prod(int(d) for d in sizes)

    def total(self, x: Interval, count: int | None) -> Interval:
        """The range of a sum of elements in `x`; of an unknown number of them, its sign at most."""
        if count is None:
            return Interval(0.0 if x.lo >= 0 else -math.inf, 0.0 if x.hi <= 0 else math.inf)
        return x.total(count)


@dataclass(frozen=True)
class ReduceSum(_Reduce):
    """Y = sum of x over `axes`; +0.0 where there is nothing to sum or where the sum is zero.

    The reference sums in float64; native code may sum f32 partial sums in any order that does not
    depend on threads. Operand f32, or i32, whose sums are exact modulo 2^32. Gradient: g,
    broadcast. `axes`, `keepdims`: see `_Reduce`.
    """

    name: ClassVar[str] = "reduce_sum"
    dtypes: ClassVar[tuple[DType, ...]] = (f32, i32)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        if x.dtype == np.int32:
            return (np.asarray(x.sum(self.axes, np.int32, keepdims=self.keepdims)),)
        return (_narrow(_sum(self, x)),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        whole = results[0].dtype == np.int32
        return (exact if whole else sum_or_mean)(self, operands, results)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (self.spread(g, xs[0]),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        (x,), dtype = ranges, types[0].dtype
        return (stored(self.total(held(x, dtype), self.count(types[0])), dtype),)

    def cost(self, types: Types) -> Cost:
        return Cost(additions=types[0].elements)


@dataclass(frozen=True)
class ReduceMean(_Reduce):
    """Y = (sum of x over `axes`) / count, a division; NaN where there is nothing to average.

    Sums as `reduce_sum`, so a zero sum is +0.0. Operand f32. Gradient: g / count, broadcast.
    `axes`, `keepdims`: see `_Reduce`.
    """

    name: ClassVar[str] = "reduce_mean"
    multiplies: ClassVar[bool] = True
    keeps_scale: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        count = math.prod(x.shape[axis] for axis in self.axes)
        with np.errstate(invalid="ignore"):
            return (_narrow(np.divide(_sum(self, x), count)),)

    rounding = sum_or_mean

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..pointwise.full import full

        g, x = gs[0], xs[0]
        assert g is not None
        count = self.count(x.type)
        if count is not None:
            return (self.spread(g / float(count), x),)
        rest = math.prod(int(x.shape[axis]) for axis in self.axes if axis)
        samples = reduce_sum(full(x, 1.0, ("N",)))  # counts the batch while it is open
        return (self.spread(g / (samples * float(rest)), x),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        count = self.count(types[0])
        total = self.total(ranges[0], count)
        if not count:
            return (total,)
        return (stored(Interval(total.lo / count, total.hi / count), f32),)

    def cost(self, types: Types) -> Cost:
        return Cost(additions=types[0].elements, multiplications=self.infer(*types)[0].elements)


@dataclass(frozen=True)
class ReduceMax(_Reduce):
    """Y = the largest x over `axes`; NaN if any of them is NaN; +0.0 where the largest is a zero.

    Operand f32. Gradient: elements equal to the largest share g equally. Raises ShapeError where an
    axis in `axes` is empty, as there is no largest. `axes`, `keepdims`: see `_Reduce`.
    """

    name: ClassVar[str] = "reduce_max"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        made = super().infer(*types)
        for axis in self.axes:
            if types[0].shape[axis] == 0:
                raise ShapeError(f"axis {axis} of {types[0]} is empty: it has no largest element")
        return made

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(invalid="ignore"):
            return (_narrow(arrays[0].max(self.axes, keepdims=self.keepdims) + np.float32(0)),)

    rounding = exact

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..pointwise.select import select

        g, x = gs[0], xs[0]
        assert g is not None
        largest = select(self.spread(ys[0], x) > x, 0.0, 1.0)
        ties = reduce_sum(largest, self.axes, self.keepdims)
        return (largest * self.spread(g / ties, x),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0],)


def _kept(shape: Shape, axes: Sequence[int]) -> Shape:
    return tuple(1 if axis in axes else d for axis, d in enumerate(shape))


def _sum(op: _Reduce, x: Array) -> Array:
    """In float64, from +0.0, so that no sum is -0.0."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.asarray(x.sum(op.axes, dtype="f8", keepdims=op.keepdims) + 0.0)


def _narrow(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(x, "f4")


def normal_axis(where: str, axis: int, rank: int) -> int:
    """`axis`, counted from the end if negative, as 0 to rank - 1; ShapeError if there is none."""
    if not -rank <= axis < rank:
        raise ShapeError(f"{where}: axis={axis} is not an axis of a tensor of rank {rank}")
    return axis % rank


Axes = int | Sequence[int] | None


def _normal_axes(where: str, x: Tensor, axes: Axes) -> tuple[int, ...]:
    rank = len(x.shape)
    if axes is None:
        return tuple(range(rank))
    given = [axes] if isinstance(axes, int) else list(axes)
    normal = sorted(normal_axis(where, axis, rank) for axis in given)
    if len(set(normal)) < len(normal):
        raise ShapeError(f"{where}: axes={axes} names an axis of {x.type} twice")
    return tuple(normal)


def reduce_sum(
    x: Tensor, axes: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Tensor:
    """The sum over `axes` (default all; negative ones count from the end); see `ReduceSum`."""
    return apply(ReduceSum(_normal_axes("reduce_sum", x, axes), keepdims), x, name=name)


def reduce_mean(
    x: Tensor, axes: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Tensor:
    """The mean over `axes` (default all; negative ones count from the end); see `ReduceMean`."""
    return apply(ReduceMean(_normal_axes("reduce_mean", x, axes), keepdims), x, name=name)


def reduce_max(
    x: Tensor, axes: Axes = None, keepdims: bool = False, *, name: str | None = None
) -> Tensor:
    """The maximum over `axes` (default all; negative ones count from the end); see `ReduceMax`."""
    return apply(ReduceMax(_normal_axes("reduce_max", x, axes), keepdims), x, name=name)
