"""Poolings over the windows of an NHWC tensor, and their gradients. Lanes run over channels.

    max   Y[n,h,w,k]   = the first maximum of X[n, s*h + i - p, s*w + j - p, k] in the order (i, j)
          dX           : every window adds its g where that maximum stands, windows in order (h, w)
    avg   Y[n,h,w,k]   = 1/(I J) sum of the window, padding counting as zeros
          dX[n,r,c,k]  = 1/(I J) sum of g over the windows that hold (r, c), in order
    sum   Y[n,h,w,k]   = the sum of a window of bytes, as i32

Padding is never read: the taps of a window are clamped to the image. Sums are f64, rounded once,
but for the max gradient, which adds in f32 in place. Threads split results; in the max gradient,
where windows overlap, samples and blocks of channels. Channel tails are masked. Buffers may have
halos, nothing is in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from addergraph.ir.types import DType, f32, u8
from addergraph.ops.reduction.avg_pool2d import AvgPool2d, AvgPool2dGrad
from addergraph.ops.reduction.max_pool2d import MaxPool2d, MaxPool2dGrad
from addergraph.ops.reduction.sum_pool2d import SumPool2d

from ...emit.builder import F64, I8, I32, Emitter, Index, Register, constant, vector
from .. import Kernel, Operand, kernel

UNROLL = 9  # taps of a window without borders that are written out

Body = Callable[[Index, Index, list[Register]], list[Register]]
Range = tuple[Index, Index]
Taps = tuple[Range, Range]  # rows, columns


def _taps(e: Emitter, position: Index, stride: int, before: int, extent: int, size: int,
          outputs: int) -> Range:  # fmt: skip
    """The taps i of output `position` for which position * stride + i - before is in the image."""
    low: Index = 0
    high: Index = size
    corner = e.sub(e.mul(position, stride), before)
    if before:
        low = e.maximum(0, e.sub(0, corner))
    if (outputs - 1) * stride - before + size > extent:
        high = e.minimum(size, e.sub(extent, corner))
    return low, high


def _windows(
    e: Emitter, position: Index, stride: int, before: int, size: int, outputs: int
) -> Range:
    """The outputs whose window holds input `position`."""
    ahead = e.add(position, before)
    # Output h holds it if h * stride <= ahead < h * stride + size; nothing negative is divided.
    low = e.div(e.maximum(0, e.add(e.sub(ahead, size), stride)), stride)
    high = e.minimum(outputs, e.add(e.div(ahead, stride), 1))
    return low, high


def _over(
    e: Emitter, rows: Range, columns: Range, values: Sequence[Register], body: Body
) -> list[Register]:
    """Carries `values` over all (i, j) of two ranges in order."""
    static = all(isinstance(end, int) for end in (*rows, *columns))
    if static and (rows[1] - rows[0]) * (columns[1] - columns[0]) <= UNROLL:
        carried = list(values)
        for i in range(*rows):
            for j in range(*columns):
                carried = body(i, j, carried)
        return carried
    return e.carry(
        *rows, 1, values, lambda i, v: e.carry(*columns, 1, v, lambda j, u: body(i, j, u))
    )


class _Pooling(Kernel):
    """What the kernels share: the walk over pixels and channels."""

    def pixels(
        self, e: Emitter, read: DType, body: Callable[[Sequence[Index], Index, int], None]
    ) -> None:
        """`body((n, h, w), byte offset of the channels, active)` for every vector of the result.

        Offsets are those in an operand of dtype `read`.
        """
        n, h, w, channels = self.call.outputs[0].shape
        size = read.itemsize
        if 0 in self.call.outputs[0].shape:
            return
        with e.loop(*e.share(n * h * w)) as item:
            position = e.split(item, (n, h, w))
            rest = channels % e.lanes
            if channels > rest:
                with e.loop(0, channels - rest, e.lanes) as k:
                    body(position, e.mul(k, size), e.lanes)
            if rest:
                body(position, (channels - rest) * size, rest)

    def windows(
        self, e: Emitter, into: Any, reduced: Callable[[Index, Index, Index, int], Register]
    ) -> None:
        """Stores `reduced(byte offset of tap (0, 0), h, w, active)` of every window of x."""
        (x,), (y,) = self.call.inputs, self.call.outputs
        read, made = x.type.dtype, y.type.dtype

        def vector_of(position: Sequence[Index], k: Index, active: int) -> None:
            n, h, w = position
            at = e.add(e.mul(n, x.strides[0]), e.add(self.corner(e, h, w, x), k))
            result = reduced(at, h, w, active)
            pixel = e.dot(position, y.strides[:3])
            channel = e.mul(k, made.itemsize // read.itemsize)
            e.store(result, e.at(into, e.add(pixel, channel)), made, active)

        self.pixels(e, read, vector_of)

    def taps(self, e: Emitter, h: Index, w: Index, x: Operand, y: Operand) -> Taps:
        """The taps of output (h, w) that lie in the image."""
        op: Any = self.call.op
        top, _, left, _ = op.padding
        rows = _taps(e, h, op.stride[0], top, x.shape[1], op.window[0], y.shape[1])
        columns = _taps(e, w, op.stride[1], left, x.shape[2], op.window[1], y.shape[2])
        return rows, columns

    def corner(self, e: Emitter, h: Index, w: Index, x: Operand) -> Index:
        """Byte offset, in a sample of x, of tap (0, 0) of output (h, w), maybe in the padding."""
        op: Any = self.call.op
        row = e.sub(e.mul(h, op.stride[0]), op.padding[0])
        column = e.sub(e.mul(w, op.stride[1]), op.padding[2])
        return e.dot((row, column), x.strides[1:3])

    def first_maximum(
        self, e: Emitter, window: Any, x: Operand, taps: Taps, active: int
    ) -> list[Register]:
        """The first maximum of a window and the number of its tap, i * J + j."""
        columns = self.call.op.window[1]  # type: ignore[attr-defined]
        indices = vector(I32, e.lanes)

        def body(i: Index, j: Index, best: list[Register]) -> list[Register]:
            most, found = best
            at = e.at(window, e.dot((i, j), x.strides[1:3]))
            value = e.load(at, lanes=e.lanes, active=active)
            tap = e.b.trunc(e.index(e.add(e.mul(i, columns), j)), I32)
            # No tap yet, or larger, or the first NaN.
            none = e.b.icmp_signed("<", found, constant(indices, 0))
            ahead = e.b.fcmp_unordered(">", value, most)
            leads = e.b.and_(ahead, e.b.fcmp_ordered("ord", most, most))
            wins = e.b.or_(none, leads)
            tap = e.splat(tap, e.lanes)
            return [e.b.select(wins, value, most), e.b.select(wins, tap, found)]

        start = [e.number(0.0, e.lanes), constant(indices, -1)]
        return _over(e, *taps, start, body)


@kernel(MaxPool2d)
class MaxPoolKernel(_Pooling):
    """Threads over output pixels. Of bytes any maximum is the first."""

    def maximum(self, e: Emitter, window: Any, x: Operand, taps: Taps, active: int) -> Register:
        if x.type.dtype == f32:
            return self.first_maximum(e, window, x, taps, active)[0]

        def body(i: Index, j: Index, most: list[Register]) -> list[Register]:
            at = e.at(window, e.dot((i, j), x.strides[1:3]))
            return [e.call("umax", most[0], e.load(at, x.type.dtype, e.lanes, active))]

        (most,) = _over(e, *taps, [constant(vector(I8, e.lanes), 0)], body)
        return most

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x,), (y,) = self.call.inputs, self.call.outputs

        def maximum(at: Index, h: Index, w: Index, active: int) -> Register:
            taps = self.taps(e, h, w, x, y)
            return self.maximum(e, e.at(inputs[0], at), x, taps, active)

        self.windows(e, outputs[0], maximum)


@kernel(MaxPool2dGrad)
class MaxPoolGradKernel(_Pooling):
    """Threads over samples and blocks of channels: zeros first, then every window adds."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (g, x), (dx,) = self.call.inputs, self.call.outputs
        if 0 in dx.shape:
            return
        full, rest = divmod(x.shape[3], e.lanes)
        blocks = full + bool(rest)
        with e.loop(*e.share(x.shape[0] * blocks)) as item:
            n, block = e.split(item, (x.shape[0], blocks))
            k = e.mul(block, e.lanes * 4)
            pointers = [
                e.at(p, e.add(e.mul(n, o.strides[0]), k))
                for p, o in zip((*inputs, outputs[0]), (g, x, dx), strict=True)
            ]
            for active, context in e.partial(block, full, rest, e.lanes):
                if active:
                    with context:
                        self._emit_block(e, pointers, active)

    def _emit_block(self, e: Emitter, pointers: Sequence[Any], active: int) -> None:
        (g, x), (dx,) = self.call.inputs, self.call.outputs
        grad, image, into = pointers
        zero = e.number(0.0, e.lanes)
        with e.loop(0, dx.shape[1]) as r, e.loop(0, dx.shape[2]) as c:
            e.store(zero, e.at(into, e.dot((r, c), dx.strides[1:3])), active=active)
        with e.loop(0, g.shape[1]) as h, e.loop(0, g.shape[2]) as w:
            taps = self.taps(e, h, w, x, g)
            window = e.at(image, self.corner(e, h, w, x))
            _, found = self.first_maximum(e, window, x, taps, active)
            value = e.load(e.at(grad, e.dot((h, w), g.strides[1:3])), lanes=e.lanes, active=active)
            corner = e.at(into, self.corner(e, h, w, dx))
            self._add(e, corner, taps, found, value, active)

    def _add(
        self, e: Emitter, corner: Any, taps: Taps, found: Register, value: Register,
        active: int,
    ) -> None:  # fmt: skip
        """Adds `value` at the tap number `found` of each lane."""
        (dx,) = self.call.outputs
        columns = self.call.op.window[1]  # type: ignore[attr-defined]
        zero = e.number(0.0, e.lanes)

        def body(i: Index, j: Index, _: list[Register]) -> list[Register]:
            at = e.at(corner, e.dot((i, j), dx.strides[1:3]))
            tap = e.b.trunc(e.index(e.add(e.mul(i, columns), j)), I32)
            here = e.b.icmp_signed("==", found, e.splat(tap, e.lanes))
            before = e.load(at, lanes=e.lanes, active=active)
            e.store(e.b.fadd(before, e.b.select(here, value, zero)), at, active=active)
            return []

        _over(e, *taps, [], body)


