"""The fold that all reductions share.

    Y[kept] = finish( fold over the other axes of term(X[...]) )

The order of the fold follows from the shape (and the lanes of the target), never from threads or
halos:

* Axes of size 1 are left out. If the last axis stays, lanes run over it and the rows (all axes that
  go, flattened) follow in order. If it goes, lanes run along it and a fixed tree ends the fold.
* Where fewer than FEW results are wanted, the rows are cut into chunks. Each chunk leaves a partial
  in the workspace; behind a barrier the partials are combined in order. Threads split chunks and
  results.

Tails are masked. Results may have halos and do not share memory with operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir

from addergraph.ir.types import DType

from ...emit.builder import I32, Emitter, Index, Register, constant, element_type, vector
from .._nest import Access, merge_axes
from ..schedule import ceil_div

FEW = 16  # results: with more, threads have enough to share without chunks
CHUNK_ROWS = 256  # of a chunk, where lanes run over results
CHUNK_ELEMENTS = 4096  # of a chunk, where lanes run along what is folded
GROUP = 4  # vectors of results that pass over the rows together


# -- how a reduction is cut ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Columns `start` to `start + run` of `pieces` stretches of every row, in chunks of rows."""

    start: int
    pieces: int
    run: int
    rows: int
    chunk: int

    @property
    def chunks(self) -> int:
        return ceil_div(self.rows, self.chunk)


