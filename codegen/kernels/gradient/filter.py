"""Gradients of contractions with respect to the filter.

    dF[i,j,k,t] = sum_{n,h,w} g[n,h,w,t] X[n, s*h + d*i - p, s*w + d*j - p, k]
                  - F[i,j,k,t] * sum_{n,h,w} g[n,h,w,t]                          adder layers only

A tile of `taps` input elements (column tap and channel, contiguous in NHWC) times vectors of output
channels stays in registers while (n, h, w) run; lanes over t. Partial sums per chunk of samples
(about CHUNK outputs; their number follows from the shape alone) are added in order to dF in memory.
sum g is a first phase into the workspace, f32[groups * T], by the same chunks. X carries its
padding as a halo of zeros. FMA where the target has it; bits do not depend on tile or threads.
Threads share the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from addergraph.ir.plan import align

from ...emit.builder import LINE, Emitter, Index, Register
from .. import Call, Kernel, Operand
from ..cut import piece
from ..forward.geometry import filter_row, geometry, rows_as_samples
from ..forward.terms import DIRECT, PRODUCT, measures_distance
from ..schedule import FilterTile, ceil_div, filter_tile

CHUNK = 512  # outputs summed in registers before the partial sum goes to memory


class FilterGradientKernel(Kernel):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.adder = measures_distance(call.op)
        g, x, self.df = call.inputs[0], call.inputs[1], call.outputs[0]
        s = geometry(DIRECT if self.adder else PRODUCT, call.op, x, self.df, g)
        self.s = s = rows_as_samples(s) if len(self.df.shape) == 2 else s
        self.segments = 1 if s.taps_adjoin else s.kernel[1]
        self.run = s.kernel[1] * s.inputs // self.segments
        self.tile: FilterTile = filter_tile(self.target, self.run, s.outputs)

    @property
    def name(self) -> str:
        tile = f"{self.tile.taps}x{self.width}"
        return f"{self.call.op.name}_f32_{tile}_{self.target.isa}"

    @property
    def width(self) -> int:
        return self.tile.vectors * self.target.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.s.outputs, self.width)

    @property
    def strips(self) -> int:
        return ceil_div(self.run, self.tile.taps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The grid of tiles."""
        return (self.s.groups, self.s.kernel[0], self.segments, self.strips, self.blocks)

    @property
    def tiles(self) -> int:
        return math.prod(self.sizes)

    @property
    def chunk(self) -> int:
        """Samples in one partial sum."""
        return max(1, CHUNK // max(1, self.s.height * self.s.width))

    @property
    def workspace(self) -> int:
        return align(4 * self.s.groups * self.s.outputs) if self.adder else 0

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.df.shape:
            return
        g, x, f = inputs[0], inputs[1], inputs[2] if self.adder else None
        if self.adder:
            self._emit_sums(e, g, workspace)
            e.barrier()
        s, sizes = self.s, self.sizes
        low, high = e.share(self.tiles)
        # Chunks outside tiles: the samples of one chunk stay in L2 while all tiles pass.
        with e.loop(0, max(1, s.samples), self.chunk) as begin, e.loop(low, high) as item:
            at = _FilterPlace(begin, item, *e.split(item, sizes))
            pointers = (g, x, f, outputs[0], workspace)
            for taps in piece(e, at.strip, self.run, self.tile.taps):
                for active in piece(e, at.block, s.outputs, self.width):
                    self._emit_tile(e, at, taps, active, pointers)

    def _emit_tile(
        self, e: Emitter, at: _FilterPlace, taps: int, active: int, pointers: tuple[Any, ...]
    ) -> None:
        s, lanes = self.s, self.target.lanes
        g, x, f, df, sums = pointers
        counts = [min(lanes, active - v * lanes) for v in range(self.tile.vectors)]
        counts = [c for c in counts if c > 0]
        channel = e.add(e.mul(at.group, s.outputs), e.mul(at.block, self.width))
        row = e.add(e.mul(at.i, self.segments), at.j)
        row = e.add(e.mul(row, self.run), e.mul(at.strip, self.tile.taps))

        def each(base: Any, operand: Operand) -> list[tuple[int, int, Any]]:
            rows = [filter_row(e, operand, e.add(row, m)) for m in range(taps)]
            return [
                (
                    m * len(counts) + v,
                    count,
                    e.at(base, e.add(e.add(rows[m], e.mul(channel, 4)), 4 * v * lanes)),
                )
                for m in range(taps)
                for v, count in enumerate(counts)
            ]

        end = e.minimum(e.add(at.begin, self.chunk), s.samples)
        partial = self._emit_sum(e, at, (at.begin, end), (g, x), channel, taps, counts)
        is_first = e.less(at.begin, 1)
        for number, count, here in each(df, self.df):
            before = e.load(here, lanes=lanes, active=count)
            before = e.b.select(is_first, e.number(0.0, lanes), before)
            e.store(e.b.fadd(before, partial[number]), here, active=count)
        if not self.adder:
            return
        with e.when(e.b.not_(e.less(end, s.samples))):
            filters = dict((n, p) for n, _, p in each(f, self.call.inputs[2]))
            for number, count, here in each(df, self.df):
                v = number % len(counts)
                total_g = e.at(sums, e.add(e.mul(channel, 4), 4 * v * lanes))
                correction = e.b.fmul(
                    e.load(filters[number], lanes=lanes, active=count),
                    e.load(total_g, lanes=lanes, active=count),
                )
                value = e.b.fsub(e.load(here, lanes=lanes, active=count), correction)
                e.store(value, here, active=count)

    def _emit_sum(
        self, e: Emitter, at: _FilterPlace, samples: tuple[Index, Index],
        pointers: tuple[Any, Any], channel: Index, taps: int, counts: list[int],
    ) -> list[Register]:  # fmt: skip
        """sum g x over one chunk of samples, in registers [tap][vector]."""
        s, lanes = self.s, self.target.lanes
        (gn, gh, gw), (xn, xh, xw) = s.y, s.x
        start = e.sub(e.mul(at.i, s.dilation[0] * xh), s.pad[0] * xh + s.pad[1] * xw)
        start = e.add(start, e.mul(at.j, s.dilation[1] * xw))
        start = e.add(
            start, e.mul(e.add(e.mul(at.group, s.inputs), e.mul(at.strip, self.tile.taps)), 4)
        )
        x0 = e.at(pointers[1], start)
        g0 = e.at(pointers[0], e.mul(channel, 4))

        def over_samples(n: Index, outer: list[Register]) -> list[Register]:
            x1, g1 = e.at(x0, e.mul(n, xn)), e.at(g0, e.mul(n, gn))

            def over_rows(h: Index, middle: list[Register]) -> list[Register]:
                self._emit_prefetch(e, at, e.sub(n, at.begin), h, pointers)
                x2, g2 = e.at(x1, e.mul(h, s.stride[0] * xh)), e.at(g1, e.mul(h, gh))

                def over_columns(w: Index, acc: list[Register]) -> list[Register]:
                    x3, g3 = e.at(x2, e.mul(w, s.stride[1] * xw)), e.at(g2, e.mul(w, gw))
                    gs = [
                        e.load(e.at(g3, 4 * v * lanes), lanes=lanes, active=count)
                        for v, count in enumerate(counts)
                    ]
                    for m in range(taps):
                        one = e.splat(e.load(e.at(x3, 4 * m)), lanes)
                        for v, g in enumerate(gs):
                            a = m * len(counts) + v
                            acc[a] = e.fma(one, g, acc[a])
                    return acc

                return e.carry(0, s.width, 1, middle, over_columns)

            return e.carry(0, s.height, 1, outer, over_rows)

        zeros = [e.number(0.0, lanes)] * (taps * len(counts))
        return e.carry(samples[0], samples[1], 1, zeros, over_samples)

    def _emit_prefetch(
        self, e: Emitter, at: _FilterPlace, n: Index, h: Index, pointers: tuple[Any, Any]
    ) -> None:
        """Row h of sample n of a chunk asks for its part of the next chunk."""
        rows = self.chunk * self.s.height
        part = e.add(e.mul(at.item, rows), e.add(e.mul(n, self.s.height), h))
        for pointer, sample in zip(pointers, (self.s.y[0], self.s.x[0]), strict=True):
            chunk = self.chunk * sample
            size = ceil_div(chunk, rows * self.tiles)
            offset = e.add(e.mul(at.begin, sample), e.mul(part, size))
            for byte in range(0, size, LINE):
                e.prefetch(e.at(pointer, e.add(offset, chunk + byte)))

    def _emit_sums(self, e: Emitter, g: Any, sums: Any) -> None:
        """sum g over n, h, w for every output channel, by the same chunks."""
        s, lanes = self.s, self.target.lanes
        made = s.groups * s.outputs
        low, high = e.share(ceil_div(made, lanes))
        with e.loop(low, high) as block:
            base, into = e.at(g, e.mul(block, 4 * lanes)), e.at(sums, e.mul(block, 4 * lanes))
            for active, here in e.partial(block, made // lanes, made % lanes, lanes):
                if active:
                    with here:
                        e.store(self._emit_sum_vector(e, base, active), into, active=active)

    def _emit_sum_vector(self, e: Emitter, base: Any, active: int) -> Register:
        s, lanes = self.s, self.target.lanes
        gn, gh, gw = s.y
        zero = [e.number(0.0, lanes)]

        def over_chunks(begin: Index, total: list[Register]) -> list[Register]:
            end = e.minimum(e.add(begin, self.chunk), s.samples)

            def over_samples(n: Index, outer: list[Register]) -> list[Register]:
                def over_rows(h: Index, middle: list[Register]) -> list[Register]:
                    row = e.at(base, e.dot((n, h), (gn, gh)))

                    def over_columns(w: Index, acc: list[Register]) -> list[Register]:
                        more = e.load(e.at(row, e.mul(w, gw)), lanes=lanes, active=active)
                        return [e.b.fadd(acc[0], more)]

                    return e.carry(0, s.width, 1, middle, over_columns)

                return e.carry(0, s.height, 1, outer, over_rows)

            return [e.b.fadd(total[0], e.carry(begin, end, 1, zero, over_samples)[0])]

        return e.carry(0, s.samples, self.chunk, zero, over_chunks)[0]


@dataclass(frozen=True)
class _FilterPlace:
    """A tile of dF: group, kernel row, column segment, strip of the run, channel block.

    It is number `item`; `begin` is the first sample of the chunk to sum.
    """

    begin: Index
    item: Index
    group: Index
    i: Index
    j: Index
    strip: Index
    block: Index
