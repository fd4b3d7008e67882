"""Forward contractions: adder2d, conv2d, adder_dense, dense, matmul, with a pointwise tail.

    acc[n,h,w,t] = sum_{i,j,k} term(X[n, s*h + d*i - p, s*w + d*j - p, k], F[i,j,k,t])

    form      term            result before the tail
    direct    |x - f|         0 - acc
    minimum   min(x, f+)      ((acc + acc) - sum x) - sum|f|      f+ = max(f, 0), every x >= 0
    product   x * f           acc

All three are one loop nest. Output channels are in the vector lanes; a tile of output pixels times
vectors of channels stays in registers while the reduction runs, in f32, in one fixed order: blocks
of CHANNEL_BLOCK input channels in sequence (all channels where there is one tap), within a block
(i, j, k). The input carries its zero padding as a halo, so there are no borders; the minimum form
leaves out kernel rows that a tile would read from padding alone.

    packed filter   f32[group][block][step][vectors * lanes]   steps in that order, zero-padded
    packed sums     f32[group][block][vectors * lanes]         minimum form: sum|f| in that order

A constant filter is packed in NumPy (`packs`); any other into the workspace by a first phase. In
the minimum form the first phases also write the channel sums of x, f32[group][n][row][column]:
blocks of SUM_LANES channels in sequence, each by a fixed tree, whatever the target's lanes are; and
from them the window sums, f32[group][n][h][w], taps in order. So the bits of the adder forms depend
neither on ISA nor on tile nor on threads; products use FMA where there is one.

Minimum form, special values: as in the direct form. A NaN in x or f reaches the result through the
two sums (f+ of NaN is 0); an infinity gives -Inf, or NaN where x and f are both +Inf at one tap;
-0.0 counts as 0. But where 2 sum min, sum x or sum|f| overflows, from 3.4e38 on, the result is an
infinity of either sign or NaN, although the distances themselves may sum to a finite number.

Threads share the grid of groups, blocks, samples and tile rows. The output aliases nothing but a
residual, which the tail reads before it writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from addergraph.ir import Array, Graph
from addergraph.ir.plan import align

from ...emit.builder import Emitter, Index, Register
from .. import Call
from ..schedule import Tile, ceil_div, contraction_tile
from .geometry import BYTE_PRODUCT, BYTES, MINIMUM, filter_row, pack
from .tail import ForwardContraction, Place, Tail
from .window_sums import emit_window_sums

L1_SHARE, L2_SHARE = 0.5, 0.5859375  # of a cache: filters that stay there beside the images


class ContractionKernel(ForwardContraction):
    """Dense: every term of every output. See the module's contract."""

    unroll_budget = 64  # tile updates of one vector emitted in one straight line at most

    def __init__(self, call: Call, body: Graph | None = None, tile: Tile | None = None) -> None:
        super().__init__(call, body)
        self.tile: Tile = tile or self.choose_tile()

    def choose_tile(self) -> Tile:
        g = self.g
        return contraction_tile(self.target, g.height, g.width, g.outputs)

    # -- sizes -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        tile = f"{self.tile.pixels}x{self.width}"
        return f"{self.form_name}_{tile}{self.name_ending}"

    @property
    def width(self) -> int:
        """Channels of one block."""
        return self.tile.vectors * self.lanes

    @property
    def blocks(self) -> int:
        return ceil_div(self.g.outputs, self.width)

    @property
    def block_bytes(self) -> int:
        """Packed filter of one block."""
        return 4 * self.g.steps * self.width

    @property
    def filter_bytes(self) -> int:
        return self.g.groups * self.blocks * self.block_bytes

    @property
    def packed_bytes(self) -> int:
        sums = 4 * self.g.groups * self.blocks * self.width if self.g.form == MINIMUM else 0
        return align(self.filter_bytes + sums)

    @property
    def window_sum_bytes(self) -> int:
        pixels = self.g.groups * self.g.samples * self.g.height * self.g.width
        return align(4 * pixels) if self.g.form == MINIMUM else 0

    @property
    def channel_sum_bytes(self) -> int:
        """Channel sums of every pixel that a window reads, where windows have several taps."""
        if self.g.form != MINIMUM or self.g.kernel == (1, 1):
            return 0
        return align(4 * self.g.groups * self.g.samples * math.prod(self.g.read))

    @property
    def sum_bytes(self) -> int:
        return self.window_sum_bytes + self.channel_sum_bytes

    @property
    def workspace(self) -> int:
        return self.sum_bytes + (0 if self.is_constant else self.packed_bytes)

    @property
    def packs(self) -> dict[int, Callable[[Array], Array]]:
        if not self.is_constant:
            return {}
        return {self.operands[1]: lambda f: pack(f, self.g, self.width)}

    @property
    def input_bytes(self) -> int:
        """Bytes of one input number."""
        return self.call.inputs[self.operands[0]].type.dtype.itemsize

    @property
    def order(self) -> tuple[str, str, str]:
        """The loops over samples, blocks of filters and strips of rows, outermost first.

        What the innermost loops use again should stay in cache: a block's filters in L1 or all
        filters in L2; else a block's filters or a sample, whichever is less to read again.
        """
        g, machine = self.g, self.target.machine
        near, far = L1_SHARE * machine.l1, L2_SHARE * machine.l2
        if self.block_bytes > near and self.blocks * self.block_bytes <= far:
            return "n", "row", "block"
        sample = self.input_bytes * g.inputs * math.prod(g.read)
        if self.block_bytes > near and self.block_bytes > sample:
            return "block", "n", "row"
        return "n", "block", "row"

    # -- emission --------------------------------------------------------------------------------

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        x, f = (inputs[i] for i in self.operands[:2])
        if not self.is_constant:
            raw, f = f, e.at(workspace, self.sum_bytes)
            self._emit_pack(e, raw, f)
        if self.g.form == MINIMUM:
            sums = e.at(workspace, self.window_sum_bytes)
            emit_window_sums(e, self.g, x, workspace, sums)
        if not self.is_constant or self.g.form == MINIMUM:
            e.barrier()
        g, tile = self.g, self.tile
        rows = ceil_div(g.height, tile.rows)
        low, high = e.share(g.groups * self.blocks * g.samples * rows)
        with e.loop(low, high) as item:
            sizes = {"n": g.samples, "block": self.blocks, "row": rows}
            group, *indices = e.split(item, (g.groups, *(sizes[k] for k in self.order)))
            n, block, row = (indices[self.order.index(k)] for k in sizes)
            place = Place(group, block, n, e.mul(row, tile.rows))
            self._emit_strip(e, place, row, inputs, x, f, outputs[0], workspace)

    def _emit_strip(
        self, e: Emitter, place: Place, row: Index, inputs: Sequence[Any], x: Any, f: Any, y: Any,
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
        self, e: Emitter, place: Place, rows: int, inputs: Sequence[Any], x: Any, f: Any, y: Any,
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
        self, e: Emitter, place: Place, rows: int, columns: int, inputs: Sequence[Any], x: Any,
        f: Any, y: Any, sums: Any,
    ) -> None:  # fmt: skip
        g, lanes = self.g, self.lanes
        pixels = [(r, c) for r in range(rows) for c in range(columns)]
        (sh, sw), (xn, xh, xw) = g.stride, g.x
        first = e.dot((place.n, place.h, place.w), (xn, sh * xh, sw * xw))
        first = e.add(first, e.mul(place.group, self.input_bytes * g.inputs))
        start = e.at(x, e.sub(first, g.pad[0] * xh + g.pad[1] * xw))
        offsets = [r * sh * xh + c * sw * xw for r, c in pixels]
        block = e.add(e.mul(place.group, self.blocks), place.block)
        filters = e.at(f, e.mul(block, self.block_bytes))
        taps = self._row_taps(e, place.h, rows)
        accumulators = self._emit_reduction(e, start, offsets, filters, taps)

        (yn, yh, yw) = g.y
        channel = e.mul(place.block, self.width)
        out = e.dot((place.n, place.h, place.w), (yn, yh, yw))
        dtype = self.call.outputs[0].type.dtype  # a tail may end in a comparison or a cast
        size = dtype.itemsize
        out = e.add(out, e.mul(e.add(e.mul(place.group, g.outputs), channel), size))
        pixel = e.dot((place.group, place.n, place.h, place.w), (
            4 * g.samples * g.height * g.width, 4 * g.height * g.width, 4 * g.width, 4,
        ))  # fmt: skip
        sum_f = e.at(f, e.add(e.mul(block, 4 * self.width), self.filter_bytes))
        tail = Tail(self, e, inputs, place, channel)
        last = self.blocks - 1
        for active, emit_here in self._active_counts(e, place.block, last):
            with emit_here:
                for v in range(self.tile.vectors):
                    count = min(lanes, active - v * lanes)
                    if count <= 0:
                        continue
                    channels = tail.channels(v, count, sum_f)
                    for p, (r, c) in enumerate(pixels):
                        at = e.add(out, r * yh + c * yw + size * v * lanes)
                        window = e.at(sums, e.add(pixel, 4 * (r * g.width + c)))
                        value = tail.result(
                            accumulators[p * self.tile.vectors + v], channels, window
                        )
                        value = tail.apply(value, channels, (r, c), v, count)
                        e.store(value, e.at(y, at), dtype, active=count)

    def _active_counts(self, e: Emitter, block: Index, last: int) -> list[tuple[int, Any]]:
        """(channels that exist, a context that emits for them): the last block may be partial."""
        partial = self.g.outputs - last * self.width
        if partial == self.width:
            return [(self.width, e.always())]
        if last == 0:
            return [(partial, e.always())]
        whole = e.less(block, last)
        return [(self.width, e.when(whole)), (partial, e.when(e.b.not_(whole)))]

    def _row_taps(self, e: Emitter, h: Index, rows: int) -> tuple[Index, Index]:
        """First and last + 1 of the kernel rows that some row of the tile reads inside the image.

        In the minimum form a padded tap adds +0.0: leaving it out changes no bit, nor does it in
        products of bytes. In distances of bytes `dense_u8.py` adds the sums of such rows. The
        other forms keep all taps: |0 - f| counts, in order, and 0 * f is NaN where f is not finite.
        """
        g = self.g
        count, (stride, step) = g.kernel[0], (g.stride[0], g.dilation[0])
        if g.form not in (MINIMUM, BYTES, BYTE_PRODUCT) or count == 1:
            return 0, count
        top = e.sub(e.mul(h, stride), g.pad[0])
        above = e.maximum(e.sub(step - 1 - (rows - 1) * stride, top), 0)
        within = e.maximum(e.sub(g.image[0] + step - 1, top), 0)
        return e.div(above, step), e.minimum(e.div(within, step), count)

    def _emit_reduction(
        self, e: Emitter, x: Any, offsets: list[int], filters: Any, taps: tuple[Index, Index]
    ) -> list[Register]:
        """Accumulators [pixel][vector] over channel blocks, each over (i, j, k) in order."""
        g, size = self.g, self.g.channel_block
        accumulators = [e.number(0.0, self.target.lanes)] * (len(offsets) * self.tile.vectors)
        block_bytes = 4 * g.kernel[0] * g.kernel[1] * size * self.width
        whole = g.inputs // size

        def over_blocks(b: Index, acc: list[Register]) -> Sequence[Register]:
            channels, packed = e.at(x, e.mul(b, 4 * size)), e.at(filters, e.mul(b, block_bytes))
            return self._emit_block(e, channels, offsets, packed, size, taps, acc)

        accumulators = e.carry(0, whole, 1, accumulators, over_blocks)
        if g.inputs % size:
            rest_x, rest_f = e.at(x, 4 * whole * size), e.at(filters, whole * block_bytes)
            accumulators = self._emit_block(
                e, rest_x, offsets, rest_f, g.inputs % size, taps, accumulators
            )
        return accumulators

    def _emit_block(
        self, e: Emitter, x: Any, offsets: list[int], filters: Any, size: int,
        taps: tuple[Index, Index], accumulators: list[Register],
    ) -> list[Register]:  # fmt: skip
        """Adds the terms of `size` input channels, over (i, j, k) in order."""
        g, vectors, lanes = self.g, self.tile.vectors, self.target.lanes
        contiguous = g.dilation[1] == 1 and g.x[2] == 4 * size
        columns, run = (1, g.kernel[1] * size) if contiguous else (g.kernel[1], size)
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
                    if vectors > 1 or not self.target.least_magnitude:
                        e.keep_order()
                    return acc

                return e.unrolled(run, self._unroll(len(offsets), run), middle, update)

            return e.carry(0, columns, 1, outer, over_columns)

        return e.carry(*taps, 1, accumulators, over_rows)

    def _unroll(self, pixels: int, run: int) -> int:
        """Steps in one loop body: enough to hide the loop, few enough that LLVM keeps their order.

        With several vectors a step has broadcasts in registers. LLVM would load those of many steps
        at once, and spill accumulators for it.
        """
        most = 2 if self.tile.vectors > 1 else max(1, self.unroll_budget // pixels)
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
                    self._emit_pack_vector(e, source, into, sums, active)

    def _emit_pack_vector(self, e: Emitter, source: Any, into: Any, sums: Any, active: int) -> None:
        """One vector of channels: every step, in the order of summation."""
        g, lanes, step_bytes = self.g, self.target.lanes, 4 * self.width
        zero, taps, size = e.number(0.0, lanes), g.kernel[0] * g.kernel[1], g.channel_block
        raw = self.call.inputs[self.operands[1]]

        def steps(first: Index, count: int, total: list[Register]) -> list[Register]:
            """Input channels first .. first + count - 1 of every tap."""
            begin = e.at(into, e.mul(first, taps * step_bytes))

            def over_taps(tap: Index, outer: list[Register]) -> list[Register]:
                row = e.add(e.mul(tap, g.inputs), first)
                target = e.at(begin, e.mul(tap, count * step_bytes))

                def over_channels(k: Index, acc: list[Register]) -> list[Register]:
                    here = e.at(source, filter_row(e, raw, e.add(row, k)))
                    f = e.load(here, lanes=lanes, active=active) if active else zero
                    return self._emit_pack_step(e, f, e.at(target, e.mul(k, step_bytes)), acc)

                return e.carry(0, count, 1, outer, over_channels)

            return e.carry(0, taps, 1, total, over_taps)

        whole = g.inputs - g.inputs % size
        total = e.carry(0, whole, size, [zero], lambda k, acc: steps(k, size, acc))
        total = steps(whole, g.inputs % size, total)
        if g.form == MINIMUM:
            e.store(total[0], sums)

    def _emit_pack_step(
        self, e: Emitter, f: Register, into: Any, total: list[Register]
    ) -> list[Register]:
        if self.g.form != MINIMUM:
            e.store(f, into)
            return total
        zero = e.number(0.0, self.target.lanes)
        e.store(e.b.select(e.b.fcmp_ordered(">", f, zero), f, zero), into)
        return [e.b.fadd(total[0], e.call("fabs", f))]
