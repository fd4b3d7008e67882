"""What the loop nest of `dense.py` asks of a dtype: how the sums of a register tile are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from ...emit.builder import Emitter, Index, Register
from ...targets.target import Target
from ..schedule import Tile
from .geometry import Geometry
from .packing import DensePacking


class Steps(ABC):
    """The reduction of a register tile, on a filter packed for it.

    lanes          output channels in one register of results; a pixel has `tile.vectors` of them
    packing        of the filter
    unroll_budget  tile updates of one vector emitted in one straight line at most
    """

    lanes: int
    packing: DensePacking
    unroll_budget: ClassVar[int]

    def __init__(self, g: Geometry, target: Target, tile: Tile) -> None:
        self.g, self.target, self.tile = g, target, tile

    @classmethod
    @abstractmethod
    def choose_tile(cls, g: Geometry, target: Target) -> Tile:
        """The tile that the model of `schedule.py` expects to be the fastest."""

    @abstractmethod
    def emit(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, taps: tuple[Index, Index]
    ) -> list[Register]:
        """The sums of a tile, [pixel][vector].

        x         the first tap of the tile's first pixel
        offsets   bytes from there to that of each pixel
        filters   the packed block
        taps      first and last + 1 of the kernel rows to add up; of the others, all in the
                  padding, the sums are known
        """

    def unroll(self, pixels: int, run: int) -> int:
        """Steps in one loop body: enough to hide the loop, few enough that LLVM keeps their order.

        With several vectors a step has broadcasts in registers. LLVM would load those of many steps
        at once, and spill accumulators for it.
        """
        most = (
            self.target.several_steps
            if self.tile.vectors > 1
            else max(1, self.unroll_budget // pixels)
        )
        return min(run, most) if run else 1
