"""The choice of the sparse adder's tile, by the cycles that it is expected to take."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain

from addergraph.ir.taps import Taps

from ...emit.builder import LINE
from ...targets.target import Target
from ..forward.geometry import CHANNEL_BLOCK, Geometry
from ..forward.terms import MINIMUM
from ..schedule import ceil_div
from ._f32_lists import STEP_BYTES
from ._f32_tile import SparseTile, sampled
from ._patches import Patches, arrangements

LEAST_ITEMS = 4  # strips of a layer, where they cost little: threads share them
FEW_ITEMS = 1.06
L1_SHARE, L2_SHARE = 7 / 12, 0.8583  # of a cache: what stays there beside what passes through
WASTE = 1.15  # times the vectors of the arrangement with the fewest
MOST_CHANNELS = 64  # of a list
KIND_CHANNELS = 16  # of one whose kinds of taps are told apart: for all targets, as sums are of it
MOST_FILTERS = 6  # whose lists are walked together: each takes a pointer
SHORTLIST = 48  # register tiles whose strips are compared
HALF = 0.5  # of the taps are above zero in most layers
# Fitted to some 300 tiles on Zen 5 with vectors of 64 and 32 bytes; how those of 32 move, on Zen 3.
STEP = 1.2  # times what the machine's loads or terms allow for a step
STEP_COST, STEP_COST_64 = 0.1, 0.4  # cycles beside that, for each filter; of 64-byte vectors
MISS_LINES = 0.12  # for a term, where what a tile reads is twice what L1 holds
LIST_COST, SUM_COST = 10.0, 0.3  # cycles to begin and end: a group of lists, a vector of sums
FAR_STEP_LINES, FAR_SUM_LINES = 0.25, 1.75  # beside those: what comes from beyond L2
SHUFFLES, OUTPUT_COST = 2.5, 2.5  # of a vector that changes its layout; cycles more of outputs
SHUFFLES_64, OUTPUT_COST_64 = 4.0, 5.5
PAGE_COST = 0.8  # cycles more of one, for each doubling of the samples in a vector


def tells_kinds(g: Geometry, taps: Taps) -> bool:
    """Whether the sums of a layer of f32 minima add saturated taps behind the others. Its shape and
    its filter decide that, and nothing of the target. A filter of one channel has too few taps."""
    return g.term == MINIMUM and bool(taps.saturated) and (g.inputs, g.outputs) != (1, 1)


def sparse_tile(target: Target, g: Geometry, taps: Taps) -> SparseTile | None:
    """The tile for a layer whose filter has such taps; None where this kernel does not serve it."""
    if g.term != MINIMUM or 0 in (g.samples, g.height, g.width, g.inputs, g.outputs):
        return None
    if target.lanes == 1:  # lists are of vectors of outputs
        return None
    # Strides in memory do not matter.
    shape = _best(target, replace(g, x=(0, 0, 0), y=(0, 0, 0)), tells_kinds(g, taps))
    return replace(shape, patches=replace(shape.patches, g=sampled(g)))


def sparse_cycles(target: Target, tile: SparseTile, kept: float) -> float:
    """Cycles of a layer of which the share `kept` of the taps is above zero."""
    return _walking(target, tile, kept) + _moving(target, tile)


@lru_cache(maxsize=1024)
def _best(target: Target, g: Geometry, kinds: bool) -> SparseTile:
    found = list(arrangements(sampled(g), target.lanes))
    fewest = min(patches.vectors for patches in found)
    tiles = [
        tile
        for patches in found
        if patches.vectors <= WASTE * fewest
        for tile in _tiles(target, patches, kinds)
    ]
    tiles = heapq.nsmallest(SHORTLIST, tiles, key=lambda tile: _walking(target, tile, HALF))
    strips = chain.from_iterable(_strips(target, tile) for tile in tiles)
    return min(strips, key=lambda tile: _judged(target, tile))


def _tiles(target: Target, patches: Patches, kinds: bool) -> Iterator[SparseTile]:
    """Register tiles, each a strip of its own."""
    # LLVM wants four registers beside the sums, or it spills some.
    most = target.registers - 4 if target.max_tile is None else target.max_tile[0]
    widths = {ceil_div(patches.columns, n) for n in range(1, patches.columns + 1)}
    for columns in sorted(width for width in widths if width <= most):
        for rows in range(1, min(patches.rows, most // columns) + 1):
            together = min(most // (rows * columns), patches.g.outputs, MOST_FILTERS)
            for channels in (KIND_CHANNELS,) if kinds else _channels(patches.g):
                yield SparseTile(patches, rows, columns, rows, max(1, together), channels, kinds)


def _channels(g: Geometry) -> list[int]:
    """Of a list: few whole channel blocks."""
    sizes = [CHANNEL_BLOCK]
    while sizes[-1] < min(g.inputs, MOST_CHANNELS):
        sizes.append(2 * sizes[-1])
    return sizes


def _strips(target: Target, tile: SparseTile) -> Iterator[SparseTile]:
    """The tile with ever more rows in a strip, as long as the scratch memory stays in L2."""
    last = 0
    for count in range(1, tile.patches.rows // tile.rows + 1):
        longer = replace(tile, strip_rows=count * tile.rows)
        if count > 1 and longer.region_bytes > L2_SHARE * target.machine.l2:
            return
        if longer.strips != last:
            yield longer
        last = longer.strips


def _judged(target: Target, tile: SparseTile) -> float:
    few = tile.items < LEAST_ITEMS
    return sparse_cycles(target, tile, HALF) * (FEW_ITEMS if few else 1.0)


def _items(tile: SparseTile) -> int:
    return tile.g.groups * tile.items


def _walking(target: Target, tile: SparseTile, kept: float) -> float:
    """Walking all lists."""
    g, patches, machine = tile.g, tile.patches, target.machine
    size = min(tile.channels, g.inputs)
    steps = kept * math.prod(g.kernel) * size + tile.unroll / 2
    whole, rest = divmod(patches.columns, tile.columns)
    cycles = whole * _list_cycles(target, tile, steps, tile.columns)
    if rest:
        cycles += _list_cycles(target, tile, steps, rest)
    cycles *= tile.strip_rows // tile.rows
    lists = ceil_div(g.inputs, tile.channels) * ceil_div(g.outputs, tile.filters)
    if lists * steps * tile.filters * STEP_BYTES > L2_SHARE * machine.l2:
        cycles += FAR_STEP_LINES * machine.l3_line * steps * tile.filters
    return cycles * lists * _items(tile)


def _list_cycles(target: Target, tile: SparseTile, steps: float, columns: int) -> float:
    """The lists of one group of filters, for a tile of so many columns."""
    g, patches, machine, rates = tile.g, tile.patches, target.machine, target.rates
    read = patches.rows_read(tile.rows) * ((columns - 1) * g.stride[1] + g.reach[1] + 1)
    read *= tile.vector_bytes * min(tile.channels, g.inputs)
    sums = tile.rows * columns * tile.filters
    missed = max(0.0, read / (L1_SHARE * machine.l1) - 1) * MISS_LINES * machine.l2_line
    vectors = max(sums, rates.under_way)
    term, step = STEP / rates.terms, STEP_COST_64 if tile.vector_bytes == 64 else STEP_COST
    # Each term has a load, and each filter one more, a broadcast.
    if (vectors + tile.filters) / rates.loads >= vectors / rates.terms:
        term, step = STEP / rates.loads, STEP / rates.loads + step
    term += missed * tile.vector_bytes / LINE
    far = FAR_SUM_LINES * machine.l3_line if tile.region_bytes > L2_SHARE * machine.l2 else 0.0
    terms = steps * vectors * term
    return LIST_COST + (SUM_COST + far) * sums + steps * tile.filters * step + terms


def _moving(target: Target, tile: SparseTile) -> float:
    """Inputs and outputs between channels in the lanes and pixels in the lanes."""
    g, lanes = tile.g, tile.lanes
    read = tile.rows_read * tile.patches.columns_read * ceil_div(g.inputs, lanes)
    made = tile.strip_rows * tile.patches.columns * ceil_div(g.outputs, lanes)
    wide = tile.vector_bytes == 64
    shuffles, cost = (SHUFFLES_64, OUTPUT_COST_64) if wide else (SHUFFLES, OUTPUT_COST)
    move, pages = shuffles / target.rates.shuffles, PAGE_COST * math.log2(tile.patches.samples)
    moves = (move + pages) * read + (cost + move + pages) * made
    return _items(tile) * lanes * moves
