"""Sizes of the sparse kernel of bytes: tile, channel block and scratch memory, as plain data.

The contract is in `sparse_u8.py`, the choice of a tile in `_u8_choice.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from addergraph.ir.plan import align

from ..schedule import ceil_div
from ._cut import Cut

TOGETHER = 16  # channels that are transposed at a time: the bytes of a part of a vector
MOST_SUMMED = 257  # bytes whose sum fits 16 bits


@dataclass(frozen=True)
class BytesTile(Cut):
    """How one layer is cut. A register tile has whole rows of a patch if it has several.

    block         channels of one list; it divides TOGETHER
    result_bytes  of one result: 1, or 4 of an i32
    """

    block: int
    result_bytes: int = 1

    number_bytes = 1

    @property
    def vectors(self) -> int:
        """Pixels of a register tile, one vector each."""
        return self.rows * self.columns

    @property
    def blocks(self) -> int:
        return ceil_div(self.g.inputs, self.block)

    @property
    def busy_bytes(self) -> int:
        """Scratch memory of a strip whose filters have no saturated taps."""
        return self.region_bytes - self.sections["saturated"]

    @property
    def pairs(self) -> int:
        """Pairs of channels in a block; the last may lack its second."""
        return ceil_div(min(self.block, self.g.inputs), 2)

    def saturated_offset(self, i: int, j: int, pair: int, which: int) -> int:
        """`tap_offset` in "saturated" of a pair's first channel (0), its second (1) or both (2)."""
        return 2 * ((3 * pair + which) * self.plane_bytes + self.tap_offset(i, j, 0))

    @property
    def pixels(self) -> int:
        """Vectors of one channel's results in a strip."""
        return self.strip_rows * self.patches.columns

    @property
    def pixel_bytes(self) -> int:
        """One byte of one channel's results in a strip."""
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
        """Bytes of each part of a strip's scratch memory, operands of the tail aside:

        planes     u8[k][row][column][lane]            the input, one channel after the other
        saturated  u16[pair][3][row][column][2][...]   the first of each pair of channels, the
                                                       second, their sum: `all` and `odd`
        sums       u16[row][column][2][lane / 2]       their sums over a block, `all` and `odd`
        windows    i32[row][column][class][lane / 4]   the sums of the input over each window
        pairs      u16[filter][row][column][2][...]    the lists' sums on the way, `all` and `odd`
        partial    i32[1 + filter][row][column][class][...]    and at their end
        results    u8[channel][byte][row][column][lane]
        """
        own = self.g.outputs if self.g.steps > MOST_SUMMED else 0  # filters with sums of their own
        return {
            "planes": align(min(TOGETHER, self.g.inputs) * self.plane_bytes),
            "saturated": align(6 * self.pairs * self.plane_bytes),
            "sums": align(2 * self.plane_bytes),
            "windows": align(self.partial_bytes),
            "pairs": align(self.g.outputs * self.pair_bytes if self.blocks > 1 else 0),
            "partial": align((1 + own) * self.partial_bytes),
            "results": align(self.result_channels * self.result_bytes * self.pixel_bytes),
        }
