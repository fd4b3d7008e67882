"""Sparse forward adder: the minimum form with only the taps above zero, for constant filters.

A term min(x, f+) with f <= 0 is +0.0 and its accumulator is never negative, so dropping it changes
no bit. Every filter walks its own list of (offset, value); lanes run over output pixels.

    acc[t][pixel] = sum over channel blocks, each over (i, j, k) in order, of min(x, f),  f > 0 only

The order, the sums of x and |f| and the tail are those of `contraction.py`, so both kernels give the
same bits and either may serve a layer. One work item is a strip of output rows of one sample:

    for each block of CHANNEL_BLOCK input channels
        planes   f32[k][row][column]         the strip's input, transposed from NHWC, padding included
        copies   f32[k][j][phase][row][pitch]  planes shifted by the column tap and, where the stride is
                                             2, split by row and column phase: a tap's pixels are one
                                             run of memory, aligned, for all rows of a tile
        for each tile of `vectors` pixel vectors, for each group of `filters` filters
            partial[t][pixel] += its list
    then the partial sums are transposed back, in blocks of lanes x lanes, and go through the tail.

    packed   i64[lists + 1]  first step of each list (group, channel block, filter group), then the last's end
             steps           i32[filters] byte offsets into copies, f32[filters] values; lists of
                             one filter group are filled up with (0, 0.0), which adds +0.0
             f32[...]        packed sums of |f|, as in `contraction.py`

Each of REGIONS strips in flight has scratch memory of its own; threads beyond REGIONS get no work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from addergraph.ir import Array, Graph
from addergraph.plan import align

from ..builder import F32, I32, I64, Emitter, Index, Register, vector
from ..schedule import ceil_div
from . import Call
from ._forward import ForwardContraction, Place, Tail
from ._geometry import CHANNEL_BLOCK, pack_filter
from ._sparse_input import Region, emit_copies, emit_plane_sums, emit_strip_windows
from ._sparse_tile import SparseTile, sparse_tile
from ._transpose import emit_transpose

REGIONS = 8
UNROLL = 4  # steps in one loop body; lists are whole bodies, so that few lengths differ


class SparseAdderKernel(ForwardContraction):
    """See the module's contract."""

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call, body)
        tile = sparse_tile(self.target, self.g)
        assert tile is not None, "the caller asks `sparse_tile` first"
        self.tile: SparseTile = tile
        self.lanes = self.target.lanes

    # -- sizes -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        tile = f"{self.tile.vectors * self.lanes}x{self.tile.filters}"
        return f"{self.node_op.name}_sparse_f32_{tile}{self.name_ending}"

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

    @property
    def regions(self) -> int:
        return min(REGIONS, self.g.samples * self.tile.strips)

    @property
    def workspace(self) -> int:
        return self.regions * self.tile.region_bytes

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

    # -- emission --------------------------------------------------------------------------------

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        g, tile = self.g, self.tile
        x, packed = (inputs[i] for i in self.operands[:2])
        active = e.minimum(e.threads, self.regions)
        count = g.samples * tile.strips
        with e.when(e.less(e.thread, active)):
            low = e.div(e.mul(count, e.thread), active)
            high = e.div(e.mul(count, e.add(e.thread, 1)), active)
            region = Region(e, tile, e.at(workspace, e.mul(e.thread, tile.region_bytes)))
            with e.loop(low, high) as item, e.loop(0, g.groups) as group:
                n, strip = e.split(item, (g.samples, tile.strips))
                row = e.mul(strip, tile.strip_rows)
                place = Place(group, 0, n, row)
                self._emit_strip(e, place, x, packed, region)
                self._emit_tail(e, place, inputs, packed, outputs[0], region)

    def _emit_strip(self, e: Emitter, place: Place, x: Any, packed: Any, region: Region) -> None:
        """Partial sums and window sums of a strip."""
        g, tile = self.g, self.tile
        # A strip at the bottom may be shorter than its scratch memory.
        rows = e.minimum(tile.plane_rows, e.sub(tile.input_rows, e.mul(place.h, tile.stride[0])))
        whole = g.inputs // CHANNEL_BLOCK
        sums = e.at(packed, self.steps_offset)
        with e.loop(0, whole) as block:
            self._emit_block(e, place, (x, packed, sums), region, block, CHANNEL_BLOCK, rows)
        if g.inputs % CHANNEL_BLOCK:
            rest = g.inputs % CHANNEL_BLOCK
            self._emit_block(e, place, (x, packed, sums), region, whole, rest, rows)
        emit_strip_windows(e, g, tile, region, place.h)

    def _emit_block(
        self, e: Emitter, place: Place, pointers: tuple[Any, Any, Any], region: Region,
        block: Index, size: int, rows: Index,
    ) -> None:  # fmt: skip
        """Planes, copies, channel sums and lists of one block of `size` input channels."""
        tile, (x, heads, steps) = self.tile, pointers
        self._emit_planes(e, place, x, region, block, size, rows)
        emit_plane_sums(e, tile, region, block, size, rows)
        if tile.copied:
            emit_copies(e, self.g, tile, region, size, rows)
        with e.loop(0, tile.strip_rows // tile.rows) as number:
            pixels = e.mul(number, 4 * tile.vectors * self.lanes)
            with e.loop(0, self.filter_groups) as group:
                first = e.add(e.mul(place.group, self.channel_blocks), block)
                first = e.add(e.mul(first, self.filter_groups), group)
                self._emit_lists(
                    e, e.at(heads, e.mul(first, self.head_bytes)), steps, region, pixels, block
                )

    def _emit_lists(
        self, e: Emitter, head: Any, steps: Any, region: Region, pixels: Index, block: Index
    ) -> None:
        """One tile of pixels, one group of filters: partial sums += their lists."""
        tile, lanes = self.tile, self.lanes
        low, *members, high = (
            e.b.load(e.at(head, 8 * i), typ=I64, align=8) for i in range(tile.filters + 2)
        )
        source, partial = e.at(region.copies, pixels), e.at(region.partial, pixels)
        places = [
            e.at(e.at(partial, member), 4 * lanes * p)
            for member in members
            for p in range(tile.vectors)
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
                for p in range(tile.vectors):
                    at = q * tile.vectors + p
                    pixel = e.load(e.at(taps, 4 * lanes * p), lanes=lanes)
                    acc[at] = e.b.fadd(acc[at], e.integer_min(value, pixel))
            return acc

        for total, at in zip(e.carry(low, high, UNROLL, accumulators, several), places, strict=True):
            e.store(total, at)

    def _emit_planes(
        self, e: Emitter, place: Place, x: Any, region: Region, block: Index, size: int,
        rows: Index,
    ) -> None:  # fmt: skip
        """planes[k][row][column] of the strip, `lanes` pixels by `lanes` channels at a time."""
        g, tile, lanes = self.g, self.tile, self.lanes
        top = e.sub(e.mul(place.h, g.stride[0]), g.pad[0])
        channel = e.add(e.mul(place.group, g.inputs), e.mul(block, CHANNEL_BLOCK))
        start = e.add(e.dot((place.n, top), g.x[:2]), e.mul(channel, 4))
        start = e.at(x, e.sub(start, g.pad[1] * g.x[2]))
        step = tile.step[1] * g.x[2]
        full = tile.columns_read - tile.columns_read % lanes
        with e.loop(0, rows) as row:
            source = e.at(start, e.mul(row, tile.step[0] * g.x[1]))
            into = e.at(region.planes, e.mul(row, 4 * tile.plane_pitch))
            for k in range(0, size, lanes):
                count = min(lanes, size - k)
                here, there = e.at(source, 4 * k), e.at(into, k * tile.plane_bytes)
                with e.loop(0, full, lanes) as w:
                    pixels = e.at(here, e.mul(w, step))
                    self._emit_square(e, pixels, e.at(there, e.mul(w, 4)), lanes, count)
                if tile.columns_read % lanes:
                    rest = tile.columns_read % lanes
                    pixels, target = e.at(here, full * step), e.at(there, 4 * full)
                    self._emit_square(e, pixels, target, rest, count)

    def _emit_square(self, e: Emitter, source: Any, into: Any, pixels: int, channels: int) -> None:
        """Transposes up to lanes x lanes elements; missing pixels become zeros."""
        lanes, tile = self.lanes, self.tile
        step = tile.step[1] * self.g.x[2]
        zero = e.number(0.0, lanes)
        rows = [
            e.load(e.at(source, p * step), lanes=lanes, active=channels) if p < pixels else zero
            for p in range(lanes)
        ]
        for k, plane in enumerate(emit_transpose(e, rows)[:channels]):
            # A row may be shorter than a vector; the next one follows it at once.
            e.store(plane, e.at(into, k * tile.plane_bytes), active=min(lanes, tile.plane_pitch))

    def _emit_tail(
        self, e: Emitter, place: Place, inputs: Sequence[Any], packed: Any, y: Any, region: Region
    ) -> None:
        """Partial sums back to NHWC, through the tail."""
        g, tile, lanes = self.g, self.tile, self.lanes
        blocks = ceil_div(g.outputs, lanes)
        whole = g.outputs // lanes
        sums = e.at(packed, self.sums_offset)
        with e.loop(0, blocks) as block:
            channel = e.mul(block, lanes)
            of_group = e.add(e.mul(place.group, blocks), block)
            sum_f = e.at(sums, e.mul(of_group, 4 * lanes))
            planes = e.at(region.partial, e.mul(channel, tile.partial_bytes))
            for active, here in e.partial(block, whole, g.outputs % lanes, lanes):
                if not active:
                    continue
                with here:
                    tail = Tail(self, e, inputs, place, channel)
                    channels = tail.channels(0, active, sum_f)
                    self._emit_tail_rows(e, tail, channels, planes, y, region, active)

    def _emit_tail_rows(
        self, e: Emitter, tail: Tail, channels: dict[int, Register], planes: Any, y: Any,
        region: Region, active: int,
    ) -> None:  # fmt: skip
        """All pixels of the strip that exist, for one vector of output channels."""
        g, tile, lanes, place = self.g, self.tile, self.lanes, tail.place
        rows = e.minimum(tile.strip_rows, e.sub(g.height, place.h))
        together = max(1, lanes // tile.pitch)  # rows in one vector
        with e.loop(0, rows, together) as row:
            for w in range(0, g.width, lanes):
                at = e.mul(e.add(e.mul(row, tile.pitch), w), 4)
                square = [
                    e.load(e.at(planes, e.add(at, t * tile.partial_bytes)), lanes=lanes)
                    for t in range(lanes)
                ]
                pixels = emit_transpose(e, square)
                for r in range(together):
                    mine = pixels[r * tile.pitch :][: min(g.width - w, lanes)]
                    below = e.add(row, r)
                    exists = e.always() if r == 0 else e.when(e.less(below, rows))
                    with exists:
                        spot = Place(place.group, 0, place.n, e.add(place.h, below), w)
                        window = e.add(at, 4 * r * tile.pitch)
                        self._emit_pixels(
                            e, tail.moved(spot), channels, mine, y, region, window, active
                        )

    def _emit_pixels(
        self, e: Emitter, tail: Tail, channels: dict[int, Register], pixels: list[Register], y: Any,
        region: Region, window: Index, active: int,
    ) -> None:  # fmt: skip
        """Neighbouring pixels of one output row."""
        g, place = self.g, tail.place
        out = e.dot((place.n, place.h, place.w), g.y)
        dtype = self.call.outputs[0].type.dtype  # a tail may end in a comparison or a cast
        channel = e.add(e.mul(place.group, g.outputs), tail.channel)
        out = e.add(out, e.mul(channel, dtype.itemsize))
        for c, pixel in enumerate(pixels):
            sum_x = e.at(region.windows, e.add(window, 4 * c))
            value = tail.apply(tail.result(pixel, channels, sum_x), channels, (0, c), 0, active)
            e.store(value, e.at(y, e.add(out, c * g.y[2])), dtype, active=active)
