"""Schedules: plain frozen data that says how a contraction is tiled, and the rules that choose it.

A register tile holds `rows x columns` output pixels times `vectors` vectors of output channels. The
choice reads only static sizes and the target's description; bits never depend on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..targets.target import Target

FILTER_COST = 3  # loads: a filter vector comes from L2, a broadcast from L1
BROADCAST_COST = 0.5  # of the two instructions of a term, where it is one of their kind
FEW_REGISTERS = 16  # with no more, LLVM spills accumulators unless one register is to spare
MOST_BYTE_PIXELS = 16  # more only make the code longer
ENOUGH = 8  # accumulators that hide the latency of adding
RUN_REGISTERS = 10  # of bytes, beside sums and filters of joined steps: LLVM spills with fewer
IN_ORDER_REGISTERS = 16  # of any terms, where a core works in order: more pixels, terms to come


@dataclass(frozen=True)
class Tile:
    """A register tile: output pixels (rows x columns) times vectors of channels."""

    rows: int
    columns: int
    vectors: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def accumulators(self) -> int:
        return self.pixels * self.vectors


DENSE, SPARSE, DEPTHWISE = "dense", "sparse", "depthwise"


@dataclass(frozen=True)
class Choice:
    """One of the kernels that serve a forward contraction.

    kind  DENSE, SPARSE or DEPTHWISE
    tile  of the dense kernel; None: the one that the cost model chooses
    """

    kind: str
    tile: Tile | None = None

    def __str__(self) -> str:
        tile = self.tile
        return f"{self.kind} {tile.rows}x{tile.columns}x{tile.vectors}" if tile else self.kind

    @classmethod
    def parse(cls, text: str) -> Choice:
        """The choice that is printed so. ValueError for anything else."""
        kinds = "|".join((DENSE, SPARSE, DEPTHWISE))
        found = re.fullmatch(rf"({kinds})(?: ([1-9]\d*)x([1-9]\d*)x([1-9]\d*))?", text)
        if found is None:
            raise ValueError(f'"{text}" is no choice of a kernel')
        kind, *sizes = found.groups()
        return cls(kind, Tile(*map(int, sizes)) if sizes[0] else None)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def steps_together(target: Target, vectors: int) -> int:
    """Steps of one register tile whose numbers of a pixel come by one instruction; 1: by one each.

    The filters of all of them are in registers. A core that executes instructions in order waits
    for few long loads rather than for many short ones.
    """
    if not target.broadcast_run:
        return 1
    if target.machine.in_order:
        return 4 if vectors == 2 else 2
    return 2 if vectors > 2 else 1


def contraction_tile(
    target: Target, height: int, width: int, channels: int, registers_per_pixel: int = 0,
    together: bool = False,
) -> Tile:  # fmt: skip
    """The tile for an output of height x width pixels and `channels` channels.

    One accumulator per (pixel, vector), `vectors` filter registers and one temporary must fit, and
    `registers_per_pixel` more for every (pixel, vector) that a kernel keeps an operand of. Each
    step of the reduction loads `vectors` filter vectors and broadcasts one number per pixel, so the
    tile is chosen for few loads per term, then for few wasted pixels at the edges. `together` says
    whether a kernel takes `steps_together`.
    """
    tiles = contraction_tiles(target, height, width, channels, registers_per_pixel, together)
    return min(tiles, key=lambda tile: _cost(tile, height, width, target))


def contraction_tiles(
    target: Target, height: int, width: int, channels: int, registers_per_pixel: int = 0,
    together: bool = False,
) -> list[Tile]:  # fmt: skip
    """The tiles to choose from: the widest for each number of vectors that divides the channels."""
    blocks = max(1, ceil_div(channels, target.lanes))
    tiles = []
    in_order = together and target.machine.in_order
    for vectors in (2 - blocks % 2,) if in_order else (1, 2, 3, 4):
        if blocks % vectors:
            continue
        many = steps_together(target, vectors) if together else 1
        free = _free(target, vectors)
        if many > 1:
            free = _free_beside(target, vectors * many, target.spare_registers)
        pixels = max(1, free // (vectors * (1 + registers_per_pixel)))
        tiles.append(_bounded(target, *_pixel_tile(height, width, pixels), vectors))
    return tiles


def _free(target: Target, vectors: int) -> int:
    """Registers for accumulators beside `vectors` of a filter, a broadcast and a temporary."""
    return target.registers - vectors - (2 if target.registers > FEW_REGISTERS else 3)


def _free_beside(target: Target, taps: int, spare: int) -> int:
    """Registers for sums beside `taps` of a filter, those of all steps taken together."""
    return target.registers - taps - (IN_ORDER_REGISTERS if target.machine.in_order else spare)


def _pixel_tile(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Rows and columns with at most `pixels` pixels: whole rows where they are short."""
    if width >= pixels:
        strips = ceil_div(width, pixels)
        return 1, ceil_div(width, strips)
    rows = max(1, min(height, pixels // max(1, width)))
    return ceil_div(max(1, height), ceil_div(max(1, height), rows)), max(1, width)


def _bounded(target: Target, rows: int, columns: int, vectors: int) -> Tile:
    if target.max_tile is None:
        return Tile(rows, columns, vectors)
    pixels, most = target.max_tile
    columns = min(columns, pixels)
    return Tile(max(1, min(rows, pixels // columns)), columns, vectors if vectors <= most else 1)


def _cost(tile: Tile, height: int, width: int, target: Target) -> float:
    """Issue slots for one image and one channel: arithmetic, loads, chains too short to hide."""
    slots, load_cost = 0.0, target.rates.load_cost
    broadcast_cost = BROADCAST_COST if target.broadcasts_compute else load_cost
    for rows, many in _parts(max(1, height), tile.rows):
        for columns, times in _parts(max(1, width), tile.columns):
            pixels = rows * columns
            loads = load_cost * FILTER_COST * tile.vectors + broadcast_cost * pixels
            busy = max(pixels * tile.vectors, ENOUGH) + loads
            slots += many * times * busy
    return slots / tile.vectors


def _parts(size: int, step: int) -> list[tuple[int, int]]:
    """(length, how many) of the pieces of at most `step` that make up `size`."""
    whole, rest = divmod(size, step)
    return [(step, whole), *([(rest, 1)] if rest else [])]


def byte_tile(
    target: Target, lanes: int, height: int, width: int, channels: int, together: bool = False
) -> Tile:
    """The tile for sums of distances of bytes, with `lanes` output channels in a vector.

    Where a broadcast takes a load and no arithmetic port, loads bind no longer once it serves two
    vectors; else it serves as many as there are registers for. A tile of ENOUGH accumulators is at
    the peak, so one row of pixels does where it has as many: at the edges of the image it leaves
    out more kernel rows.
    """
    blocks = max(1, ceil_div(channels, lanes))
    tried = [4, 3, 2, 1] if target.broadcasts_compute else [2, 3, 1]
    if target.machine.in_order:
        tried = [2, 1]
    whole = target.whole_sums  # then sums are numbers, `lanes` of which become a vector
    most = whole.numbers // lanes if whole else max(tried)
    vectors = next(v for v in tried if blocks % v == 0 and v <= most)
    many = steps_together(target, vectors) if together else 1
    room = most if whole else target.registers - vectors - target.spare_registers
    if many > 1:
        room = _free_beside(target, vectors * many, RUN_REGISTERS)
    pixels = max(1, min(MOST_BYTE_PIXELS, room // vectors))
    one_row = width * vectors >= ENOUGH
    return _bounded(target, *_pixel_tile(1 if one_row else height, width, pixels), vectors)


@dataclass(frozen=True)
class FilterTile:
    """A register tile of a filter gradient: `taps` (column tap, channel) rows times vectors."""

    taps: int
    vectors: int


def filter_tile(target: Target, run: int, channels: int) -> FilterTile:
    """The tile for `run` contiguous input elements times `channels` output channels.

    Two vectors share a broadcast; more of them would leave few taps and read more of g per term.
    """
    blocks = max(1, ceil_div(channels, target.lanes))
    vectors = next(v for v in (2, 3, 1) if blocks % v == 0)
    if target.max_tile is not None:
        vectors = vectors if vectors <= target.max_tile[1] else 1
    most = max(1, _free(target, vectors) // vectors)
    if target.max_tile is not None:
        most = min(most, target.max_tile[0])
    strips = ceil_div(max(1, run), most)
    return FilterTile(ceil_div(max(1, run), strips), vectors)


def adder_input_gradient_tile(target: Target, height: int, width: int, channels: int) -> Tile:
    """The tile for the input gradient of an adder layer, height x width pixels and `channels`.

    Every accumulator comes with a register of x. Where the clip is one instruction, multiply-adds
    have room for the broadcast; then one vector is best, whose filters stay in L1, and eight
    accumulators are enough for the latency.
    """
    if not target.least_magnitude:
        return contraction_tile(target, height, width, channels, 1)
    return _bounded(target, *_pixel_tile(height, width, 8), 1)
