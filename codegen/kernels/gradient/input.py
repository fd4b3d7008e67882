"""Gradients of contractions with respect to the input.

Row h = r + s*q of class r takes from output rows q + (r + p - i*d) / s, for the taps i where that
divides; within a class it is a stride-1 contraction over (i, j, t) in order, with lanes over the
input channels k:

    dX[n,h,w,k] = sum_{i,j,t} g[n, ., ., t] * clip(F[i,j,k,t] - X[n,h,w,k], -1, 1)    adder layers
    dX[n,h,w,k] = sum_{i,j,t} g[n, ., ., t] * F[i,j,k,t]                              conv layers

    packed filter   f32[group][block][i][j][t][vectors * lanes]   lanes over k

The filter is packed into the workspace by a first phase; lanes beyond the channels repeat the last
one. g carries a halo of zeros, so a tap outside the output adds 0 times its term: NaN where that is
NaN (conv: or infinite). FMA where the target has it; bits do not depend on tile or threads. Threads
share the (group, n, class, block, tile row) grid.

The term of adder layers is a subtraction, a clip and a multiply-add. Multiplier pipes and adder
pipes must share that evenly, so where the target has FMA every other subtraction is F * 1 - X (the
same bits), or every one where the clip is two instructions of the adder pipes (min, max). AVX-512
clips by magnitude in one instruction, which loses NaN: there, rows t = T and T + 1 of each packed
tap are the sums over t of the F that are +inf or NaN, and of those that are -inf (0 where none is).
Summed over the taps of a class they are P and M, and P - X or M - X is NaN exactly where some
F - X is: there dX becomes NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from addergraph.ir.plan import align

from ...emit.builder import LINE, Emitter, Index, Register
from .. import Call, Kernel, Operand
from ..cut import piece, pieces
from ..forward.geometry import filter_row, geometry, image_strides
from ..forward.terms import DIRECT, PRODUCT, measures_distance
from ..schedule import Tile, adder_input_gradient_tile, ceil_div, contraction_tile
from ..transpose import transposed

# Tile updates emitted in one straight line at most. Unrolled, LLVM runs out of registers in adder
# kernels, whose terms are long enough to hide the loop.
UNROLL_BUDGET, ADDER_UNROLL_BUDGET = 64, 8


@dataclass(frozen=True)
class RowClass:
    """The rows (or columns) first + stride * q, q < count, and the taps that reach them.

    Tap number m of `taps` is kernel row first_tap + m * tap_step; it reads output row
    q + shift - m * shift_step.
    """

    first: int
    count: int
    taps: int
    first_tap: int
    tap_step: int
    shift: int
    shift_step: int


def row_classes(extent: int, kernel: int, stride: int, dilation: int, pad: int) -> list[RowClass]:
    found = []
    step = stride // math.gcd(stride, dilation)
    for first in range(min(stride, extent)):
        taps = [i for i in range(kernel) if (first + pad - i * dilation) % stride == 0]
        shift = (first + pad - taps[0] * dilation) // stride if taps else 0
        found.append(
            RowClass(
                first,
                ceil_div(extent - first, stride),
                len(taps),
                taps[0] if taps else 0,
                step,
                shift,
                step * dilation // stride,
            )
        )
    return found


class InputGradientKernel(Kernel):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.adder = measures_distance(call.op)
        self.g, self.f = call.inputs[0], call.inputs[-1]
        self.dx = call.outputs[0]
        term = DIRECT if self.adder else PRODUCT
        self.s = s = geometry(term, call.op, self.dx, self.f, self.g)
        self.rows = row_classes(s.image[0], s.kernel[0], s.stride[0], s.dilation[0], s.pad[0])
        self.columns = row_classes(s.image[1], s.kernel[1], s.stride[1], s.dilation[1], s.pad[1])
        self.dense = len(self.f.shape) == 2
        height, width = (ceil_div(n, by) for n, by in zip(s.image, s.stride, strict=True))
        choose = adder_input_gradient_tile if self.adder else contraction_tile
        self.tile: Tile = choose(self.target, height, width, s.inputs)

    @property
    def name(self) -> str:
        tile = f"{self.tile.pixels}x{self.tile.vectors * self.target.lanes}"
        return f"{self.call.op.name}_f32_{tile}_{self.target.isa}"

    @property
    def width(self) -> int:
        return self.tile.vectors * self.target.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.s.inputs, self.width)

    @property
    def block_bytes(self) -> int:
        """Packed filter of one block of input channels."""
        return self.s.kernel[0] * self.s.kernel[1] * self.tap_bytes

    @property
    def loses_nan(self) -> bool:
        """Whether the clip does, so that NaN needs a way of its own."""
        return self.adder and bool(self.target.least_magnitude)

    @property
    def tap_bytes(self) -> int:
        """Packed filter of one tap in one block."""
        return 4 * (self.s.outputs + 2 * self.loses_nan) * self.width

    @property
    def workspace(self) -> int:
        return align(self.s.groups * self.blocks * self.block_bytes)

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.dx.shape:
            return
        self._emit_pack(e, inputs[-1], workspace)
        e.barrier()
        # LLVM must not know the factor of F * 1 - X, or it subtracts.
        one = e.splat(e.opaque(1.0), self.target.lanes) if self.adder and self.target.fma else None
        x = inputs[1] if self.adder else None
        pointers = _Pointers(inputs[0], x, workspace, outputs[0], one)
        s, height = self.s, self.tile.rows
        classes = [(r, c, ceil_div(r.count, height)) for r in self.rows for c in self.columns]
        strips = sum(count for _, _, count in classes)
        low, high = e.share(s.groups * s.samples * strips * self.blocks)
        with e.loop(low, high) as item:
            # Samples outside classes and blocks: one sample stays in L2 while all of them pass.
            group, n, number = e.split(item, (s.groups, s.samples, strips * self.blocks))
            first = 0
            for row, column, count in classes:
                with self._within(e, number, first, count * self.blocks, strips * self.blocks):
                    block, strip = e.split(e.sub(number, first), (self.blocks, count))
                    q = e.mul(strip, height)
                    place = _GradPlace(self, row, column, group, block, n, q)
                    for rows in piece(e, strip, row.count, height):
                        for w, columns in pieces(e, column.count, self.tile.columns):
                            for active in piece(e, block, s.inputs, self.width):
                                self._emit_tile(e, pointers, place, w, (rows, columns), active)
                first += count * self.blocks

    @staticmethod
    def _within(e: Emitter, number: Index, first: int, count: int, every: int) -> Any:
        """The context for first <= number < first + count, of `every` numbers."""
        if count == every:
            return e.always()
        return e.when(e.b.icmp_unsigned("<", e.sub(number, first), e.index(count)))

    def _emit_pack(self, e: Emitter, raw: Any, packed: Any) -> None:
        """[group][block][i][j][t][lane] from HWIO: transposed squares of lanes x lanes."""
        s, lanes, vectors = self.s, self.target.lanes, self.tile.vectors
        taps = s.kernel[0] * s.kernel[1]
        whole = s.outputs - s.outputs % lanes
        low, high = e.share(s.groups * self.blocks * taps * vectors)
        with e.loop(low, high) as item:
            group, block, tap, v = e.split(item, (s.groups, self.blocks, taps, vectors))
            channel = e.add(e.mul(block, self.width), e.mul(v, lanes))
            number = e.add(e.mul(e.add(e.mul(group, self.blocks), block), taps), tap)
            into = e.at(packed, e.add(e.mul(number, self.tap_bytes), e.mul(v, 4 * lanes)))
            sources = []
            for lane in range(lanes):
                k = e.minimum(e.add(channel, lane), s.inputs - 1)
                row = filter_row(e, self.f, e.add(e.mul(tap, s.inputs), k))
                sources.append(e.at(raw, e.add(row, e.mul(group, 4 * s.outputs))))

            def square(t: Index, active: int, marks: list[Register]) -> list[Register]:
                rows = [e.load(e.at(p, e.mul(t, 4)), lanes=lanes, active=active) for p in sources]
                for u, made in enumerate(transposed(e, rows)[:active]):
                    e.store(made, e.at(into, e.mul(e.add(t, u), 4 * self.width)))
                    marks = _marked(e, made, marks) if marks else []
                return marks

            zeros = [e.number(0.0, lanes)] * 2 if self.loses_nan else []
            marks = e.carry(0, whole, lanes, zeros, lambda t, c: square(t, lanes, c))
            if whole < s.outputs:
                marks = square(whole, s.outputs - whole, marks)
            for row, mark in enumerate(marks):
                e.store(mark, e.at(into, 4 * (s.outputs + row) * self.width))

    def _emit_tile(
        self, e: Emitter, at: _Pointers, place: _GradPlace, w: Index, size: tuple[int, int],
        active: int,
    ) -> None:  # fmt: skip
        lanes = self.target.lanes
        counts = [min(lanes, active - v * lanes) for v in range(self.tile.vectors)]
        counts = [c for c in counts if c > 0]
        pixels = [(r, c) for r in range(size[0]) for c in range(size[1])]
        xs: list[Register] = []  # -X
        if self.adder:
            base = place.input_offset(e, self.call.inputs[1], w)
            for r, c in pixels:
                offset = place.pixel_bytes(self.call.inputs[1], r, c)
                for v, count in enumerate(counts):
                    here = e.at(at.x, e.add(base, offset + 4 * v * lanes))
                    xs.append(e.b.fneg(e.load(here, lanes=lanes, active=count)))
        if not self.dense:
            self._emit_prefetch(e, at, place, w, pixels)
        sums = self._emit_reduction(e, at, place, w, pixels, xs, len(counts))
        if self.loses_nan and place.row.taps and place.column.taps and self.s.outputs:
            marks = [self._emit_marks(e, at, place, v) for v in range(len(counts))]
            sums = [
                _with_nan(e, total, xs[a], *marks[a % len(counts)]) for a, total in enumerate(sums)
            ]
        base = place.input_offset(e, self.dx, w)
        for p, (r, c) in enumerate(pixels):
            offset = place.pixel_bytes(self.dx, r, c)
            for v, count in enumerate(counts):
                here = e.at(at.dx, e.add(base, offset + 4 * v * lanes))
                e.store(sums[p * len(counts) + v], here, active=count)

    def _emit_prefetch(
        self, e: Emitter, at: _Pointers, place: _GradPlace, w: Index,
        pixels: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        """The tile's part of what the next sample will read and write."""
        width = min(self.width, self.s.inputs)
        wanted = [(at.dx, self.dx)]
        if self.adder:
            wanted.append((at.x, self.call.inputs[1]))
        for pointer, operand in wanted:
            base = e.at(pointer, e.add(place.input_offset(e, operand, w), operand.strides[0]))
            for r, c in pixels:
                for byte in range(0, 4 * width, LINE):
                    e.prefetch(e.at(base, place.pixel_bytes(operand, r, c) + byte))
        if place.row != self.rows[0] or place.column != self.columns[0]:
            return  # all classes read the same g
        base = e.at(at.g, e.add(place.output_offset(e, w), self.g.strides[0]))
        share = ceil_div(4 * self.s.outputs, LINE * self.blocks) * LINE  # of this block
        base = e.at(base, e.mul(place.block, share))
        for r, c in pixels:
            for byte in range(0, share, LINE):
                e.prefetch(e.at(base, place.output_bytes(r, c) + byte))

    def _emit_reduction(
        self, e: Emitter, at: _Pointers, place: _GradPlace, w: Index,
        pixels: list[tuple[int, int]], xs: list[Register], vectors: int,
    ) -> list[Register]:  # fmt: skip
        s, lanes = self.s, self.target.lanes
        row, column = place.row, place.column
        _, gh, gw = s.y
        start = e.at(at.g, place.output_offset(e, w))
        offsets = [place.output_bytes(r, c) for r, c in pixels]
        number = e.add(e.mul(place.group, self.blocks), place.block)
        filters = e.at(at.f, e.mul(number, self.block_bytes))

        def over_rows(i: Index, outer: list[Register]) -> list[Register]:
            g_row = e.at(start, e.mul(i, -row.shift_step * gh))
            tap_row = e.add(row.first_tap, e.mul(i, row.tap_step))
            f_row = e.at(filters, e.mul(tap_row, s.kernel[1] * self.tap_bytes))

            def over_columns(j: Index, middle: list[Register]) -> list[Register]:
                g_run = e.at(g_row, e.mul(j, -column.shift_step * gw))
                tap_column = e.add(column.first_tap, e.mul(j, column.tap_step))
                f_run = e.at(f_row, e.mul(tap_column, self.tap_bytes))

                def update(t: Index, u: int, acc: list[Register]) -> list[Register]:
                    gs, fs = e.at(g_run, e.mul(t, 4)), e.at(f_run, e.mul(t, 4 * self.width))
                    taps = [
                        e.load(e.at(fs, 4 * (u * self.width + v * lanes)), lanes=lanes)
                        for v in range(vectors)
                    ]
                    for p, offset in enumerate(offsets):
                        g = e.splat(e.load(e.at(gs, offset + 4 * u)), lanes)
                        for v in range(vectors):
                            a = p * vectors + v
                            term = taps[v]
                            if self.adder:
                                term = self._emit_difference(e, term, xs[a], at.one, a + u)
                                term = e.clip_unit(term)
                            acc[a] = e.fma(g, term, acc[a])
                    return acc

                budget = ADDER_UNROLL_BUDGET if self.adder else UNROLL_BUDGET
                most = max(1, budget // (len(offsets) * vectors))
                return e.unrolled(s.outputs, min(most, max(1, s.outputs)), middle, update)

            return e.carry(0, column.taps, 1, outer, over_columns)

        zeros = [e.number(0.0, lanes)] * (vectors * len(pixels))
        return e.carry(0, row.taps, 1, zeros, over_rows)

    def _emit_difference(
        self, e: Emitter, f: Register, minus_x: Register, one: Register | None, number: int
    ) -> Register:
        """f - x; subtraction `number` decides by which pipes."""
        if one is not None and self.target.subtracts_by_fma(number):
            return e.fma(f, one, minus_x)
        return e.b.fadd(f, minus_x)

    def _emit_marks(
        self, e: Emitter, at: _Pointers, place: _GradPlace, v: int
    ) -> tuple[Register, Register]:
        """P and M of the module's contract, for vector v of the channels."""
        s, lanes = self.s, self.target.lanes
        number = e.add(e.mul(place.group, self.blocks), place.block)
        first = e.at(at.f, e.add(e.mul(number, self.block_bytes), 4 * v * lanes))
        rows = [e.at(first, 4 * (s.outputs + row) * self.width) for row in range(2)]

        def over_rows(i: Index, outer: list[Register]) -> list[Register]:
            row = e.mul(e.add(place.row.first_tap, e.mul(i, place.row.tap_step)), s.kernel[1])

            def over_columns(j: Index, marks: list[Register]) -> list[Register]:
                column = e.add(place.column.first_tap, e.mul(j, place.column.tap_step))
                tap = e.mul(e.add(row, column), self.tap_bytes)
                pairs = zip(marks, rows, strict=True)
                return [e.b.fadd(mark, e.load(e.at(p, tap), lanes=lanes)) for mark, p in pairs]

            return e.carry(0, place.column.taps, 1, outer, over_columns)

        plus, minus = e.carry(0, place.row.taps, 1, [e.number(0.0, lanes)] * 2, over_rows)
        return plus, minus


def _marked(e: Emitter, f: Register, marks: list[Register]) -> list[Register]:
    """The sums of +inf and NaN, and of -inf, with those in `f`."""
    lanes = f.type.count
    zero = e.number(0.0, lanes)
    plus = e.b.fcmp_unordered("==", f, e.number(math.inf, lanes))
    minus = e.b.fcmp_ordered("==", f, e.number(-math.inf, lanes))
    return [
        e.b.fadd(mark, e.b.select(found, f, zero))
        for mark, found in zip(marks, (plus, minus), strict=True)
    ]


def _with_nan(
    e: Emitter, total: Register, minus_x: Register, plus: Register, minus: Register
) -> Register:
    """`total`, or NaN where plus - x or minus - x is."""
    ends = [e.b.fadd(mark, minus_x) for mark in (plus, minus)]
    nan = e.number(math.nan, total.type.count)
    return e.b.select(e.b.fcmp_unordered("uno", *ends), nan, total)


@dataclass(frozen=True)
class _Pointers:
    g: Any
    x: Any
    f: Any  # the packed filter
    dx: Any
    one: Register | None  # 1, for subtractions by multiply-add


@dataclass(frozen=True)
class _GradPlace:
    """A strip of one residue class: group, channel block, sample, first row number q."""

    kernel: InputGradientKernel
    row: RowClass
    column: RowClass
    group: Index
    block: Index
    n: Index
    q: Index

    def input_offset(self, e: Emitter, operand: Operand, w: Index) -> Index:
        """Bytes to the strip's first element of X or dX, at column number w."""
        s = self.kernel.s
        channel = e.add(e.mul(self.group, s.inputs), e.mul(self.block, self.kernel.width))
        rows = e.add(e.mul(self.q, s.stride[0]), self.row.first)
        columns = e.add(e.mul(w, s.stride[1]), self.column.first)
        return e.add(e.dot((self.n, rows, columns), image_strides(operand)), e.mul(channel, 4))

    def pixel_bytes(self, operand: Operand, r: int, c: int) -> int:
        """Bytes from the strip's first pixel to pixel (r, c) of the tile, in X or dX."""
        (_, h, w), stride = image_strides(operand), self.kernel.s.stride
        return r * stride[0] * h + c * stride[1] * w

    def output_offset(self, e: Emitter, w: Index) -> Index:
        """Bytes to the element of g that the first tap reads for the first pixel."""
        s = self.kernel.s
        group = 0 if self.kernel.dense else self.group
        rows, columns = e.add(self.q, self.row.shift), e.add(w, self.column.shift)
        return e.add(e.dot((self.n, rows, columns), s.y), e.mul(group, 4 * s.outputs))

    def output_bytes(self, r: int, c: int) -> int:
        _, h, w = self.kernel.s.y
        return r * h + c * w
