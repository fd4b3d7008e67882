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

The packed lists are described in `_sparse_lists.py`, strips in `_sparse_strips.py`."""

from __future__ import annotations

from typing import Any

from addergraph.ir import Graph

from ..builder import Emitter, Index, Register
from . import Call
from ._forward import Place, Tail
from ._geometry import CHANNEL_BLOCK
from ._sparse_input import Region, emit_copies, emit_plane_sums, emit_strip_windows
from ._sparse_strips import FloatStripKernel, Rows
from ._sparse_tile import SparseTile, sparse_tile
from ._transpose import transpose


class SparseAdderKernel(FloatStripKernel):
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
    def samples_of_strip(self) -> int:
        return 1

    def region(self, e: Emitter, base: Any) -> Region:
        return Region(e, self.tile, base)

    # -- emission --------------------------------------------------------------------------------

    def emit_strip(self, e: Emitter, place: Place, x: Any, packed: Any, region: Region) -> None:
        tile = self.tile
        # A strip at the bottom may be shorter than its scratch memory.
        rows = e.minimum(tile.plane_rows, e.sub(tile.input_rows, e.mul(place.h, tile.stride[0])))
        self.emit_channels(e, place, x, packed, region, (rows, tile.strip_rows))
        emit_strip_windows(e, self.g, tile, region, place.h)

    def emit_block(
        self, e: Emitter, place: Place, packed: Any, region: Region, inside: Index, size: int,
        rows: Rows,
    ) -> None:  # fmt: skip
        tile, block = self.tile, place.block
        planes = e.at(region.planes, e.mul(inside, CHANNEL_BLOCK * tile.plane_bytes))
        emit_plane_sums(e, tile, planes, region, block, size, rows[0])
        if tile.copied:
            emit_copies(e, self.g, tile, planes, region, size, rows[0])
        source = region.copies if tile.copied else planes
        with e.loop(0, tile.strip_rows // tile.rows) as at:
            pixels = e.mul(at, 4 * tile.vectors * self.lanes)
            here, partial = e.at(source, pixels), e.at(region.partial, pixels)
            self.emit_lists(
                e, packed, place.group, block, here, partial, tile.vectors, 4 * self.lanes
            )

    def emit_input(
        self, e: Emitter, place: Place, x: Any, region: Region, number: Index, size: int,
        rows: Rows,
    ) -> None:  # fmt: skip
        """planes[k][row][column] of the strip, `lanes` pixels by `lanes` channels at a time."""
        g, tile, lanes = self.g, self.tile, self.lanes
        top = e.sub(e.mul(place.h, g.stride[0]), g.pad[0])
        channel = e.add(e.mul(place.group, g.inputs), e.mul(number, tile.channels))
        start = e.add(e.dot((place.n, top), g.x[:2]), e.mul(channel, 4))
        start = e.at(x, e.sub(start, g.pad[1] * g.x[2]))
        step = tile.step[1] * g.x[2]
        full = tile.columns_read - tile.columns_read % lanes
        with e.loop(0, rows[0]) as row:
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

    def emit_outputs(
        self, e: Emitter, tail: Tail, planes: Any, sum_f: Any, y: Any, region: Region, active: int
    ) -> None:
        g, tile, lanes, place = self.g, self.tile, self.lanes, tail.place
        channels = tail.channels(0, active, sum_f)
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
