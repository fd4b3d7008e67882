"""Sizes of the sparse kernel of bytes: tile, bands, channel block and scratch memory, as data.

The contract is in `sparse_adder_u8.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from addergraph.plan import align

from ..schedule import ceil_div
from ..target import Target
from ._geometry import BYTES, Geometry
from ._sparse_tile import spread

TOGETHER = 16  # channels that are transposed at a time: the bytes of a part of a vector
LEAST_PITCH = 8
TILE_BYTES = 40 * 1024  # that all lists of a tile read: it should stay in L1
MOST_SUMMED = 257  # bytes whose sum fits 16 bits


@dataclass(frozen=True)
class BytesTile:
    """How one layer is cut.

    lanes          bytes of a vector
    pitch          columns from one band to the next in a vector, or of a whole row where it is
                   wider than a vector
    bands          pieces of a sample, of `band_rows` output rows, side by side in a vector
    samples        samples side by side in a vector
    rows           output rows of a strip: `vectors` vectors
    block          channels of one list; it divides TOGETHER
    """

    g: Geometry
    lanes: int
    pitch: int
    bands: int
    samples: int
    rows: int
    block: int

    @property
    def places(self) -> int:
        """Bands of all samples of a vector."""
        return self.bands * self.samples

    @property
    def row_vectors(self) -> int:
        return max(1, self.pitch // self.lanes)

    @property
    def row_bytes(self) -> int:
        return self.row_vectors * self.lanes

    @property
    def vectors(self) -> int:
        return self.rows * self.row_vectors

    @property
    def band_rows(self) -> int:
        return ceil_div(self.g.height, self.bands)

    @property
    def strips(self) -> int:
        return ceil_div(self.band_rows, self.rows)

    @property
    def plane_rows(self) -> int:
        return (self.rows - 1) * self.g.stride[0] + self.g.reach[0] + 1

    @property
    def input_rows(self) -> int:
        """Rows that the windows of a whole sample span."""
        return self.g.read[0]

    @property
    def plane_pitch(self) -> int:
        """Columns of a plane's row: whole vectors may be read from every tap on."""
        step = self.g.stride[1]
        most = self.row_vectors * self.lanes * step + self.g.reach[1]
        return ceil_div(max(most, self.g.read[1]), self.lanes) * self.lanes

    @property
    def band_bytes(self) -> int:
        """One band of a plane."""
        return self.plane_rows * self.plane_pitch

    @property
    def plane_bytes(self) -> int:
        return spread(self.places * self.band_bytes)

    @property
    def copies(self) -> int:
        """Copies of one channel: column taps times row phases."""
        return self.g.kernel[1] * self.g.stride[0]

    def copy_rows(self, phase: int) -> int:
        """Rows of the copies of a row phase."""
        return ceil_div(self.plane_rows - phase, self.g.stride[0])

    @property
    def copy_bytes(self) -> int:
        return spread(self.copy_rows(0) * self.row_bytes)

    def tap(self, i: int, j: int) -> tuple[int, int]:
        """Which copy the tap (i, j) reads, and from which of its bytes."""
        shift, phase = divmod(i * self.g.dilation[0], self.g.stride[0])
        return j * self.g.stride[0] + phase, shift * self.row_bytes

    def tap_offset(self, i: int, j: int, k: int) -> int:
        """Bytes from the copies of a block to the first pixel that a tap of its channel k reads."""
        copy, shift = self.tap(i, j)
        return (k * self.copies + copy) * self.copy_bytes + shift

    @property
    def blocks(self) -> int:
        return ceil_div(self.g.inputs, self.block)

    @property
    def pixel_bytes(self) -> int:
        """One channel of a strip's results."""
        return self.rows * self.row_bytes

    @property
    def partial_bytes(self) -> int:
        """Sums of one filter at their end, i32."""
        return 4 * self.pixel_bytes

    @property
    def pair_bytes(self) -> int:
        """Sums of one filter on the way, two u16 for a pixel."""
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
            "copies": align(self.block * self.copies * self.copy_bytes),
            "sums": align(2 * self.copies * self.copy_bytes),
            "windows": align(self.partial_bytes),
            "pairs": align(self.g.outputs * self.pair_bytes if self.blocks > 1 else 0),
            "partial": align((1 + own) * self.partial_bytes),
            "results": align(self.result_channels * self.pixel_bytes),
            "square": align(TOGETHER * self.lanes),
        }


def bytes_tile(target: Target, g: Geometry) -> BytesTile | None:
    """The tile for a layer, or None where this kernel does not serve it."""
    taps = g.kernel[0] * g.kernel[1]
    if g.form != BYTES or g.stride[1] > 2 or taps == 1 or taps > MOST_SUMMED:
        return None
    if target.lanes < 4 or target.pointer_bytes != 8:  # lists hold 64-bit indices
        return None
    if not (g.samples and g.height and g.width and g.inputs and g.outputs):
        return None
    lanes = 4 * target.lanes
    pitch = max(LEAST_PITCH, 1 << (g.width - 1).bit_length())
    pitch = pitch if pitch <= lanes else ceil_div(g.width, lanes) * lanes
    most = (target.registers - 4) // 3
    if pitch // lanes > most:
        return None
    places = max(1, lanes // pitch)
    options = []
    for samples in (1 << b for b in range(places.bit_length())):
        for rows in range(1, most // max(1, pitch // lanes) + 1):
            tile = BytesTile(g, lanes, pitch, places // samples, samples, rows, 1)
            options.append((_cost(tile), samples, rows, tile))
    return _blocked(min(options, key=lambda option: option[:3])[3])


def _cost(tile: BytesTile) -> float:
    """Loads for one tap: two more than vectors, of all strips."""
    samples = ceil_div(tile.g.samples, tile.samples)
    halo = 1 + 0.05 * tile.g.reach[0] / (tile.rows * tile.g.stride[0])  # rows that are read again
    return samples * tile.strips * (tile.vectors + 2) * halo


def _blocked(tile: BytesTile) -> BytesTile:
    """The tile with the largest block whose copies stay in L1 and whose sums fit 16 bits."""
    taps = tile.g.kernel[0] * tile.g.kernel[1]
    most = min(MOST_SUMMED // taps, TILE_BYTES // (tile.copies * tile.copy_bytes))
    block = next((b for b in (16, 8, 4, 2) if b <= most), 1)
    return replace(tile, block=block)
