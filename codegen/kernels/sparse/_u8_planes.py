"""The two ends of the sparse kernel of bytes: planes of a strip's input, window sums, results.

What each part of the scratch memory holds: see `BytesTile.sections`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from addergraph.ir.types import i32, u8

from ...emit.builder import Emitter, Index, Register, constant
from .. import Operand
from ..forward.geometry import image_strides
from ..schedule import ceil_div
from ..transpose import transpose_bytes, transpose_planes
from ._cut import Region
from ._strips import Strip
from ._u8_lists import classes, widened, words
from ._u8_tile import TOGETHER, BytesTile


def emit_planes(
    e: Emitter, tile: BytesTile, strip: Strip, x: Any, region: Region, channel: Index, count: int
) -> None:
    """The planes of `count` channels from `channel` on, TOGETHER at most."""
    g, patches = tile.g, tile.patches
    top = e.sub(e.mul(strip.h, g.stride[0]), g.pad[0])
    start = e.add(e.dot((strip.n, top), g.x[:2]), e.sub(channel, g.pad[1] * g.x[2]))
    offsets = patches.input_offsets()
    with e.loop(0, tile.rows_read) as row, e.loop(0, patches.columns_read) as column:
        source = e.at(x, e.add(start, e.dot((row, column), g.x[1:])))
        into = e.at(region["planes"], e.dot((row, column), (tile.row_bytes, tile.lanes)))
        transpose_bytes(e, source, offsets, into, tile.plane_bytes, count)


def emit_saturated(e: Emitter, tile: BytesTile, planes: Any, region: Region, size: int) -> None:
    """The section "saturated" of a block's `size` planes: what saturated taps add, pair by pair."""
    lanes = tile.lanes
    with e.loop(0, tile.rows_read * tile.row_bytes, lanes) as at:
        start = e.at(region["saturated"], e.mul(at, 2))
        for pair in range(ceil_div(size, 2)):
            made: list[list[Register]] = []
            for k in range(2 * pair, min(2 * pair + 2, size)):
                byte = e.load(e.at(planes, e.add(at, k * tile.plane_bytes)), u8, lanes)
                word = e.b.bitcast(byte, words(lanes))
                made.append([word, e.b.lshr(word, constant(word.type, 8))])
            if len(made) == 2:
                made.append([e.b.add(a, b) for a, b in zip(*made, strict=True)])
            for which, halves in enumerate(made):
                into = e.at(start, tile.saturated_offset(0, 0, pair, which))
                for half, register in enumerate(halves):
                    e.b.store(register, e.at(into, half * lanes), align=2)


def emit_windows(
    e: Emitter, tile: BytesTile, planes: Any, region: Region, size: int, block: Index
) -> None:
    """windows (+)= the sums of a block's `size` planes over each window."""
    g, lanes = tile.g, tile.lanes
    first = e.b.icmp_signed("==", e.index(block), e.index(0))
    with e.loop(0, tile.rows_read * tile.row_bytes, lanes) as at:
        acc = [constant(words(lanes), 0)] * 2
        for k in range(size):
            plane = e.at(planes, k * tile.plane_bytes)
            acc = widened(e, [e.load(e.at(plane, at), u8, lanes)], acc)
        into = e.at(region["sums"], e.mul(at, 2))
        for half, register in enumerate(acc):
            e.b.store(register, e.at(into, half * lanes), align=2)
    columns = tile.patches.columns
    with e.loop(0, tile.strip_rows) as row, e.loop(0, columns) as column:
        (down, right), at = g.stride, e.dot((row, column), (columns, 1))
        at_sums = e.dot((row, column), (2 * down * tile.row_bytes, 2 * right * lanes))
        acc = [constant(words(lanes), 0)] * 2
        for i in range(g.kernel[0]):
            for j in range(g.kernel[1]):
                here = e.at(region["sums"], e.add(at_sums, 2 * tile.tap_offset(i, j, 0)))
                acc = [
                    e.b.add(a, e.b.load(e.at(here, half * lanes), typ=a.type, align=2))
                    for half, a in enumerate(acc)
                ]
        add_classes(e, acc, e.at(region["windows"], e.mul(at, 4 * lanes)), first)


def add_classes(e: Emitter, acc: list[Register], into: Any, first: Any) -> None:
    """into[class] (+)= the i32 sums of one vector of pixels; where `first`, = and not +=."""
    made = classes(e, *acc)
    lanes = made[0].type.count
    places = [e.at(into, 4 * lanes * c) for c in range(len(made))]

    def before() -> list[Register]:
        return [e.load(at, i32, lanes) for at in places]

    zeros = [constant(one.type, 0) for one in made]
    for one, old, at in zip(made, e.choose(first, lambda: zeros, before), places, strict=True):
        e.store(e.b.add(one, old), at, i32)


def emit_operand(
    e: Emitter, tile: BytesTile, strip: Strip, operand: Operand, pointer: Any, into: Any
) -> None:
    """An NHWC operand of the tail, in the order of the results."""
    g, patches, strides = tile.g, tile.patches, image_strides(operand)
    offsets = patches.output_offsets(strides)
    corner = e.add(e.dot((strip.n, strip.h), strides[:2]), e.mul(strip.group, g.outputs))

    def transpose(first: Index, count: int) -> None:
        with e.loop(0, tile.strip_rows) as row, e.loop(0, patches.columns) as column:
            at = e.dot((row, column), (patches.columns * tile.lanes, tile.lanes))
            source = e.add(e.add(corner, first), e.dot((row, column), strides[1:]))
            there = e.at(into, e.add(e.mul(first, tile.pixel_bytes), at))
            transpose_bytes(e, e.at(pointer, source), offsets, there, tile.pixel_bytes, count)

    _for_channels(e, tile, strip, transpose)


def emit_results(e: Emitter, tile: BytesTile, strip: Strip, region: Region, y: Any) -> None:
    """The results to their places in the output, an i32 as the four bytes that it is there.

    Pixels that two patches have are written twice, with the same bytes: what they read was read
    before, and nobody else writes them.
    """
    g, patches = tile.g, tile.patches
    offsets = patches.output_offsets(g.y)[: patches.used]
    size = tile.result_bytes
    corner = e.add(e.dot((strip.n, strip.h), g.y[:2]), e.mul(strip.group, size * g.outputs))

    def write(channel: Index, channels: int) -> None:
        first = e.mul(channel, size)
        planes = e.at(region["results"], e.mul(first, tile.pixel_bytes))
        with (
            e.loop(strip.written_rows, tile.strip_rows) as row,
            e.loop(0, patches.columns) as column,
        ):
            at = e.at(planes, e.dot((row, column), (patches.columns * tile.lanes, tile.lanes)))
            into = e.at(y, e.add(e.add(corner, first), e.dot((row, column), g.y[1:])))
            for begin in range(0, size * channels, TOGETHER):
                count = min(TOGETHER, size * channels - begin)
                source = e.at(at, begin * tile.pixel_bytes)
                transpose_planes(e, source, tile.pixel_bytes, e.at(into, begin), offsets, count)

    _for_channels(e, tile, strip, write)


def _for_channels(
    e: Emitter, tile: BytesTile, strip: Strip, emit: Callable[[Index, int], None]
) -> None:
    """emit(first, count) for TOGETHER output channels of the strip at a time."""
    whole, rest = divmod(tile.g.outputs, TOGETHER)
    with e.loop(strip.begin, e.minimum(strip.end, whole)) as number:
        emit(e.mul(number, TOGETHER), TOGETHER)
    if rest:
        with e.when(e.less(whole, strip.end)):
            emit(whole * TOGETHER, rest)
