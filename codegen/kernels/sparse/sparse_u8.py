"""Sparse adder2d of bytes: the minimum form with only the bytes above zero, constant filters.

    sum |x - f| = sum x + sum f - 2 sum min(x, f),      of the last only the taps with f > 0

For operands of bytes, whose zero is zero (behind a relu), a filter that was clamped to the input's
range has a zero for about half of its taps. Lanes run over output pixels, one byte each, so that a
vector of minima is one load, one minimum and one addition for four times the pixels of an f32
vector; up to eight minima are added before their total is widened (`_u8_lists.py`). Sums are
exact: all kernels of a layer give the same bits.

A vector holds a pixel of each of many patches (`_patches.py`), so that a tap's pixels are one
aligned vector. One work item is a strip of some rows of the patches:

    for each group of input channels that are transposed together
        planes   the strip's input, channel by channel, padding included
      for each channel block
        saturated     what saturated taps add, where there are any
        windows  += the sums of the planes over each window
        for each register tile of pixels, for each filter: its sums += its list; in the last block
          the tail follows, in i32, on lanes of pixels, and its results become planes of bytes
    results are transposed back.

The tail's operands of the result's shape are bytes. A result of i32 is four bytes of a channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from addergraph.ir import Graph
from addergraph.ir.plan import align
from addergraph.ir.types import i32, u8

from ...emit.builder import I8, I32, Emitter, Index, Register, constant, vector
from .. import Call, Packing
from ..forward.tail import ForwardContraction, Place, Tail
from ..schedule import ceil_div
from ._cut import Region
from ._strips import Strip, StripKernel
from ._u8_choice import bytes_tile
from ._u8_lists import ByteLists
from ._u8_planes import (
    add_classes,
    emit_operand,
    emit_planes,
    emit_results,
    emit_saturated,
    emit_windows,
)
from ._u8_tile import TOGETHER, BytesTile


def sparse_bytes_tile(kernel: ForwardContraction) -> BytesTile | None:
    """The tile for the kernel's call, or None where `SparseU8Kernel` does not serve it."""
    result = kernel.call.outputs[0].type.dtype
    if not kernel.is_constant or result not in (u8, i32):
        return None
    if any(kernel.call.inputs[i].type.dtype != u8 for i in image_operands(kernel)):
        return None
    return bytes_tile(kernel.target, kernel.g, result.itemsize)


def image_operands(kernel: ForwardContraction) -> list[int]:
    """The operands of the tail that have the result's shape."""
    shape = kernel.call.outputs[0].shape
    return sorted(i for i in kernel.tail_reads if kernel.call.inputs[i].shape == shape)


