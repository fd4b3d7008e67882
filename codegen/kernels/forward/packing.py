"""How a filter stands in memory for a dense kernel: one description, from which NumPy packs the
filters that are constant, and the kernel itself, in a first phase, those that are not.

    filter   [group][block][kernel row] step after step: [vectors * lanes][unit] numbers
    sums     [vectors * lanes] of |f|, where the term wants them: i32 behind each kernel row, or
             f32[group][block] behind all filters

Each step takes some rows of the filter seen as a matrix [(i, j, k), T]: `unit` of them, or fewer,
which stand last then, behind zeros. Channels that do not exist are zeros.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.ir.types import f32, u8

from ...emit.builder import Emitter, Index, Register, constant, element_type, vector
from .. import Operand
from ..schedule import ceil_div
from .geometry import Geometry, filter_row
from .terms import Term

SUM = 4  # bytes of a sum
NO_ROW = -(2**40)  # where a step has zeros
AT_ONCE = 1 << 23  # bytes of a filter that NumPy packs at once: it makes some copies of them


@dataclass(frozen=True)
class Step:
    """One step, of `rows` rows."""

    rows: int

    @property
    def steps(self) -> int:
        return 1

    def order(self, unit: int) -> Array:
        """The rows of each step, [steps][unit]."""
        return np.array([[NO_ROW] * (unit - self.rows) + list(range(self.rows))])


@dataclass(frozen=True)
class Loop:
    """`count` times the steps of `body`, each time `each` rows further on. Where it is emitted, it
    counts times, or rows if it is `in_rows`: then a time has a multiple of `each` steps."""

    count: int
    each: int
    body: tuple[Part, ...]
    in_rows: bool = False

    @property
    def steps(self) -> int:
        return self.count * steps_of(self.body)

    @property
    def rows(self) -> int:
        return self.count * self.each

    def order(self, unit: int) -> Array:
        """The rows of each step, [steps][unit]."""
        first = self.each * np.arange(self.count)
        return (first[:, None, None] + order_of(self.body, unit)).reshape(-1, unit)


Emit = Callable[["_Source"], None]
Part = Loop | Step  # what stands behind a part begins `rows` further on


def steps_of(parts: Sequence[Part]) -> int:
    return sum(part.steps for part in parts)


def order_of(parts: Sequence[Part], unit: int) -> Array:
    """The rows of each step of parts that stand one behind another, [steps][unit]."""
    found, first = [np.zeros((0, unit), np.int64)], 0
    for part in parts:
        found.append(first + part.order(unit))
        first += part.rows
    return np.concatenate(found)


@dataclass(frozen=True)
class DensePacking:
    """The packed filter of the layer `g`; its term says what is kept of a number.

    unit      numbers of one channel in a step
    lanes     channels of one register of sums; a block has `vectors` of them
    parts     the steps in their order
    by_rows   the only part is a loop over kernel rows, whose sums stand behind each of them
    """

    g: Geometry
    unit: int
    lanes: int
    vectors: int
    parts: tuple[Part, ...]
    by_rows: bool = False

    @property
    def term(self) -> Term:
        return self.g.term

    @property
    def width(self) -> int:
        """Channels of one block."""
        return self.vectors * self.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.g.outputs, self.width)

    @property
    def step_bytes(self) -> int:
        """One step of one block."""
        return self.width * self.unit * self.term.number.itemsize

    @property
    def vector_bytes(self) -> int:
        """One step of one of the block's vectors."""
        return self.lanes * self.unit * self.term.number.itemsize

    @property
    def sum_bytes(self) -> int:
        """Sums of one block, or of one kernel row of it."""
        return SUM * self.width if self.term.magnitudes else 0

    @property
    def row_bytes(self) -> int:
        """One kernel row of one block with its sums, if it has some of its own."""
        row = self.parts[0]
        assert self.by_rows and isinstance(row, Loop)
        return steps_of(row.body) * self.step_bytes + self.sum_bytes

    @property
    def block_bytes(self) -> int:
        """One block, without sums behind all filters."""
        if self.by_rows:
            return self.g.kernel[0] * self.row_bytes
        return steps_of(self.parts) * self.step_bytes

    @property
    def filter_bytes(self) -> int:
        """All blocks; then follow the sums that stand behind them."""
        return self.g.groups * self.blocks * self.block_bytes

    @property
    def nbytes(self) -> int:
        behind = 0 if self.by_rows else self.g.groups * self.blocks * self.sum_bytes
        return self.filter_bytes + behind

    # -- in NumPy --------------------------------------------------------------------------------

    def pack(self, f: Array, out: Array) -> None:
        """The packed bytes of a filter HWIO or [K, T]; made in pieces, since filters are large."""
        f = self.matrices(f)
        at, of_group = 0, self.blocks * self.block_bytes
        groups = max(1, AT_ONCE // max(1, of_group))
        blocks = self.blocks if groups > 1 else AT_ONCE // max(1, self.block_bytes)
        width = self.width * max(1, blocks)
        for group, first in itertools.product(
            range(0, self.g.groups, groups), range(0, self.g.outputs, width)
        ):
            made = self._pack_blocks(f[:, group : group + groups, first : first + width])
            out[at : at + made.size] = made
            at += made.size
        if at < out.size:
            out[at:] = self.sums(f).reshape(-1).view(np.uint8)

    def matrices(self, f: Array) -> Array:
        """A filter HWIO or [K, T] as [(i, j, k)][group][T]."""
        g = self.g
        return f.reshape(g.steps, g.groups, g.outputs).view(self.term.number.numpy)

    def _pack_blocks(self, f: Array) -> Array:
        """The packed bytes of some blocks, without sums behind all filters."""
        numbers = self.ordered(f)
        kept = np.ascontiguousarray(self.term.kept_of(numbers))
        if not (self.by_rows and self.term.magnitudes):
            return kept.reshape(-1).view(np.uint8)
        (rows,) = self.parts
        own = (*numbers.shape[:2], self.g.kernel[0])  # group, block, kernel row
        split = numbers.reshape(*own, rows.steps // self.g.kernel[0], *numbers.shape[3:])
        sums = self.term.sums_of(split, (3, 5))
        sizes = self.row_bytes - self.sum_bytes, self.sum_bytes
        parts = [
            np.ascontiguousarray(a).reshape(-1).view(np.uint8).reshape(*own, size)
            for a, size in zip((kept, sums), sizes, strict=True)
        ]
        return np.concatenate(parts, axis=-1).reshape(-1)

    def ordered(self, f: Array) -> Array:
        """The numbers of `matrices`, [group][block][step][vectors * lanes][unit]."""
        order, (rows, groups, outputs) = order_of(self.parts, self.unit), f.shape
        blocks = ceil_div(outputs, self.width)
        padded = np.zeros((rows + 1, groups, blocks * self.width), f.dtype)
        padded[:rows, :, :outputs] = f
        taken = padded[np.where(order < 0, rows, order)]  # the last row has zeros
        split = taken.reshape(*order.shape, groups, blocks, self.width)
        return split.transpose(2, 3, 0, 4, 1)

    def sums(self, f: Array) -> Array:
        """Sums of |f| of `matrices`, f32[group][block * vectors * lanes], in the order of steps, as
        kernels add them."""
        total = np.zeros((self.g.groups, self.blocks * self.width), np.float32)
        for row in order_of(self.parts, self.unit).flat:
            if row >= 0:
                total[:, : self.g.outputs] += np.abs(f[row])
        return total

    # -- emitted ---------------------------------------------------------------------------------

    def emit(self, e: Emitter, f: Operand, raw: Any, packed: Any) -> None:
        """What `pack` does to the filter `f` at `raw`; threads share the vectors of channels."""
        g, lanes = self.g, self.lanes
        with e.loop(*e.share(g.groups * self.blocks * self.vectors)) as item:
            group, one = e.split(item, (g.groups, self.blocks * self.vectors))
            block, v = e.split(one, (self.blocks, self.vectors))
            first = e.add(e.mul(group, g.outputs), e.mul(one, lanes))
            source = e.at(raw, e.mul(first, self.term.number.itemsize))
            number = e.add(e.mul(group, self.blocks), block)
            emit = self._rows_of_vector if self.by_rows else self._whole_vector
            made = emit(e, packed, number, v)
            for active, here in e.partial(one, g.outputs // lanes, g.outputs % lanes, lanes):
                with here:
                    made(_Source(f, source, active))

    def _whole_vector(self, e: Emitter, packed: Any, number: Index, v: Index) -> Emit:
        """All steps of vector `v` of block `number`, and their sums behind all filters."""
        channels = e.mul(v, SUM * self.lanes)  # of a step as of the sums
        into = e.at(packed, e.add(e.mul(number, self.block_bytes), channels))
        behind = e.add(e.add(e.mul(number, SUM * self.width), channels), self.filter_bytes)
        sums = e.at(packed, behind)

        def emit(source: _Source) -> None:
            for total in self._emit_summed(e, self.parts, source, 0, _Into(into)):
                e.store(total, sums, self.term.number)

        return emit

    def _rows_of_vector(self, e: Emitter, packed: Any, number: Index, v: Index) -> Emit:
        """The same, with the sums of each kernel row behind it."""
        (rows,) = self.parts
        assert isinstance(rows, Loop)
        into = e.at(packed, e.mul(number, self.block_bytes))

        def emit(source: _Source) -> None:
            with e.loop(0, rows.count) as i:
                begin = e.at(into, e.mul(i, self.row_bytes))
                first = _Into(begin, v, self.vector_bytes)
                for total in self._emit_summed(e, rows.body, source, e.mul(i, rows.each), first):
                    behind = e.add(self.row_bytes - self.sum_bytes, e.mul(v, SUM * self.lanes))
                    e.store(total, e.at(begin, behind), self.term.number)

        return emit

    def _emit_summed(
        self, e: Emitter, parts: Sequence[Part], source: _Source, row: Index, into: _Into
    ) -> list[Register]:
        """The steps of `parts` and, where the term wants it, one register: their sum of |f|."""
        none = [self.term.none(e.target, self.lanes)] if self.term.magnitudes else []
        totals = self._emit_parts(e, parts, source, row, into, none)
        return [self.term.packed_sum(e, total) for total in totals]

    def _emit_parts(
        self, e: Emitter, parts: Sequence[Part], source: _Source, row: Index, into: _Into,
        totals: list[Register],
    ) -> list[Register]:  # fmt: skip
        """The steps of `parts`, of which the first has its rows from `row` on; the sums so far."""
        rows, steps = 0, 0
        for part in parts:
            here = replace(into, behind=steps * self.step_bytes)
            totals = self._emit_part(e, part, source, e.add(row, rows), here, totals)
            rows, steps = rows + part.rows, steps + part.steps
        return totals

    def _emit_part(
        self, e: Emitter, part: Part, source: _Source, row: Index, into: _Into,
        totals: list[Register],
    ) -> list[Register]:  # fmt: skip
        if isinstance(part, Step):
            f = self._emit_read(e, source, row, part.rows)
            here = into.at(e)  # before what is stored is made, and behind what is read
            e.store(self.term.kept(e, f), here, self.term.number)
            return [self.term.magnitude(e, f, total) for total in totals]
        begin, size = into.at(e), steps_of(part.body) * self.step_bytes
        by = part.each if part.in_rows else 1

        def once(i: Index, before: list[Register]) -> list[Register]:
            first = e.add(row, e.mul(i, part.each // by))
            here = _Into(begin, i, size // by)
            return self._emit_parts(e, part.body, source, first, here, before)

        return e.carry(0, part.count * by, by, totals, once)

    def _emit_read(self, e: Emitter, source: _Source, first: Index, count: int) -> Register:
        """A step: `count` rows from `first` on, the numbers of each channel in its lane, last."""
        number, lanes = self.term.number, self.lanes
        if self.unit == 1:
            if not source.active:
                return constant(vector(element_type(number), lanes), 0.0 if number == f32 else 0)
            return e.load(source.row(e, first), number, lanes, source.active)
        made = vector(ir.IntType(8 * self.unit), lanes)
        word = constant(made, 0)
        for b in range(count if source.active else 0):
            byte = e.b.zext(e.load(source.row(e, e.add(first, b)), u8, lanes, source.active), made)
            shift = constant(made, 8 * (self.unit - count + b))
            word = e.b.or_(word, e.b.shl(byte, shift))
        return word


@dataclass(frozen=True)
class _Source:
    """A vector of channels of a filter, of which `active` exist; `pointer` is at row 0."""

    filter: Operand
    pointer: Any
    active: int

    def row(self, e: Emitter, number: Index) -> Any:
        return e.at(self.pointer, filter_row(e, self.filter, number))


@dataclass(frozen=True)
class _Into:
    """Where packed steps go: `behind` bytes behind number `index` of pieces of `size` bytes. The
    pointer is made where it is used, and takes no register before."""

    pointer: Any
    index: Index = 0
    size: int = 0
    behind: int = 0

    def at(self, e: Emitter) -> Any:
        return e.at(self.pointer, e.add(e.mul(self.index, self.size), self.behind))
