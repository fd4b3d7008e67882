"""Sums over all axes but the last, of several terms in one pass over memory.

Fused pointwise nodes and sums of what they compute:

    Y[i] = op(A[i], B[i], ...)          every operand broadcast to the iteration shape
    S[c] = sum over the other axes of some Y or A, in f64, rounded to f32 once

Batch statistics, of differences to an element of the channel:

    s = X[0,...,0,c], or 0 where that is not finite
    d = X - s,  D = sum d,  E = sum d^2        all in f64
    mean = s + D / M,  variance = (E - D^2 / M) / M

One d is 0, so D^2 <= (M - 1) E, and E - D^2 / M is at least E / M: what cancels there stays below
the rounding to f32 however far the mean is from zero, and no variance is below 0.
Order, threads and bits: `_columns.py`. Pointwise results are those of
`pointwise.py`, and may share the buffer of an equally laid out operand.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics

from ...emit.builder import Emitter, Index, Register, constant
from .. import Call, Kernel, kernel
from .._nest import Access, access
from ..pointwise import emit_body
from ._columns import Columns, ColumnSums


class ChannelSumsKernel(Kernel):
    """A fused body with sums. See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        assert isinstance(call.op, Fused)
        body, sums = call.op.body, call.op.sums
        self.columns = Columns(call.target, sums[0].inputs[0].type.sizes, len(sums))
        number = {node.outputs[0]: i for i, node in enumerate(sums)}
        # Results of the call that are sums, with the number of the sum; the others are stored.
        self.totals = [(i, number[v]) for i, v in enumerate(body.outputs) if v in number]
        self.stored = [i for i, v in enumerate(body.outputs) if v not in number]
        self.body = dataclasses.replace(
            body,
            nodes=tuple(n for n in body.nodes if n not in sums),
            outputs=(*(body.outputs[i] for i in self.stored), *(n.inputs[0] for n in sums)),
        )

    @property
    def in_place(self) -> bool:
        return bool(self.stored)

    @property
    def workspace(self) -> int:
        return self.columns.workspace

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        call, sizes = self.call, self.columns.sizes
        reads = [access(o, p, sizes) for o, p in zip(call.inputs, inputs, strict=True)]
        writes = [access(call.outputs[i], outputs[i], sizes) for i in self.stored]

        def terms(registers: list[Register]) -> tuple[list[Register], list[Register]]:
            env = dict(zip(self.body.inputs, registers, strict=True))
            results = emit_body(e, self.body, env, e.lanes)
            return results[: len(writes)], [e.widen(r) for r in results[len(writes) :]]

        def finish(totals: list[Register], column: Index, active: int) -> None:
            for result, number in self.totals:
                dtype = call.outputs[result].type.dtype
                into = e.at(outputs[result], e.mul(column, dtype.itemsize))
                e.store(e.narrow(totals[number]), into, dtype, active)

        ColumnSums(e, self.columns, reads, writes, terms, workspace).emit(finish)


@kernel(BatchNormStatistics)
class StatisticsKernel(Kernel):
    """Mean and variance of every channel. See the module's contract."""

    @property
    def columns(self) -> Columns:
        return Columns(self.target, self.call.inputs[0].type.sizes, 2)

    @property
    def workspace(self) -> int:
        return self.columns.workspace

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x,), sizes = self.call.inputs, self.columns.sizes
        if 0 in sizes:
            return
        count = math.prod(sizes[:-1])
        source = access(x, inputs[0], sizes)
        shift = Access(inputs[0], x.type.dtype, (*[0] * (len(sizes) - 1), x.type.dtype.itemsize))

        def terms(registers: list[Register]) -> tuple[list[Register], list[Register]]:
            value, first = registers
            d = e.b.fsub(e.widen(value), self._shift(e, first))
            return [], [d, e.b.fmul(d, d)]

        def finish(totals: list[Register], column: Index, active: int) -> None:
            d, squares = totals
            many = constant(d.type, float(count))
            first = e.load(e.at(inputs[0], e.mul(column, 4)), x.type.dtype, e.lanes, active)
            mean = e.b.fadd(self._shift(e, first), e.b.fdiv(d, many))
            rest = e.b.fsub(squares, e.b.fdiv(e.b.fmul(d, d), many))
            for pointer, value in zip(outputs, (mean, e.b.fdiv(rest, many)), strict=True):
                e.store(e.narrow(value), e.at(pointer, e.mul(column, 4)), active=active)

        ColumnSums(e, self.columns, [source, shift], [], terms, workspace).emit(finish)

    def _shift(self, e: Emitter, first: Register) -> Register:
        """The first elements, 0 for those that are not finite."""
        zero = constant(first.type, 0.0)
        finite = e.b.fcmp_ordered("==", e.b.fsub(first, first), zero)
        return e.widen(e.b.select(finite, first, zero))
