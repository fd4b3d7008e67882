"""Sizes of the sparse kernel of bytes: patches, tile, channel block, scratch memory and cost.

The contract is in `sparse_u8.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from addergraph.ir.plan import align

from ...targets.target import Target
from ..forward.geometry import Geometry
from ..forward.terms import BYTES
from ..schedule import ceil_div
from ._f32_tile import spread
from ._patches import Patches, arrangements

TOGETHER = 16  # channels that are transposed at a time: the bytes of a part of a vector
TILE_SHARE = 2 / 3  # of L1: what all lists of a tile read should stay there
STRIP_SHARE = 0.78125  # of L2: scratch memory that a strip should not exceed
MOST_STRIP = 2  # times L2: what it does not exceed, unless a single row of tiles does
MOST_SUMMED = 257  # bytes whose sum fits 16 bits
ENTRY_BYTES = 6  # of a list, as a rule
MOST_PLACE = 65535  # a tap's place in the planes of a block, in vectors
MOST_WASTE = 1.2  # vectors of an arrangement, over the fewest of any: the others are not looked at
USUAL_SHARE = 0.5  # of the taps that are kept: for the tile, which may not depend on numbers

# Fitted on Zen 5. Loads of an entry beside one for each vector, and entries that fill up a list;
# cycles of a list beside its entries, alone and per vector of its sums; cache lines of such a
# vector, and of an entry, from beyond L2; shuffles in whose time a vector changes its layout, and
# cycles that it takes more to pass the tail.
ENTRY_LOADS, LIST_REST = 1.25, 3.0
LIST_COST, SUM_COST, FAR_SUM_LINES, FAR_LINES = 10.0, 4.0, 3.0, 0.25
SHUFFLES, TAIL_COST = 18.0, 13.0
# More for each lane beyond a share of L1's ways whose pixel meets the others' in one set.
CROWD_COST, WAYS_SHARE = 1.8, 2 / 3


@dataclass(frozen=True)
class BytesTile:
    """How one layer is cut.

    rows, columns   a register tile: pixels of a patch; whole rows of it if there are several
    strip_rows      rows of every patch in a strip, a whole number of tiles
    block           channels of one list; it divides TOGETHER
    """

    patches: Patches
    rows: int
    columns: int
    strip_rows: int
    block: int

    @property
    def g(self) -> Geometry:
        return self.patches.g

    @property
    def lanes(self) -> int:
        """Bytes of a vector."""
        return self.patches.lanes

    @property
    def vectors(self) -> int:
        """Pixels of a register tile, one vector each."""
        return self.rows * self.columns

    @property
    def row_bytes(self) -> int:
        """One row of a plane."""
        return self.patches.columns_read * self.lanes

    @property
    def rows_read(self) -> int:
        """Rows of a plane."""
        return self.patches.rows_read(self.strip_rows)

    @property
    def plane_bytes(self) -> int:
        return spread(self.rows_read * self.row_bytes)

    def tap_offset(self, i: int, j: int, k: int) -> int:
        """Bytes from a pixel in the first plane of a block to what its tap (i, j) of channel k
        reads."""
        (down, right), (row, column) = self.g.dilation, (self.row_bytes, self.lanes)
        return k * self.plane_bytes + i * down * row + j * right * column

    def pixel_offset(self, row: int, column: int) -> int:
        """Bytes from the first pixel of a plane to another."""
        down, right = self.g.stride
        return row * down * self.row_bytes + column * right * self.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.g.inputs, self.block)

    @property
    def pixels(self) -> int:
        """Vectors of one channel's results in a strip."""
        return self.strip_rows * self.patches.columns

    @property
    def pixel_bytes(self) -> int:
        """One channel of a strip's results."""
        return self.pixels * self.lanes

    @property
    def partial_bytes(self) -> int:
        """Sums of one filter at their end, i32."""
        return 4 * self.pixel_bytes

    @property
    def pair_bytes(self) -> int:
        """Sums of one filter on the way, two u16 for two pixels."""
        return 2 * self.pixel_bytes

    @property
    def result_channels(self) -> int:
        return ceil_div(self.g.outputs, TOGETHER) * TOGETHER

    @property
    def sections(self) -> dict[str, int]:
        """Bytes of each part of a strip's scratch memory, operands of the tail aside."""
        own = self.g.outputs if self.g.steps > MOST_SUMMED else 0  # filters with sums of their own
        return {
            "planes": align(min(TOGETHER, self.g.inputs) * self.plane_bytes),
            "sums": align(2 * self.plane_bytes),
            "windows": align(self.partial_bytes),
            "pairs": align(self.g.outputs * self.pair_bytes if self.blocks > 1 else 0),
            "partial": align((1 + own) * self.partial_bytes),
            "results": align(self.result_channels * self.pixel_bytes),
        }

    @property
    def scratch_bytes(self) -> int:
        return sum(self.sections.values())

    @property
    def items(self) -> int:
        """Strips of all patches and samples."""
        return self.patches.sample_groups * ceil_div(self.patches.rows, self.strip_rows)


