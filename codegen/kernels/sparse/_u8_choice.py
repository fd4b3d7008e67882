"""The choice of the tile of the sparse kernel of bytes, by the cycles that it should take."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from ...targets.target import Target
from ..forward.geometry import Geometry
from ..forward.terms import BYTES
from ._patches import Patches, arrangements
from ._u8_tile import MOST_SUMMED, BytesTile

TILE_SHARE = 2 / 3  # of L1: what all lists of a tile read should stay there
STRIP_SHARE = 0.78125  # of L2: scratch memory that a strip should not exceed
MOST_STRIP = 2  # times L2: what it does not exceed, unless a single row of tiles does
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
SATURATED_COST = 4.0  # cycles to make what saturated taps add, for a vector of the input
# More for each lane beyond a share of L1's ways whose pixel meets the others' in one set.
CROWD_COST, WAYS_SHARE = 1.8, 2 / 3


@functools.lru_cache(maxsize=256)
def bytes_tile(target: Target, g: Geometry, result_bytes: int) -> BytesTile | None:
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
        for tile in _tiles(target, patches, most, result_bytes)
        if 6 * tile.pairs * tile.plane_bytes <= MOST_PLACE * tile.lanes
    ]
    return min(tiles, key=lambda tile: cycles(target, tile, USUAL_SHARE), default=None)


def _tiles(target: Target, patches: Patches, most: int, result_bytes: int) -> Iterator[BytesTile]:
    """The tiles of up to `most` vectors."""
    shapes = [(1, c) for c in range(1, min(most, patches.columns) + 1) if patches.columns % c == 0]
    shapes += [(r, patches.columns) for r in range(2, most // patches.columns + 1)]
    for rows, columns in shapes:
        if rows > patches.rows:
            continue
        for strip_rows in range(rows, patches.rows + 1, rows):
            tile = _blocked(target, BytesTile(patches, rows, columns, strip_rows, 1, result_bytes))
            if tile.busy_bytes > MOST_STRIP * target.machine.l2 and strip_rows > rows:
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


def cycles(target: Target, tile: BytesTile, kept: float, saturated: float = 0.0) -> float:
    """What the layer takes, of whose taps these shares need minima and are saturated."""
    g, patches, machine, rates = tile.g, tile.patches, target.machine, target.rates
    strip = STRIP_SHARE * machine.l2
    lists = tile.blocks * g.outputs
    entries = kept * g.kernel[0] * g.kernel[1] * min(tile.block, g.inputs) + LIST_REST
    listed = g.groups * lists * entries * ENTRY_BYTES
    far = FAR_LINES * machine.l3_line
    far = far if listed + min(tile.busy_bytes, strip) > machine.l2 else 0.0
    entry = max(
        (tile.vectors + ENTRY_LOADS) / (rates.listed * rates.loads), tile.vectors / rates.minima
    )
    sums = SUM_COST + (FAR_SUM_LINES * machine.l3_line if tile.busy_bytes > strip else 0.0)
    pairs = (1 - (1 - saturated) ** 2) / 2 * g.kernel[0] * g.kernel[1] * min(tile.block, g.inputs)
    pair = max((2 * tile.vectors + 1) / (rates.listed * rates.loads), tile.vectors / rates.minima)
    walked = entries * (entry + far) + pairs * pair + LIST_COST + sums * tile.vectors
    walked *= lists
    tiles = tile.pixels // tile.vectors
    read, written = _crowd_costs(patches, WAYS_SHARE * machine.l1_ways)
    move = SHUFFLES / rates.shuffles
    moved = (move + read) * g.inputs * tile.rows_read * patches.columns_read
    if saturated:
        moved += SATURATED_COST * g.inputs * tile.rows_read * patches.columns_read
    ends = TAIL_COST + rates.listed_finish + (move + written) * tile.result_bytes
    moved += ends * g.outputs * tile.pixels
    return g.groups * tile.items * (tiles * walked + moved)


@functools.lru_cache(maxsize=1024)
def _crowd_costs(patches: Patches, ways: float) -> tuple[float, float]:
    """What a vector of the input and of the output costs more, cycles."""
    offsets = patches.input_offsets(), patches.output_offsets(patches.g.y)
    read, written = (CROWD_COST * max(0, patches.crowded(one) - ways) for one in offsets)
    return read, written
