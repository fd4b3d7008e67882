"""The loop nest over strided tensors that pointwise and movement kernels share.

    writes[k][i] = compute(reads[0][i], reads[1][i], ...)[k]      for every index i of a shape

Axes of size 1 are dropped and neighbours merged wherever all tensors allow it. The innermost axis
is walked in vectors if every tensor is contiguous (or constant) along it, its tail masked;
otherwise element by element. What is constant along the rows is loaded once for ROWS of them.
Threads split the rows, or the vectors where only one row is left; each element is computed by one
thread, from the elements of the same index, so the results depend on no split and a write may share
the buffer of an equally laid out read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from addergraph.ir.types import DType

from ..emit.builder import Emitter, Index, Register
from . import Operand
from .schedule import ceil_div

ROWS = 32  # rows that share what is constant along them

Compute = Callable[[list[Register], int], Sequence[Register]]


@dataclass(frozen=True)
class Access:
    """A tensor in a nest: its first element and the bytes between neighbours along each axis."""

    pointer: Any
    dtype: DType
    strides: tuple[int, ...]

    def moved(self, e: Emitter, position: Sequence[Index]) -> Any:
        """Pointer to the element at `position`."""
        return e.at(self.pointer, e.dot(position, self.strides))

    def load(self, e: Emitter, pointer: Any, lanes: int, active: int | None) -> Register:
        """The vector at `pointer`, of which `active` elements exist."""
        if self.strides[-1] == 0:
            return e.splat(e.load(pointer, self.dtype), lanes)
        return e.load(pointer, self.dtype, lanes, active)


def access(operand: Operand, pointer: Any, shape: Sequence[int]) -> Access:
    """`operand`, broadcast to `shape` by NumPy's rule."""
    steps = (0 if n == 1 else s for n, s in zip(operand.shape, operand.strides, strict=True))
    missing = len(shape) - len(operand.shape)
    return Access(pointer, operand.type.dtype, (*[0] * missing, *steps))


def merge_axes(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The fewest axes that walk all tensors alike: sizes, and the strides of each tensor."""
    sizes: list[int] = []
    columns: list[tuple[int, ...]] = []
    for axis, size in enumerate(shape):
        steps = tuple(s[axis] for s in strides)
        if size == 1:
            continue
        if sizes and columns[-1] == tuple(size * s for s in steps):
            sizes[-1] *= size
            columns[-1] = steps
            continue
        sizes.append(size)
        columns.append(steps)
    if not sizes:
        return (1,), [(0,)] * len(strides)
    return tuple(sizes), list(zip(*columns, strict=True))


def emit_nest(
    e: Emitter,
    shape: Sequence[int],
    reads: Sequence[Access],
    writes: Sequence[Access],
    compute: Compute,
) -> None:
    """Emits the nest. `compute(registers of the reads, lanes)` gives the registers to write."""
    if 0 in shape:
        return
    sizes, strides = merge_axes(shape, [a.strides for a in (*reads, *writes)])
    merged = [replace(a, strides=s) for a, s in zip((*reads, *writes), strides, strict=True)]
    ins, outs = merged[: len(reads)], merged[len(reads) :]
    in_vectors = all(a.strides[-1] in (0, a.dtype.itemsize) for a in ins)
    in_vectors = in_vectors and all(a.strides[-1] == a.dtype.itemsize for a in outs)
    lanes = e.lanes if in_vectors and sizes[-1] > 1 else 1
    if len(sizes) > 1:
        _Nest(e, ins, outs, compute, lanes).emit(sizes)
        return
    # One run of elements: its vectors are the rows.
    whole, rest = divmod(sizes[0], lanes)
    ins, outs = (
        [replace(a, strides=(a.strides[0] * lanes, *a.strides)) for a in s] for s in (ins, outs)
    )
    nest = _Nest(e, ins, outs, compute, lanes)
    if whole:
        nest.emit((whole, lanes))
    if rest:
        with e.loop(*e.share(1)):  # one thread, the last
            nest.vector((whole,), 1, 0, rest)


class _Nest:
    """A nest of at least a row axis and a run axis, with `lanes` elements of the run at a time."""

    def __init__(
        self,
        e: Emitter,
        reads: Sequence[Access],
        writes: Sequence[Access],
        compute: Compute,
        lanes: int,
    ) -> None:
        self.e, self.reads, self.writes, self.compute, self.lanes = e, reads, writes, compute, lanes
        self.constants = [None if any(a.strides) else self._load(a, a.pointer) for a in reads]

    def emit(self, sizes: Sequence[int]) -> None:
        """All elements of `sizes`: (..., rows, run)."""
        e, (*grid, rows, run) = self.e, sizes
        kept = any(a.strides[-1] and not a.strides[-2] for a in self.reads)
        chunk = min(rows, ROWS) if kept else 1
        chunks = ceil_div(rows, chunk)
        with e.loop(*e.share(math.prod(grid) * chunks)) as item:
            *outer, number = e.split(item, (*grid, chunks))
            first = e.mul(number, chunk)
            count = chunk if rows % chunk == 0 else e.minimum(chunk, e.sub(rows, first))
            rest = run % self.lanes
            if run > rest:
                with e.loop(0, run - rest, self.lanes) as start:
                    self.vector((*outer, first), count, start, self.lanes)
            if rest:
                self.vector((*outer, first), count, run - rest, rest)

    def vector(self, row: Sequence[Index], count: Index, start: Index, active: int) -> None:
        """`count` rows from `row` on, of each the vector at `start`, of which `active` exist."""
        e = self.e
        sources = [a.moved(e, (*row, start)) for a in self.reads]
        targets = [a.moved(e, (*row, start)) for a in self.writes]
        kept = [
            self._load(a, source, active) if constant is None and not a.strides[-2] else constant
            for a, source, constant in zip(self.reads, sources, self.constants, strict=True)
        ]
        with e.loop(0, count) as r:
            registers = [
                self._load(a, e.at(source, e.mul(r, a.strides[-2])), active)
                if known is None
                else known
                for a, source, known in zip(self.reads, sources, kept, strict=True)
            ]
            results = self.compute(registers, self.lanes)
            for a, target, result in zip(self.writes, targets, results, strict=True):
                e.store(result, e.at(target, e.mul(r, a.strides[-2])), a.dtype, active)

    def _load(self, a: Access, pointer: Any, active: int | None = None) -> Register:
        return a.load(self.e, pointer, self.lanes, active)
