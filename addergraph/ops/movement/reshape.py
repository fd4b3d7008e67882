"""reshape and flatten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import Dim, Shape, TensorType
from .._window import require_operands


@dataclass(frozen=True)
class _Reshape(Op):
    kind: ClassVar[str] = MOVEMENT
    aliases: ClassVar[int | None] = 0
    integer_form: ClassVar[bool] = True

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (reshape(g, xs[0].shape),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """The order of elements stays, so only the last shape counts."""
        (x,) = operands
        if x.type == result:
            return x.value
        if not isinstance(x.op, _Reshape):
            return None
        before = x.inputs[0].type
        flattens = before.rank > 1 and Flatten().infer(before) == (result,)
        return Flatten() if flattens else Reshape(result.shape), x.inputs

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0],)


@dataclass(frozen=True)
class Reshape(_Reshape):
    """Y = the elements of x, in row-major order, as `shape`.

    Any dtype, any shape of as many elements. An open batch stays the leading `N` of `shape`.
    Gradient: g in the shape of x. Raises ShapeError where the counts of elements differ.
    """

    name: ClassVar[str] = "reshape"
    shape: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        made = TensorType(x.dtype, self.shape)
        if x.is_open != made.is_open:
            raise ShapeError(
                f"cannot reshape {x} to {made}: an open batch N must lead both shapes; "
                "keep it, or bind N first"
            )
        found, wanted = _per_sample(x.shape), _per_sample(self.shape)
        if found != wanted:
            each = " a sample" if x.is_open else ""
            raise ShapeError(
                f"cannot reshape {x} to {made}: {found} elements{each} do not fill {wanted}"
            )
        return (made,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        sizes = tuple(d for d in self.shape if d != "N")
        return (arrays[0].reshape(sizes),)


@dataclass(frozen=True)
class Flatten(_Reshape):
    """Y[n, :] = the elements of x[n], in row-major order: [N,...] becomes [N, product of the rest].

    Any dtype, rank 1 or more (rank 1 becomes [N,1]). Gradient: g in the shape of x.
    """

    name: ClassVar[str] = "flatten"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        if not x.rank:
            raise ShapeError(f"x must have a batch axis, found {x}")
        return (TensorType(x.dtype, (x.shape[0], _per_sample(x.shape[1:]))),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (x.reshape(x.shape[0], math.prod(x.shape[1:])),)


def _per_sample(shape: Shape) -> int:
    """Elements, leaving out an open batch."""
    return math.prod(d for d in shape if d != "N")


def reshape(x: Tensor, shape: Sequence[Dim], *, name: str | None = None) -> Tensor:
    """x in another shape; see `Reshape`."""
    return apply(Reshape(tuple(shape)), x, name=name)


def flatten(x: Tensor, *, name: str | None = None) -> Tensor:
    """One row for each sample; see `Flatten`."""
    return apply(Flatten(), x, name=name)
