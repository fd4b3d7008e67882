"""Forward contractions of layers with a filter for each channel: lanes run over the channels.

    acc[n,h,w,c] = sum_{i,j} term(X[n, s*h + d*i - p, s*w + d*j - p, c], F[i,j,0,c])

A layer of as many groups as input and output channels is one whose vectors of x, of the filter and
of the result hold the same channels, so nothing is broadcast, and the filter is read as it stands
in memory: none is packed. A tile of pixels of one row stays in registers while the taps of the
window run, kernel row by kernel row; an x that several pixels read is loaded once for each kernel
row.

Terms and bits are those of `dense.py`, where one group has one input channel: taps in order, and of
minima the same sums of x and of |f|, which are made here beside the terms. Distances of bytes are
summed in 16 bits where 255 times the number of taps fits, a quarter of a register's lanes more at
a time, and widened once; products of bytes in 32. x carries its padding as a halo.

Threads share the grid of samples, rows and blocks of channels. The output aliases nothing but a
residual, which the tail reads before it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from addergraph.ir import Graph
from addergraph.ir.types import DType

from ...emit.builder import I16, I32, Emitter, Index, Register, constant, vector
from ...targets.target import Target
from .. import Call
from ..cut import piece, pieces
from ..schedule import DEPTHWISE, FEW_REGISTERS, ceil_div
from ..transpose import shuffle
from .geometry import Geometry, filter_row
from .tail import ForwardContraction, Place, Tail
from .terms import BYTES, MINIMUM, ByteTerm, FloatTerm

MOST_VECTORS = 4  # of i32 results, whose bytes fill one register
MOST_UNROLLED = 8  # taps of a kernel row in one straight line


def serves(g: Geometry, target: Target) -> bool:
    """Whether each group has one input and one output channel, and there are lanes for several."""
    return g.groups > 1 and g.inputs == 1 and g.outputs == 1 and target.lanes > 1


class DepthwiseKernel(ForwardContraction):
    """See the module's contract. `g` is the layer as one group of `outputs` channels."""

    kind = DEPTHWISE

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call, body)
        self.g = g = replace(self.g, groups=1, outputs=self.g.groups)
        self.bytes = isinstance(g.term, ByteTerm)
        most = max(1, min(MOST_VECTORS, g.outputs // self.lanes)) if self.bytes else 1
        self.vectors = 1 << (most.bit_length() - 1)
        few = self.target.registers <= FEW_REGISTERS
        pixels = (4 if few else 12) // (2 if g.term == MINIMUM or self.bytes else 1)
        self.columns = ceil_div(g.width, ceil_div(max(1, g.width), pixels))

    @property
    def name(self) -> str:
        tile = f"{self.columns}x{self.width}"
        return f"{self.node_op.name}_depthwise_{self.g.term.label}_{tile}{self.name_ending}"

    @property
    def width(self) -> int:
        """Channels of one block."""
        return self.vectors * self.lanes

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        g = self.g
        blocks = ceil_div(g.outputs, self.width)
        with e.loop(*e.share(g.samples * g.height * blocks)) as item:
            n, h, block = e.split(item, (g.samples, g.height, blocks))
            first = e.mul(block, self.width)
            for size in piece(e, block, g.outputs, self.width):
                for begin, vectors, active in self._parts(size):
                    place = Place(0, 0, n, h)
                    part = _Part(self, e, inputs, place, e.add(first, begin), vectors, active)
                    part.emit(outputs[0])

    def _parts(self, channels: int) -> Iterator[tuple[int, int, int]]:
        """A block of so many channels as (first channel, vectors, channels that exist): vectors
        in powers of two, all of them whole but the last."""
        begin, vectors = 0, self.vectors
        while channels > begin:
            while vectors > 1 and vectors * self.lanes > channels - begin:
                vectors //= 2
            active = min(vectors * self.lanes, channels - begin)
            yield begin, vectors, active
            begin += active


class _Part:
    """One row of pixels of `vectors` vectors of channels from `channel` on; `active` exist."""

    def __init__(
        self, kernel: DepthwiseKernel, e: Emitter, inputs: Sequence[Any], place: Place,
        channel: Index, vectors: int, active: int,
    ) -> None:  # fmt: skip
        self.k, self.e, self.g, self.place = kernel, e, kernel.g, place
        self.vectors, self.active, self.channel = vectors, active, channel
        self.lanes = vectors * kernel.lanes
        self.tail = Tail(kernel, e, inputs, place, channel)
        x, f = (inputs[i] for i in kernel.operands[:2])
        g, size = self.g, self.g.term.number.itemsize
        corner = e.dot((place.n, place.h), (g.x[0], g.stride[0] * g.x[1]))
        corner = e.sub(corner, g.pad[0] * g.x[1] + g.pad[1] * g.x[2])
        self.x = e.at(x, e.add(corner, e.mul(channel, size)))
        self.f = e.at(f, e.mul(channel, size))
        self.filter = kernel.call.inputs[kernel.operands[1]]

    def emit(self, y: Any) -> None:
        e, g, lanes = self.e, self.g, self.k.lanes
        counts = [min(lanes, self.active - v * lanes) for v in range(self.vectors)]
        channels = [self.tail.channels(v, count, None) for v, count in enumerate(counts)]
        if g.term == MINIMUM:
            channels[0][-1] = self._magnitudes()
        output = self.k.call.outputs[0].type.dtype
        size = output.itemsize
        row = e.add(e.dot((self.place.n, self.place.h), g.y[:2]), e.mul(self.channel, size))
        for w, columns in pieces(e, g.width, self.k.columns):
            sums = self._sums(e.at(self.x, e.mul(w, g.stride[1] * g.x[2])), columns)
            tail, into = self.tail.moved(self.place.at_column(w)), e.add(row, e.mul(w, g.y[2]))
            for c in range(columns):
                window = sums[columns + c] if g.term == MINIMUM else None
                for v, acc in enumerate(self._vectors(sums[c])):
                    value = tail.result(acc, channels[v], inputs=window)
                    value = tail.apply(value, channels[v], (0, c), v, counts[v])
                    here = e.at(y, e.add(into, c * g.y[2] + size * v * lanes))
                    e.store(value, here, output, active=counts[v])

    # -- the window --------------------------------------------------------------------------------

    def _sums(self, x: Any, columns: int) -> list[Register]:
        """The sums of the terms of so many pixels, the first of which has its first tap at `x`;
        behind them, for minima, those of x."""
        e, g = self.e, self.g
        start = [self._none()] * (columns * (2 if g.term == MINIMUM else 1))

        def over_rows(i: Index, acc: list[Register]) -> list[Register]:
            x_row, first = e.at(x, e.mul(i, g.dilation[0] * g.x[1])), e.mul(i, g.kernel[1])
            if g.kernel[1] <= MOST_UNROLLED:
                return self._taps(x_row, first, range(g.kernel[1]), columns, acc)

            def one(j: Index, acc: list[Register]) -> list[Register]:
                tap = e.at(x_row, e.mul(j, g.dilation[1] * g.x[2]))
                return self._taps(tap, e.add(first, j), range(1), columns, acc)

            return e.carry(0, g.kernel[1], 1, acc, one)

        return e.carry(0, g.kernel[0], 1, start, over_rows)

    def _taps(
        self, x: Any, first: Index, taps: range, columns: int, acc: list[Register]
    ) -> list[Register]:
        """Adds the terms of taps of one kernel row, the first of which is number `first` of all."""
        e, g, seen, acc = self.e, self.g, {}, list(acc)
        for j in taps:
            f = self._filter(e.add(first, j))
            for c in range(columns):
                at = c * g.stride[1] + j * g.dilation[1]
                if at not in seen:
                    seen[at] = self._load(e.at(x, at * g.x[2]), g.term.number)
                acc[c] = self._added(seen[at], f, acc[c])
                if g.term == MINIMUM:
                    acc[columns + c] = e.b.fadd(acc[columns + c], seen[at])
        return acc

    def _filter(self, tap: Index) -> Register:
        return self.g.term.kept(self.e, self._raw_filter(tap))

    def _raw_filter(self, tap: Index) -> Register:
        at = self.e.at(self.f, filter_row(self.e, self.filter, tap))
        return self._load(at, self.filter.type.dtype)

    def _load(self, pointer: Any, number: DType) -> Register:
        return self.e.load(pointer, number, self.lanes, self.active)

    def _magnitudes(self) -> Register:
        """The sum of |f|, tap by tap."""
        e, g = self.e, self.g

        def one(tap: Index, total: list[Register]) -> list[Register]:
            return [g.term.magnitude(e, self._raw_filter(tap), total[0])]

        return e.carry(0, g.kernel[0] * g.kernel[1], 1, [e.number(0.0, self.lanes)], one)[0]

    # -- terms -------------------------------------------------------------------------------------

    @property
    def _sum_type(self) -> Any:
        """What terms of bytes are summed in."""
        short = self.g.term == BYTES and 255 * self.g.steps < 1 << 16
        return vector(I16 if short else I32, self.lanes)

    def _none(self) -> Register:
        return constant(self._sum_type, 0) if self.k.bytes else self.e.number(0.0, self.lanes)

    def _added(self, x: Register, f: Register, acc: Register) -> Register:
        """acc plus the terms of x and f."""
        e, b, term = self.e, self.e.b, self.g.term
        if isinstance(term, FloatTerm):
            return term.added(e, x, f, acc)
        if term == BYTES:
            distance = b.sub(e.call("umax", x, f), e.call("umin", x, f))
            return b.add(acc, b.zext(distance, acc.type))
        short = vector(I16, self.lanes)  # -128 * 255 fits
        return b.add(acc, b.sext(b.mul(b.zext(x, short), b.sext(f, short)), acc.type))

    def _vectors(self, acc: Register) -> Sequence[Register]:
        """The sums of a pixel in vectors of results."""
        if acc.type == vector(I16, self.lanes):
            acc = self.e.b.zext(acc, vector(I32, self.lanes))
        if self.vectors == 1:
            return [acc]
        lanes = self.k.lanes
        firsts = range(0, self.lanes, lanes)
        return [shuffle(self.e, acc, acc, list(range(at, at + lanes))) for at in firsts]