class _Averaging(_Pooling):
    def mean(
        self, e: Emitter, pixels: Taps, pointer: Any, source: Operand, active: int
    ) -> Register:
        """1/(I J) of the sum over a range of pixels."""
        op: Any = self.call.op

        def body(i: Index, j: Index, total: list[Register]) -> list[Register]:
            at = e.at(pointer, e.dot((i, j), source.strides[1:3]))
            value = e.load(at, lanes=e.lanes, active=active)
            return [e.b.fadd(total[0], e.widen(value))]

        zero = constant(vector(F64, e.lanes), 0.0)
        (total,) = _over(e, *pixels, [zero], body)
        return e.narrow(e.b.fdiv(total, constant(total.type, float(op.area))))


@kernel(AvgPool2d)
class AvgPoolKernel(_Averaging):
    """Threads over output pixels."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x,), (y,) = self.call.inputs, self.call.outputs

        def mean(at: Index, h: Index, w: Index, active: int) -> Register:
            taps = self.taps(e, h, w, x, y)
            return self.mean(e, taps, e.at(inputs[0], at), x, active)

        self.windows(e, outputs[0], mean)


@kernel(SumPool2d)
class SumPoolKernel(_Pooling):
    """Threads over output pixels. Exact, so the order is nobody's concern."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x,), (y,) = self.call.inputs, self.call.outputs
        wide = vector(I32, e.lanes)

        def total(at: Index, h: Index, w: Index, active: int) -> Register:
            window = e.at(inputs[0], at)

            def body(i: Index, j: Index, sums: list[Register]) -> list[Register]:
                here = e.at(window, e.dot((i, j), x.strides[1:3]))
                return [e.b.add(sums[0], e.b.zext(e.load(here, u8, e.lanes, active), wide))]

            (made,) = _over(e, *self.taps(e, h, w, x, y), [constant(wide, 0)], body)
            return made

        self.windows(e, outputs[0], total)


@kernel(AvgPool2dGrad)
class AvgPoolGradKernel(_Averaging):
    """Threads over input pixels, each of which gathers from the windows that hold it."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (g,), (dx,), op = self.call.inputs, self.call.outputs, self.call.op
        assert isinstance(op, AvgPool2dGrad)

        def vector_of(position: Sequence[Index], k: Index, active: int) -> None:
            n, r, c = position
            top, _, left, _ = op.padding
            rows = _windows(e, r, op.stride[0], top, op.window[0], g.shape[1])
            columns = _windows(e, c, op.stride[1], left, op.window[1], g.shape[2])
            at = e.at(inputs[0], e.add(e.mul(n, g.strides[0]), k))
            mean = self.mean(e, (rows, columns), at, g, active)
            e.store(
                mean, e.at(outputs[0], e.add(e.dot(position, dx.strides[:3]), k)), active=active
            )

        self.pixels(e, f32, vector_of)
