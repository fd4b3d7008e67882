"""softmax and softmax_cross_entropy: one row of the last axis at a time, threads over rows.

    y[t] = e^(x[t] - m) / s              m = max x,  s = sum_t e^(x[t] - m)
    loss = (sum p) ln s + sum p (m - z)

Lanes run along the row and tails are masked: lanes past the end count as -inf for the maximum and
as 0 for the sums. The differences x - m and the exponentials are f32, sums are f64 and end in a
fixed tree. So y is within 4 + |x - m| ulp of the exact result (x - m is rounded once). ln s is
taken of s rounded to f32 and corrected to first order for what that lost, so that small losses keep
their digits. softmax may work in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from addergraph.ops.reduction.softmax import Softmax
from addergraph.ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy

from ...emit.builder import F64, Emitter, Index, Register, constant, vector
from .. import Kernel, Operand, kernel
from .._nest import merge_axes
from ..math import emit_cut, emit_exp, emit_log

Step = Callable[[Index, int, list[Register]], list[Register]]


class _Row:
    """The vectors of one row of `run` elements."""

    def __init__(self, e: Emitter, run: int) -> None:
        self.e, self.run = e, run

    def fold(self, values: Sequence[Register], step: Step) -> list[Register]:
        """`step(byte offset, active lanes, values) -> values` over the vectors in order."""
        e, lanes = self.e, self.e.lanes
        rest = self.run % lanes
        whole = e.carry(0, self.run - rest, lanes, values, lambda i, v: step(e.mul(i, 4), lanes, v))
        return step((self.run - rest) * 4, rest, whole) if rest else whole

    def only(self, active: int, value: Register, otherwise: float) -> Register:
        """`value` in the active lanes."""
        if active == self.e.lanes:
            return value
        mask = self.e.mask(self.e.lanes, active)
        return self.e.b.select(mask, value, constant(value.type, otherwise))

    def maximum(self, x: Any) -> Register:
        """The largest element, as a scalar; a NaN may be passed over."""
        e, lanes = self.e, self.e.lanes

        def larger(a: Register, b: Register) -> Register:
            return e.b.select(e.b.fcmp_ordered(">", a, b), a, b)

        def step(offset: Index, active: int, most: list[Register]) -> list[Register]:
            found = e.load(e.at(x, offset), lanes=lanes, active=active)
            return [larger(self.only(active, found, -math.inf), most[0])]

        (most,) = self.fold([e.number(-math.inf, lanes)], step)
        return e.tree(most, larger)

    def exponential(self, x: Any, offset: Index, active: int, m: Register) -> Register:
        """e^(x - m), 0 in lanes past the end."""
        e = self.e
        found = e.load(e.at(x, offset), lanes=e.lanes, active=active)
        return self.only(active, emit_exp(e, e.b.fsub(found, e.splat(m, e.lanes))), 0.0)

    def zero(self) -> Register:
        """The start of a sum."""
        return constant(vector(F64, self.e.lanes), 0.0)


def _rows(operand: Operand) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides of the axes before the last."""
    sizes, (strides,) = merge_axes(operand.shape[:-1], [operand.strides[:-1]])
    return sizes, strides


@kernel(Softmax)
class SoftmaxKernel(Kernel):
    """Exponentials go to the result first and are divided there."""

    @property
    def in_place(self) -> bool:
        return True

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x,), (y,) = self.call.inputs, self.call.outputs
        row = _Row(e, x.shape[-1])
        if 0 in x.shape:
            return
        places = [_rows(x), _rows(y)]
        with e.loop(*e.share(math.prod(x.shape[:-1]))) as item:
            source, into = (
                e.at(p, e.dot(e.split(item, sizes), strides))
                for p, (sizes, strides) in zip((inputs[0], outputs[0]), places, strict=True)
            )
            self._emit_row(e, row, source, into)

    def _emit_row(self, e: Emitter, row: _Row, source: Any, into: Any) -> None:
        lanes = e.lanes
        m = row.maximum(source)

        def add(offset: Index, active: int, total: list[Register]) -> list[Register]:
            power = row.exponential(source, offset, active, m)
            e.store(power, e.at(into, offset), active=active)
            return [e.b.fadd(total[0], e.widen(power))]

        (total,) = row.fold([row.zero()], add)
        s = e.splat(e.narrow(e.tree_sum(total)), lanes)

        def divide(offset: Index, active: int, _: list[Register]) -> list[Register]:
            at = e.at(into, offset)
            e.store(e.b.fdiv(e.load(at, lanes=lanes, active=active), s), at, active=active)
            return []

        row.fold([], divide)


@kernel(SoftmaxCrossEntropy)
class SoftmaxCrossEntropyKernel(Kernel):
    """One loss per row."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        z, p = self.call.inputs
        row = _Row(e, z.shape[1])
        with e.loop(*e.share(z.shape[0])) as n:
            logits = e.at(inputs[0], e.mul(n, z.strides[0]))
            targets = e.at(inputs[1], e.mul(n, p.strides[0]))
            loss = self._loss(e, row, logits, targets)
            e.store(e.narrow(loss), e.at(outputs[0], e.mul(n, self.call.outputs[0].strides[0])))

    def _loss(self, e: Emitter, row: _Row, logits: Any, targets: Any) -> Register:
        b, m = e.b, row.maximum(logits)
        wide_m = e.splat(e.widen(m), e.lanes)

        def add(offset: Index, active: int, totals: list[Register]) -> list[Register]:
            z, p = (
                e.widen(e.load(e.at(a, offset), lanes=e.lanes, active=active))
                for a in (logits, targets)
            )
            power = e.widen(row.exponential(logits, offset, active, m))
            terms = (power, p, b.fmul(p, b.fsub(wide_m, z)))
            return [b.fadd(a, t) for a, t in zip(totals, terms, strict=True)]

        s, weight, below = (e.tree_sum(t) for t in row.fold([row.zero()] * 3, add))
        near = emit_cut(e, s)
        rest = b.fdiv(b.fsub(s, e.widen(near)), e.widen(near))
        log = b.fadd(e.widen(emit_log(e, near)), rest)
        return b.fadd(b.fmul(weight, log), below)
