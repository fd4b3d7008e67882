"""Sizes of the sparse adder kernel: tile, strip and scratch memory, as plain data.

The contract is in `sparse_f32.py`, the choice of a tile in `_sparse_choice.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from addergraph.ir.plan import ALIGNMENT, align

from ..forward.geometry import Geometry
from ..schedule import ceil_div
from ._patches import Patches


@dataclass(frozen=True)
class SparseTile:
    """How one layer is cut.

    rows, columns      a register tile: pixels of a patch, times `filters`; the last piece of a row
                       may have fewer columns
    channels           input channels whose taps one list holds, whole channel blocks
    strip_rows         rows of every patch in a work item, a whole number of tiles
    """

    patches: Patches
    rows: int
    columns: int
    filters: int
    channels: int
    strip_rows: int

    @property
    def g(self) -> Geometry:
        return self.patches.g

    @property
    def lanes(self) -> int:
        return self.patches.lanes

    @property
    def strips(self) -> int:
        """Strips of a patch."""
        return ceil_div(self.patches.rows, self.strip_rows)

    @property
    def together(self) -> int:
        """Channels that are transposed together: those of whole lists that fill a vector."""
        return max(self.channels, self.lanes)

    @property
    def unroll(self) -> int:
        """Steps in one loop body: with more, LLVM would spill the sums of a large tile."""
        return 2 if self.rows * self.columns * self.filters > 14 else 4

    @property
    def vector_bytes(self) -> int:
        """One pixel of every patch."""
        return 4 * self.lanes

    @property
    def rows_read(self) -> int:
        return self.patches.rows_read(self.strip_rows)

    @property
    def row_bytes(self) -> int:
        """One row of one channel."""
        return self.vector_bytes * self.patches.columns_read

    @property
    def channel_bytes(self) -> int:
        return spread(self.rows_read * self.row_bytes)

    @property
    def output_row_bytes(self) -> int:
        return self.vector_bytes * self.patches.columns

    @property
    def partial_bytes(self) -> int:
        """Partial sums of one filter."""
        return spread(self.strip_rows * self.output_row_bytes)

    def source_offset(self, row: int, column: int) -> int:
        """Bytes from the first pixel to what the first tap of output (row, column) reads."""
        (sh, sw), one = self.g.stride, self.vector_bytes
        return row * sh * self.row_bytes + column * sw * one

    def tap_offset(self, i: int, j: int, k: int) -> int:
        """Bytes from there to what tap (i, j) of channel k reads."""
        row, column = i * self.g.dilation[0], j * self.g.dilation[1]
        return k * self.channel_bytes + row * self.row_bytes + column * self.vector_bytes

    def places(self, columns: int) -> list[tuple[int, int]]:
        """Where each vector of a tile of so many columns stands: in the pixels, in partial sums."""
        return [
            (self.source_offset(r, c), r * self.output_row_bytes + c * self.vector_bytes)
            for r in range(self.rows)
            for c in range(columns)
        ]

    @property
    def sections(self) -> tuple[int, ...]:
        """Bytes of pixels, partial sums, window sums, channel sums and one square."""
        filters = max(
            ceil_div(self.g.outputs, self.filters) * self.filters,
            ceil_div(self.g.outputs, self.lanes) * self.lanes,
        )
        return (
            align(min(self.together, self.g.inputs) * self.channel_bytes),
            align(filters * self.partial_bytes),
            align(self.partial_bytes),
            align(self.channel_bytes),
            align(4 * self.lanes * self.lanes),
        )

    @property
    def region_bytes(self) -> int:
        return sum(self.sections)


def sampled(g: Geometry) -> Geometry:
    """The same layer, stride 1 along the axes with one tap: rows and columns between are no input.

    Its input begins where the layer's own first window does.
    """
    (kh, kw), (sh, sw), (n, h, w) = g.kernel, g.stride, g.x
    rows, columns = sh if kh == 1 else 1, sw if kw == 1 else 1
    return replace(g, stride=(sh // rows, sw // columns), x=(n, rows * h, columns * w))


def spread(nbytes: int) -> int:
    """Rounded up to an odd number of cache lines: neighbours fall into different cache sets."""
    return (align(nbytes) // ALIGNMENT | 1) * ALIGNMENT
