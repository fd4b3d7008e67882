"""How the sparse kernels cut a layer: register tiles in strips in patches, and scratch memory.

A strip is some rows of every patch of a vector (`_patches.py`): one work item. The input of a strip
lies in scratch memory as planes, [channel][row][column][lane], padding included, so that each tap
of a pixel is one aligned vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from addergraph.ir.plan import ALIGNMENT, align

from ...emit.builder import Emitter
from ..forward.geometry import Geometry
from ..schedule import ceil_div
from ._patches import Patches


@dataclass(frozen=True)
class Cut(ABC):
    """How one layer is cut.

    rows, columns   a register tile: pixels of a patch
    strip_rows      rows of every patch in a strip: whole tiles, no more than a patch has
    """

    patches: Patches
    rows: int
    columns: int
    strip_rows: int

    number_bytes: ClassVar[int]  # of one number of the input

    @property
    @abstractmethod
    def sections(self) -> dict[str, int]:
        """Bytes of each part of a strip's scratch memory."""

    @property
    def region_bytes(self) -> int:
        """Scratch memory of a strip."""
        return sum(self.sections.values())

    @property
    def g(self) -> Geometry:
        return self.patches.g

    @property
    def lanes(self) -> int:
        """Pixels of a vector, one of each patch."""
        return self.patches.lanes

    @property
    def strips(self) -> int:
        """Strips of a patch."""
        return ceil_div(self.patches.rows, self.strip_rows)

    @property
    def items(self) -> int:
        """Strips of all patches and samples."""
        return self.patches.sample_groups * self.strips

    @property
    def vector_bytes(self) -> int:
        """One pixel of every patch."""
        return self.number_bytes * self.lanes

    @property
    def rows_read(self) -> int:
        """Rows of a plane."""
        return self.patches.rows_read(self.strip_rows)

    @property
    def row_bytes(self) -> int:
        """One row of a plane."""
        return self.vector_bytes * self.patches.columns_read

    @property
    def plane_bytes(self) -> int:
        return spread(self.rows_read * self.row_bytes)

    def pixel_offset(self, row: int, column: int) -> int:
        """Bytes from what the first tap of a strip's first output reads to what that of output
        (row, column) does."""
        down, right = self.g.stride
        return row * down * self.row_bytes + column * right * self.vector_bytes

    def tap_offset(self, i: int, j: int, k: int) -> int:
        """Bytes from what the first tap of an output reads to what its tap (i, j) of channel k
        does."""
        down, right = self.g.dilation
        return k * self.plane_bytes + i * down * self.row_bytes + j * right * self.vector_bytes


class Region:
    """Pointers to the sections of a strip's scratch memory, which begins at `base`."""

    def __init__(self, e: Emitter, base: Any, sections: Mapping[Any, int]) -> None:
        self._places, at = {}, 0
        for name, size in sections.items():
            self._places[name] = e.at(base, at)
            at += size

    def __getitem__(self, name: Any) -> Any:
        return self._places[name]


def spread(nbytes: int) -> int:
    """Rounded up to an odd number of cache lines: neighbours fall into different cache sets."""
    return (align(nbytes) // ALIGNMENT | 1) * ALIGNMENT
