"""Sparse forward adder: the minimum form with only the taps above zero, for constant filters.

A term min(x, f+) with f <= 0 is +0.0 and its accumulator is never negative, so dropping it changes
no bit. Every filter walks its own list of (offset, value); lanes run over output pixels.

    acc[t][pixel] = sum over channel blocks, each over (i, j, k) in order, of min(x, f),  f > 0 only

The order, the sums of x and |f| and the tail are those of `contraction.py`, so both kernels give
the same bits and either may serve a layer. One work item is a strip of output rows of one sample:

    for each group of channel blocks that fills a vector
        planes   f32[k][row][column]           the strip's input, transposed, padding included
      for each channel block
        copies   f32[k][j][phase][row][pitch]  planes shifted by the column tap and, where the
                                               stride is 2, split by row and column phase: a tap's
                                               pixels are one aligned run, for all rows of a tile
        for each tile of `vectors` pixel vectors, for each group of `filters` filters
            partial[t][pixel] += its list
    then the partial sums are transposed back, in blocks of lanes x lanes, and go through the tail.

The packed lists are described in `_sparse_lists.py`.

Each of REGIONS strips in flight has scratch memory of its own; threads beyond REGIONS get no work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from addergraph.ir import Graph

from ..builder import Emitter, Index, Register
from ..schedule import ceil_div
from . import Call
from ._forward import Place, Tail
from ._geometry import CHANNEL_BLOCK
from ._sparse_input import Region, emit_copies, emit_plane_sums, emit_strip_windows
from ._sparse_lists import SparseKernel
from ._sparse_tile import SparseTile, sparse_tile
from ._transpose import transpose

REGIONS = 8


class SparseAdderKernel(SparseKernel):
    """See the module's contract."""

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call, body)
        tile = sparse_tile(self.target, self.g)
        assert tile is not None, "the caller asks `sparse_tile` first"
        self._tile = tile

    @property
    def tile(self) -> SparseTile:
        return self._tile

    # -- sizes -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        tile = f"{self.tile.vectors * self.lanes}x{self.tile.filters}"
        return f"{self.node_op.name}_sparse_f32_{tile}{self.name_ending}"

    @property
    def regions(self) -> int:
        return min(REGIONS, self.g.samples * self.tile.strips)

    @property
    def workspace(self) -> int:
        return self.regions * self.tile.region_bytes

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
        size = tile.channels
        whole = g.inputs // size
        with e.loop(0, whole) as number:
            self._emit_channels(e, place, (x, packed), region, number, size, rows)
        if g.inputs % size:
            self._emit_channels(e, place, (x, packed), region, whole, g.inputs % size, rows)
        emit_strip_windows(e, g, tile, region, place.h)

    def _emit_channels(
        self, e: Emitter, place: Place, pointers: tuple[Any, Any], region: Region,
        number: Index, size: int, rows: Index,
    ) -> None:  # fmt: skip
        """Planes, copies, sums and lists of `size` channels: whole channel blocks, or the last."""
        x, packed = pointers
        self._emit_planes(e, place, x, region, number, size, rows)
        first = e.mul(number, self.tile.channels // CHANNEL_BLOCK)
        whole = size // CHANNEL_BLOCK
        with e.loop(0, whole) as inside:
            at = place.in_block(e.add(first, inside))
            self._emit_block(e, at, packed, region, inside, CHANNEL_BLOCK, rows)
        if size % CHANNEL_BLOCK:
            at = place.in_block(e.add(first, whole))
            self._emit_block(e, at, packed, region, whole, size % CHANNEL_BLOCK, rows)

    def _emit_block(
        self, e: Emitter, place: Place, packed: Any, region: Region, inside: Index, size: int,
        rows: Index,
    ) -> None:  # fmt: skip
        """Sums, copies and lists of one channel block, number `inside` of those transposed."""
        tile, block = self.tile, place.block
        planes = e.at(region.planes, e.mul(inside, CHANNEL_BLOCK * tile.plane_bytes))
        emit_plane_sums(e, tile, planes, region, block, size, rows)
        if tile.copied:
            emit_copies(e, self.g, tile, planes, region, size, rows)
        source = region.copies if tile.copied else planes
        with e.loop(0, tile.strip_rows // tile.rows) as at:
            pixels = e.mul(at, 4 * tile.vectors * self.lanes)
            here, partial = e.at(source, pixels), e.at(region.partial, pixels)
            self.emit_lists(
                e, packed, place.group, block, here, partial, tile.vectors, 4 * self.lanes
            )

    def _emit_planes(
        self, e: Emitter, place: Place, x: Any, region: Region, number: Index, size: int,
        rows: Index,
    ) -> None:  # fmt: skip
        """planes[k][row][column] of the strip, `lanes` pixels by `lanes` channels at a time."""
        g, tile, lanes = self.g, self.tile, self.lanes
        top = e.sub(e.mul(place.h, g.stride[0]), g.pad[0])
        channel = e.add(e.mul(place.group, g.inputs), e.mul(number, tile.channels))
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
        """Up to lanes x lanes elements of the planes."""
        tile, step = self.tile, self.tile.step[1] * self.g.x[2]
        # A row may be shorter than a vector; the next one follows it at once.
        width = min(self.lanes, tile.plane_pitch)
        transpose(e, source, step, into, tile.plane_bytes, pixels, channels, width)

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
        with e.loop(0, rows, together) as row, e.loop(0, g.width, lanes) as w:
            at = e.mul(e.add(e.mul(row, tile.pitch), w), 4)
            source = e.at(planes, at)
            transpose(e, source, tile.partial_bytes, region.square, 4 * lanes, lanes, lanes)
            with e.loop(0, e.minimum(together, e.sub(rows, row))) as r:
                below = e.add(row, r)
                spot = Place(place.group, 0, place.n, e.add(place.h, below), w)
                first = e.mul(r, tile.pitch)
                square = e.at(region.square, e.mul(first, 4 * lanes))
                windows = e.at(region.windows, e.add(at, e.mul(first, 4)))
                count = e.minimum(e.sub(g.width, w), lanes)
                with e.loop(0, count) as c:
                    pixel = e.load(e.at(square, e.mul(c, 4 * lanes)), lanes=lanes)
                    window = e.at(windows, e.mul(c, 4))
                    moved = tail.moved(spot.at_column(e.add(w, c)))
                    self._emit_pixel(e, moved, channels, pixel, y, window, active)

    def _emit_pixel(
        self, e: Emitter, tail: Tail, channels: dict[int, Register], pixel: Register, y: Any,
        window: Any, active: int,
    ) -> None:  # fmt: skip
        g, place = self.g, tail.place
        dtype = self.call.outputs[0].type.dtype  # a tail may end in a comparison or a cast
        channel = e.add(e.mul(place.group, g.outputs), tail.channel)
        out = e.add(e.dot((place.n, place.h, place.w), g.y), e.mul(channel, dtype.itemsize))
        value = tail.apply(tail.result(pixel, channels, window), channels, (0, 0), 0, active)
        e.store(value, e.at(y, out), dtype, active=active)
