"""Gradients of contractions with respect to input and filter.

Input gradient. Row h = r + s*q of class r takes from output rows q + (r + p - i*d) / s, for the taps i where
that divides; within a class it is a stride-1 contraction over (i, j, t) in order, with lanes over the
input channels k:

    dX[n,h,w,k] = sum_{i,j,t} g[n, ., ., t] * clip(F[i,j,k,t] - X[n,h,w,k], -1, 1)     adder layers
    dX[n,h,w,k] = sum_{i,j,t} g[n, ., ., t] * F[i,j,k,t]                              conv layers

    packed filter   f32[group][block][i][j][t][vectors * lanes]   lanes over k, padded by 0; first phase

    g carries a halo of zeros, so a tap outside the output adds g = 0. NaN in F - X stays NaN.

Filter gradient. A tile of `taps` input elements (column tap, channel: contiguous in NHWC) times vectors of
output channels stays in registers while (n, h, w) run; lanes over t:

    dF[i,j,k,t] = sum_{n,h,w} g[n,h,w,t] X[n, s*h + d*i - p, s*w + d*j - p, k]  ( - F[i,j,k,t] * sum g[.,.,.,t] )

    Partial sums per chunk of samples (about CHUNK outputs; the count follows from the shape alone) are
    added in order to dF in memory. sum g is a first phase into the workspace, f32[groups * T].

Both use FMA where the target has it; their bits do not depend on tile or threads. Threads share tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from addergraph.ops.adder2d import Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.adder_dense import AdderDenseGradFilter, AdderDenseGradInput
from addergraph.ops.conv2d import Conv2dGradFilter, Conv2dGradInput
from addergraph.plan import align

from ..builder import Emitter, Index, Register
from ..schedule import FilterTile, Tile, ceil_div, contraction_tile, filter_tile
from . import Call, Kernel, Operand, kernel

CHUNK = 512  # outputs summed in registers before the partial sum goes to memory
UNROLL_BUDGET = 64

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class _Shape:
    """Sizes of the forward layer, dense layers as 1x1 windows over one row per sample."""

    samples: int
    image: tuple[int, int]  # input height and width
    output: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    groups: int
    inputs: int  # of one group
    outputs: int


def _strides(operand: Operand) -> Triple:
    """Bytes between samples, rows and columns."""
    s = operand.strides
    return (s[0], s[1], s[2]) if len(s) == 4 else (s[0], 0, 0)


def _shape(op: Any, g: Operand, x: tuple[int, ...], f: tuple[int, ...]) -> _Shape:
    if len(f) == 2:
        one = (1, 1)
        return _Shape(g.shape[0], one, one, one, one, one, (0, 0), 1, f[0], f[1])
    return _Shape(
        g.shape[0], (x[1], x[2]), (g.shape[1], g.shape[2]), (f[0], f[1]), op.stride, op.dilation,
        (op.padding[0], op.padding[2]), op.groups, f[2], f[3] // op.groups,
    )  # fmt: skip


@dataclass(frozen=True)
class _Class:
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


def _classes(extent: int, kernel: int, stride: int, dilation: int, pad: int) -> list[_Class]:
    found = []
    step = stride // math.gcd(stride, dilation)
    for first in range(min(stride, extent)):
        taps = [i for i in range(kernel) if (first + pad - i * dilation) % stride == 0]
        shift = (first + pad - taps[0] * dilation) // stride if taps else 0
        found.append(
            _Class(
                first, ceil_div(extent - first, stride), len(taps), taps[0] if taps else 0, step,
                shift, step * dilation // stride,
            )  # fmt: skip
        )
    return found


@kernel(Adder2dGradInput, AdderDenseGradInput, Conv2dGradInput)
class InputGradientKernel(Kernel):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.adder = not isinstance(call.op, Conv2dGradInput)
        self.g, self.f = call.inputs[0], call.inputs[-1]
        self.dx = call.outputs[0]
        self.s = _shape(call.op, self.g, self.dx.shape, self.f.shape)
        s = self.s
        self.rows = _classes(s.image[0], s.kernel[0], s.stride[0], s.dilation[0], s.pad[0])
        self.columns = _classes(s.image[1], s.kernel[1], s.stride[1], s.dilation[1], s.pad[1])
        # Samples of a dense layer play the part of rows, so that a tile spans several of them.
        self.dense = len(self.f.shape) == 2
        height = s.samples if self.dense else ceil_div(s.image[0], s.stride[0])
        width = ceil_div(s.image[1], s.stride[1])
        self.tile: Tile = contraction_tile(self.target, height, width, s.inputs, int(self.adder))

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
        return 4 * self.s.kernel[0] * self.s.kernel[1] * self.s.outputs * self.width

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
        pointers = _Pointers(inputs[0], inputs[1] if self.adder else None, workspace, outputs[0])
        for row in self.rows:
            for column in self.columns:
                self._emit_class(e, pointers, row, column)

    def _emit_pack(self, e: Emitter, raw: Any, packed: Any) -> None:
        """[group][block][i][j][t][lane] from HWIO: a transposition, one element at a time."""
        s, width = self.s, self.width
        taps = s.kernel[0] * s.kernel[1]
        made = s.groups * s.outputs
        low, high = e.share(s.groups * self.blocks * taps)
        with e.loop(low, high) as item, e.loop(0, width) as lane:
            group, block, tap = e.split(item, (s.groups, self.blocks, taps))
            channel = e.add(e.mul(block, width), lane)
            into = e.at(packed, e.add(e.mul(item, 4 * s.outputs * width), e.mul(lane, 4)))
            exists = e.less(channel, s.inputs)
            row = e.add(e.mul(tap, s.inputs), e.minimum(channel, max(0, s.inputs - 1)))
            source = e.at(raw, e.mul(e.add(e.mul(row, made), e.mul(group, s.outputs)), 4))
            with e.loop(0, s.outputs) as t:
                value = e.load(e.at(source, e.mul(t, 4)))
                value = e.b.select(exists, value, e.number(0.0, 1))
                e.store(value, e.at(into, e.mul(t, 4 * width)))

    def _emit_class(self, e: Emitter, at: _Pointers, row: _Class, column: _Class) -> None:
        """All pixels of one residue class of rows and columns."""
        s, tile = self.s, self.tile
        height = s.samples if self.dense else row.count
        samples = 1 if self.dense else s.samples
        strips = ceil_div(height, tile.rows)
        low, high = e.share(s.groups * self.blocks * samples * strips)
        with e.loop(low, high) as item:
            group, block, n, strip = e.split(item, (s.groups, self.blocks, samples, strips))
            q = e.mul(strip, tile.rows)
            place = _GradPlace(self, row, column, group, block, n, q)
            tail = height % tile.rows
            if not tail or height < tile.rows:
                self._emit_strip(e, at, place, tail or tile.rows)
            else:
                with e.b.if_else(e.less(strip, height // tile.rows)) as (whole, bottom):
                    with whole:
                        self._emit_strip(e, at, place, tile.rows)
                    with bottom:
                        self._emit_strip(e, at, place, tail)

    def _emit_strip(self, e: Emitter, at: _Pointers, place: _GradPlace, rows: int) -> None:
        columns, count = self.tile.columns, place.column.count
        whole = count - count % columns
        with e.loop(0, whole, columns) as w:
            self._emit_tile(e, at, place, w, (rows, columns))
        if count % columns:
            self._emit_tile(e, at, place, whole, (rows, count % columns))

    def _emit_tile(
        self, e: Emitter, at: _Pointers, place: _GradPlace, w: Index, size: tuple[int, int]
    ) -> None:
        last = self.blocks - 1
        partial = self.s.inputs - last * self.width
        if partial == self.width or last == 0:
            self._emit_active_tile(e, at, place, w, size, partial if last == 0 else self.width)
            return
        with e.b.if_else(e.less(place.block, last)) as (whole, rest):
            with whole:
                self._emit_active_tile(e, at, place, w, size, self.width)
            with rest:
                self._emit_active_tile(e, at, place, w, size, partial)

    def _emit_active_tile(
        self, e: Emitter, at: _Pointers, place: _GradPlace, w: Index, size: tuple[int, int],
        active: int,
    ) -> None:  # fmt: skip
        lanes = self.target.lanes
        counts = [min(lanes, active - v * lanes) for v in range(self.tile.vectors)]
        counts = [c for c in counts if c > 0]
        pixels = [(r, c) for r in range(size[0]) for c in range(size[1])]
        xs: list[Register] = []
        if self.adder:
            base = place.input_offset(e, self.call.inputs[1], w)
            for r, c in pixels:
                offset = place.pixel_bytes(self.call.inputs[1], r, c)
                for v, count in enumerate(counts):
                    here = e.at(at.x, e.add(base, offset + 4 * v * lanes))
                    xs.append(e.load(here, lanes=lanes, active=count))
        sums = self._emit_reduction(e, at, place, w, pixels, xs, len(counts))
        base = place.input_offset(e, self.dx, w)
        for p, (r, c) in enumerate(pixels):
            offset = place.pixel_bytes(self.dx, r, c)
            for v, count in enumerate(counts):
                here = e.at(at.dx, e.add(base, offset + 4 * v * lanes))
                e.store(sums[p * len(counts) + v], here, active=count)

    def _emit_reduction(
        self, e: Emitter, at: _Pointers, place: _GradPlace, w: Index,
        pixels: list[tuple[int, int]], xs: list[Register], vectors: int,
    ) -> list[Register]:  # fmt: skip
        s, lanes = self.s, self.target.lanes
        row, column = place.row, place.column
        _, gh, gw = _strides(self.g)
        start = e.at(at.g, place.output_offset(e, self.g, w))
        offsets = [place.output_bytes(self.g, r, c) for r, c in pixels]
        number = e.add(e.mul(place.group, self.blocks), place.block)
        filters = e.at(at.f, e.mul(number, self.block_bytes))
        tap_bytes = 4 * s.outputs * self.width

        def over_rows(i: Index, outer: list[Register]) -> list[Register]:
            g_row = e.at(start, e.mul(i, -row.shift_step * gh))
            tap_row = e.add(row.first_tap, e.mul(i, row.tap_step))
            f_row = e.at(filters, e.mul(tap_row, s.kernel[1] * tap_bytes))

            def over_columns(j: Index, middle: list[Register]) -> list[Register]:
                g_run = e.at(g_row, e.mul(j, -column.shift_step * gw))
                tap_column = e.add(column.first_tap, e.mul(j, column.tap_step))
                f_run = e.at(f_row, e.mul(tap_column, tap_bytes))

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
                            term = self._clip(e, taps[v], xs[a]) if self.adder else taps[v]
                            acc[a] = e.fma(g, term, acc[a])
                    return acc

                most = max(1, UNROLL_BUDGET // (len(offsets) * vectors))
                return e.unrolled(s.outputs, min(most, max(1, s.outputs)), middle, update)

            return e.carry(0, column.taps, 1, outer, over_columns)

        zeros = [e.number(0.0, lanes)] * (len(pixels) * vectors)
        return e.carry(0, row.taps, 1, zeros, over_rows)

    @staticmethod
    def _clip(e: Emitter, f: Register, x: Register) -> Register:
        """clip(f - x, -1, 1); NaN stays NaN, which the order of the comparisons decides."""
        difference = e.b.fsub(f, x)
        lanes = difference.type.count
        one, minus_one = e.number(1.0, lanes), e.number(-1.0, lanes)
        high = e.b.select(e.b.fcmp_ordered("<", one, difference), one, difference)
        return e.b.select(e.b.fcmp_ordered(">", minus_one, high), minus_one, high)


@dataclass(frozen=True)
class _Pointers:
    g: Any
    x: Any
    f: Any  # the packed filter
    dx: Any


@dataclass(frozen=True)
class _GradPlace:
    """A strip of one residue class: group, channel block, sample, first row number q."""

    kernel: InputGradientKernel
    row: _Class
    column: _Class
    group: Index
    block: Index
    n: Index
    q: Index

    def input_offset(self, e: Emitter, operand: Operand, w: Index) -> Index:
        """Bytes to the strip's first element of X or dX, at column number w."""
        (n, h, c), s = _strides(operand), self.kernel.s
        channel = e.add(e.mul(self.group, s.inputs), e.mul(self.block, self.kernel.width))
        if self.kernel.dense:
            return e.add(e.mul(self.q, n), e.mul(channel, 4))
        rows = e.add(e.mul(self.q, s.stride[0]), self.row.first)
        columns = e.add(e.mul(w, s.stride[1]), self.column.first)
        return e.add(e.dot((self.n, rows, columns), (n, h, c)), e.mul(channel, 4))

    def pixel_bytes(self, operand: Operand, r: int, c: int) -> int:
        """Bytes from the strip's first pixel to pixel (r, c) of the tile, in X or dX."""
        (n, h, w), stride = _strides(operand), self.kernel.s.stride
        return r * n if self.kernel.dense else r * stride[0] * h + c * stride[1] * w

    def output_offset(self, e: Emitter, g: Operand, w: Index) -> Index:
        """Bytes to the element of g that the first tap reads for the first pixel."""
        n, h, c = _strides(g)
        channel = 4 * self.kernel.s.outputs
        if self.kernel.dense:
            return e.mul(self.q, n)
        rows, columns = e.add(self.q, self.row.shift), e.add(w, self.column.shift)
        return e.add(e.dot((self.n, rows, columns), (n, h, c)), e.mul(self.group, channel))

    def output_bytes(self, g: Operand, r: int, c: int) -> int:
        n, h, w = _strides(g)
        return r * n if self.kernel.dense else r * h + c * w


