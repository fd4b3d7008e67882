"""Forward contractions: adder2d, conv2d, adder_dense, dense, matmul, with a pointwise tail.

    acc[n,h,w,t] = sum_{i,j,k} term(X[n, s*h + d*i - p, s*w + d*j - p, k], F[i,j,k,t])

    form      term            result before the tail
    direct    |x - f|         0 - acc
    minimum   min(x, f+)      ((acc + acc) - sum x) - sum|f|      f+ = max(f, 0), every x >= 0
    product   x * f           acc

All three are one loop nest. Output channels are in the vector lanes; a tile of output pixels times
vectors of channels stays in registers while the reduction runs over (i, j, k) in order, in f32. The
input carries its zero padding as a halo, so there are no borders.

    packed filter   f32[group][block][i][j][k][vectors * lanes]   reading order, channels padded by 0
    packed sums     f32[group][block][vectors * lanes]   minimum form: sum|f| in the order (i, j, k)

A constant filter is packed in NumPy (`packs`); any other into the workspace by a first phase. In
the minimum form that phase also writes the window sums of x, f32[group][n][h][w]: sixteen partial
sums over k mod 16, each over (i, j) in order, then a fixed tree, whatever the target's lanes are.
So the bits of the adder forms depend neither on ISA nor on tile nor on threads; products use FMA
where there is one.

Minimum form, special values: min on the bit patterns of non-negative floats is exact; x = -0.0 adds
-0.0; a NaN in x or f reaches the result through the two sums; f+ of NaN is 0. Where x is +Inf the
result is -Inf or NaN: `inf - inf` when some f is +Inf as well, or when min picks Inf.

Threads share the (group, block, n, tile row) grid. The caller guarantees that outputs alias
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from addergraph.ir import Array, Graph
from addergraph.ops.adder2d import Adder2d
from addergraph.ops.adder_dense import AdderDense
from addergraph.ops.conv2d import Conv2d
from addergraph.ops.dense import Dense, Matmul
from addergraph.plan import align

from ..builder import Emitter, Index, Register
from ..schedule import Tile, ceil_div, contraction_tile
from . import Call, Kernel, Operand, kernel
from .pointwise import emit_body

DIRECT, MINIMUM, PRODUCT = "direct", "minimum", "product"
SUM_LANES = 16  # virtual lanes of the window sums: part of the result's definition, not of a target
UNROLL_BUDGET = 64  # tile updates emitted in one straight line at most


@dataclass(frozen=True)
class Geometry:
    """The loop bounds and byte strides of one windowed contraction; dense layers are 1x1 windows.

    A dense layer's rows are image rows of width 1, so that tiles run over them.
    """

    form: str
    samples: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    groups: int
    inputs: int  # channels of one group
    outputs: int  # channels of one group
    x: tuple[int, int, int]  # bytes between samples, rows, columns
    y: tuple[int, int, int]

    @property
    def steps(self) -> int:
        """Reduction length of one output."""
        return self.kernel[0] * self.kernel[1] * self.inputs


def geometry(op: Any, x: Operand, f: Operand, y: Operand) -> Geometry:
    if isinstance(op, Adder2d | Conv2d):
        i, j, inputs, made = f.shape
        form = PRODUCT
        if isinstance(op, Adder2d):
            form = MINIMUM if op.input_nonnegative else DIRECT
        n, h, w, _ = y.shape
        return Geometry(
            form, n, h, w, (i, j), op.stride, op.dilation, (op.padding[0], op.padding[2]),
            op.groups, inputs, made // op.groups, _three(x.strides), _three(y.strides),
        )  # fmt: skip
    form = PRODUCT
    if isinstance(op, AdderDense):
        form = MINIMUM if op.input_nonnegative else DIRECT
    rows, (inputs, made) = x.shape[0], f.shape
    return Geometry(
        form, 1, rows, 1, (1, 1), (1, 1), (1, 1), (0, 0), 1, inputs, made,
        (0, x.strides[0], 0), (0, y.strides[0], 0),
    )  # fmt: skip


def _three(strides: tuple[int, ...]) -> tuple[int, int, int]:
    return strides[0], strides[1], strides[2]


def pack_filter(f: Array, g: Geometry, width: int) -> Array:
    """[group][block][i][j][k][width] from HWIO (or a [K, T] matrix), channels padded with zeros."""
    f = f.reshape(*g.kernel, g.inputs, g.groups, g.outputs)
    blocks = ceil_div(g.outputs, width)
    padded = np.zeros((*f.shape[:4], blocks * width), np.float32)
    padded[..., : g.outputs] = f
    split = padded.reshape(*g.kernel, g.inputs, g.groups, blocks, width)
    return np.ascontiguousarray(split.transpose(3, 4, 0, 1, 2, 5))


def pack(f: Array, g: Geometry, width: int) -> Array:
    """The packed filter, followed in the minimum form by the packed sums."""
    packed = pack_filter(f, g, width)
    if g.form != MINIMUM:
        return packed.reshape(-1)
    sums = np.zeros((*packed.shape[:2], width), np.float32)
    flat = np.abs(packed).reshape(*packed.shape[:2], -1, width)
    for step in range(flat.shape[2]):
        sums += flat[:, :, step]
    positive = np.where(packed > 0, packed, np.float32(0))
    return np.concatenate([positive.reshape(-1), sums.reshape(-1)])


class ContractionKernel(Kernel):
    """See the module's contract. `body` is the fused tail, or None."""

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call)
        self.body = body
        self.node_op = call.op if body is None else body.nodes[0].op
        self.operands = self._operands()
        x, f = (call.inputs[i] for i in self.operands[:2])
        self.g = geometry(self.node_op, x, f, call.outputs[0])
        self.tile: Tile = contraction_tile(self.target, self.g.height, self.g.width, self.g.outputs)

    def _operands(self) -> list[int]:
        """Which operands of the call are the contraction's input, filter and bias."""
        if self.body is None:
            return list(range(len(self.call.inputs)))
        position = {v: i for i, v in enumerate(self.body.inputs)}
        return [position[v] for v in self.body.nodes[0].inputs]

    # -- sizes -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        tail = "_fused" if self.body is not None else ""
        tile = f"{self.tile.pixels}x{self.tile.vectors * self.target.lanes}"
        form = "" if self.g.form == PRODUCT else f"_{self.g.form}"
        return f"{self.node_op.name}{form}_f32_{tile}{tail}_{self.target.isa}"

    @property
    def width(self) -> int:
        """Channels of one block."""
        return self.tile.vectors * self.target.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.g.outputs, self.width)

    @property
    def filter_bytes(self) -> int:
        return 4 * self.g.groups * self.blocks * self.g.steps * self.width

    @property
    def packed_bytes(self) -> int:
        sums = 4 * self.g.groups * self.blocks * self.width if self.g.form == MINIMUM else 0
        return align(self.filter_bytes + sums)

    @property
    def window_sum_bytes(self) -> int:
        pixels = self.g.groups * self.g.samples * self.g.height * self.g.width
        return align(4 * pixels) if self.g.form == MINIMUM else 0

    @property
    def is_constant(self) -> bool:
        return self.operands[1] in self.call.constant

    @property
    def workspace(self) -> int:
        return self.window_sum_bytes + (0 if self.is_constant else self.packed_bytes)

    @property
    def packs(self) -> dict[int, Callable[[Array], Array]]:
        if not self.is_constant:
            return {}
        return {self.operands[1]: lambda f: pack(f, self.g, self.width)}

    # -- emission --------------------------------------------------------------------------------

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        x, f = (inputs[i] for i in self.operands[:2])
        if not self.is_constant:
            raw, f = f, e.at(workspace, self.window_sum_bytes)
            self._emit_pack(e, raw, f)
        if self.g.form == MINIMUM:
            self._emit_window_sums(e, x, workspace)
        if not self.is_constant or self.g.form == MINIMUM:
            e.barrier()
        g, tile = self.g, self.tile
        rows = ceil_div(g.height, tile.rows)
        low, high = e.share(g.groups * self.blocks * g.samples * rows)
        with e.loop(low, high) as item:
            group, block, n, row = e.split(item, (g.groups, self.blocks, g.samples, rows))
            place = _Place(group, block, n, e.mul(row, tile.rows))
            self._emit_strip(e, place, row, inputs, x, f, outputs[0], workspace)

    def _emit_strip(
        self, e: Emitter, place: _Place, row: Index, inputs: Sequence[Any], x: Any, f: Any, y: Any,
        sums: Any,
    ) -> None:  # fmt: skip
        """One strip of output rows: whole tiles, or the fewer rows at the bottom."""
        rows, tail = self.tile.rows, self.g.height % self.tile.rows
        if not tail or self.g.height < rows:
            self._emit_row(e, place, tail or rows, inputs, x, f, y, sums)
            return
        with e.b.if_else(e.less(row, self.g.height // rows)) as (whole, bottom):
            with whole:
                self._emit_row(e, place, rows, inputs, x, f, y, sums)
            with bottom:
                self._emit_row(e, place, tail, inputs, x, f, y, sums)

    def _emit_row(
        self, e: Emitter, place: _Place, rows: int, inputs: Sequence[Any], x: Any, f: Any, y: Any,
        sums: Any,
    ) -> None:  # fmt: skip
        """All tiles of one strip of `rows` output rows."""
        columns, width = self.tile.columns, self.g.width
        whole = width - width % columns
        with e.loop(0, whole, columns) as w:
            self._emit_tile(e, place.at_column(w), rows, columns, inputs, x, f, y, sums)
        if width % columns:
            self._emit_tile(e, place.at_column(whole), rows, width % columns, inputs, x, f, y, sums)

    def _emit_tile(
        self, e: Emitter, place: _Place, rows: int, columns: int, inputs: Sequence[Any], x: Any,
        f: Any, y: Any, sums: Any,
    ) -> None:  # fmt: skip
        g, lanes = self.g, self.target.lanes
        pixels = [(r, c) for r in range(rows) for c in range(columns)]
        (sh, sw), (xn, xh, xw) = g.stride, g.x
        first = e.dot((place.n, place.h, place.w), (xn, sh * xh, sw * xw))
        first = e.add(first, e.mul(place.group, 4 * g.inputs))
        start = e.at(x, e.sub(first, g.pad[0] * xh + g.pad[1] * xw))
        offsets = [r * sh * xh + c * sw * xw for r, c in pixels]
        block = e.add(e.mul(place.group, self.blocks), place.block)
        filters = e.at(f, e.mul(block, 4 * g.steps * self.width))
        accumulators = self._emit_reduction(e, start, offsets, filters)

        (yn, yh, yw) = g.y
        channel = e.mul(place.block, self.width)
        out = e.dot((place.n, place.h, place.w), (yn, yh, yw))
        out = e.add(out, e.mul(e.add(e.mul(place.group, g.outputs), channel), 4))
        pixel = e.dot((place.group, place.n, place.h, place.w), (
            4 * g.samples * g.height * g.width, 4 * g.height * g.width, 4 * g.width, 4,
        ))  # fmt: skip
        tail = _Tail(self, e, inputs, place, channel, block)
        last = self.blocks - 1
        for active, emit_here in self._active_counts(e, place.block, last):
            with emit_here:
                for v in range(self.tile.vectors):
                    count = min(lanes, active - v * lanes)
                    if count <= 0:
                        continue
                    channels = tail.channels(v, count, f)
                    for p, (r, c) in enumerate(pixels):
                        at = e.add(out, r * yh + c * yw + 4 * v * lanes)
                        window = e.at(sums, e.add(pixel, 4 * (r * g.width + c)))
                        value = tail.result(
                            accumulators[p * self.tile.vectors + v], channels, window
                        )
                        value = tail.apply(value, channels, (r, c), v, count)
                        e.store(value, e.at(y, at), active=count)

    def _active_counts(self, e: Emitter, block: Index, last: int) -> list[tuple[int, Any]]:
        """(channels that exist, a context that emits for them): the last block may be partial."""
        partial = self.g.outputs - last * self.width
        if partial == self.width:
            return [(self.width, e.always())]
        if last == 0:
            return [(partial, e.always())]
        whole = e.less(block, last)
        return [(self.width, e.when(whole)), (partial, e.when(e.b.not_(whole)))]

    def _emit_reduction(
        self, e: Emitter, x: Any, offsets: list[int], filters: Any
    ) -> list[Register]:
        """Accumulators [pixel][vector] over (i, j, k) in order."""
        g, vectors, lanes = self.g, self.tile.vectors, self.target.lanes
        zero = e.number(0.0, lanes)
        contiguous = g.dilation[1] == 1 and g.x[2] == 4 * g.inputs
        columns, run = (1, g.kernel[1] * g.inputs) if contiguous else (g.kernel[1], g.inputs)
        step_bytes = 4 * self.width

        def over_rows(i: Index, outer: list[Register]) -> Sequence[Register]:
            x_row = e.at(x, e.mul(i, g.dilation[0] * g.x[1]))
            f_row = e.at(filters, e.mul(i, columns * run * step_bytes))

            def over_columns(j: Index, middle: list[Register]) -> Sequence[Register]:
                x_run = e.at(x_row, e.mul(j, g.dilation[1] * g.x[2]))
                f_run = e.at(f_row, e.mul(j, run * step_bytes))

                def update(k: Index, u: int, acc: list[Register]) -> list[Register]:
                    xs, fs = e.at(x_run, e.mul(k, 4)), e.at(f_run, e.mul(k, step_bytes))
                    taps = [
                        e.load(e.at(fs, u * step_bytes + 4 * lanes * v), lanes=lanes)
                        for v in range(vectors)
                    ]
                    for p, offset in enumerate(offsets):
                        one = e.splat(e.load(e.at(xs, offset + 4 * u)), lanes)
                        for v in range(vectors):
                            a = p * vectors + v
                            acc[a] = self._term(e, one, taps[v], acc[a])
                    return acc

                return e.unrolled(run, self._unroll(len(offsets), run), middle, update)

            return e.carry(0, columns, 1, outer, over_columns)

        return e.carry(0, g.kernel[0], 1, [zero] * (len(offsets) * vectors), over_rows)

    def _unroll(self, pixels: int, run: int) -> int:
        """Steps in one loop body: enough to hide the loop, few enough to stay in the code cache."""
        most = max(1, UNROLL_BUDGET // (pixels * self.tile.vectors))
        return min(run, most) if run else 1

    def _term(self, e: Emitter, x: Register, f: Register, acc: Register) -> Register:
        match self.g.form:
            case "direct":
                return e.b.fadd(acc, e.call("fabs", e.b.fsub(x, f)))
            case "minimum":
                return e.b.fadd(acc, e.integer_min(f, x))
            case _:
                return e.fma(x, f, acc)

    # -- phases before the tiles -----------------------------------------------------------------

    def _emit_pack(self, e: Emitter, raw: Any, packed: Any) -> None:
        """What `pack` does, for a filter that is not constant."""
        g, lanes = self.g, self.target.lanes
        vectors = self.blocks * self.tile.vectors
        row_bytes = 4 * g.groups * g.outputs
        low, high = e.share(g.groups * vectors)
        with e.loop(low, high) as item:
            group, one = e.split(item, (g.groups, vectors))
            block, v = e.split(one, (self.blocks, self.tile.vectors))
            source = e.at(raw, e.mul(e.add(e.mul(group, g.outputs), e.mul(one, lanes)), 4))
            number = e.add(e.mul(group, self.blocks), block)
            within = e.mul(v, 4 * lanes)
            into = e.at(packed, e.add(e.mul(number, 4 * g.steps * self.width), within))
            sums = e.at(
                packed, e.add(e.add(e.mul(number, 4 * self.width), within), self.filter_bytes)
            )
            full = g.outputs // lanes
            for active, here in e.partial(one, full, g.outputs % lanes, lanes):
                with here:
                    self._emit_pack_vector(e, source, into, sums, row_bytes, active)

    def _emit_pack_vector(
        self, e: Emitter, source: Any, into: Any, sums: Any, row_bytes: int, active: int
    ) -> None:
        lanes = self.target.lanes
        zero = e.number(0.0, lanes)

        def step(s: Index, acc: list[Register]) -> Sequence[Register]:
            f = zero
            if active:
                f = e.load(e.at(source, e.mul(s, row_bytes)), lanes=lanes, active=active)
            target = e.at(into, e.mul(s, 4 * self.width))
            if self.g.form != MINIMUM:
                e.store(f, target)
                return acc
            e.store(e.b.select(e.b.fcmp_ordered(">", f, zero), f, zero), target)
            return [e.b.fadd(acc[0], e.call("fabs", f))]

        total = e.carry(0, self.g.steps, 1, [zero], step)
        if self.g.form == MINIMUM:
            e.store(total[0], sums)

    def _emit_window_sums(self, e: Emitter, x: Any, sums: Any) -> None:
        """sum x over each window, by sixteen lanes over k: see the module's contract."""
        g = self.g
        low, high = e.share(g.groups * g.samples * g.height)
        zero = e.number(0.0, SUM_LANES)
        with e.loop(low, high) as item, e.loop(0, g.width) as w:
            group, n, h = e.split(item, (g.groups, g.samples, g.height))
            first = e.dot((n, h, w), (g.x[0], g.stride[0] * g.x[1], g.stride[1] * g.x[2]))
            first = e.sub(first, g.pad[0] * g.x[1] + g.pad[1] * g.x[2])
            start = e.at(x, e.add(first, e.mul(group, 4 * g.inputs)))

            def over_rows(i: Index, outer: list[Register], start: Any = start) -> list[Register]:
                row = e.at(start, e.mul(i, g.dilation[0] * g.x[1]))

                def over_columns(j: Index, acc: list[Register]) -> list[Register]:
                    pixel = e.at(row, e.mul(j, g.dilation[1] * g.x[2]))
                    whole = g.inputs - g.inputs % SUM_LANES

                    def over_channels(k: Index, acc: list[Register]) -> list[Register]:
                        more = e.load(e.at(pixel, e.mul(k, 4)), lanes=SUM_LANES)
                        return [e.b.fadd(acc[0], more)]

                    acc = e.carry(0, whole, SUM_LANES, acc, over_channels)
                    if g.inputs % SUM_LANES:
                        last = e.load(
                            e.at(pixel, 4 * whole), lanes=SUM_LANES, active=g.inputs % SUM_LANES
                        )
                        acc = [e.b.fadd(acc[0], last)]
                    return acc

                return e.carry(0, g.kernel[1], 1, outer, over_columns)

            total = e.carry(0, g.kernel[0], 1, [zero], over_rows)
            e.store(e.tree_sum(total[0]), e.at(sums, e.mul(e.add(e.mul(item, g.width), w), 4)))


@dataclass(frozen=True)
class _Place:
    """The corner of a tile: group, channel block, sample, output row and column."""

    group: Index
    block: Index
    n: Index
    h: Index
    w: Index = 0

    def at_column(self, w: Index) -> _Place:
        return _Place(self.group, self.block, self.n, self.h, w)


class _Tail:
    """Everything between an accumulator and the store: the form's correction, bias, fused body."""

    def __init__(
        self, kernel: ContractionKernel, e: Emitter, inputs: Sequence[Any], place: _Place,
        channel: Index, block: Index,
    ) -> None:  # fmt: skip
        self.k, self.e, self.inputs, self.place = kernel, e, inputs, place
        self.channel, self.block = channel, block

    def channels(self, v: int, count: int, f: Any) -> dict[int, Register]:
        """Registers that depend on the channel alone: operand number -> [T] or scalar operands.

        Number -1 is sum|f| of the minimum form.
        """
        e, k, lanes = self.e, self.k, self.k.target.lanes
        made: dict[int, Register] = {}
        if k.g.form == MINIMUM:
            at = e.add(e.mul(self.block, 4 * k.width), k.filter_bytes + 4 * v * lanes)
            made[-1] = e.load(e.at(f, at), lanes=lanes)
        base = e.mul(e.add(e.mul(self.place.group, k.g.outputs), self.channel), 4)
        for number, operand in enumerate(k.call.inputs):
            if number in k.operands[:2]:
                continue
            dtype, size = operand.type.dtype, operand.type.dtype.itemsize
            if math.prod(operand.shape) == 1:
                made[number] = e.splat(e.load(self.inputs[number], dtype), lanes)
            elif len(operand.shape) == 1 and operand.shape != k.call.outputs[0].shape:
                at = e.add(e.div(e.mul(base, size), 4), v * lanes * size)
                made[number] = e.load(e.at(self.inputs[number], at), dtype, lanes, count)
        return made

    def result(self, acc: Register, channels: dict[int, Register], window: Any) -> Register:
        """The contraction's own result, bias included."""
        e, k, lanes = self.e, self.k, self.k.target.lanes
        match k.g.form:
            case "direct":
                value = e.b.fsub(e.number(0.0, lanes), acc)
            case "minimum":
                sum_x = e.splat(e.load(window), lanes)
                value = e.b.fsub(e.b.fsub(e.b.fadd(acc, acc), sum_x), channels[-1])
            case _:
                value = acc
        return e.b.fadd(value, channels[k.operands[2]]) if len(k.operands) > 2 else value

    def apply(
        self, value: Register, channels: dict[int, Register], pixel: tuple[int, int], v: int,
        count: int,
    ) -> Register:  # fmt: skip
        """The fused body on one register."""
        e, k = self.e, self.k
        if k.body is None:
            return value
        env = {k.body.nodes[0].outputs[0]: value}
        for number, body_input in enumerate(k.body.inputs):
            if number in k.operands[:2]:
                continue
            if number in channels:
                env[body_input] = channels[number]
                continue
            operand = k.call.inputs[number]
            env[body_input] = self._same_shape(operand, self.inputs[number], pixel, v, count)
        return emit_body(e, k.body, env, k.target.lanes)[0]

    def _same_shape(
        self, operand: Operand, pointer: Any, pixel: tuple[int, int], v: int, count: int
    ) -> Register:
        """An operand of the result's shape, at the tile's pixel and vector."""
        e, k, place = self.e, self.k, self.place
        size = operand.type.dtype.itemsize
        strides = operand.strides
        n, h, w = _three(strides) if len(strides) == 4 else (0, strides[0], 0)
        at = e.dot((place.n, e.add(place.h, pixel[0]), e.add(place.w, pixel[1])), (n, h, w))
        channel = e.add(e.mul(place.group, k.g.outputs), self.channel)
        at = e.add(at, e.add(e.mul(channel, size), v * k.target.lanes * size))
        return e.load(e.at(pointer, at), operand.type.dtype, k.target.lanes, count)


kernel(Adder2d, Conv2d, AdderDense, Dense, Matmul)(ContractionKernel)
