"""The walk that channel sums share: several sums over all axes but the last, in one pass.

    S_m[c] = sum over the other axes of term_m(A[...,c], B[...,c], ...)

Lanes run over the channels c. The rows (all other axes, flattened) are cut into chunks of
CHUNK_ROWS; in a chunk they follow in order, and the chunks' sums, partials in the workspace, are
added in order behind a barrier. Threads share chunks and blocks of channels. Terms and sums are
f64: order and bits are those of `_fold`, and depend neither on threads nor on lanes nor on halos.

    partials    f64[chunk][sum][channels, padded to whole vectors]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...emit.builder import Emitter, Index, Register, constant, element_type, vector, wide
from ...targets.target import Target
from .._nest import Access, merge_axes
from ..schedule import ceil_div
from ._fold import CHUNK_ROWS

AHEAD = 4096  # bytes: the next page, which hardware does not look into
SHARE = 8  # one in so many of the vector registers' halves holds a sum

Terms = Callable[[list[Register]], tuple[Sequence[Register], Sequence[Register]]]
"""The registers read -> (registers to write, terms in f64) of one vector of one row."""
Finish = Callable[[list[Register], Index, int], None]
"""Takes the sums of one vector of channels, the first of them, and how many there are."""


@dataclass(frozen=True)
class Columns:
    """How `sums` sums over tensors of `sizes` are cut."""

    target: Target
    sizes: tuple[int, ...]
    sums: int

    @property
    def rows(self) -> int:
        return math.prod(self.sizes[:-1])

    @property
    def chunks(self) -> int:
        return ceil_div(self.rows, CHUNK_ROWS)

    @property
    def padded(self) -> int:
        """Channels in whole vectors."""
        return ceil_div(self.sizes[-1], self.target.lanes) * self.target.lanes

    @property
    def width(self) -> int:
        """Channels that pass over the rows together."""
        vectors = max(1, self.target.registers // (SHARE * self.sums))
        return min(vectors * self.target.lanes, self.padded)

    @property
    def workspace(self) -> int:
        """Bytes of partials."""
        return self.chunks * self.sums * self.padded * wide.itemsize


class ColumnSums:
    """Emits the sums. The strides of `reads` and `writes` are by the axes of `sizes`."""

    def __init__(
        self, e: Emitter, columns: Columns, reads: Sequence[Access], writes: Sequence[Access],
        terms: Terms, workspace: Any,
    ) -> None:  # fmt: skip
        self.e, self.columns, self.terms, self.workspace = e, columns, terms, workspace
        self.reads, self.writes = reads, writes
        steps = [a.strides[:-1] for a in (*reads, *writes)]
        self.rows, self.steps = merge_axes(columns.sizes[:-1], steps)

    def emit(self, finish: Finish) -> None:
        """All sums; ends without a barrier."""
        e, c = self.e, self.columns
        if not c.sizes[-1]:
            return
        full, rest = divmod(c.sizes[-1], c.width)
        groups = full + bool(rest)
        with e.loop(*e.share(c.chunks * groups)) as item:
            chunk, group = e.split(item, (c.chunks, groups))
            for active, here in e.partial(group, full, rest, c.width):
                if active:
                    with here:
                        self._chunk(chunk, e.mul(group, c.width), active)
        e.barrier()
        full, rest = divmod(c.sizes[-1], e.lanes)
        with e.loop(*e.share(full + bool(rest))) as v:
            column = e.mul(v, e.lanes)
            totals = [self._total(number, column) for number in range(c.sums)]
            for active, here in e.partial(v, full, rest, e.lanes):
                if active:
                    with here:
                        finish(totals, column, active)

    def _total(self, number: int, column: Index) -> Register:
        """The partials of all chunks, added in order."""
        e = self.e

        def add(chunk: Index, total: list[Register]) -> list[Register]:
            partial = e.load(self._partial(chunk, number, column), wide, e.lanes)
            return [e.b.fadd(total[0], partial)]

        return e.carry(0, self.columns.chunks, 1, [self._zero()], add)[0]

    def _chunk(self, chunk: Index, start: Index, active: int) -> None:
        """`active` channels from `start` on, of all rows of a chunk."""
        e, c = self.e, self.columns
        vectors = [(v, min(e.lanes, active - v)) for v in range(0, active, e.lanes)]
        first = e.mul(chunk, CHUNK_ROWS)
        last = e.minimum(e.add(first, CHUNK_ROWS), c.rows) if c.chunks > 1 else c.rows
        block = _Block(self, start, vectors)
        totals = block.walk(first, last, [self._zero()] * (c.sums * len(vectors)))
        for i, total in enumerate(totals):
            column = e.add(start, vectors[i // c.sums][0])
            e.store(total, self._partial(chunk, i % c.sums, column), wide)

    def _partial(self, chunk: Index, number: int, column: Index) -> Any:
        e, c = self.e, self.columns
        slot = e.add(e.mul(chunk, c.sums), number)
        return e.at(self.workspace, e.mul(e.add(e.mul(slot, c.padded), column), wide.itemsize))

    def _zero(self) -> Register:
        return constant(vector(element_type(wide), self.e.lanes), 0.0)


class _Block:
    """The vectors of channels that pass over the rows together."""

    def __init__(self, made: ColumnSums, start: Index, vectors: list[tuple[int, int]]) -> None:
        self.made, self.e, self.vectors = made, made.e, vectors
        tensors = (*made.reads, *made.writes)
        self.bases = [self.e.at(a.pointer, self.e.mul(start, a.strides[-1])) for a in tensors]
        # What is the same in all rows is loaded once.
        self.kept = [
            None if any(a.strides[:-1]) else [self._load(a, base, v) for v in vectors]
            for a, base in zip(made.reads, self.bases, strict=False)
        ]

    def walk(self, first: Index, last: Index, totals: list[Register]) -> list[Register]:
        """Rows first .. last - 1 in order, line by line of the last axis that they have."""
        e, rows = self.e, self.made.rows
        run = rows[-1]

        def line(number: Index, outer: list[Register]) -> Sequence[Register]:
            position = e.split(number, rows[:-1]) if len(rows) > 1 else []
            begin = e.mul(number, run)
            at = [
                e.at(base, e.dot(position, steps[:-1]))
                for base, steps in zip(self.bases, self.made.steps, strict=True)
            ]
            low = e.maximum(0, e.sub(first, begin))
            high = e.minimum(run, e.sub(last, begin))
            return e.carry(low, high, 1, outer, lambda r, acc: self._row(at, r, acc))

        if len(rows) == 1:
            return e.carry(first, last, 1, totals, lambda r, acc: self._row(self.bases, r, acc))
        return e.carry(e.div(first, run), e.div(e.add(last, run - 1), run), 1, totals, line)

    def _row(self, lines: Sequence[Any], r: Index, totals: list[Register]) -> list[Register]:
        """Computes and writes one row; `totals` are [vector][sum]."""
        e, made, sums = self.e, self.made, self.made.columns.sums
        at = [e.at(p, e.mul(r, s[-1])) for p, s in zip(lines, made.steps, strict=True)]
        sources, targets = at[: len(made.reads)], at[len(made.reads) :]
        after: list[Register] = []
        for i, (v, count) in enumerate(self.vectors):
            for a, p, known in zip(made.reads, sources, self.kept, strict=True):
                if known is None:
                    e.prefetch(e.at(p, v * a.strides[-1] + AHEAD))
            registers = [
                self._load(a, p, (v, count)) if known is None else known[i]
                for a, p, known in zip(made.reads, sources, self.kept, strict=True)
            ]
            stored, terms = made.terms(registers)
            for a, p, value in zip(made.writes, targets, stored, strict=True):
                e.store(value, e.at(p, v * a.strides[-1]), a.dtype, count)
            before = totals[i * sums : (i + 1) * sums]
            after += [e.b.fadd(t, term) for t, term in zip(before, terms, strict=True)]
        return after

    def _load(self, a: Access, pointer: Any, place: tuple[int, int]) -> Register:
        v, count = place
        if a.strides[-1] == 0:
            return self.e.splat(self.e.load(pointer, a.dtype), self.e.lanes)
        return self.e.load(self.e.at(pointer, v * a.strides[-1]), a.dtype, self.e.lanes, count)