@kernel(Adder2dGradFilter, AdderDenseGradFilter, Conv2dGradFilter)
class FilterGradientKernel(Kernel):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.adder = not isinstance(call.op, Conv2dGradFilter)
        self.g, self.x, self.df = call.inputs[0], call.inputs[1], call.outputs[0]
        self.s = s = _shape(call.op, self.g, self.x.shape, self.df.shape)
        # Column taps next to each other are one run of input elements.
        contiguous = s.dilation[1] == 1 and s.groups == 1
        self.segments = 1 if contiguous else s.kernel[1]
        self.run = s.kernel[1] * s.inputs // self.segments
        self.tile: FilterTile = filter_tile(self.target, self.run, s.outputs)

    @property
    def name(self) -> str:
        tile = f"{self.tile.taps}x{self.width}"
        return f"{self.call.op.name}_f32_{tile}_{self.target.isa}"

    @property
    def width(self) -> int:
        return self.tile.vectors * self.target.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.s.outputs, self.width)

    @property
    def chunk(self) -> int:
        """Samples in one partial sum."""
        return max(1, CHUNK // max(1, self.s.output[0] * self.s.output[1]))

    @property
    def workspace(self) -> int:
        return align(4 * self.s.groups * self.s.outputs) if self.adder else 0

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.df.shape:
            return
        g, x, f = inputs[0], inputs[1], inputs[2] if self.adder else None
        if self.adder:
            self._emit_sums(e, g, workspace)
            e.barrier()
        s, strips = self.s, ceil_div(self.run, self.tile.taps)
        low, high = e.share(s.groups * s.kernel[0] * self.segments * strips * self.blocks)
        with e.loop(low, high) as item:
            sizes = (s.groups, s.kernel[0], self.segments, strips, self.blocks)
            at = _FilterPlace(*e.split(item, sizes))
            tail = self.run % self.tile.taps
            if not tail or strips == 1:
                self._emit_block(e, at, tail or self.tile.taps, (g, x, f, outputs[0], workspace))
            else:
                with e.b.if_else(e.less(at.strip, strips - 1)) as (whole, rest):
                    with whole:
                        self._emit_block(e, at, self.tile.taps, (g, x, f, outputs[0], workspace))
                    with rest:
                        self._emit_block(e, at, tail, (g, x, f, outputs[0], workspace))

    def _emit_block(
        self, e: Emitter, at: _FilterPlace, taps: int, pointers: tuple[Any, ...]
    ) -> None:
        last = self.blocks - 1
        partial = self.s.outputs - last * self.width
        if partial == self.width or last == 0:
            self._emit_tile(e, at, taps, partial if last == 0 else self.width, pointers)
            return
        with e.b.if_else(e.less(at.block, last)) as (whole, rest):
            with whole:
                self._emit_tile(e, at, taps, self.width, pointers)
            with rest:
                self._emit_tile(e, at, taps, partial, pointers)

    def _emit_tile(
        self, e: Emitter, at: _FilterPlace, taps: int, active: int, pointers: tuple[Any, ...]
    ) -> None:
        s, lanes = self.s, self.target.lanes
        g, x, f, df, sums = pointers
        counts = [min(lanes, active - v * lanes) for v in range(self.tile.vectors)]
        counts = [c for c in counts if c > 0]
        channel = e.add(e.mul(at.group, s.outputs), e.mul(at.block, self.width))
        row = e.add(e.mul(at.i, self.segments), at.j)
        row = e.add(e.mul(row, self.run), e.mul(at.strip, self.tile.taps))
        row_bytes = 4 * s.groups * s.outputs
        first = e.add(e.mul(row, row_bytes), e.mul(channel, 4))

        def each(base: Any) -> list[tuple[int, int, Any]]:
            return [
                (m * len(counts) + v, count, e.at(base, e.add(first, m * row_bytes + 4 * v * lanes)))
                for m in range(taps)
                for v, count in enumerate(counts)
            ]

        zeros = [e.number(0.0, lanes)] * (taps * len(counts))
        for number, count, here in each(df):
            e.store(zeros[number], here, active=count)
        with e.loop(0, s.samples, self.chunk) as begin:
            end = e.minimum(e.add(begin, self.chunk), s.samples)
            partial = self._emit_sum(e, at, (begin, end), (g, x), channel, taps, counts)
            for number, count, here in each(df):
                total = e.b.fadd(e.load(here, lanes=lanes, active=count), partial[number])
                e.store(total, here, active=count)
        if not self.adder:
            return
        filters = dict((n, p) for n, _, p in each(f))
        for number, count, here in each(df):
            v = number % len(counts)
            total_g = e.at(sums, e.add(e.mul(channel, 4), 4 * v * lanes))
            correction = e.b.fmul(
                e.load(filters[number], lanes=lanes, active=count),
                e.load(total_g, lanes=lanes, active=count),
            )
            value = e.b.fsub(e.load(here, lanes=lanes, active=count), correction)
            e.store(value, here, active=count)

    def _emit_sum(
        self, e: Emitter, at: _FilterPlace, samples: tuple[Index, Index],
        pointers: tuple[Any, Any], channel: Index, taps: int, counts: list[int],
    ) -> list[Register]:  # fmt: skip
        """sum g x over one chunk of samples, in registers [tap][vector]."""
        s, lanes = self.s, self.target.lanes
        (gn, gh, gw), (xn, xh, xw) = _strides(self.g), _strides(self.x)
        start = e.sub(e.mul(at.i, s.dilation[0] * xh), s.pad[0] * xh + s.pad[1] * xw)
        start = e.add(start, e.mul(at.j, s.dilation[1] * xw))
        start = e.add(start, e.mul(e.add(e.mul(at.group, s.inputs), e.mul(at.strip, self.tile.taps)), 4))
        x0 = e.at(pointers[1], start)
        g0 = e.at(pointers[0], e.mul(channel, 4))

        def over_samples(n: Index, outer: list[Register]) -> list[Register]:
            x1, g1 = e.at(x0, e.mul(n, xn)), e.at(g0, e.mul(n, gn))

            def over_rows(h: Index, middle: list[Register]) -> list[Register]:
                x2, g2 = e.at(x1, e.mul(h, s.stride[0] * xh)), e.at(g1, e.mul(h, gh))

                def over_columns(w: Index, acc: list[Register]) -> list[Register]:
                    x3, g3 = e.at(x2, e.mul(w, s.stride[1] * xw)), e.at(g2, e.mul(w, gw))
                    gs = [
                        e.load(e.at(g3, 4 * v * lanes), lanes=lanes, active=count)
                        for v, count in enumerate(counts)
                    ]
                    for m in range(taps):
                        one = e.splat(e.load(e.at(x3, 4 * m)), lanes)
                        for v, g in enumerate(gs):
                            a = m * len(counts) + v
                            acc[a] = e.fma(one, g, acc[a])
                    return acc

                return e.carry(0, s.output[1], 1, middle, over_columns)

            return e.carry(0, s.output[0], 1, outer, over_rows)

        zeros = [e.number(0.0, lanes)] * (taps * len(counts))
        return e.carry(samples[0], samples[1], 1, zeros, over_samples)

    def _emit_sums(self, e: Emitter, g: Any, sums: Any) -> None:
        """sum g over n, h, w for every output channel, by the same chunks."""
        s, lanes = self.s, self.target.lanes
        made = s.groups * s.outputs
        low, high = e.share(ceil_div(made, lanes))
        with e.loop(low, high) as block:
            base, into = e.at(g, e.mul(block, 4 * lanes)), e.at(sums, e.mul(block, 4 * lanes))
            for active, here in e.partial(block, made // lanes, made % lanes, lanes):
                if active:
                    with here:
                        e.store(self._emit_sum_vector(e, base, active), into, active=active)

    def _emit_sum_vector(self, e: Emitter, base: Any, active: int) -> Register:
        s, lanes = self.s, self.target.lanes
        gn, gh, gw = _strides(self.g)
        zero = [e.number(0.0, lanes)]

        def over_chunks(begin: Index, total: list[Register]) -> list[Register]:
            end = e.minimum(e.add(begin, self.chunk), s.samples)

            def over_samples(n: Index, outer: list[Register]) -> list[Register]:
                def over_rows(h: Index, middle: list[Register]) -> list[Register]:
                    row = e.at(base, e.dot((n, h), (gn, gh)))

                    def over_columns(w: Index, acc: list[Register]) -> list[Register]:
                        more = e.load(e.at(row, e.mul(w, gw)), lanes=lanes, active=active)
                        return [e.b.fadd(acc[0], more)]

                    return e.carry(0, s.output[1], 1, middle, over_columns)

                return e.carry(0, s.output[0], 1, outer, over_rows)

            return [e.b.fadd(total[0], e.carry(begin, end, 1, zero, over_samples)[0])]

        return e.carry(0, s.samples, self.chunk, zero, over_chunks)[0]


@dataclass(frozen=True)
class _FilterPlace:
    """A tile of dF: group, kernel row, column segment, strip of the run, channel block."""

    group: Index
    i: Index
    j: Index
    strip: Index
    block: Index
