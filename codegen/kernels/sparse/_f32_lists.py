"""The lists of taps above zero: how they are packed, and the loop that walks them.

    packed   i64[lists + 1][1 + filters]   per list group (group, channels, filter group): where
                                           its steps and its filters' partial sums begin; the last
                                           entry closes the last group. Where kinds are told apart,
                                           the second of 2 + filters is where the saturated begin
             steps                         (i32 byte offset, f32 value) per filter; shorter lists of
                                           a group are filled up with (0, 0.0), which adds +0.0
             f32[...]                      packed sums of |f|, as in `dense.py`

A list has the taps of `channels` channels, whole channel blocks, in the order of summation.
Filters with lists of like length share a group. There is room for lists with every tap kept, so
that the code depends on shapes alone and not on numbers. Walking the last list loads the places of
a step behind it, which are bytes of the sums and not used.

Where kinds are told apart, the saturated taps of a list stand at its end. As many as all filters of
the group have are added without a minimum. What one has more is walked with a minimum, which is x
as well: the order of its sum stays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from addergraph.ir import Array
from addergraph.ir.plan import align

from ...emit.builder import I32, Emitter, Index, Register
from ..forward.dense_f32 import float_packing
from ..forward.geometry import CHANNEL_BLOCK
from ..schedule import ceil_div
from ._f32_tile import SparseTile

STEP_BYTES = 8  # of one filter
ALIKE = 4  # groups of filters with about as many saturated taps


class FloatLists:
    """The packed lists of one layer."""

    def __init__(self, tile: SparseTile, top: float = math.inf) -> None:
        """`top`: what is at most in the input, where kinds are told apart."""
        self.tile, self.g, self.lanes = tile, tile.g, tile.lanes
        self.top = max(top, float(np.finfo(np.float32).smallest_subnormal))

    @property
    def filter_groups(self) -> int:
        return ceil_div(self.g.outputs, self.tile.filters)

    @property
    def parts(self) -> int:
        """Lists of one filter."""
        return ceil_div(self.g.inputs, self.tile.channels)

    @property
    def lists(self) -> int:
        return self.g.groups * self.parts * self.filter_groups

    @property
    def step_bytes(self) -> int:
        return STEP_BYTES * self.tile.filters

    @property
    def head_bytes(self) -> int:
        """Where one list group and its sums stand."""
        return 8 * (self.tile.filters + 1 + self.tile.kinds)

    @property
    def steps_offset(self) -> int:
        return align(self.head_bytes * (self.lists + 1))

    @property
    def sums_offset(self) -> int:
        """Room for lists with every tap kept: the code does not depend on the numbers."""
        longest = _whole(self.tile.channels * math.prod(self.g.kernel), self.tile.unroll)
        return self.steps_offset + align(self.lists * longest * self.step_bytes)

    @property
    def nbytes(self) -> int:
        sums = 4 * self.g.groups * ceil_div(self.g.outputs, self.lanes) * self.lanes
        return self.sums_offset + align(sums)

    def pack(self, f: Array, out: Array) -> None:
        """The packed bytes: see the module's contract."""
        g, tile, width = self.g, self.tile, self.tile.filters
        taps = math.prod(g.kernel)
        dense = float_packing(g, self.lanes, 1)
        f = dense.matrices(f)
        ordered, sums = dense.ordered(f), dense.sums(f)
        rows = ordered.transpose(0, 2, 1, 3, 4).reshape(g.groups, g.steps, -1)[:, :, : g.outputs]
        offsets = {size: self._tap_offsets(size) for size in self._part_sizes}
        out[...] = 0
        heads = out[: self.head_bytes * (self.lists + 1)].view(np.int64)
        heads = heads.reshape(self.lists + 1, -1)
        steps = out[self.steps_offset : self.sums_offset].view(np.int32).reshape(-1, width, 2)
        number, end = 0, 0
        for group, (part, size) in itertools.product(range(g.groups), enumerate(self._part_sizes)):
            first = part * tile.channels
            values = np.zeros((taps * size, self.filter_groups * width), np.float32)
            values[:, : g.outputs] = rows[group, first * taps : (first + size) * taps]
            for members in self._grouped(values):
                with_minimum, whole = self._fill(
                    steps[end:], values[:, members], offsets[size], members < g.outputs
                )
                heads[number, :-width] = end * self.step_bytes
                if tile.kinds:
                    heads[number, 1] += with_minimum * self.step_bytes
                heads[number, -width:] = members * tile.partial_bytes
                end += whole
                number += 1
        heads[number, 0] = end * self.step_bytes
        out[self.sums_offset : self.sums_offset + sums.nbytes] = sums.reshape(-1).view(np.uint8)

    @property
    def _part_sizes(self) -> list[int]:
        size, inputs = self.tile.channels, self.g.inputs
        return [min(size, inputs - first) for first in range(0, inputs, size)]

    def _tap_offsets(self, size: int) -> Array:
        """Of each tap of a list of `size` channels, in the order of summation."""
        places = [
            self.tile.tap_offset(i, j, block + k)
            for block in range(0, size, CHANNEL_BLOCK)
            for i, j, k in np.ndindex(*self.g.kernel, min(CHANNEL_BLOCK, size - block))
        ]
        return np.array(places, np.int32)

    def _grouped(self, values: Array) -> Array:
        """The filters of each group: those with lists of like length, little is filled up."""
        width = self.tile.filters
        order = np.argsort((values > 0).sum(0), kind="stable")
        if self.tile.kinds:
            by_saturated = np.argsort((values >= self.top).sum(0), kind="stable")
            minima = ((values > 0) & (values < self.top)).sum(0)
            like = range(0, order.size, ALIKE * width)
            parts = (by_saturated[first : first + ALIKE * width] for first in like)
            order = np.concatenate([p[np.argsort(minima[p], kind="stable")] for p in parts])
        return order.reshape(self.filter_groups, width)

    def _fill(self, steps: Array, values: Array, offsets: Array, real: Array) -> tuple[int, int]:
        """Writes the lists of one filter group, interleaved; the number of steps with a minimum,
        and of all. Columns that are not `real` filters get sums that nobody reads."""
        kept = [np.flatnonzero(column > 0) for column in values.T]
        together = 0
        if self.tile.kinds:
            kept = [
                self._by_kind(column, rows) for column, rows in zip(values.T, kept, strict=True)
            ]
            together = int((values[:, real] >= self.top).sum(0).min(initial=len(values)))
            together -= together % self.tile.unroll
        with_minimum = _whole(max(map(len, kept)) - together, self.tile.unroll)
        for q in np.flatnonzero(real):
            rows, own = kept[q], len(kept[q]) - together
            for at, part in ((0, rows[:own]), (with_minimum, rows[own:])):
                steps[at : at + len(part), q, 0] = offsets[part]
                numbers = np.ascontiguousarray(values[part, q]).view(np.int32)
                steps[at : at + len(part), q, 1] = numbers
        return with_minimum, with_minimum + together

    def _by_kind(self, column: Array, rows: Array) -> Array:
        """The rows of a filter, the saturated ones last."""
        return rows[np.argsort(column[rows] >= self.top, kind="stable")]

    def emit(
        self, e: Emitter, packed: Any, group: Index, part: Index, source: Any, partial: Any,
        places: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        """One tile: the partial sums of all filters += their lists number `part`.

        source, partial   where the tile begins in the part's channels and in a filter's partial
                          sums
        places            of each vector of the tile: bytes from there, in either
        """
        first = e.mul(e.add(e.mul(group, self.parts), part), self.filter_groups)
        heads = e.at(packed, e.mul(first, self.head_bytes))
        steps = e.at(packed, self.steps_offset)
        begin = e.load_index(heads)

        def walk(number: Index, carried: list[Register]) -> list[Register]:
            head = e.at(heads, e.mul(number, self.head_bytes))
            return self._emit_group(e, head, steps, part, (source, partial), places, carried)

        e.carry(0, self.filter_groups, 1, [begin, *self._taps(e, e.at(steps, begin))], walk)

    def _taps(self, e: Emitter, step: Any) -> list[Register]:
        """What the filters of a group read at one step: bytes from a tile's first pixel."""
        places = (
            e.b.load(e.at(step, STEP_BYTES * q), typ=I32, align=4) for q in range(self.tile.filters)
        )
        return [place if e.word == I32 else e.b.sext(place, e.word) for place in places]

    def _emit_group(
        self, e: Emitter, head: Any, steps: Any, part: Index, pointers: tuple[Any, Any],
        places: Sequence[tuple[int, int]], carried: list[Register],
    ) -> list[Register]:  # fmt: skip
        """The lists of one filter group.

        `carried` is where they begin and what the first step reads; the same of the group behind
        it is returned. Every step loads what the next one reads: a processor that has to wait for
        an address starts many loads in vain.
        """
        lanes, count, (source, partial) = self.lanes, self.tile.filters, pointers
        numbers = range(1, count + 2 + self.tile.kinds)
        *members, end = (e.load_index(e.at(head, 8 * q)) for q in numbers)
        middle = members.pop(0) if self.tile.kinds else end
        sums = [e.at(e.at(partial, member), at) for member in members for _, at in places]
        zero = e.number(0.0, lanes)
        first = e.b.icmp_signed("==", e.index(part), e.index(0))

        def start() -> list[Register]:
            return [e.load(at, lanes=lanes) for at in sums]

        def steps_of(minimum: bool) -> Callable[[Index, list[Register]], list[Register]]:
            def several(at: Index, values: list[Register]) -> list[Register]:
                for u in range(self.tile.unroll):
                    values = step(e.at(steps, e.add(at, u * self.step_bytes)), values, minimum)
                return values

            return several

        def step(entry: Any, values: list[Register], minimum: bool) -> list[Register]:
            taps, acc = values[:count], values[count:]
            following = self._taps(e, e.at(entry, self.step_bytes))
            for q, tap in enumerate(taps):
                value = e.splat(e.load(e.at(entry, STEP_BYTES * q + 4)), lanes) if minimum else None
                pixels = e.at(source, tap)
                for at, (offset, _) in enumerate(places, q * len(places)):
                    term = e.load(e.at(pixels, offset), lanes=lanes)
                    if minimum:
                        term = e.non_negative_min(value, term)
                    acc[at] = e.b.fadd(acc[at], term)
            return [*following, *acc]

        begin, *taps = carried
        accumulators = e.choose(first, lambda: [zero] * len(sums), start)
        size = self.tile.unroll * self.step_bytes
        after = e.carry(begin, middle, size, [*taps, *accumulators], steps_of(minimum=True))
        if self.tile.kinds:
            after = e.carry(middle, end, size, after, steps_of(minimum=False))
        for total, at in zip(after[count:], sums, strict=True):
            e.store(total, at)
        return [end, *after[:count]]


def _whole(steps: int, unroll: int) -> int:
    """The steps of whole loop bodies."""
    return ceil_div(steps, unroll) * unroll
