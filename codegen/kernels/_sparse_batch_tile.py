"""Sizes of the sparse adder kernel with lanes over samples: see `sparse_adder_batch.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from addergraph.plan import align

from ..schedule import ceil_div
from ..target import Target
from ._geometry import MINIMUM, Geometry
from ._sparse_tile import StripTile, most_vectors, spread

STRIP_BYTES = 512 * 1024  # of scratch memory that a strip should not exceed: it stays in L2
LEAST_STRIPS = 4  # of a batch, where the rows suffice: threads share them
LEAST_FILLED = 0.8  # of the lanes: with fewer samples, lanes over pixels waste less


@dataclass(frozen=True)
class BatchTile(StripTile):
    """How one layer is cut where lanes run over samples.

    columns, filters   a register tile: pixels of a row times filters
    """

    columns: int

    @property
    def columns_read(self) -> int:
        return self.g.read[1]

    @property
    def row_bytes(self) -> int:
        """One row of one channel."""
        return 4 * self.lanes * self.columns_read

    @property
    def rows_read(self) -> int:
        return (self.strip_rows - 1) * self.g.stride[0] + self.g.reach[0] + 1

    @property
    def channel_bytes(self) -> int:
        return spread(self.rows_read * self.row_bytes)

    @property
    def output_row_bytes(self) -> int:
        return 4 * self.lanes * self.g.width

    @property
    def partial_bytes(self) -> int:
        return spread(self.strip_rows * self.output_row_bytes)

    def tap_offset(self, i: int, j: int, k: int) -> int:
        row, column = i * self.g.dilation[0], j * self.g.dilation[1]
        return k * self.channel_bytes + row * self.row_bytes + 4 * self.lanes * column

    @property
    def sections(self) -> tuple[int, ...]:
        """Bytes of pixels, partial sums, window sums, channel sums and one square."""
        return (
            align(min(self.channels, self.g.inputs) * self.channel_bytes),
            align(self.partial_filters * self.partial_bytes),
            align(self.partial_bytes),
            align(self.channel_bytes),
            align(4 * self.lanes * self.lanes),
        )


def batch_tile(target: Target, g: Geometry) -> BatchTile | None:
    """The tile for a layer, or None where this kernel does not serve it."""
    if g.form != MINIMUM or not g.samples or not g.width:
        return None
    if g.samples < LEAST_FILLED * ceil_div(g.samples, target.lanes) * target.lanes:
        return None
    columns = ceil_div(g.width, ceil_div(g.width, most_vectors(target)))
    filters = max(1, min(target.registers // 2 // columns, g.outputs))
    best = BatchTile(g, target.lanes, filters, strip_rows=1, columns=columns)
    groups = ceil_div(g.samples, target.lanes)
    most = min(g.height, ceil_div(g.height * groups, LEAST_STRIPS))
    for rows in range(2, most + 1):
        tile = replace(best, strip_rows=rows)
        if tile.region_bytes > STRIP_BYTES:
            break
        best = tile
    return replace(best, strip_rows=ceil_div(max(1, g.height), best.strips))
