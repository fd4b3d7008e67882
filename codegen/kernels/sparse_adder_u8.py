"""Sparse adder2d of bytes: the minimum form with only the bytes above zero, constant filters.

    sum |x - f| = sum x + sum f - 2 sum min(x, f),      of the last only the taps with f > 0

For operands of bytes, whose zero is zero (behind a relu), a filter that was clamped to the input's
range has a zero for about half of its taps. Lanes run over output pixels, one byte each, so that a
vector of minima is one load, one minimum and one addition for four times the pixels of an f32
vector; a quad of minima is added before its total is widened (`_bytes_lists.py`). Sums are exact:
all kernels of a layer give the same bits.

A vector holds rows of several bands side by side, pieces of a sample or samples of a batch, so that
small images leave few lanes idle and a tap's pixels are one aligned vector. One work item is a
strip: some rows of each of these bands.

    for each group of input channels that are transposed together
        planes   the strip's input, channel by channel, padding included
      for each channel block
        copies   planes shifted by the column tap, bands side by side
        windows  += the sums of the copies over each window
        for each filter: its sums += its list; in the last block the tail follows, in i32, on lanes
          of pixels, and its results become bytes
    results are transposed back.

The tail has to end in bytes, and its operands of the result's shape are bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from addergraph.ir import Array, Graph
from addergraph.types import i32, u8

from ..builder import I8, I32, Emitter, Index, Register, constant, vector
from . import Call
from ._bytes_lists import ByteLists
from ._bytes_planes import (
    Region,
    add_classes,
    emit_copies,
    emit_operand,
    emit_planes,
    emit_results,
    emit_windows,
)
from ._bytes_tile import TOGETHER, BytesTile, bytes_tile
from ._forward import ForwardContraction, Place, Tail
from ._sparse_strips import StripKernel


def sparse_bytes_tile(kernel: ForwardContraction) -> BytesTile | None:
    """The tile for the kernel's call, or None where `SparseU8Kernel` does not serve it."""
    result = kernel.call.outputs[0].type
    if not kernel.is_constant or kernel.body is None or result.dtype != u8:
        return None
    if any(kernel.call.inputs[i].type.dtype != u8 for i in image_operands(kernel)):
        return None
    return bytes_tile(kernel.target, kernel.g)


def image_operands(kernel: ForwardContraction) -> list[int]:
    """The operands of the tail that have the result's shape."""
    shape = kernel.call.outputs[0].shape
    return sorted(i for i in kernel.tail_reads if kernel.call.inputs[i].shape == shape)


