"""Sizes of the sparse kernel of f32: tile, lists and scratch memory, as plain data.

The contract is in `sparse_f32.py`, the choice of a tile in `_f32_choice.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from addergraph.ir.plan import align

from ..forward.geometry import Geometry
from ..schedule import ceil_div
from ._cut import Cut, spread


@dataclass(frozen=True)
class SparseTile(Cut):
    """How one layer is cut. The last register tile of a row may have fewer columns.

    filters    whose lists are walked together: a register tile has so many times its pixels
    channels   input channels whose taps one list holds, whole channel blocks
    kinds      whether saturated taps stand at the end of each list. Then `channels` is part of the
               result's definition
    """

    filters: int
    channels: int
    kinds: bool = False

    number_bytes = 4

    @property
    def together(self) -> int:
        """Channels that are transposed together: those of whole lists that fill a vector."""
        return max(self.channels, self.lanes)

    @property
    def unroll(self) -> int:
        """Steps in one loop body: with more, LLVM would spill the sums of a large tile."""
        return 2 if self.rows * self.columns * self.filters > 14 else 4

    @property
    def output_row_bytes(self) -> int:
        return self.vector_bytes * self.patches.columns

    @property
    def partial_bytes(self) -> int:
        """Partial sums of one filter."""
        return spread(self.strip_rows * self.output_row_bytes)

    def places(self, columns: int) -> list[tuple[int, int]]:
        """Where each vector of a tile of so many columns stands: in the pixels, in partial sums."""
        return [
            (self.pixel_offset(r, c), r * self.output_row_bytes + c * self.vector_bytes)
            for r in range(self.rows)
            for c in range(columns)
        ]

    @property
    def sections(self) -> dict[str, int]:
        """Bytes of each part of a strip's scratch memory:

        planes     f32[k][row][column][lane]           the input of `together` channels
        partial    f32[filter][row][column][lane]      the lists' sums
        windows    f32[row][column][lane]              the sums of the input over each window
        sums       f32[row][column][lane]              those over the channels of each pixel
        square     f32[lane][lane]                     results on their way back
        """
        filters = max(
            ceil_div(self.g.outputs, self.filters) * self.filters,
            ceil_div(self.g.outputs, self.lanes) * self.lanes,
        )
        return {
            "planes": align(min(self.together, self.g.inputs) * self.plane_bytes),
            "partial": align(filters * self.partial_bytes),
            "windows": align(self.partial_bytes),
            "sums": align(self.plane_bytes),
            "square": align(4 * self.lanes * self.lanes),
        }


def sampled(g: Geometry) -> Geometry:
    """The same layer, stride 1 along the axes with one tap: rows and columns between are no input.

    Its input begins where the layer's own first window does.
    """
    (kh, kw), (sh, sw), (n, h, w) = g.kernel, g.stride, g.x
    rows, columns = sh if kh == 1 else 1, sw if kw == 1 else 1
    return replace(g, stride=(sh // rows, sw // columns), x=(n, rows * h, columns * w))
