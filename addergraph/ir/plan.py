"""Plain frozen results of analyses, which the compiler hands from passes to code generation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .op import Halo
from .types import TensorType

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
CONFLICTING = 512  # bytes: pixels a multiple of it apart meet in few sets of a 64-set L1 cache


def align(nbytes: int) -> int:
    """`nbytes` rounded up to ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Layout:
    """Where the elements of one tensor stand in its buffer: row-major, NHWC rows inside a halo.

    gap      unused elements after the channels of each pixel
    strides  elements between neighbours along each axis
    origin   elements before element (0, ..., 0): the halo above and to the left
    extent   elements of the whole buffer, halo and gaps included
    """

    shape: tuple[int, ...]
    halo: Halo = Halo()
    gap: int = 0

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape with the halo around it and the gap behind the channels."""
        if self.dense:
            return self.shape
        n, h, w, c = self.shape
        return (
            n,
            h + self.halo.top + self.halo.bottom,
            w + self.halo.left + self.halo.right,
            c + self.gap,
        )

    @property
    def strides(self) -> tuple[int, ...]:
        padded = self.padded
        return tuple(math.prod(padded[axis + 1 :]) for axis in range(len(padded)))

    @property
    def origin(self) -> int:
        if self.halo == Halo():
            return 0
        return self.halo.top * self.strides[1] + self.halo.left * self.strides[2]

    @property
    def extent(self) -> int:
        return math.prod(self.padded)

    @property
    def dense(self) -> bool:
        return self.halo == Halo() and not self.gap

    def nbytes(self, type: TensorType) -> int:
        return self.extent * type.dtype.itemsize


def layout_with_halo(type: TensorType, halo: Halo) -> Layout:
    """The layout of a buffer that windows read.

    Where its pixels would fall on few sets of the L1 cache, a cache line after each of them spreads
    them: a window reads the same few channels of many pixels.
    """
    if halo == Halo() or type.sizes[-1] * type.dtype.itemsize % CONFLICTING:
        return Layout(type.sizes, halo)
    return Layout(type.sizes, halo, ALIGNMENT // type.dtype.itemsize)


Space = Literal["input", "output", "weights", "arena"]


@dataclass(frozen=True)
class Placement:
    """A buffer: input or output number `index`, or `offset` bytes into the weights or the arena."""

    space: Space
    layout: Layout
    index: int = 0
    offset: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """Where every value of a bound graph lives.

    placements  value name -> its buffer
    staged      (node name, operand) -> an arena copy with the halo that this operand needs,
                where the value's own buffer cannot have one (graph inputs, parameters)
    copies      (value name, parameter name): updates that the entry copies at the end of a
                call; the values of all other updates are computed in the parameter's place
    workspaces  node name -> byte offset of its kernel's scratch memory in the arena
    arena_bytes total; lower_bound_bytes: the most that is live at any one node
    """

    placements: Mapping[str, Placement]
    staged: Mapping[tuple[str, int], Placement] = field(default_factory=dict)
    workspaces: Mapping[str, int] = field(default_factory=dict)
    copies: tuple[tuple[str, str], ...] = ()
    arena_bytes: int = 0
    lower_bound_bytes: int = 0
