"""Sizes of the sparse adder kernels: tile, strip and scratch memory, as plain data.

The contract is in `sparse_adder.py`; `_sparse_batch_tile.py` has the tile of batches.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from addergraph.plan import ALIGNMENT, align

from ..schedule import ceil_div
from ..target import Target
from ._geometry import CHANNEL_BLOCK, MINIMUM, Geometry

TILE_BYTES = 32 * 1024  # that all lists of a tile read: it should stay in L1
STRIP_BYTES = 160 * 1024  # of scratch memory that a strip should not exceed: it stays in L2


def most_vectors(target: Target) -> int:
    """Accumulators of one list that leave LLVM the registers it wants: more would be spilled."""
    return min(16, target.registers - 4)


@dataclass(frozen=True)
class StripTile(ABC):
    """How one layer is cut for a kernel over lists of f32 taps, whatever its lanes run over.

    filters            whose lists are walked together
    strip_rows         output rows of a work item; the last may have fewer
    """

    g: Geometry
    lanes: int
    filters: int
    strip_rows: int

    @property
    def strips(self) -> int:
        """Strips of one sample."""
        return ceil_div(self.g.height, self.strip_rows)

    @property
    def channels(self) -> int:
        """Channels that are transposed together: whole channel blocks that fill a vector."""
        return max(CHANNEL_BLOCK, self.lanes)

    @property
    def partial_filters(self) -> int:
        """Filters with room for partial sums: the last lists and the last vector are whole."""
        return max(ceil_div(self.g.outputs, n) * n for n in (self.filters, self.lanes))

    @property
    @abstractmethod
    def partial_bytes(self) -> int:
        """Partial sums of one filter."""

    @abstractmethod
    def tap_offset(self, i: int, j: int, k: int) -> int:
        """Bytes from an output's place in channel 0 to what tap (i, j) of channel k reads."""

    @property
    @abstractmethod
    def sections(self) -> tuple[int, ...]:
        """Bytes of each part of a strip's scratch memory."""

    @property
    def region_bytes(self) -> int:
        """Scratch memory of a strip."""
        return sum(self.sections)


@dataclass(frozen=True)
class SparseTile(StripTile):
    """How one layer is cut where lanes run over pixels.

    vectors, filters   a register tile: pixel vectors times filters
    rows, pitch        output rows of a tile, and pixels from one of them to the next
    strip_rows         a whole number of tiles
    """

    vectors: int
    rows: int
    pitch: int

    @property
    def copied(self) -> bool:
        """Whether taps read shifted copies; a single tap reads the planes themselves."""
        return self.g.kernel != (1, 1)

    @property
    def step(self) -> tuple[int, int]:
        """Input rows and columns between neighbours of a plane: a single tap skips the others."""
        return (1, 1) if self.copied else self.g.stride

    @property
    def stride(self) -> tuple[int, int]:
        """Plane rows and columns between neighbouring outputs."""
        return self.g.stride if self.copied else (1, 1)

    def rows_read(self, outputs: int) -> int:
        """Plane rows that `outputs` output rows read."""
        return (outputs - 1) * self.stride[0] + self.g.reach[0] + 1

    @property
    def input_rows(self) -> int:
        """Plane rows that the whole image has."""
        return self.rows_read(self.g.height)

    @property
    def plane_rows(self) -> int:
        return self.rows_read(self.strip_rows)

    @property
    def columns_read(self) -> int:
        return (self.g.width - 1) * self.stride[1] + self.g.reach[1] + 1

    @property
    def plane_pitch(self) -> int:
        """Columns of a plane: whole vectors may be read up to the last pixel of a row of a tile."""
        if not self.copied:
            return self.pitch
        most = self.pitch * self.stride[1] + self.g.reach[1] + self.lanes * (self.stride[1] - 1)
        return ceil_div(max(most, self.columns_read), self.lanes) * self.lanes

    @property
    def plane_bytes(self) -> int:
        return spread(4 * self.plane_rows * self.plane_pitch)

    @property
    def copy_rows(self) -> int:
        return self.strip_rows + self.g.reach[0] // self.stride[0]

    @property
    def copy_bytes(self) -> int:
        return spread(4 * self.copy_rows * self.pitch)

    @property
    def copies(self) -> int:
        """Copies of one channel: column taps times row phases."""
        return self.g.kernel[1] * self.stride[0] if self.copied else 0

    def tap_offset(self, i: int, j: int, k: int) -> int:
        """Bytes from a tile's first pixel in copy 0 of channel 0 to the pixel that a tap reads."""
        if not self.copied:
            return k * self.plane_bytes
        shift, phase = divmod(i * self.g.dilation[0], self.stride[0])
        number = k * self.copies + j * self.stride[0] + phase
        return number * self.copy_bytes + 4 * shift * self.pitch

    @property
    def partial_bytes(self) -> int:
        return spread(4 * self.strip_rows * self.pitch)

    @property
    def sections(self) -> tuple[int, ...]:
        """Bytes of planes, copies, partial sums, window sums, channel sums and one square."""
        return (
            align(min(self.channels, self.g.inputs) * self.plane_bytes),
            align(CHANNEL_BLOCK * self.copies * self.copy_bytes),
            align(self.partial_filters * self.partial_bytes),
            align(self.partial_bytes),
            align(self.plane_bytes),
            align(4 * self.lanes * self.lanes),
        )


def sparse_tile(target: Target, g: Geometry) -> SparseTile | None:
    """The tile for a layer, or None where this kernel does not serve it."""
    if g.form != MINIMUM or g.stride[1] > 2 or not g.width:
        return None
    lanes = target.lanes
    pitch = ceil_div(g.width, lanes) * lanes if g.width >= lanes else _power_of_two(g.width)
    unit = math.lcm(pitch, lanes) // pitch  # rows that fill whole vectors
    most = most_vectors(target)
    if unit * pitch // lanes > most + 2:
        return None
    options = []
    for rows in range(unit, unit * (most + 2) + 1, unit):
        vectors = rows * pitch // lanes
        if vectors > max(most, unit * pitch // lanes):
            break
        filters = max(1, min(target.registers // 2 // vectors, g.outputs))
        tile = SparseTile(g, lanes, filters, rows, vectors=vectors, rows=rows, pitch=pitch)
        options.append((_tile_cost(tile), rows, tile))
    best = min(options)[2]
    for count in range(2, ceil_div(g.height, best.rows) + 1):
        tile = replace(best, strip_rows=best.rows * count)
        if tile.region_bytes > STRIP_BYTES:
            break
        best = tile
    return best


def _tile_cost(tile: SparseTile) -> float:
    """Loads per useful term: rows below the image, the step's own load, misses of L1."""
    waste = ceil_div(tile.g.height, tile.rows) * tile.rows / tile.g.height
    rows = tile.rows + tile.g.reach[0] // tile.stride[0]
    read = 4 * CHANNEL_BLOCK * max(1, tile.copies) * rows * tile.pitch
    miss = max(0.0, read / TILE_BYTES - 1)
    short = max(1.0, 8 / (tile.vectors * tile.filters))  # too few sums to hide the latency of one
    return waste * (1 + 1 / tile.vectors) * (1 + miss) * short


def spread(nbytes: int) -> int:
    """Rounded up to an odd number of cache lines: neighbours fall into different cache sets."""
    return (align(nbytes) // ALIGNMENT | 1) * ALIGNMENT


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
