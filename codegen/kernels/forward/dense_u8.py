"""Sums of terms of bytes, in steps of several bytes of one channel.

A step of the reduction takes `unit` bytes of a pixel at once, broadcast, and as many of the filter
for each channel; what it adds and how many bytes it takes is said by the term (`terms.py`).

The steps follow the *runs* of bytes that are contiguous in x: (j, k) of one kernel row where its
taps adjoin (see `Geometry`), else the channels of one tap. In the last
step of a run that `unit` does not divide, the bytes of the run stand last, and zeros in both
operands before them: these add nothing. No byte outside the run is read but earlier ones of the
same run.

    packed filter   [group][block][i]: u8[run][step][vectors * lanes][unit], and behind it, for
                    distances and dot products, i32[vectors * lanes], the sums of this kernel row

A kernel row that is above or below the image for all of a tile is left out: for its sums in
distances, for nothing in products, to which a padded tap adds 0. Dot products, of x - 128, add the
sums of the rows that they take.

Sums are exact. None exceeds i32: `Adder2d.infer` admits (2^31 - 1) // 255 terms at most, and
`Conv2d.infer` (2^31 - 1) // (255 * 128). So nothing depends on the order, the tile, the target or
the threads. Adding the bias wraps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir

from ...emit.builder import I32, Emitter, Index, Register, vector
from ...targets.target import Target
from ..schedule import Tile, byte_tile, ceil_div
from .geometry import Geometry
from .packing import SUM, DensePacking, Loop, Part, Step
from .steps import Steps
from .terms import ByteTerm

KERNEL, ROW, STEPS = "kernel", "row", "steps"  # parts of the sums of a tile


def byte_runs(g: Geometry) -> tuple[int, int]:
    """Runs of one kernel row, and the bytes of each."""
    if g.taps_adjoin:
        return 1, g.kernel[1] * g.inputs
    return g.kernel[1], g.inputs


def byte_packing(g: Geometry, unit: int, lanes: int, vectors: int) -> DensePacking:
    """The filter run by run, in steps of `unit` bytes."""
    runs, run = byte_runs(g)
    whole, rest = divmod(run, unit)
    steps: tuple[Part, ...] = (Loop(whole, unit, (Step(unit),)), *([Step(rest)] if rest else []))
    rows = Loop(g.kernel[0], runs * run, (Loop(runs, run, steps),))
    return DensePacking(g, unit, lanes, vectors, (rows,), by_rows=True)


class ByteSteps(Steps):
    """Steps of u8: see the module's docstring."""

    term: ByteTerm
    unroll_budget = 16  # a step has few instructions for each byte: longer loops overflow op caches

    def __init__(self, g: Geometry, target: Target, tile: Tile) -> None:
        super().__init__(g, target, tile)
        self.term, self.part_lanes, self.parts = _sizes(g, target)
        self.step, self.lanes = self.term.step(target), self.part_lanes * self.parts
        self.runs = byte_runs(g)
        self.packing = byte_packing(g, self.step, self.part_lanes, tile.vectors * self.parts)

    @classmethod
    def choose_tile(cls, g: Geometry, target: Target) -> Tile:
        _, lanes, parts = _sizes(g, target)
        if target.whole_sums:
            return byte_tile(target, lanes * parts, g.height, g.width, g.outputs)
        together = g.term.joins_steps
        tile = byte_tile(target, lanes, g.height, g.width, g.outputs, together)
        return Tile(tile.rows, tile.columns, max(1, tile.vectors // parts))

    def unroll(self, pixels: int, run: int) -> int:
        return super().unroll(pixels, run) if self.target.bytes_unrolled else 1

    @property
    def run_bytes(self) -> int:
        """Packed filter of one run of one block."""
        return ceil_div(self.runs[1], self.step) * self.packing.step_bytes

    def emit(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, taps: tuple[Index, Index]
    ) -> list[Register]:
        """Sums [pixel][vector], i32, over all steps."""
        g, runs = self.g, self.runs[0]
        first, last = e.minimum(taps[0], g.kernel[0]), taps[1]  # above the image, there may be more

        def row_sums(i: Index, sums: list[Register]) -> list[Register]:
            at = e.at(filters, e.add(e.mul(i, self.packing.row_bytes), runs * self.run_bytes))
            return [self._add_sums(e, at, v, total) for v, total in enumerate(sums)]

        def over_rows(i: Index, outer: list[Register]) -> Sequence[Register]:
            x_row = e.at(x, e.mul(i, g.dilation[0] * g.x[1]))
            f_row = e.at(filters, e.mul(i, self.packing.row_bytes))

            def over_runs(j: Index, acc: list[Register]) -> Sequence[Register]:
                x_run = e.at(x_row, e.mul(j, g.dilation[1] * g.x[2]))
                return self._emit_run(e, x_run, offsets, e.at(f_row, e.mul(j, self.run_bytes)), acc)

            return self._in_short(e, ROW, outer, lambda acc: e.carry(0, runs, 1, acc, over_runs))

        start = [self.term.none(self.target, self.part_lanes)] * self.packing.vectors
        if self.term.magnitudes and self.term.row_sums == "taken":
            start = e.carry(first, last, 1, start, row_sums)
        elif self.term.magnitudes:
            start = e.carry(0, first, 1, start, row_sums)
            start = e.carry(last, g.kernel[0], 1, start, row_sums)
        sums = self._in_short(
            e, KERNEL, start * len(offsets), lambda acc: e.carry(first, last, 1, acc, over_rows)
        )
        return [self._joined(e, sums[i : i + self.parts]) for i in range(0, len(sums), self.parts)]

    @functools.cached_property
    def _short_part(self) -> str:
        """The largest part of the steps whose terms sums of 16 bits hold; STEPS are some of a run.
        Empty where there are no such sums."""
        most, row = (
            self.term.short_steps(self.target),
            self.runs[0] * ceil_div(self.runs[1], self.step),
        )
        if not most:
            return ""
        return KERNEL if self.g.kernel[0] * row <= most else ROW if row <= most else STEPS

    def _in_short(
        self, e: Emitter, part: str, acc: list[Register], add: Callable[[list[Register]], Any]
    ) -> list[Register]:
        """`add(acc)`, by way of sums of 16 bits if those hold this part of the steps."""
        if part != self._short_part:
            return list(add(acc))
        short = add([self.term.short(e)] * len(acc))
        return [self.term.with_short(e, *pair) for pair in zip(acc, short, strict=True)]

    def _joined(self, e: Emitter, parts: Sequence[Register]) -> Register:
        """The low 32 bits of each lane of the accumulators of one vector."""
        if len(parts) == 1:
            return self.term.packed_sum(e, parts[0])
        if self.target.whole_sums:
            joined = ir.Constant(vector(I32, self.lanes), ir.Undefined)
            for lane, part in enumerate(parts):
                joined = e.b.insert_element(joined, part, ir.Constant(I32, lane))
            return joined
        halves = [e.b.bitcast(p, vector(I32, self.lanes)) for p in parts]
        even = ir.Constant(ir.VectorType(I32, self.lanes), list(range(0, 2 * self.lanes, 2)))
        return e.b.shuffle_vector(*halves, even)

    def _add_sums(self, e: Emitter, sums: Any, v: int, total: Register) -> Register:
        """`total` plus those of the sums of a kernel row that accumulator `v` takes."""
        at = e.at(sums, v * self.part_lanes * SUM)
        row = e.b.load(at, typ=vector(I32, self.part_lanes), align=1)
        return e.b.add(total, row if row.type == total.type else e.b.zext(row, total.type))

    def _emit_run(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, acc: list[Register]
    ) -> list[Register]:
        """Adds the distances of one run."""
        whole, rest = divmod(self.runs[1], self.step)
        most, width = self.term.short_steps(self.target), self.step * self.packing.width
        if self._short_part != STEPS:
            return self._emit_steps(e, (x, filters), offsets, whole, rest, acc)

        def shortly(first: Index, count: int, rest: int, acc: list[Register]) -> list[Register]:
            pointers = e.at(x, e.mul(first, self.step)), e.at(filters, e.mul(first, width))
            return self._in_short(
                e, STEPS, acc, lambda acc: self._emit_steps(e, pointers, offsets, count, rest, acc)
            )

        last = whole % most
        acc = e.carry(0, whole - last, most, acc, lambda k, acc: shortly(k, most, 0, acc))
        return shortly(whole - last, last, rest, acc) if last or rest else acc

    def _emit_steps(
        self, e: Emitter, pointers: tuple[Any, Any], offsets: Sequence[int], whole: int, rest: int,
        acc: list[Register],
    ) -> list[Register]:  # fmt: skip
        """Adds the distances of `whole` steps, and of a last one of `rest` bytes."""
        (x, filters), step, width = pointers, self.step, self.step * self.packing.width

        def update(k: Index, u: int, acc: list[Register]) -> list[Register]:
            xs, fs = e.at(x, e.mul(k, step)), e.at(filters, e.mul(k, width))
            words = (self._broadcast(e, e.at(xs, o + u * step)) for o in offsets)
            return self._emit_step(e, words, e.at(fs, u * width), acc)

        if step == 4:
            acc, done = self.joined(e, x, offsets, filters, whole, acc)
            x, filters, whole = e.at(x, done * step), e.at(filters, done * width), whole - done
        acc = e.unrolled(whole, self.unroll(len(offsets), whole), acc, update)
        if not rest:
            return acc
        words = (self._broadcast_last(e, e.at(x, o), whole, rest) for o in offsets)
        return self._emit_step(e, words, e.at(filters, whole * width), acc)

    def _emit_step(
        self, e: Emitter, words: Any, filters: Any, acc: list[Register]
    ) -> list[Register]:
        """Adds the distances of one step; `words` are the pixels' vectors of bytes."""
        size = self.part_lanes * self.step
        kind = self.term.bytes_type(self.target)
        align = SUM if kind == I32 else 1  # two such loads may be one instruction
        taps = [
            e.b.load(e.at(filters, size * v), typ=kind, align=align)
            for v in range(self.packing.vectors)
        ]
        pixels = (self.term.pixel(e, word) for word in words)
        pairs = ((pixel, tap) for pixel in pixels for tap in taps)
        return [self.term.added(e, *pair, a) for pair, a in zip(pairs, acc, strict=True)]

    def _broadcast(self, e: Emitter, pointer: Any) -> Register:
        """A step's bytes of one pixel in every lane."""
        return self._in_all_lanes(e, e.b.load(pointer, typ=ir.IntType(8 * self.step), align=1))

    def _broadcast_last(self, e: Emitter, x: Any, whole: int, rest: int) -> Register:
        """The `rest` bytes at the end of a run, behind zeros."""
        step, earlier = self.step, self.runs[1] > self.step
        if earlier:  # the bytes before them may be read
            every = self._broadcast(e, e.at(x, whole * step + rest - step))
            kept = (bytes(step - rest) + b"\xff" * rest) * self.part_lanes
            if every.type == I32:
                return e.b.and_(every, ir.Constant(I32, int.from_bytes(kept, "little")))
            return e.b.and_(every, ir.Constant(every.type, list(kept)))
        whole, at = ir.IntType(8 * step), step - rest
        word = ir.Constant(whole, 0)
        for size in (8, 4, 2, 1):
            if rest & size:
                piece = e.b.load(x, typ=ir.IntType(8 * size), align=1)
                word = e.b.or_(word, e.b.shl(e.b.zext(piece, whole), ir.Constant(whole, 8 * at)))
                x, at = e.at(x, size), at + size
        return self._in_all_lanes(e, word)

    def _in_all_lanes(self, e: Emitter, word: Any) -> Register:
        return e.b.bitcast(e.splat(word, self.part_lanes), self.term.bytes_type(self.target))


def _sizes(g: Geometry, target: Target) -> tuple[ByteTerm, int, int]:
    """The term, the channels of one accumulator, and the accumulators that make up one vector of
    i32 sums, so that the tail works on whole registers: two of 64-bit lanes, where their number is
    even, or as many numbers as a vector has lanes."""
    assert isinstance(g.term, ByteTerm)
    lanes = g.term.lanes(target)
    if target.whole_sums:
        return g.term, lanes, target.lanes
    halves = g.term.wide(target) != I32 and ceil_div(max(1, g.outputs), lanes) % 2 == 0
    return g.term, lanes, 2 if halves else 1