@functools.lru_cache(maxsize=256)
def bytes_tile(target: Target, g: Geometry) -> BytesTile | None:
    """The tile for a layer, or None where this kernel does not serve it."""
    taps = g.kernel[0] * g.kernel[1]
    if g.term != BYTES or taps == 1 or taps > MOST_SUMMED:
        return None
    if target.lanes < 4 or target.pointer_bytes != 8:  # lists hold 64-bit indices
        return None
    if not (g.samples and g.height and g.width and g.inputs and g.outputs):
        return None
    most = (target.registers - 4) // 3
    # No sample is computed twice: see `emit_results`.
    dealt = [p for p in arrangements(g, 4 * target.lanes) if g.samples % p.samples == 0]
    least = min(p.vectors for p in dealt)
    tiles = [
        tile
        for patches in dealt
        if patches.vectors <= MOST_WASTE * least
        for tile in _tiles(target, patches, most)
        if tile.block * tile.plane_bytes <= MOST_PLACE * tile.lanes
    ]
    return min(tiles, key=lambda tile: cycles(target, tile, USUAL_SHARE), default=None)


def _tiles(target: Target, patches: Patches, most: int) -> Iterator[BytesTile]:
    """The tiles of up to `most` vectors."""
    shapes = [(1, c) for c in range(1, min(most, patches.columns) + 1) if patches.columns % c == 0]
    shapes += [(r, patches.columns) for r in range(2, most // patches.columns + 1)]
    for rows, columns in shapes:
        if rows > patches.rows:
            continue
        for strip_rows in range(rows, patches.rows + 1, rows):
            tile = _blocked(target, BytesTile(patches, rows, columns, strip_rows, 1))
            if tile.scratch_bytes > MOST_STRIP * target.machine.l2 and strip_rows > rows:
                break
            yield tile


def _blocked(target: Target, tile: BytesTile) -> BytesTile:
    """The tile with the largest block whose planes stay in L1 and whose sums fit 16 bits."""
    g = tile.g
    high = tile.patches.rows_read(tile.rows)
    wide = (tile.columns - 1) * g.stride[1] + g.reach[1] + 1
    planes = TILE_SHARE * target.machine.l1 / (high * wide * tile.lanes)
    most = min(MOST_SUMMED // (g.kernel[0] * g.kernel[1]), planes)
    return replace(tile, block=next((b for b in (16, 8, 4, 2) if b <= most), 1))


def cycles(target: Target, tile: BytesTile, kept: float) -> float:
    """What the layer takes with a share `kept` of its taps."""
    g, patches, machine, rates = tile.g, tile.patches, target.machine, target.rates
    strip = STRIP_SHARE * machine.l2
    lists = tile.blocks * g.outputs
    entries = kept * g.kernel[0] * g.kernel[1] * min(tile.block, g.inputs) + LIST_REST
    listed = g.groups * lists * entries * ENTRY_BYTES
    far = FAR_LINES * machine.l3_line
    far = far if listed + min(tile.scratch_bytes, strip) > machine.l2 else 0.0
    entry = max(
        (tile.vectors + ENTRY_LOADS) / (rates.listed * rates.loads), tile.vectors / rates.minima
    )
    sums = SUM_COST + (FAR_SUM_LINES * machine.l3_line if tile.scratch_bytes > strip else 0.0)
    walked = lists * (entries * (entry + far) + LIST_COST + sums * tile.vectors)
    tiles = tile.pixels // tile.vectors
    read, written = _crowd_costs(patches, WAYS_SHARE * machine.l1_ways)
    move = SHUFFLES / rates.shuffles
    moved = (move + read) * g.inputs * tile.rows_read * patches.columns_read
    moved += (TAIL_COST + move + written) * g.outputs * tile.pixels
    return g.groups * tile.items * (tiles * walked + moved)


@functools.lru_cache(maxsize=1024)
def _crowd_costs(patches: Patches, ways: float) -> tuple[float, float]:
    """What a vector of the input and of the output costs more, cycles."""
    offsets = patches.input_offsets(), patches.output_offsets(patches.g.y)
    read, written = (CROWD_COST * max(0, patches.crowded(one) - ways) for one in offsets)
    return read, written