class Cut:
    """A reduction of `shape` over `axes`: what stays, what goes, and the chunks of it."""

    def __init__(self, shape: Sequence[int], axes: Sequence[int]) -> None:
        long = [axis for axis, size in enumerate(shape) if size != 1]
        self.inner = long.pop() if long else None
        self.run = 1 if self.inner is None else shape[self.inner]
        self.across = self.inner not in axes  # lanes run over results
        self.kept = [axis for axis in long if axis not in axes]
        self.gone = [axis for axis in long if axis in axes]
        self.kept_sizes = tuple(shape[axis] for axis in self.kept)
        self.gone_sizes = tuple(shape[axis] for axis in self.gone)
        self.results = math.prod(self.kept_sizes)  # vectors or numbers, by `across`
        self.parts = self._parts(math.prod(self.gone_sizes))
        self.chunks = sum(p.chunks for p in self.parts)

    def _parts(self, rows: int) -> list[_Part]:
        run, few = self.run, self.results < FEW
        if self.across:
            return [_Part(0, 1, run, rows, CHUNK_ROWS if few else rows)]
        if run <= CHUNK_ELEMENTS or not few:
            return [_Part(0, 1, run, rows, max(1, CHUNK_ELEMENTS // run) if few else rows)]
        pieces, rest = divmod(run, CHUNK_ELEMENTS)
        parts = [_Part(0, pieces, CHUNK_ELEMENTS, rows * pieces, 1)]
        tail = _Part(run - rest, 1, rest, rows, max(1, CHUNK_ELEMENTS // rest) if rest else 1)
        return [*parts, tail] if rest else parts

    def columns(self, lanes: int) -> int:
        """Elements that a partial takes for each result."""
        return ceil_div(self.run, lanes) * lanes if self.across else 1

    def workspace(self, lanes: int, dtype: DType) -> int:
        """Bytes of partials."""
        if self.chunks <= 1:
            return 0
        return self.results * self.chunks * self.columns(lanes) * dtype.itemsize


# -- the fold ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """`term` of the elements read, combined from `start` on, in registers of `dtype`."""

    dtype: DType
    start: float
    term: Callable[[Emitter, list[Register]], Register]
    combine: Callable[[Emitter, Register, Register], Register]


Finish = Callable[[Emitter, Register], Sequence[Register]]


# -- emission ------------------------------------------------------------------------------------


class Reduction:
    """Emits one reduction. The strides of `reads` and `writes` are by the axes of the operand.

    `finish(total)` gives the registers to write.
    """

    def __init__(
        self, e: Emitter, cut: Cut, fold: Fold, reads: Sequence[Access], writes: Sequence[Access],
        finish: Finish, workspace: Any,
    ) -> None:  # fmt: skip
        self.e, self.cut, self.fold, self.finish = e, cut, fold, finish
        self.reads, self.writes, self.workspace = reads, writes, workspace
        steps = [[a.strides[axis] for axis in cut.kept] for a in (*reads, *writes)]
        self.kept_sizes, self.kept_strides = merge_axes(cut.kept_sizes, steps)

    def emit(self) -> None:
        """All results; ends without a barrier."""
        first = 0
        for part in self.cut.parts:
            if self.cut.across:
                self._across(part)
            else:
                self._along(part, first)
            first += part.chunks
        if self.cut.chunks > 1:
            self.e.barrier()
            self._combine()

    # -- lanes over results ----------------------------------------------------------------------

    def _across(self, part: _Part) -> None:
        e, lanes = self.e, self.e.lanes
        width = min(GROUP, ceil_div(part.run, lanes)) * lanes
        full, rest = divmod(part.run, width)
        groups = full + bool(rest)
        with e.loop(*e.share(self.cut.results * part.chunks * groups)) as item:
            k, chunk, group = e.split(item, (self.cut.results, part.chunks, groups))
            for active, context in e.partial(group, full, rest, width):
                if active:
                    with context:
                        self._columns(part, k, chunk, e.mul(group, width), active)

    def _columns(self, part: _Part, k: Index, chunk: Index, start: Index, active: int) -> None:
        """One chunk of the columns `start` to `start + active`."""
        e, lanes = self.e, self.e.lanes
        vectors = [(v, min(lanes, active - v)) for v in range(0, active, lanes)]
        rows = _Rows(self, part, k, chunk)

        def body(r: Index, totals: list[Register]) -> list[Register]:
            at = rows.pointers(r)
            return [
                self.fold.combine(e, total, rows.term(at, e.add(start, v), count))
                for (v, count), total in zip(vectors, totals, strict=True)
            ]

        totals = e.carry(0, rows.count, 1, [self._start(lanes)] * len(vectors), body)
        for (v, count), total in zip(vectors, totals, strict=True):
            self._leave(k, chunk, e.add(start, v), count, total)

    # -- lanes along what is folded --------------------------------------------------------------

    def _along(self, part: _Part, first_chunk: int) -> None:
        e, lanes = self.e, self.e.lanes
        whole = part.run - part.run % lanes
        with e.loop(*e.share(self.cut.results * part.chunks)) as item:
            k, chunk = e.split(item, (self.cut.results, part.chunks))
            rows = _Rows(self, part, k, chunk)

            def body(r: Index, totals: list[Register]) -> list[Register]:
                at = rows.pointers(r)

                def step(i: Index, inner: list[Register]) -> list[Register]:
                    return [self.fold.combine(e, inner[0], rows.term(at, i, lanes))]

                (total,) = e.carry(0, whole, lanes, totals, step)
                if part.run > whole:
                    term = rows.term(at, whole, part.run - whole)
                    here = e.mask(lanes, part.run - whole) if lanes > 1 else None
                    total = self.fold.combine(e, total, e.b.select(here, term, self._start(lanes)))
                return [total]

            (total,) = e.carry(0, rows.count, 1, [self._start(lanes)], body)
            total = e.tree(total, lambda a, b: self.fold.combine(e, a, b))
            self._leave(k, e.add(chunk, first_chunk), 0, 1, total)

    # -- partials and results --------------------------------------------------------------------

    def _start(self, lanes: int) -> Register:
        return constant(vector(element_type(self.fold.dtype), lanes), self.fold.start)

    def _partial(self, k: Index, chunk: Index, column: Index) -> Any:
        e, size = self.e, self.fold.dtype.itemsize
        columns = self.cut.columns(e.lanes)
        slot = e.add(e.mul(k, self.cut.chunks), chunk)
        return e.at(self.workspace, e.mul(e.add(e.mul(slot, columns), column), size))

    def _leave(self, k: Index, chunk: Index, column: Index, active: int, total: Register) -> None:
        """A chunk is folded: its total is a partial, or the result if it is the only chunk."""
        if self.cut.chunks > 1:
            self.e.store(total, self._partial(k, chunk, column), self.fold.dtype)
        else:
            self._write(k, column, active, total)

    def _combine(self) -> None:
        e, cut = self.e, self.cut
        lanes = e.lanes if cut.across else 1
        full, rest = divmod(cut.run, lanes) if cut.across else (1, 0)
        vectors = full + bool(rest)
        with e.loop(*e.share(cut.results * vectors)) as item:
            k, v = e.split(item, (cut.results, vectors))
            column = e.mul(v, lanes)

            def body(chunk: Index, totals: list[Register]) -> list[Register]:
                partial = e.load(self._partial(k, chunk, column), self.fold.dtype, lanes)
                return [self.fold.combine(e, totals[0], partial)]

            (total,) = e.carry(0, cut.chunks, 1, [self._start(lanes)], body)
            for active, context in e.partial(v, full, rest, lanes):
                if active:
                    with context:
                        self._write(k, column, active, total)

    def _write(self, k: Index, column: Index, active: int, total: Register) -> None:
        e = self.e
        position = e.split(k, self.kept_sizes)
        results = self.finish(e, total)
        strides = self.kept_strides[len(self.reads) :]
        for a, steps, result in zip(self.writes, strides, results, strict=True):
            step = inner_stride(self.cut, a)
            at = e.add(e.dot(position, steps), e.mul(column, step))
            _store_run(e, result, e.at(a.pointer, at), a.dtype, step, active)


class _Rows:
    """The rows of one chunk of one result: their number, and the terms that stand in them."""

    def __init__(self, made: Reduction, part: _Part, k: Index, chunk: Index) -> None:
        e, cut = made.e, made.cut
        self.e, self.made = e, made
        self.inner = [inner_stride(cut, a) for a in made.reads]
        first = e.mul(chunk, part.chunk)
        self.count = (
            part.chunk
            if part.rows % part.chunk == 0
            else e.minimum(part.chunk, e.sub(part.rows, first))
        )
        self.first = first
        steps = [
            [*(a.strides[axis] for axis in cut.gone), inner * part.run]
            for a, inner in zip(made.reads, self.inner, strict=True)
        ]
        self.sizes, self.strides = merge_axes((*cut.gone_sizes, part.pieces), steps)
        position = e.split(k, made.kept_sizes)
        self.bases = [
            e.at(a.pointer, e.add(e.dot(position, kept), part.start * inner))
            for a, kept, inner in zip(made.reads, made.kept_strides, self.inner, strict=False)
        ]

    def pointers(self, r: Index) -> list[Any]:
        """Where row `r` of the chunk starts in each operand."""
        e = self.e
        position = e.split(e.add(self.first, r), self.sizes)
        pairs = zip(self.bases, self.strides, strict=True)
        return [e.at(base, e.dot(position, steps)) for base, steps in pairs]

    def term(self, at: Sequence[Any], column: Index, active: int) -> Register:
        """The terms of `active` columns from `column` on."""
        e = self.e
        registers = [
            _load_run(e, e.at(pointer, e.mul(column, step)), a.dtype, step, active)
            for pointer, step, a in zip(at, self.inner, self.made.reads, strict=True)
        ]
        return self.made.fold.term(e, registers)


def inner_stride(cut: Cut, a: Access) -> int:
    """Bytes between neighbours along the axis that lanes run over or along."""
    return 0 if cut.inner is None else a.strides[cut.inner]


def _load_run(e: Emitter, pointer: Any, dtype: DType, step: int, active: int) -> Register:
    """A vector whose first `active` lanes are elements `step` bytes apart."""
    if step == dtype.itemsize:
        return e.load(pointer, dtype, e.lanes, active)
    if step == 0:
        return e.splat(e.load(pointer, dtype), e.lanes)
    value = constant(vector(element_type(dtype), e.lanes), 0)
    for lane in range(active):
        element = e.load(e.at(pointer, lane * step), dtype)
        value = e.b.insert_element(value, element, ir.Constant(I32, lane))
    return value


def _store_run(
    e: Emitter, value: Register, pointer: Any, dtype: DType, step: int, active: int
) -> None:
    """Stores the first `active` lanes of a register `step` bytes apart."""
    if step == dtype.itemsize or not isinstance(value.type, ir.VectorType):
        e.store(value, pointer, dtype, active)
        return
    for lane in range(active):
        element = e.b.extract_element(value, ir.Constant(I32, lane))
        e.store(element, e.at(pointer, lane * step), dtype)
