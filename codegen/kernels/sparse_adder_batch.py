"""Sparse forward adder for batches: as `sparse_adder.py`, with lanes over samples.

With one sample in each lane every load is aligned, whatever the width, the stride and the dilation
are, and no lane is idle. One work item is a strip of output rows of `lanes` samples (fewer at the
end of the batch):

    for each group of channel blocks that fills a vector
        pixels   f32[k][row][column][lane]   the strip's input, transposed, padding included
        for each channel block, for each tile of up to `columns` pixels of a row
            partial[t][row][column][lane] += the lists of all filters
    then the partial sums go back, lanes x lanes at a time, through the tail.

Order, packed lists, sums and tail are those of `sparse_adder.py`, and so are the bits.
"""

from __future__ import annotations

from typing import Any

from addergraph.ir import Graph

from ..builder import Emitter, Index
from . import Call
from ._forward import Place, Tail
from ._geometry import CHANNEL_BLOCK
from ._sparse_batch_tile import BatchTile, batch_tile
from ._sparse_strips import FloatStripKernel, Rows
from ._sums import emit_tree
from ._transpose import transpose


class SparseBatchKernel(FloatStripKernel):
    """See the module's contract."""

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call, body)
        tile = batch_tile(self.target, self.g)
        assert tile is not None, "the caller asks `batch_tile` first"
        self._tile = tile

    @property
    def tile(self) -> BatchTile:
        return self._tile

    @property
    def name(self) -> str:
        tile = f"{self.tile.columns}x{self.lanes}x{self.tile.filters}"
        return f"{self.node_op.name}_sparse_batch_f32_{tile}{self.name_ending}"

    @property
    def samples_of_strip(self) -> int:
        return self.lanes

    def region(self, e: Emitter, base: Any) -> _Region:
        return _Region(e, self.tile, base)

    # -- partial sums ----------------------------------------------------------------------------

    def emit_strip(self, e: Emitter, place: Place, x: Any, packed: Any, region: _Region) -> None:
        g = self.g
        outputs = e.minimum(self.tile.strip_rows, e.sub(g.height, place.h))
        rows = e.add(e.mul(e.sub(outputs, 1), g.stride[0]), g.reach[0] + 1)
        self.emit_channels(e, place, x, packed, region, (rows, outputs))
        self._emit_windows(e, region, outputs)

    def emit_block(
        self, e: Emitter, place: Place, packed: Any, region: _Region, inside: Index, size: int,
        rows: Rows,
    ) -> None:  # fmt: skip
        tile, block = self.tile, place.block
        pixels = e.at(region.pixels, e.mul(inside, CHANNEL_BLOCK * tile.channel_bytes))
        self._emit_sums(e, pixels, region, block, size, rows[0])
        with e.loop(0, rows[1]) as row:
            source = e.at(pixels, e.mul(row, self.g.stride[0] * tile.row_bytes))
            partial = e.at(region.partial, e.mul(row, tile.output_row_bytes))
            self._emit_row(e, packed, place.group, block, source, partial)

    def _emit_row(
        self, e: Emitter, packed: Any, group: Index, block: Index, source: Any, partial: Any
    ) -> None:
        """The lists of all filters for one row of outputs."""
        tile, width, one = self.tile, self.g.width, 4 * self.lanes
        step = self.g.stride[1] * one
        whole = width - width % tile.columns
        with e.loop(0, whole, tile.columns) as w:
            at, into = e.at(source, e.mul(w, step)), e.at(partial, e.mul(w, one))
            self.emit_lists(e, packed, group, block, at, into, tile.columns, step)
        if width % tile.columns:
            at, into = e.at(source, whole * step), e.at(partial, whole * one)
            self.emit_lists(e, packed, group, block, at, into, width % tile.columns, step)

    # -- input side ------------------------------------------------------------------------------

    def emit_input(
        self, e: Emitter, place: Place, x: Any, region: _Region, number: Index, size: int,
        rows: Rows,
    ) -> None:  # fmt: skip
        """pixels[k][row][column][lane] of the strip."""
        g, tile, lanes = self.g, self.tile, self.lanes
        channel = e.add(e.mul(place.group, g.inputs), e.mul(number, tile.channels))
        top = e.sub(e.mul(place.h, g.stride[0]), g.pad[0])
        start = e.at(x, e.add(e.mul(top, g.x[1]), e.sub(e.mul(channel, 4), g.pad[1] * g.x[2])))
        with e.loop(0, rows[0]) as row, e.loop(0, tile.columns_read) as column:
            source = e.dot((row, column), g.x[1:])
            into = e.at(region.pixels, e.dot((row, column), (tile.row_bytes, 4 * lanes)))
            for k in range(0, size, lanes):
                here, count = e.at(start, e.add(source, 4 * k)), min(lanes, size - k)
                target = e.at(into, k * tile.channel_bytes)
                self._emit_square(e, here, target, place.n, count)

    def _emit_square(self, e: Emitter, source: Any, into: Any, n: Index, count: int) -> None:
        """`count` channels of one pixel of all samples; lanes without a sample become zeros."""
        g, lanes, step = self.g, self.lanes, self.tile.channel_bytes
        sample = e.at(source, e.mul(n, g.x[0]))
        rest = g.samples % lanes
        if g.samples >= lanes and not rest:
            transpose(e, sample, g.x[0], into, step, lanes, count)
            return
        with e.b.if_else(e.less(n, g.samples - rest)) as (whole, partial):
            with whole:
                transpose(e, sample, g.x[0], into, step, lanes, count)
            with partial:
                transpose(e, sample, g.x[0], into, step, rest, count)

    def _emit_sums(
        self, e: Emitter, pixels: Any, region: _Region, block: Index, size: int, rows: Index
    ) -> None:
        """sums[row][column][lane] += tree over the block's channels."""
        tile, lanes = self.tile, self.lanes
        zero = e.number(0.0, lanes)
        first = e.b.icmp_signed("==", e.index(block), e.index(0))
        with e.loop(0, e.mul(rows, tile.columns_read)) as at:
            here = e.at(pixels, e.mul(at, 4 * lanes))
            values = [e.load(e.at(here, k * tile.channel_bytes), lanes=lanes) for k in range(size)]
            total = e.at(region.sums, e.mul(at, 4 * lanes))
            before = e.choose(first, lambda: [zero], lambda: [e.load(total, lanes=lanes)])
            e.store(e.b.fadd(before[0], emit_tree(e, values)), total)

    def _emit_windows(self, e: Emitter, region: _Region, outputs: Index) -> None:
        """windows[row][column][lane] = the channel sums of its taps, in order."""
        g, tile, lanes = self.g, self.tile, self.lanes
        with e.loop(0, outputs) as row, e.loop(0, g.width) as w:
            first = e.dot((row, w), (g.stride[0] * tile.row_bytes, g.stride[1] * 4 * lanes))
            total = e.number(0.0, lanes)
            for i in range(g.kernel[0]):
                for j in range(g.kernel[1]):
                    tap = i * g.dilation[0] * tile.row_bytes + j * g.dilation[1] * 4 * lanes
                    total = e.b.fadd(
                        total, e.load(e.at(region.sums, e.add(first, tap)), lanes=lanes)
                    )
            into = e.dot((row, w), (tile.output_row_bytes, 4 * lanes))
            e.store(total, e.at(region.windows, into))

    # -- output side -----------------------------------------------------------------------------

    def emit_outputs(
        self, e: Emitter, tail: Tail, planes: Any, sum_f: Any, y: Any, region: _Region, active: int
    ) -> None:
        g, tile, place = self.g, self.tile, tail.place
        outputs = e.minimum(tile.strip_rows, e.sub(g.height, place.h))
        with e.loop(0, outputs) as row, e.loop(0, g.width) as w:
            spot = Place(place.group, 0, place.n, e.add(place.h, row), w)
            at = e.dot((row, w), (tile.output_row_bytes, 4 * self.lanes))
            self._emit_samples(e, tail.moved(spot), planes, sum_f, y, region, at, active)

    def _emit_samples(
        self, e: Emitter, tail: Tail, planes: Any, sum_f: Any, y: Any, region: _Region, at: Index,
        active: int,
    ) -> None:  # fmt: skip
        """One output pixel of every sample, for one vector of output channels."""
        g, lanes, place = self.g, self.lanes, tail.place
        square, step = region.square, self.tile.partial_bytes
        transpose(e, e.at(planes, at), step, square, 4 * lanes, lanes, lanes)
        dtype = self.call.outputs[0].type.dtype  # a tail may end in a comparison or a cast
        channel = e.add(e.mul(place.group, g.outputs), tail.channel)
        channels = tail.channels(0, active, sum_f)
        windows = e.at(region.windows, at)
        with e.loop(0, e.minimum(lanes, e.sub(g.samples, place.n))) as s:
            n = e.add(place.n, s)
            mine = tail.moved(Place(place.group, 0, n, place.h, place.w))
            sample = e.load(e.at(square, e.mul(s, 4 * lanes)), lanes=lanes)
            result = mine.result(sample, channels, e.at(windows, e.mul(s, 4)))
            value = mine.apply(result, channels, (0, 0), 0, active)
            out = e.add(e.dot((n, place.h, place.w), g.y), e.mul(channel, dtype.itemsize))
            e.store(value, e.at(y, out), dtype, active=active)


class _Region:
    """Pointers to the sections of one strip's scratch memory."""

    def __init__(self, e: Emitter, tile: BatchTile, base: Any) -> None:
        pixels, partial, windows, sums, _ = tile.sections
        self.pixels = base
        self.partial = e.at(base, pixels)
        self.windows = e.at(base, pixels + partial)
        self.sums = e.at(base, pixels + partial + windows)
        self.square = e.at(base, pixels + partial + windows + sums)
