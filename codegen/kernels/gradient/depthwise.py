"""Gradients of layers with a filter for each channel: lanes run over the channels.

    dX[n,h,w,c] = sum_{i,j} g[n, ., ., c] * clip(F[i,j,0,c] - X[n,h,w,c], -1, 1)    adder layers
    dX[n,h,w,c] = sum_{i,j} g[n, ., ., c] * F[i,j,0,c]                              conv layers
    dF[i,j,0,c] = sum_{n,h,w} g[n,h,w,c] X[n, s*h + d*i - p, s*w + d*j - p, c]
                  - F[i,j,0,c] * sum_{n,h,w} g[n,h,w,c]                       adder layers only

The sums, their order and their bits are those of `input.py` and `filter.py`, by classes of rows and
by chunks of samples, where a group has one channel of each. Vectors of g, x and f hold the same
channels: nothing is packed or broadcast. The clip is by two comparisons, which keep NaN, so that
none needs a way of its own.

dX: a tile of pixels of one row, threads share samples, rows and blocks. dF: the taps of some kernel
rows stay in registers while samples, rows and columns run, with the sum of g beside them; threads
share these rows and blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...emit.builder import Emitter, Index, Register
from .. import Call, Kernel
from ..cut import piece, pieces
from ..forward.geometry import filter_row, geometry, image_strides
from ..forward.terms import DIRECT, PRODUCT, measures_distance
from ..schedule import FEW_REGISTERS, ceil_div
from .filter import CHUNK
from .input import RowClass, row_classes

MOST_TAPS = 12  # accumulators of dF


class _Depthwise(Kernel):
    """What both gradients share: `s` is the layer, of whose channels a vector is a block."""

    def __init__(self, call: Call, image: Any, filter: Any, gradient: Any) -> None:
        super().__init__(call)
        self.adder = measures_distance(call.op)
        self.filter = filter
        self.s = geometry(DIRECT if self.adder else PRODUCT, call.op, image, filter, gradient)

    @property
    def name(self) -> str:
        return f"{self.call.op.name}_depthwise_f32_{self.target.lanes}_{self.target.isa}"

    @property
    def blocks(self) -> int:
        return ceil_div(self.s.groups, self.target.lanes)

    def load_filter(self, e: Emitter, f: Any, tap: Index, active: int) -> Register:
        """Number `tap` of the filter whose channels begin at `f`."""
        at = e.at(f, filter_row(e, self.filter, tap))
        return e.load(at, lanes=self.target.lanes, active=active)


class DepthwiseInputGradient(_Depthwise):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call, call.outputs[0], call.inputs[-1], call.inputs[0])
        s = self.s
        self.rows = row_classes(s.image[0], s.kernel[0], s.stride[0], s.dilation[0], s.pad[0])
        self.columns = row_classes(s.image[1], s.kernel[1], s.stride[1], s.dilation[1], s.pad[1])
        self.pixels = 3 if self.target.registers <= FEW_REGISTERS else 6

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        s, lanes = self.s, self.target.lanes
        for row in self.rows:
            with e.loop(*e.share(s.samples * row.count * self.blocks)) as item:
                n, q, block = e.split(item, (s.samples, row.count, self.blocks))
                channel = e.mul(block, 4 * lanes)
                for active in piece(e, block, s.groups, lanes):
                    for column in self.columns:
                        at = _Row(self, e, inputs, (row, column), (n, q), channel, active)
                        at.emit(outputs[0])


class _Row:
    """The pixels of one class of columns in row q of a class of rows, for a vector of channels."""

    def __init__(
        self, kernel: DepthwiseInputGradient, e: Emitter, inputs: Sequence[Any],
        classes: tuple[RowClass, RowClass], place: tuple[Index, Index], channel: Index, active: int,
    ) -> None:  # fmt: skip
        self.k, self.e, self.s, self.active, self.channel = kernel, e, kernel.s, active, channel
        (self.row, self.column), (self.n, self.q) = classes, place
        (gn, gh, gw), shift = self.s.y, self.row.shift
        at = e.dot((self.n, e.add(self.q, shift)), (gn, gh))
        self.g = e.at(inputs[0], e.add(e.add(at, self.column.shift * gw), channel))
        self.f = e.at(inputs[-1], channel)
        # Of adders alone; the filter of others stands there.
        self.image = image_strides(kernel.call.inputs[1])
        self.x = self._first(inputs[1], self.image) if kernel.adder else None

    def _first(self, pointer: Any, strides: tuple[int, int, int]) -> Any:
        """The first pixel in an image with these strides."""
        e, s = self.e, self.s
        h = e.add(e.mul(self.q, s.stride[0]), self.row.first)
        at = e.add(e.dot((self.n, h), strides[:2]), self.column.first * strides[2])
        return e.at(pointer, e.add(at, self.channel))

    def emit(self, dx: Any) -> None:
        e, s = self.e, self.s
        into, step = self._first(dx, s.x), s.stride[1] * s.x[2]
        x_step = s.stride[1] * self.image[2]
        for w, columns in pieces(e, self.column.count, self.k.pixels):
            xs = []
            if self.k.adder:
                x = e.at(self.x, e.mul(w, x_step))
                xs = [self._load(e.at(x, c * x_step)) for c in range(columns)]
            sums = self._sums(e.at(self.g, e.mul(w, s.y[2])), xs, columns)
            for c, total in enumerate(sums):
                e.store(total, e.at(into, e.mul(e.add(w, c), step)), active=self.active)

    def _sums(self, g: Any, xs: list[Register], columns: int) -> list[Register]:
        e, s, row, column = self.e, self.s, self.row, self.column
        start = [e.number(0.0, self.k.target.lanes)] * columns

        def over_rows(m: Index, outer: list[Register]) -> list[Register]:
            i = e.add(e.mul(m, row.tap_step), row.first_tap)
            g_row, f_row = e.at(g, e.mul(m, -row.shift_step * s.y[1])), e.mul(i, s.kernel[1])

            def over_columns(m: Index, acc: list[Register]) -> list[Register]:
                j = e.add(e.mul(m, column.tap_step), column.first_tap)
                f = self.k.load_filter(e, self.f, e.add(f_row, j), self.active)
                here = e.at(g_row, e.mul(m, -column.shift_step * s.y[2]))
                made = []
                for c, total in enumerate(acc):
                    gradient = self._load(e.at(here, c * s.y[2]))
                    term = e.clip_unit(e.b.fsub(f, xs[c]), keeps_nan=True) if xs else f
                    made.append(e.fma(gradient, term, total))
                return made

            def one(m: Index, u: int, acc: list[Register]) -> list[Register]:
                return over_columns(e.add(m, u), acc)

            return e.unrolled(column.taps, max(1, column.taps), outer, one)

        return e.carry(0, row.taps, 1, start, over_rows)

    def _load(self, pointer: Any) -> Register:
        return self.e.load(pointer, lanes=self.k.target.lanes, active=self.active)


class DepthwiseFilterGradient(_Depthwise):
    """See the module's contract."""

    def __init__(self, call: Call) -> None:
        super().__init__(call, call.inputs[1], call.outputs[0], call.inputs[0])
        s = self.s
        self.rows = min(s.kernel[0], max(1, MOST_TAPS // s.kernel[1]))  # of the kernel, at a time
        self.chunk = max(1, CHUNK // max(1, s.height * s.width))

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        s, lanes = self.s, self.target.lanes
        parts = ceil_div(s.kernel[0], self.rows)
        with e.loop(*e.share(self.blocks * parts)) as item:
            block, part = e.split(item, (self.blocks, parts))
            here = [e.at(p, e.mul(block, 4 * lanes)) for p in (*inputs, *outputs)]
            for active in piece(e, block, s.groups, lanes):
                for rows in piece(e, part, s.kernel[0], self.rows):
                    self._emit_taps(e, here, e.mul(part, self.rows), rows, active)

    def _emit_taps(
        self, e: Emitter, pointers: Sequence[Any], first: Index, rows: int, active: int
    ) -> None:
        """The taps of `rows` kernel rows from `first` on, of a vector of channels."""
        s = self.s
        g, x, df = pointers[0], pointers[1], pointers[-1]
        zeros = [e.number(0.0, self.target.lanes)] * (rows * s.kernel[1] + self.adder)
        corner = e.sub(e.mul(first, s.dilation[0] * s.x[1]), s.pad[0] * s.x[1] + s.pad[1] * s.x[2])
        images = g, e.at(x, corner)

        def over_chunks(begin: Index, totals: list[Register]) -> list[Register]:
            end = e.minimum(e.add(begin, self.chunk), s.samples)
            partial = self._emit_chunk(e, images, (begin, end), zeros, rows, active)
            return [e.b.fadd(a, b) for a, b in zip(totals, partial, strict=True)]

        totals = e.carry(0, s.samples, self.chunk, zeros, over_chunks)
        for number in range(rows * s.kernel[1]):
            tap, value = e.add(e.mul(first, s.kernel[1]), number), totals[number]
            if self.adder:
                f = e.at(pointers[2], filter_row(e, self.call.inputs[2], tap))
                f = e.load(f, lanes=self.target.lanes, active=active)
                value = e.b.fsub(value, e.b.fmul(f, totals[-1]))
            e.store(value, e.at(df, filter_row(e, self.filter, tap)), active=active)

    def _emit_chunk(
        self, e: Emitter, images: tuple[Any, Any], samples: tuple[Index, Index],
        zeros: list[Register], rows: int, active: int,
    ) -> list[Register]:  # fmt: skip
        """sum g x of each tap and, for adders, sum g behind them, over some samples."""
        s, lanes = self.s, self.target.lanes
        taps = [(i, j) for i in range(rows) for j in range(s.kernel[1])]
        reach = [i * s.dilation[0] * s.x[1] + j * s.dilation[1] * s.x[2] for i, j in taps]

        def over_samples(n: Index, outer: list[Register]) -> list[Register]:
            def over_rows(h: Index, middle: list[Register]) -> list[Register]:
                g = e.at(images[0], e.dot((n, h), s.y[:2]))
                x = e.at(images[1], e.dot((n, h), (s.x[0], s.stride[0] * s.x[1])))

                def over_columns(w: Index, acc: list[Register]) -> list[Register]:
                    one = e.load(e.at(g, e.mul(w, s.y[2])), lanes=lanes, active=active)
                    at = e.at(x, e.mul(w, s.stride[1] * s.x[2]))
                    seen = [e.load(e.at(at, k), lanes=lanes, active=active) for k in reach]
                    made = [e.fma(v, one, a) for v, a in zip(seen, acc, strict=False)]
                    return [*made, *(e.b.fadd(a, one) for a in acc[len(made) :])]

                return e.carry(0, s.width, 1, middle, over_columns)

            return e.carry(0, s.height, 1, outer, over_rows)

        return e.carry(*samples, 1, zeros, over_samples)
