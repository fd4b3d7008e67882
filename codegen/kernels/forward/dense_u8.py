"""adder2d of u8 operands, i32 result, by sums of absolute differences, with a pointwise tail.

    Y[n,h,w,t] = - sum_{i,j,k} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]|  (+ b[t])

The loop nest is that of `dense.py`: output channels in the vector lanes, a register tile of
pixels times vectors. One step of the reduction takes STEP bytes of a pixel at once, broadcast, and
STEP bytes of the filter for each channel; x86's psadbw gives the sum of their distances in a 64-bit
lane. Elsewhere a step is one byte, and the distances are widened to 32 bits.

The steps follow the *runs* of bytes that are contiguous in x: (j, k) of one kernel row where there
are neither groups nor dilation, else the channels of one tap. In the last step of a run that STEP
does not divide, the bytes of the run stand last, and zeros in both operands before them: these add
nothing. No byte outside the run is read but earlier ones of the same run.

    packed filter   [group][block][i]: u8[run][step][vectors * lanes][STEP], and behind it
                    i32[vectors * lanes], the sums of this kernel row

A kernel row that is above or below the image for all of a tile is left out for its sums.

Sums are exact. None exceeds i32: `Adder2d.infer` admits (2^31 - 1) // 255 terms at most. So nothing
depends on the order, the tile, the target or the threads. Adding the bias wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.ir.types import u8

from ...emit.builder import I8, I32, I64, Emitter, Index, Register, constant, vector
from ..schedule import Tile, byte_tile, ceil_div
from .dense import ContractionKernel
from .geometry import filter_row


class AdderU8Kernel(ContractionKernel):
    """Dense adder2d of u8 operands. See the module's contract."""

    unroll_budget = 16  # a step has few instructions for each byte: longer loops overflow op caches

    # -- sizes -----------------------------------------------------------------------------------

    @property
    def form_name(self) -> str:
        return f"{self.node_op.name}_u8"

    @property
    def step(self) -> int:
        """Bytes of one channel that a step takes."""
        return 8 if self.target.byte_distances else 1

    @property
    def part_lanes(self) -> int:
        """Channels of one accumulator."""
        return self.target.lanes if self.step == 1 else 4 * self.target.lanes // self.step

    @property
    def parts(self) -> int:
        """Accumulators that make up one vector of i32 sums: two, where their number is even, so
        that the tail works on whole registers."""
        count = max(1, ceil_div(self.g.outputs, self.part_lanes))
        return 2 if self.step == 8 and count % 2 == 0 else 1

    @property
    def lanes(self) -> int:
        return self.part_lanes * self.parts

    @property
    def accumulators(self) -> int:
        """Of one pixel."""
        return self.tile.vectors * self.parts

    @property
    def sum_size(self) -> int:
        """Bytes of the packed sum of one kernel row of one channel."""
        return 4

    @property
    def wide(self) -> Any:
        """The integers that sums are made in: psadbw's lanes are 64 bits wide."""
        return I64 if self.step == 8 else I32

    def choose_tile(self) -> Tile:
        g = self.g
        tile = byte_tile(self.target, self.part_lanes, g.height, g.width, g.outputs)
        return Tile(tile.rows, tile.columns, max(1, tile.vectors // self.parts))

    @property
    def runs(self) -> tuple[int, int]:
        """Runs of one kernel row, and the bytes of each."""
        g = self.g
        if g.groups == 1 and g.dilation[1] == 1:
            return 1, g.kernel[1] * g.inputs
        return g.kernel[1], g.inputs

    @property
    def run_bytes(self) -> int:
        """Packed filter of one run of one block."""
        return ceil_div(self.runs[1], self.step) * self.step * self.width

    @property
    def row_bytes(self) -> int:
        """Packed filter of one kernel row of one block, with its sums."""
        return self.runs[0] * self.run_bytes + self.sum_size * self.width

    @property
    def block_bytes(self) -> int:
        return self.g.kernel[0] * self.row_bytes

    @property
    def packs(self) -> dict[int, Callable[[Array], Array]]:
        return {self.operands[1]: self.pack} if self.is_constant else {}

    def pack(self, f: Array) -> Array:
        """The packed filter and row sums of HWIO bytes."""
        g, step, (runs, run) = self.g, self.step, self.runs
        rows, steps = g.kernel[0] * runs, ceil_div(run, step)
        f = f.reshape(rows, run, g.groups, g.outputs)
        padded = np.zeros((rows, steps * step, g.groups, self.blocks * self.width), f.dtype)
        whole = run - run % step
        padded[:, :whole, :, : g.outputs] = f[:, :whole]
        padded[:, steps * step - run % step :, :, : g.outputs] = f[:, whole:]
        parts = padded.reshape(g.kernel[0], runs, steps, step, g.groups, self.blocks, self.width)
        ordered = np.ascontiguousarray(parts.transpose(4, 5, 0, 1, 2, 6, 3)).view(np.uint8)
        sums = np.ascontiguousarray(parts.sum((1, 2, 3), np.int32).transpose(1, 2, 0, 3))
        if not self.sum_size or not sums.size:
            return ordered.reshape(-1)
        rows_first = (g.groups, self.blocks, g.kernel[0], -1)
        return np.concatenate([ordered.reshape(rows_first), sums.view(np.uint8)], axis=-1).reshape(
            -1
        )

    # -- emission --------------------------------------------------------------------------------

    def _emit_reduction(
        self, e: Emitter, x: Any, offsets: list[int], filters: Any, taps: tuple[Index, Index]
    ) -> list[Register]:
        """Sums [pixel][vector], i32, over all steps."""
        g, runs = self.g, self.runs[0]
        first, last = e.minimum(taps[0], g.kernel[0]), taps[1]  # above the image, there may be more

        def left_out(i: Index, sums: list[Register]) -> list[Register]:
            at = e.at(filters, e.add(e.mul(i, self.row_bytes), runs * self.run_bytes))
            return [self._add_sums(e, at, v, total) for v, total in enumerate(sums)]

        def over_rows(i: Index, outer: list[Register]) -> Sequence[Register]:
            x_row = e.at(x, e.mul(i, g.dilation[0] * g.x[1]))
            f_row = e.at(filters, e.mul(i, self.row_bytes))

            def over_runs(j: Index, acc: list[Register]) -> Sequence[Register]:
                x_run = e.at(x_row, e.mul(j, g.dilation[1] * g.x[2]))
                return self._emit_run(e, x_run, offsets, e.at(f_row, e.mul(j, self.run_bytes)), acc)

            return e.carry(0, runs, 1, outer, over_runs)

        start = [constant(vector(self.wide, self.part_lanes), 0)] * self.accumulators
        if self.sum_size:
            start = e.carry(0, first, 1, start, left_out)
            start = e.carry(last, g.kernel[0], 1, start, left_out)
        sums = e.carry(first, last, 1, start * len(offsets), over_rows)
        return [self._joined(e, sums[i : i + self.parts]) for i in range(0, len(sums), self.parts)]

    def _joined(self, e: Emitter, parts: Sequence[Register]) -> Register:
        """The low 32 bits of each lane of the accumulators of one vector."""
        if self.wide == I32:
            return parts[0]
        if len(parts) == 1:
            return e.b.trunc(parts[0], vector(I32, self.lanes))
        halves = [e.b.bitcast(p, vector(I32, self.lanes)) for p in parts]
        even = ir.Constant(ir.VectorType(I32, self.lanes), list(range(0, 2 * self.lanes, 2)))
        return e.b.shuffle_vector(*halves, even)

    def _add_sums(self, e: Emitter, sums: Any, v: int, total: Register) -> Register:
        """`total` plus those of the sums of a kernel row that accumulator `v` takes."""
        at = e.at(sums, v * self.part_lanes * self.sum_size)
        row = e.b.load(at, typ=vector(I32, self.part_lanes), align=1)
        return e.b.add(total, row if row.type == total.type else e.b.zext(row, total.type))

    def _emit_run(
        self, e: Emitter, x: Any, offsets: list[int], filters: Any, acc: list[Register]
    ) -> list[Register]:
        """Adds the distances of one run."""
        run, step = self.runs[1], self.step
        whole, rest = divmod(run, step)

        def update(k: Index, u: int, acc: list[Register]) -> list[Register]:
            xs, fs = e.at(x, e.mul(k, step)), e.at(filters, e.mul(k, step * self.width))
            words = (self._broadcast(e, e.at(xs, o + u * step)) for o in offsets)
            return self._emit_step(e, words, e.at(fs, u * step * self.width), acc)

        acc = e.unrolled(whole, self._unroll(len(offsets), whole), acc, update)
        if not rest:
            return acc
        words = (self._broadcast_last(e, e.at(x, o), run) for o in offsets)
        return self._emit_step(e, words, e.at(filters, whole * step * self.width), acc)

    def _emit_step(
        self, e: Emitter, words: Any, filters: Any, acc: list[Register]
    ) -> list[Register]:
        """Adds the distances of one step; `words` are the pixels' vectors of bytes."""
        size = self.part_lanes * self.step
        taps = [e.load(e.at(filters, size * v), u8, size) for v in range(self.accumulators)]
        sums = [self._terms(e, word, tap) for word in words for tap in taps]
        return [e.b.add(a, s) for a, s in zip(acc, sums, strict=True)]

    def _terms(self, e: Emitter, x: Register, f: Register) -> Register:
        """One number per lane: the sum of |x - f| over its bytes."""
        if name := self.target.byte_distances:
            made = vector(I64, self.part_lanes)
            return e.b.call(e.intrinsic(name, made, [x.type] * 2), [x, f])
        made = vector(I32, self.part_lanes)
        difference = e.b.sub(e.b.zext(x, made), e.b.zext(f, made))
        return e.call("smax", difference, e.b.neg(difference))

    def _broadcast(self, e: Emitter, pointer: Any) -> Register:
        """A step's bytes of one pixel in every lane."""
        return self._in_all_lanes(e, e.b.load(pointer, typ=ir.IntType(8 * self.step), align=1))

    def _broadcast_last(self, e: Emitter, x: Any, run: int) -> Register:
        """The bytes that are left at the end of a run, behind zeros."""
        step, rest = self.step, run % self.step
        if run > step:
            every = self._broadcast(e, e.at(x, run - step))
            kept = [int(b % step >= step - rest) * 255 for b in range(self.part_lanes * step)]
            return e.b.and_(every, ir.Constant(every.type, kept))
        whole, at = ir.IntType(8 * step), step - rest
        word = ir.Constant(whole, 0)
        for size in (4, 2, 1):
            if rest & size:
                piece = e.b.load(x, typ=ir.IntType(8 * size), align=1)
                word = e.b.or_(word, e.b.shl(e.b.zext(piece, whole), ir.Constant(whole, 8 * at)))
                x, at = e.at(x, size), at + size
        return self._in_all_lanes(e, word)

    def _in_all_lanes(self, e: Emitter, word: Any) -> Register:
        lanes = self.part_lanes
        return e.b.bitcast(e.splat(word, lanes), vector(I8, lanes * self.step))

    # -- packing of a filter that is not constant -------------------------------------------------

    def _emit_pack(self, e: Emitter, raw: Any, packed: Any) -> None:
        g, lanes, vectors = self.g, self.part_lanes, self.accumulators
        low, high = e.share(g.groups * self.blocks * vectors)
        with e.loop(low, high) as item:
            group, one = e.split(item, (g.groups, self.blocks * vectors))
            block, v = e.split(one, (self.blocks, vectors))
            source = e.at(raw, e.add(e.mul(group, g.outputs), e.mul(one, lanes)))
            number = e.add(e.mul(group, self.blocks), block)
            into = e.at(packed, e.mul(number, self.block_bytes))
            for active, here in e.partial(one, g.outputs // lanes, g.outputs % lanes, lanes):
                with here:
                    self._emit_pack_channels(e, source, into, v, active)

    def _emit_pack_channels(
        self, e: Emitter, source: Any, into: Any, v: Index, active: int
    ) -> None:
        """The channels of accumulator `v`, of which `active` exist: every step of every run."""
        step, (runs, run) = self.step, self.runs
        whole, rest = divmod(run, step)
        lanes = self.part_lanes
        nothing = constant(vector(I8, lanes * step), 0)

        def pack_step(row: Index, target: Any, count: int, total: list[Register]) -> list[Register]:
            word = self._packed_step(e, source, row, count, active)
            e.store(word, target, u8)
            taps = e.b.bitcast(word, nothing.type)
            return [e.b.add(total[0], self._terms(e, nothing, taps))]

        with e.loop(0, self.g.kernel[0]) as i:
            begin = e.at(into, e.mul(i, self.row_bytes))

            def over_runs(j: Index, total: list[Register]) -> list[Register]:
                first = e.mul(e.add(e.mul(i, runs), j), run)
                at = e.add(e.mul(j, self.run_bytes), e.mul(v, lanes * step))
                target = e.at(begin, at)

                def over_steps(k: Index, inner: list[Register]) -> list[Register]:
                    here = e.at(target, e.mul(k, step * self.width))
                    return pack_step(e.add(first, e.mul(k, step)), here, step, inner)

                total = e.carry(0, whole, 1, total, over_steps)
                if not rest:
                    return total
                last = e.at(target, whole * step * self.width)
                return pack_step(e.add(first, whole * step), last, rest, total)

            zero = constant(vector(self.wide, lanes), 0)
            (total,) = e.carry(0, runs, 1, [zero], over_runs)
            if self.sum_size:
                sums = e.add(runs * self.run_bytes, e.mul(v, lanes * self.sum_size))
                made = vector(I32, lanes)
                total = total if total.type == made else e.b.trunc(total, made)
                e.store(total, e.at(begin, sums), u8)

    def _packed_step(
        self, e: Emitter, source: Any, first: Index, count: int, active: int
    ) -> Register:
        """Rows first .. first + count - 1 of the filter, each channel's bytes in its lane, last."""
        filter_operand = self.call.inputs[self.operands[1]]
        made = vector(ir.IntType(8 * self.step), self.part_lanes)
        word = constant(made, 0)
        for b in range(count if active else 0):
            row = e.at(source, filter_row(e, filter_operand, e.add(first, b)))
            byte = e.b.zext(e.load(row, u8, self.part_lanes, active), made)
            shift = constant(made, 8 * (self.step - count + b))
            word = e.b.or_(word, e.b.shl(byte, shift))
        return word