class SparseU8Kernel(StripKernel):
    """See the module's contract."""

    def __init__(
        self, call: Call, body: Graph | None = None, tile: BytesTile | None = None
    ) -> None:
        super().__init__(call, body)
        tile = tile or sparse_bytes_tile(self)
        assert tile is not None, "the caller asks `sparse_bytes_tile` first"
        self._tile, self.lists = tile, ByteLists(tile)
        self.images = image_operands(self)

    @property
    def tile(self) -> BytesTile:
        return self._tile

    @property
    def name(self) -> str:
        tile = f"{self.tile.vectors * self.tile.lanes}x1"
        return f"{self.node_op.name}_sparse_u8_{tile}{self.name_ending}"

    @property
    def packs(self) -> dict[int, Packing]:
        return {self.operands[1]: self.lists}

    @property
    def shares(self) -> int:
        return ceil_div(self.g.outputs, TOGETHER)

    @property
    def sections(self) -> dict[Any, int]:
        """Beside those of the tile, one for each operand of the tail with the result's shape."""
        sections = self.tile.sections
        of_bytes = sections["results"] // self.tile.result_bytes
        return {**sections, **dict.fromkeys(self.images, align(of_bytes))}

    # -- emission --------------------------------------------------------------------------------

    def emit_item(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], y: Any, region: Region
    ) -> None:
        tile, g = self.tile, self.g
        for number in self.images:
            operand = self.call.inputs[number]
            emit_operand(e, tile, strip, operand, inputs[number], region[number])
        whole, rest = divmod(g.inputs, TOGETHER)
        with e.loop(0, whole) as together:
            self._emit_channels(e, strip, inputs, region, together, TOGETHER)
        if rest:
            self._emit_channels(e, strip, inputs, region, whole, rest)
        emit_results(e, tile, strip, region, y)

    def _emit_channels(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], region: Region, together: Index,
        count: int,
    ) -> None:  # fmt: skip
        """The lists of `count` channels, in blocks; `together` counts TOGETHER of them."""
        tile, x = self.tile, inputs[self.operands[0]]
        first = e.mul(together, TOGETHER)
        channel = e.add(e.mul(strip.group, self.g.inputs), first)
        emit_planes(e, tile, strip, x, region, channel, count)
        whole, rest = divmod(count, tile.block)
        start = e.mul(together, TOGETHER // tile.block)
        with e.loop(0, whole) as inside:
            planes = e.at(region["planes"], e.mul(inside, tile.block * tile.plane_bytes))
            block = e.add(start, inside)
            self._emit_block(e, strip, inputs, region, block, planes, tile.block)
        if rest:
            planes = e.at(region["planes"], whole * tile.block * tile.plane_bytes)
            self._emit_block(e, strip, inputs, region, e.add(start, whole), planes, rest)

    def _emit_block(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], region: Region, block: Index,
        planes: Any, size: int,
    ) -> None:  # fmt: skip
        """All lists of block number `block`, whose channels are at `planes`, tile by tile."""
        tile = self.tile
        emit_windows(e, tile, planes, region, size, block)
        with e.when(self.lists.emit_any_saturated(e, inputs[self.operands[1]])):
            emit_saturated(e, tile, planes, region, size)
        last = e.b.icmp_signed("==", e.index(block), e.index(tile.blocks - 1))
        before = e.add(e.mul(strip.group, tile.blocks), block)
        first = e.mul(before, self.g.outputs)
        begin = e.mul(strip.begin, TOGETHER)
        end = e.minimum(e.mul(strip.end, TOGETHER), self.g.outputs)
        columns = tile.patches.columns
        with (
            e.loop(0, tile.strip_rows, tile.rows) as row,
            e.loop(0, columns, tile.columns) as column,
            e.loop(begin, end) as number,
        ):
            source = e.dot((row, column), (tile.pixel_offset(1, 0), tile.pixel_offset(0, 1)))
            pixel, listed = e.dot((row, column), (columns, 1)), e.add(first, number)
            starts = e.at(planes, source), e.at(region["saturated"], e.mul(source, 2))
            self._emit_list(e, strip, inputs, region, listed, starts, pixel, last)

    def _emit_list(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], region: Region, number: Index,
        starts: tuple[Any, Any], pixel: Index, last: Any,
    ) -> None:  # fmt: skip
        """List `number` for the tile whose first pixel is number `pixel` of the strip, and at
        `starts` in "planes" and "saturated"."""
        tile, lanes = self.tile, self.tile.lanes
        packed, pairs = inputs[self.operands[1]], e.at(region["pairs"], e.mul(pixel, 2 * lanes))
        walked = self.lists.emit(e, packed, number, *starts, pairs)
        partial = e.at(region["partial"], e.add(walked.place, e.mul(pixel, 4 * lanes)))
        with e.b.if_else(walked.flush) as (flush, keep):
            with flush:
                for v in range(tile.vectors):
                    into = e.at(partial, 4 * v * lanes)
                    add_classes(e, walked.sums[2 * v : 2 * v + 2], into, walked.first)
            with keep:
                for v, sums in enumerate(walked.sums):
                    e.b.store(sums, e.at(walked.pairs, v * lanes), align=2)
        with e.when(last):
            self._emit_tail(e, strip, inputs, region, walked.filter, partial, pixel)

    def _emit_tail(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], region: Region, channel: Index,
        partial: Any, pixel: Index,
    ) -> None:  # fmt: skip
        """The results of one filter for one tile, whose sums are at `partial`."""
        tile, g = self.tile, self.g
        of_all = e.add(e.mul(strip.group, g.outputs), channel)
        sums = e.at(inputs[self.operands[1]], self.lists.sums_offset)
        sum_f = e.splat(e.load(e.at(sums, e.mul(of_all, 4)), i32), self.lanes)
        tail = PixelTail(self, e, inputs, Place(strip.group, 0, strip.n, strip.h), channel)
        channels = tail.channels(0, self.lanes, None)
        first = e.mul(pixel, tile.lanes)
        line = e.add(e.mul(channel, tile.pixel_bytes), first)
        planar = {n: e.at(at, line) for n, at in ((n, region[n]) for n in self.images)}
        line = e.add(e.mul(channel, tile.result_bytes * tile.pixel_bytes), first)
        results, windows = e.at(region["results"], line), e.at(region["windows"], e.mul(first, 4))
        with e.loop(0, tile.vectors * tile.lanes, tile.lanes) as at:
            words = {n: e.load(e.at(p, at), i32, self.lanes) for n, p in planar.items()}
            made: list[Register] = []
            for c in range(4):
                where = e.add(e.mul(at, 4), 4 * self.lanes * c)
                least, window = (
                    e.load(e.at(p, where), i32, self.lanes) for p in (partial, windows)
                )
                distance = e.b.sub(e.b.add(window, sum_f), e.b.add(least, least))
                value = tail.result(distance, channels, None)
                env = {**channels, **{n: _byte(e, word, c) for n, word in words.items()}}
                made.append(tail.apply(value, env, (0, 0), 0, self.lanes))
            for number in range(tile.result_bytes):
                into = e.at(results, e.add(at, number * tile.pixel_bytes))
                e.store(_word(e, [_byte(e, value, number) for value in made]), into, i32)


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


def _word(e: Emitter, made: Sequence[Register]) -> Register:
    """i32 of four bytes each."""
    wide = [e.b.zext(one, vector(I32, one.type.count)) for one in made]
    moved = [e.b.shl(one, constant(one.type, 8 * c)) for c, one in enumerate(wide)]
    return e.b.or_(e.b.or_(moved[0], moved[1]), e.b.or_(moved[2], moved[3]))


def _byte(e: Emitter, word: Register, c: int) -> Register:
    """Byte `c` of each i32, as u8; bytes are their own."""
    if word.type.element == I8:
        return word
    moved = e.b.lshr(word, constant(word.type, 8 * c))
    return e.b.trunc(moved, vector(I8, word.type.count))
