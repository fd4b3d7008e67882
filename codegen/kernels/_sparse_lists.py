"""The lists of taps above zero: how they are packed, and the loop that walks them.

    packed   i64[lists + 1][1 + filters]   per list group (group, channel block, filter group): its
                                           first step, and where its filters' partial sums stand;
                                           the last entry closes the last group
             steps                         (i32 byte offset, f32 value) per filter; shorter lists of
                                           a group are filled up with (0, 0.0), which adds +0.0
             f32[...]                      packed sums of |f|, as in `contraction.py`

Filters with lists of like length share a group. There is room for lists with every tap kept, so
that the code depends on shapes alone and not on numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from addergraph.ir import Array
from addergraph.plan import align

from ..builder import F32, I32, I64, Emitter, Index, Register, vector
from ..schedule import ceil_div
from ._forward import ForwardContraction
from ._geometry import CHANNEL_BLOCK, pack_filter
from ._sparse_tile import StripTile

UNROLL = 4  # steps in one loop body; lists are whole bodies, so that few lengths differ


class SparseKernel(ForwardContraction):
    """A forward adder over lists of taps."""

    @property
    @abstractmethod
    def tile(self) -> StripTile: ...

    @property
    def lanes(self) -> int:
        return self.target.lanes

    @property
    def filter_groups(self) -> int:
        return ceil_div(self.g.outputs, self.tile.filters)

    @property
    def channel_blocks(self) -> int:
        return ceil_div(self.g.inputs, CHANNEL_BLOCK)

    @property
    def lists(self) -> int:
        return self.g.groups * self.channel_blocks * self.filter_groups

    @property
    def step_bytes(self) -> int:
        return 8 * self.tile.filters

    @property
    def head_bytes(self) -> int:
        """First step and places of one list group."""
        return 8 * (self.tile.filters + 1)

    @property
    def steps_offset(self) -> int:
        return align(self.head_bytes * (self.lists + 1))

    @property
    def sums_offset(self) -> int:
        """Room for lists with every tap kept: the code does not depend on the numbers."""
        longest = ceil_div(CHANNEL_BLOCK * math.prod(self.g.kernel), UNROLL) * UNROLL
        return self.steps_offset + align(self.lists * longest * self.step_bytes)

    @property
    def packs(self) -> dict[int, Callable[[Array], Array]]:
        return {self.operands[1]: self.pack}

    def pack(self, f: Array) -> Array:
        """The packed bytes: see the module's contract."""
        g, tile, width = self.g, self.tile, self.tile.filters
        taps = math.prod(g.kernel)
        packed = pack_filter(f, g, self.lanes)
        rows = packed.transpose(0, 2, 1, 3).reshape(g.groups, g.steps, -1)[:, :, : g.outputs]
        sums = np.zeros((g.groups, packed.shape[1], self.lanes), np.float32)
        for step in range(g.steps):
            sums += np.abs(packed[:, :, step])
        offsets = np.array(
            [tile.tap_offset(i, j, k) for i, j, k in np.ndindex(*g.kernel, CHANNEL_BLOCK)],
            np.int32,
        ).reshape(taps, CHANNEL_BLOCK)
        blob = np.zeros(self.sums_offset + align(sums.nbytes), np.uint8)
        heads = blob[: self.head_bytes * (self.lists + 1)].view(np.int64)
        heads = heads.reshape(self.lists + 1, width + 1)
        steps = blob[self.steps_offset : self.sums_offset].view(np.int32).reshape(-1, width, 2)
        number, end = 0, 0
        for group, block in np.ndindex(g.groups, self.channel_blocks):
            first = block * CHANNEL_BLOCK
            size = min(CHANNEL_BLOCK, g.inputs - first)
            values = np.zeros((taps * size, self.filter_groups * width), np.float32)
            values[:, : g.outputs] = rows[group, first * taps : (first + size) * taps]
            # Filters with lists of like length share a group: little is filled up.
            order = np.argsort((values > 0).sum(0), kind="stable")
            for members in order.reshape(self.filter_groups, width):
                heads[number, 0], heads[number, 1:] = end, members * tile.partial_bytes
                end += self._fill(steps[end:], values[:, members], offsets[:, :size].reshape(-1))
                number += 1
        heads[number, 0] = end
        blob[self.sums_offset : self.sums_offset + sums.nbytes] = sums.reshape(-1).view(np.uint8)
        return blob

    @staticmethod
    def _fill(steps: Array, values: Array, offsets: Array) -> int:
        """Writes the lists of one filter group, interleaved; the number of steps."""
        kept = [np.flatnonzero(column > 0) for column in values.T]
        for q, rows in enumerate(kept):
            steps[: len(rows), q, 0] = offsets[rows]
            steps[: len(rows), q, 1] = np.ascontiguousarray(values[rows, q]).view(np.int32)
        return ceil_div(max(map(len, kept)), UNROLL) * UNROLL

    def emit_lists(
        self, e: Emitter, packed: Any, group: Index, block: Index, source: Any, partial: Any,
        vectors: int, step_bytes: int,
    ) -> None:  # fmt: skip
        """One tile: the partial sums of all filters += their lists of one channel block.

        source, partial   where the first pixel of the tile stands in the channels' pixels and in a
                          filter's partial sums
        step_bytes        between neighbouring vectors of the tile in `source`
        """
        with e.loop(0, self.filter_groups) as number:
            first = e.add(e.mul(group, self.channel_blocks), block)
            first = e.add(e.mul(first, self.filter_groups), number)
            head = e.at(packed, e.mul(first, self.head_bytes))
            steps = e.at(packed, self.steps_offset)
            self._emit_group(e, head, steps, block, (source, partial), vectors, step_bytes)

    def _emit_group(
        self, e: Emitter, head: Any, steps: Any, block: Index, pointers: tuple[Any, Any],
        vectors: int, step_bytes: int,
    ) -> None:  # fmt: skip
        """The lists of one filter group."""
        tile, lanes, (source, partial) = self.tile, self.lanes, pointers
        low, *members, high = (
            e.b.load(e.at(head, 8 * i), typ=I64, align=8) for i in range(tile.filters + 2)
        )
        places = [
            e.at(e.at(partial, member), 4 * lanes * p) for member in members for p in range(vectors)
        ]
        zero = e.number(0.0, lanes)
        first = e.b.icmp_signed("==", e.index(block), e.index(0))

        def start() -> list[Register]:
            return [e.load(at, lanes=lanes) for at in places]

        accumulators = e.choose(first, lambda: [zero] * len(places), start)

        def several(s: Index, acc: list[Register]) -> list[Register]:
            for u in range(UNROLL):
                acc = step(e.at(steps, e.add(e.mul(s, self.step_bytes), u * self.step_bytes)), acc)
            return acc

        def step(entry: Any, acc: list[Register]) -> list[Register]:
            for q in range(tile.filters):
                # One load for both halves: loads are what this loop is bound by.
                both = e.b.load(e.at(entry, 8 * q), typ=I64, align=8)
                value = e.splat(e.b.trunc(e.b.lshr(both, e.index(32)), I32), lanes)
                value = e.b.bitcast(value, vector(F32, lanes))
                taps = e.at(source, e.b.sext(e.b.trunc(both, I32), I64))
                for p in range(vectors):
                    at = q * vectors + p
                    pixel = e.load(e.at(taps, step_bytes * p), lanes=lanes)
                    acc[at] = e.b.fadd(acc[at], e.integer_min(value, pixel))
            return acc

        for total, at in zip(
            e.carry(low, high, UNROLL, accumulators, several), places, strict=True
        ):
            e.store(total, at)
