"""Fused pointwise nodes and sums over all axes but the last of what they compute, in one pass.

    Y[i] = op(A[i], B[i], ...)          every operand broadcast to the iteration shape
    S[c] = sum over the other axes of some Y or A

Lanes run over the channels c. The rows (all other axes, flattened) are cut into chunks of
CHUNK_ROWS; in a chunk they follow in order, and the chunks' sums, partials in the workspace, are
added in order behind a barrier. Sums are f64, rounded to f32 once: the order and the bits are those
of `reduce_sum` alone, and depend neither on threads nor on halos. Pointwise results are those of
`pointwise.py`, and may share the buffer of an equally laid out operand.

    partials    f64[chunk][sum][channels, padded to whole vectors]
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from addergraph.ops.fused import Fused

from ..builder import Emitter, Index, Register, constant, element_type, vector, wide
from ..schedule import ceil_div
from . import Call, Kernel, Operand
from ._fold import CHUNK_ROWS
from ._nest import Access, access, merge_axes
from .pointwise import emit_body

SHARE = 8  # of the vector registers, one in so many holds the sums of one kind


class ChannelSumsKernel(Kernel):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        assert isinstance(call.op, Fused)
        body, sums = call.op.body, call.op.sums
        self.sizes = sums[0].inputs[0].type.sizes
        number = {node.outputs[0]: i for i, node in enumerate(sums)}
        self.sums = len(sums)
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
    def rows(self) -> int:
        return math.prod(self.sizes[:-1])

    @property
    def chunks(self) -> int:
        return ceil_div(self.rows, CHUNK_ROWS)

    @property
    def padded(self) -> int:
        """Channels in whole vectors."""
        return ceil_div(self.sizes[-1], self.target.lanes) * self.target.lanes

    @property
    def width(self) -> int:
        """Channels that pass over the rows together."""
        vectors = max(1, self.target.registers // (SHARE * self.sums))
        return min(vectors * self.target.lanes, self.padded)

    @property
    def workspace(self) -> int:
        return self.chunks * self.sums * self.padded * wide.itemsize

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        call = self.call

        def each(operands: Sequence[Operand], pointers: Sequence[Any]) -> list[Access]:
            pairs = zip(operands, pointers, strict=True)
            return [access(o, p, self.sizes) for o, p in pairs]

        reads = each(call.inputs, inputs)
        writes = each([call.outputs[i] for i in self.stored], [outputs[i] for i in self.stored])
        full, rest = divmod(self.sizes[-1], self.width)
        groups = full + bool(rest)
        with e.loop(*e.share(self.chunks * groups)) as item:
            chunk, group = e.split(item, (self.chunks, groups))
            for active, here in e.partial(group, full, rest, self.width):
                if active:
                    with here:
                        start = e.mul(group, self.width)
                        _Columns(self, e, reads, writes, start, active).emit(chunk, workspace)
        e.barrier()
        self._emit_totals(e, outputs, workspace)

    def partial(self, e: Emitter, workspace: Any, chunk: Index, number: Index, at: Index) -> Any:
        """Where the sums of a chunk stand, from channel `at` on."""
        slot = e.add(e.mul(chunk, self.sums), number)
        return e.at(workspace, e.mul(e.add(e.mul(slot, self.padded), at), wide.itemsize))

    def zero(self) -> Register:
        return constant(vector(element_type(wide), self.target.lanes), 0.0)

    def _emit_totals(self, e: Emitter, outputs: Sequence[Any], workspace: Any) -> None:
        """Adds the partials of all chunks in order."""
        lanes, channels = e.lanes, self.sizes[-1]
        vectors = self.padded // lanes
        with e.loop(*e.share(vectors)) as v:
            column = e.mul(v, lanes)
            for result, number in self.totals:

                def add(chunk: Index, total: list[Register], number: int = number) -> list[Register]:
                    at = self.partial(e, workspace, chunk, number, column)
                    return [e.b.fadd(total[0], e.load(at, wide, lanes))]

                (total,) = e.carry(0, self.chunks, 1, [self.zero()], add)
                dtype = self.call.outputs[result].type.dtype
                into = e.at(outputs[result], e.mul(column, dtype.itemsize))
                for active, here in e.partial(v, channels // lanes, channels % lanes, lanes):
                    if active:
                        with here:
                            e.store(e.narrow(total), into, dtype, active)


class _Columns:
    """`active` channels from `start` on, of all rows of a chunk."""

    def __init__(
        self, kernel: ChannelSumsKernel, e: Emitter, reads: Sequence[Access],
        writes: Sequence[Access], start: Index, active: int,
    ) -> None:  # fmt: skip
        self.k, self.e, self.start = kernel, e, start
        lanes = kernel.target.lanes
        self.vectors = [(v, min(lanes, active - v)) for v in range(0, active, lanes)]
        self.reads, self.writes = reads, writes
        steps = [a.strides[:-1] for a in (*reads, *writes)]
        self.rows, self.steps = merge_axes(kernel.sizes[:-1], steps)
        self.bases = [e.at(a.pointer, e.mul(start, a.strides[-1])) for a in (*reads, *writes)]
        # What is the same in all rows is loaded once.
        self.kept = [
            None
            if any(a.strides[:-1])
            else [self._load(a, e.at(base, v * a.strides[-1]), count) for v, count in self.vectors]
            for a, base in zip(reads, self.bases, strict=False)
        ]

    def emit(self, chunk: Index, workspace: Any) -> None:
        e, k = self.e, self.k
        first = e.mul(chunk, CHUNK_ROWS)
        last: Index = k.rows
        if k.chunks > 1:
            last = e.minimum(e.add(first, CHUNK_ROWS), k.rows)
        totals = self._walk(first, last, [k.zero()] * (k.sums * len(self.vectors)))
        for i, total in enumerate(totals):
            v, _ = self.vectors[i // k.sums]
            at = k.partial(e, workspace, chunk, i % k.sums, e.add(self.start, v))
            e.store(total, at, wide)

    def _walk(self, first: Index, last: Index, totals: list[Register]) -> list[Register]:
        """Rows first .. last - 1 in order, line by line of the last axis that they have."""
        e, run = self.e, self.rows[-1]

        def line(number: Index, outer: list[Register]) -> Sequence[Register]:
            position = e.split(number, self.rows[:-1]) if len(self.rows) > 1 else []
            begin = e.mul(number, run)
            at = [
                e.at(base, e.dot(position, steps[:-1]))
                for base, steps in zip(self.bases, self.steps, strict=True)
            ]
            low: Index = e.maximum(0, e.sub(first, begin))
            high = e.minimum(run, e.sub(last, begin))
            return e.carry(low, high, 1, outer, lambda r, acc: self._row(at, r, acc))

        if len(self.rows) == 1:
            return list(line(0, totals))
        beyond = e.div(e.add(last, run - 1), run)
        return e.carry(e.div(first, run), beyond, 1, totals, line)

    def _row(self, lines: Sequence[Any], r: Index, totals: list[Register]) -> list[Register]:
        """Computes and stores one row; `totals` are [vector][sum]."""
        e, k = self.e, self.k
        at = [e.at(p, e.mul(r, s[-1])) for p, s in zip(lines, self.steps, strict=True)]
        sources, targets = at[: len(self.reads)], at[len(self.reads) :]
        made: list[Register] = []
        for i, (v, count) in enumerate(self.vectors):
            registers = [
                self._load(a, e.at(p, v * a.strides[-1]), count) if known is None else known[i]
                for a, p, known in zip(self.reads, sources, self.kept, strict=True)
            ]
            env = dict(zip(k.body.inputs, registers, strict=True))
            results = emit_body(e, k.body, env, k.target.lanes)
            for a, p, value in zip(self.writes, targets, results, strict=False):
                e.store(value, e.at(p, v * a.strides[-1]), a.dtype, count)
            summed = results[len(self.writes) :]
            before = totals[i * k.sums : (i + 1) * k.sums]
            made += [e.b.fadd(t, e.widen(s)) for t, s in zip(before, summed, strict=True)]
        return made

    def _load(self, a: Access, pointer: Any, count: int) -> Register:
        lanes = self.k.target.lanes
        if a.strides[-1] == 0:
            return self.e.splat(self.e.load(pointer, a.dtype), lanes)
        return self.e.load(pointer, a.dtype, lanes, count)