class SparseU8Kernel(StripKernel):
    """See the module's contract."""

    def __init__(self, call: Call, body: Graph | None = None) -> None:
        super().__init__(call, body)
        tile = sparse_bytes_tile(self)
        assert tile is not None, "the caller asks `sparse_bytes_tile` first"
        self._tile, self.byte_lists = tile, ByteLists(tile)
        self.images = image_operands(self)

    @property
    def tile(self) -> BytesTile:
        return self._tile

    @property
    def name(self) -> str:
        tile = f"{self.tile.vectors * self.tile.lanes}x1"
        return f"{self.node_op.name}_sparse_u8_{tile}{self.name_ending}"

    @property
    def packs(self) -> dict[int, Callable[[Array], Array]]:
        return {self.operands[1]: self.byte_lists.pack}

    @property
    def samples_of_strip(self) -> int:
        return self.tile.samples

    @property
    def rows_of_strip(self) -> int:
        return self.tile.rows

    @property
    def region_bytes(self) -> int:
        sections = self.tile.sections
        return sum(sections.values()) + len(self.images) * sections["results"]

    # -- emission --------------------------------------------------------------------------------

    def emit_item(self, e: Emitter, place: Place, inputs: Sequence[Any], y: Any, base: Any) -> None:
        tile, g = self.tile, self.g
        region = Region(e, tile, base, self.images)
        for number in self.images:
            operand = self.call.inputs[number]
            emit_operand(e, tile, place, operand, inputs[number], region.operands[number])
        whole, rest = divmod(g.inputs, TOGETHER)
        with e.loop(0, whole) as together:
            self._emit_channels(e, place, inputs, region, together, TOGETHER)
        if rest:
            self._emit_channels(e, place, inputs, region, whole, rest)
        emit_results(e, tile, place, region, y)

    def _emit_channels(
        self, e: Emitter, place: Place, inputs: Sequence[Any], region: Region, together: Index,
        count: int,
    ) -> None:  # fmt: skip
        """The lists of `count` channels, in blocks; `together` counts TOGETHER of them."""
        tile, x = self.tile, inputs[self.operands[0]]
        first = e.mul(together, TOGETHER)
        channel = e.add(e.mul(place.group, self.g.inputs), first)
        emit_planes(e, tile, place, x, region, channel, count)
        whole, rest = divmod(count, tile.block)
        start = e.mul(together, TOGETHER // tile.block)
        with e.loop(0, whole) as inside:
            block = e.add(start, inside)
            self._emit_block(e, place, inputs, region, block, inside, tile.block)
        if rest:
            self._emit_block(e, place, inputs, region, e.add(start, whole), whole, rest)

    def _emit_block(
        self, e: Emitter, place: Place, inputs: Sequence[Any], region: Region, block: Index,
        inside: Index, size: int,
    ) -> None:  # fmt: skip
        """All lists of block number `block`, which is number `inside` of those transposed."""
        tile, outputs = self.tile, self.g.outputs
        emit_copies(e, tile, region, e.mul(inside, tile.block), size)
        emit_windows(e, tile, region, size, block)
        packed = inputs[self.operands[1]]
        before = e.add(e.mul(place.group, tile.blocks), block)
        last = e.b.icmp_signed("==", e.index(block), e.index(tile.blocks - 1))
        with e.loop(0, outputs) as number:
            number = e.add(e.mul(before, outputs), number)
            walked = self.byte_lists.emit(e, packed, number, region.copies, region.pairs)
            partial = e.at(region.partial, walked.place)
            with e.b.if_else(walked.flush) as (flush, keep):
                with flush:
                    for v in range(tile.vectors):
                        into = e.at(partial, 4 * v * tile.lanes)
                        add_classes(e, walked.sums[2 * v : 2 * v + 2], into, walked.first)
                with keep:
                    for v, sums in enumerate(walked.sums):
                        e.b.store(sums, e.at(walked.pairs, v * tile.lanes), align=2)
            with e.when(last):
                self._emit_tail(e, place, inputs, region, walked.filter, partial)

    def _emit_tail(
        self, e: Emitter, place: Place, inputs: Sequence[Any], region: Region, channel: Index,
        partial: Any,
    ) -> None:  # fmt: skip
        """The results of one filter."""
        tile, g = self.tile, self.g
        of_all = e.add(e.mul(place.group, g.outputs), channel)
        sums = e.at(inputs[self.operands[1]], self.byte_lists.sums_offset)
        sum_f = e.splat(e.load(e.at(sums, e.mul(of_all, 4)), i32), self.lanes)
        tail = PixelTail(self, e, inputs, place, channel)
        channels = tail.channels(0, self.lanes, None)
        line = e.mul(channel, tile.pixel_bytes)
        planar = {n: e.at(at, line) for n, at in region.operands.items()}
        results = e.at(region.results, line)
        with e.loop(0, tile.pixel_bytes, tile.lanes) as at:
            words = {n: e.load(e.at(p, at), i32, self.lanes) for n, p in planar.items()}
            made: list[Register] = []
            for c in range(4):
                where = e.add(e.mul(at, 4), 4 * self.lanes * c)
                least, window = (
                    e.load(e.at(p, where), i32, self.lanes) for p in (partial, region.windows)
                )
                distance = e.b.sub(e.b.add(window, sum_f), e.b.add(least, least))
                value = tail.result(distance, channels, None)
                env = {**channels, **{n: _byte(e, word, c) for n, word in words.items()}}
                value = tail.apply(value, env, (0, 0), 0, self.lanes)
                value = e.b.zext(value, vector(I32, self.lanes))
                made.append(e.b.shl(value, constant(value.type, 8 * c)))
            both = [e.b.or_(made[0], made[1]), e.b.or_(made[2], made[3])]
            e.store(e.b.or_(*both), e.at(results, at), i32)


class PixelTail(Tail):
    """A tail whose lanes are pixels of one channel."""

    def channels(self, v: int, count: int, sums: Any) -> dict[int, Register]:
        """The operands that depend on the channel alone, the same number in every lane."""
        e, k = self.e, self.k
        made: dict[int, Register] = {}
        channel = e.add(e.mul(self.place.group, k.g.outputs), self.channel)
        for number in sorted(k.tail_reads | frozenset(k.operands[2:])):
            operand = k.call.inputs[number]
            if operand.shape == k.call.outputs[0].shape:
                continue
            size = operand.type.dtype.itemsize
            at = 0 if math.prod(operand.shape) == 1 else e.mul(channel, size)
            one = e.load(e.at(self.inputs[number], at), operand.type.dtype)
            made[number] = e.splat(one, k.lanes)
        return made


def _byte(e: Emitter, word: Register, c: int) -> Register:
    """Byte `c` of each i32, as u8."""
    moved = e.b.lshr(word, constant(word.type, 8 * c))
    return e.b.trunc(moved, vector(I8, word.type.count))
