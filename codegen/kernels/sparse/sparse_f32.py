"""Sparse forward adder: the minimum form with only the taps above zero, for constant filters.

A term min(x, f+) with f <= 0 is +0.0 and its accumulator is never negative, so dropping it changes
no bit. Every filter walks its own list of (offset, value); lanes run over patches of the image of
outputs, of several samples where a batch has them (`_patches.py`).

    acc[t][pixel] = sum over channel blocks, each over (i, j, k) in order, of min(x, f),  f > 0 only

The order, the sums of x and |f| and the tail are those of `dense.py`, so both kernels give
the same bits and either may serve a layer. One work item is a strip, some rows of every patch:

    for each group of channels
        planes   f32[k][row][column][lane]   what the strip reads, transposed, padding included
        for the channels of each list, for each tile of `rows` x `columns` pixels
            partial[t][row][column][lane] += the lists of all filters
    then the partial sums go back, lanes x lanes at a time, through the tail.

The packed lists are described in `_f32_lists.py`, strips in `_strips.py`.

Where the input has an upper bound c, a term with f >= c is x itself. If a good part of the taps is
so (`emit/lowered.py`), they are added behind the others, without a minimum:

    acc[t][pixel] = sum over each 16 channels of
                        (sum of min(x, f) where 0 < f < c, then sum of x where f >= c)

which rounds otherwise, within the same bound. Only this kernel computes that; whether it does is
decided by the filter, not by the target or the tile, so that the bits depend on neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from addergraph.ir import Graph

from ...emit.builder import Emitter, Index, Register
from .. import Call, Packing, taps_of
from ..cut import pieces
from ..forward.geometry import CHANNEL_BLOCK
from ..forward.tail import Place, Tail
from ..forward.window_sums import emit_tree
from ..schedule import ceil_div
from ..transpose import transpose, transposed_from
from ._cut import Region
from ._f32_choice import sparse_tile
from ._f32_lists import FloatLists
from ._f32_tile import SparseTile
from ._strips import Strip, StripKernel


class SparseAdderKernel(StripKernel):
    """See the module's contract. `tile` is the model's choice, or the caller's."""

    def __init__(
        self, call: Call, body: Graph | None = None, tile: SparseTile | None = None
    ) -> None:
        super().__init__(call, body)
        taps = taps_of(call, self.operands[1])
        chosen = sparse_tile(self.target, self.g, taps) if tile is None else tile
        assert chosen is not None, "the caller asks `sparse_tile` first"
        self._tile, self.lists = chosen, FloatLists(chosen, taps.top)

    @property
    def tile(self) -> SparseTile:
        return self._tile

    @property
    def name(self) -> str:
        tile = self.tile
        size = f"{tile.rows}x{tile.columns}x{self.lanes}x{tile.filters}"
        kind = "kinds" if tile.kinds else "sparse"
        return f"{self.node_op.name}_{kind}_f32_{size}{self.name_ending}"

    @property
    def packs(self) -> dict[int, Packing]:
        return {self.operands[1]: self.lists}

    def emit_item(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], y: Any, region: Region
    ) -> None:
        x, packed = (inputs[i] for i in self.operands[:2])
        size = self.tile.together
        whole, rest = divmod(self.g.inputs, size)
        with e.loop(0, whole) as number:
            self._emit_channels(e, strip, (x, packed), region, number, size)
        if rest:
            self._emit_channels(e, strip, (x, packed), region, whole, rest)
        self._emit_windows(e, region)
        self._emit_outputs(e, strip, inputs, e.at(packed, self.lists.sums_offset), y, region)

    # -- partial sums ----------------------------------------------------------------------------

    def _emit_channels(
        self, e: Emitter, strip: Strip, pointers: tuple[Any, Any], region: Region, number: Index,
        size: int,
    ) -> None:  # fmt: skip
        """Pixels, sums and lists of the channels that are transposed together, `size` of them."""
        tile, (x, packed) = self.tile, pointers
        self._emit_input(e, strip, x, region, number, size)
        for k in range(0, size, CHANNEL_BLOCK):
            block = e.add(e.mul(number, tile.together // CHANNEL_BLOCK), k // CHANNEL_BLOCK)
            pixels = e.at(region["planes"], k * tile.plane_bytes)
            self._emit_sums(e, pixels, region, block, min(CHANNEL_BLOCK, size - k))
        with e.loop(0, ceil_div(size, tile.channels)) as inside:
            part = e.add(e.mul(number, tile.together // tile.channels), inside)
            pixels = e.at(region["planes"], e.mul(inside, tile.channels * tile.plane_bytes))
            with e.loop(0, tile.strip_rows, tile.rows) as row:
                self._emit_row(e, packed, strip.group, part, pixels, region["partial"], row)

    def _emit_row(
        self, e: Emitter, packed: Any, group: Index, part: Index, pixels: Any, partial: Any,
        row: Index,
    ) -> None:  # fmt: skip
        """The lists of all filters for one row of tiles."""
        tile = self.tile
        source = e.at(pixels, e.mul(row, tile.pixel_offset(1, 0)))
        into = e.at(partial, e.mul(row, tile.output_row_bytes))
        for w, columns in pieces(e, tile.patches.columns, tile.columns):
            here = e.at(source, e.mul(w, tile.pixel_offset(0, 1)))
            there = e.at(into, e.mul(w, tile.vector_bytes))
            self.lists.emit(e, packed, group, part, here, there, tile.places(columns))

    # -- input side ------------------------------------------------------------------------------

    def _emit_input(
        self, e: Emitter, strip: Strip, x: Any, region: Region, number: Index, size: int
    ) -> None:
        """pixels[k][row][column][lane] of the strip."""
        g, tile, lanes = self.g, self.tile, self.lanes
        steps = tile.g.x  # bytes between the samples, rows and columns that are read
        channel = e.add(e.mul(strip.group, g.inputs), e.mul(number, tile.together))
        corner = e.sub(e.mul(channel, 4), g.pad[0] * g.x[1] + g.pad[1] * g.x[2])
        first = e.dot((strip.n, strip.h), (steps[0], tile.g.stride[0] * steps[1]))
        start, places = e.at(x, e.add(first, corner)), tile.patches.input_offsets()
        with (
            e.loop(0, tile.rows_read) as row,
            e.loop(0, tile.patches.columns_read) as column,
        ):
            source = e.at(start, e.dot((row, column), steps[1:]))
            into = e.at(region["planes"], e.dot((row, column), (tile.row_bytes, tile.vector_bytes)))
            for k in range(0, size, lanes):
                here, there = e.at(source, 4 * k), e.at(into, k * tile.plane_bytes)
                transpose(e, here, places, there, tile.plane_bytes, min(lanes, size - k))

    def _emit_sums(self, e: Emitter, pixels: Any, region: Region, block: Index, size: int) -> None:
        """sums[row][column][lane] += tree over the block's channels."""
        tile, lanes = self.tile, self.lanes
        zero = e.number(0.0, lanes)
        first = e.b.icmp_signed("==", e.index(block), e.index(0))
        with e.loop(0, tile.rows_read * tile.row_bytes, tile.vector_bytes) as at:
            here = e.at(pixels, at)
            values = [e.load(e.at(here, k * tile.plane_bytes), lanes=lanes) for k in range(size)]
            total = e.at(region["sums"], at)
            before = e.choose(first, lambda: [zero], lambda: [e.load(total, lanes=lanes)])
            e.store(e.b.fadd(before[0], emit_tree(e, values)), total)

    def _emit_windows(self, e: Emitter, region: Region) -> None:
        """windows[row][column][lane] = the channel sums of its taps, in order."""
        tile, lanes = self.tile, self.lanes
        steps = (tile.pixel_offset(1, 0), tile.pixel_offset(0, 1))
        with e.loop(0, tile.strip_rows) as row, e.loop(0, tile.patches.columns) as column:
            first = e.at(region["sums"], e.dot((row, column), steps))
            total = e.number(0.0, lanes)
            for i in range(self.g.kernel[0]):
                for j in range(self.g.kernel[1]):
                    tap = e.at(first, tile.tap_offset(i, j, 0))
                    total = e.b.fadd(total, e.load(tap, lanes=lanes))
            into = e.dot((row, column), (tile.output_row_bytes, tile.vector_bytes))
            e.store(total, e.at(region["windows"], into))

    # -- output side -----------------------------------------------------------------------------

    def _emit_outputs(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], sums: Any, y: Any, region: Region
    ) -> None:
        """Partial sums back to NHWC, through the tail."""
        g, lanes = self.g, self.lanes
        whole, rest = divmod(g.outputs, lanes)
        blocks = whole + bool(rest)
        corner = Place(strip.group, 0, strip.n, strip.h)
        with e.loop(0, blocks) as block:
            channel = e.mul(block, lanes)
            of_group = e.add(e.mul(strip.group, blocks), block)
            sum_f = e.at(sums, e.mul(of_group, 4 * lanes))
            partial = e.at(region["partial"], e.mul(channel, self.tile.partial_bytes))
            for active, here in e.partial(block, whole, rest, lanes):
                if not active:
                    continue
                with here:
                    tail = Tail(self, e, inputs, corner, channel)
                    self._emit_block(e, strip, tail, partial, sum_f, y, region, active)

    def _emit_block(
        self, e: Emitter, strip: Strip, tail: Tail, partial: Any, sum_f: Any, y: Any,
        region: Region, active: int,
    ) -> None:  # fmt: skip
        """The strip's outputs, for one vector of channels of which `active` exist."""
        channels = tail.channels(0, active, sum_f)
        rows, columns = (strip.written_rows, self.tile.strip_rows), (0, self.tile.patches.columns)
        with e.loop(*rows) as row, e.loop(*columns) as column:
            for sums, window, place in self._results(e, strip, (row, column), partial, region):
                self._emit_pixel(e, tail.moved(place), channels, sums, window, y, active)

    def _results(
        self, e: Emitter, strip: Strip, pixel: tuple[Index, Index], partial: Any, region: Region
    ) -> Iterator[tuple[Register, Any, Place]]:
        """Of each lane whose `pixel` is to be written: its sums, where its window's sum is, and its
        place. Where all are, they need no loop, and stay in registers."""
        lanes, size = self.lanes, 4 * self.lanes
        places = [t * self.tile.partial_bytes for t in range(lanes)]
        at = e.dot(pixel, (self.tile.output_row_bytes, self.tile.vector_bytes))
        source, windows = e.at(partial, at), e.at(region["windows"], at)
        if self.tile.patches.fit:
            rows = transposed_from(e, source, places, lanes)
            for lane, sums in enumerate(rows):
                yield sums, e.at(windows, 4 * lane), self.place_of(e, strip, lane, *pixel)
            return
        square = region["square"]
        transpose(e, source, places, square, size, lanes)
        with self.each_lane(e, strip, *pixel) as (lane, place):
            sums = e.load(e.at(square, e.mul(lane, size)), lanes=lanes)
            yield sums, e.at(windows, e.mul(lane, 4)), place

    def _emit_pixel(
        self, e: Emitter, tail: Tail, channels: dict[int, Register], sums: Register, window: Any,
        y: Any, active: int,
    ) -> None:  # fmt: skip
        g, place = self.g, tail.place
        dtype = self.call.outputs[0].type.dtype  # a tail may end in a comparison or a cast
        channel = e.add(e.mul(place.group, g.outputs), tail.channel)
        out = e.add(e.dot((place.n, place.h, place.w), g.y), e.mul(channel, dtype.itemsize))
        value = tail.apply(tail.result(sums, channels, window), channels, (0, 0), 0, active)
        e.store(value, e.at(y, out), dtype, active=active)
