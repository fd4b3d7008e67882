"""The two ends of the sparse kernel of bytes: planes and copies of a strip's input, its results.

Scratch memory and the meaning of each part: see `sparse_adder_u8.py`.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from addergraph.types import i32, u8

from ..builder import Emitter, Index, Register, constant
from . import Operand
from ._bytes_lists import classes, widened, words
from ._bytes_tile import TOGETHER, BytesTile
from ._forward import Place
from ._geometry import image_strides
from ._transpose import PART, joined, shuffle, transpose_bytes, transposed_parts


class Region:
    """Pointers to the sections of one strip's scratch memory.

    planes     u8[k][place][row][column]             the input, one channel after the other
    copies     u8[k][j][phase][row][place][pixel]    shifted by a column tap, split by row phase
    sums       u16[j][phase][row][2][...]            the copies' sums over a block, `all` and `odd`
    windows    i32[row][class][...]                  the sums of the input over each window
    pairs      u16[filter][row][2][...]              the lists' sums on the way, `all` and `odd`
    partial    i32[1 + filter][row][class][...]      and at their end
    results    u8[channel][row][place][pixel]
    square     u8[place][pixel][channel]             some results on their way to the output
    operands   as results, for each operand of the tail that has the result's shape
    """

    def __init__(self, e: Emitter, tile: BytesTile, base: Any, operands: list[int]) -> None:
        sections, at = tile.sections, 0
        for name, size in sections.items():
            setattr(self, name, e.at(base, at))
            at += size
        size = sections["results"]
        self.operands = {n: e.at(base, at + i * size) for i, n in enumerate(operands)}

    planes: Any
    copies: Any
    sums: Any
    windows: Any
    pairs: Any
    partial: Any
    results: Any
    square: Any


class Spot:
    """One place of a vector: its sample and first output row, as far as they exist."""

    def __init__(self, e: Emitter, tile: BytesTile, place: Place, number: int) -> None:
        sample, band = divmod(number, tile.bands)
        self.number = number
        self.n = e.add(place.n, sample)
        self.h = e.add(place.h, band * tile.band_rows)
        self.exists = e.less(self.n, tile.g.samples)
        inside = e.minimum(e.sub(tile.band_rows, place.h), e.sub(tile.g.height, self.h))
        self.rows = e.b.select(self.exists, e.index(e.minimum(tile.rows, inside)), e.index(0))


def emit_planes(
    e: Emitter, tile: BytesTile, place: Place, x: Any, region: Region, channel: Index, count: int
) -> None:
    """The planes of `count` channels from `channel` on, TOGETHER at most."""
    g, lanes = tile.g, tile.lanes
    full, rest = divmod(g.read[1], lanes)
    for number in range(tile.places):
        spot = Spot(e, tile, place, number)
        top = e.mul(spot.h, g.stride[0])
        rows = e.minimum(tile.plane_rows, e.sub(tile.input_rows, top))
        rows = e.b.select(spot.exists, e.index(rows), e.index(0))
        start = e.dot((spot.n, e.sub(top, g.pad[0])), g.x[:2])
        start = e.at(x, e.add(e.add(start, channel), -g.pad[1] * g.x[2]))
        with e.loop(0, rows) as row:
            source = e.at(start, e.mul(row, g.x[1]))
            into = e.add(e.mul(row, tile.plane_pitch), number * tile.band_bytes)
            into = e.at(region.planes, into)
            with e.loop(0, full) as piece:
                here, there = e.mul(piece, lanes * g.x[2]), e.mul(piece, lanes)
                here, there = e.at(source, here), e.at(into, there)
                transpose_bytes(e, here, g.x[2], there, tile.plane_bytes, lanes, count)
            if rest:
                here, there = e.at(source, full * lanes * g.x[2]), e.at(into, full * lanes)
                transpose_bytes(e, here, g.x[2], there, tile.plane_bytes, rest, count)


def emit_copies(e: Emitter, tile: BytesTile, region: Region, first: Index, size: int) -> None:
    """The copies of a block: channels `first` to first + size - 1 of the planes."""
    g = tile.g
    with e.loop(0, size) as k:
        plane = e.at(region.planes, e.mul(e.add(first, k), tile.plane_bytes))
        for phase in range(g.stride[0]):
            with e.loop(0, tile.copy_rows(phase)) as row:
                line = e.add(e.mul(row, g.stride[0]), phase)
                line = e.at(plane, e.mul(line, tile.plane_pitch))
                for j in range(g.kernel[1]):
                    copy = e.add(e.mul(k, tile.copies), j * g.stride[0] + phase)
                    into = e.add(e.mul(copy, tile.copy_bytes), e.mul(row, tile.row_bytes))
                    _copy_row(e, tile, line, j * g.dilation[1], e.at(region.copies, into))


def _copy_row(e: Emitter, tile: BytesTile, line: Any, shift: int, into: Any) -> None:
    """A row of all places, from column `shift` on."""
    step = tile.g.stride[1]
    for v in range(tile.row_vectors):
        start = shift + v * tile.lanes * step
        pieces = [
            _every(e, e.at(line, number * tile.band_bytes + start), tile.lanes // tile.places, step)
            for number in range(tile.places)
        ]
        e.store(joined(e, pieces), e.at(into, v * tile.lanes), u8)


def _every(e: Emitter, pointer: Any, count: int, step: int) -> Register:
    """`count` bytes, `step` apart."""
    low = e.load(pointer, u8, count)
    if step == 1:
        return low
    return shuffle(e, low, e.load(e.at(pointer, count), u8, count), range(0, 2 * count, 2))


def emit_windows(e: Emitter, tile: BytesTile, region: Region, size: int, block: Index) -> None:
    """windows (+)= the sums of a block's copies over each window."""
    g, lanes = tile.g, tile.lanes
    first = e.b.icmp_signed("==", e.index(block), e.index(0))
    with e.loop(0, tile.copies) as copy, e.loop(0, tile.copy_bytes, lanes) as at:
        acc = [constant(words(lanes), 0)] * 2
        for k in range(size):
            here = e.add(e.mul(e.add(copy, k * tile.copies), tile.copy_bytes), at)
            acc = widened(e, [e.load(e.at(region.copies, here), u8, lanes)], acc)
        into = e.at(region.sums, e.mul(e.add(e.mul(copy, tile.copy_bytes), at), 2))
        for half, register in enumerate(acc):
            e.b.store(register, e.at(into, half * lanes), align=2)
    with e.loop(0, tile.pixel_bytes, lanes) as at:
        acc = [constant(words(lanes), 0)] * 2
        for i in range(g.kernel[0]):
            for j in range(g.kernel[1]):
                copy, shift = tile.tap(i, j)
                here = e.mul(e.add(at, copy * tile.copy_bytes + shift), 2)
                here = e.at(region.sums, here)
                acc = [
                    e.b.add(a, e.b.load(e.at(here, half * lanes), typ=a.type, align=2))
                    for half, a in enumerate(acc)
                ]
        add_classes(e, acc, e.at(region.windows, e.mul(at, 4)), first)


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
    e: Emitter, tile: BytesTile, place: Place, operand: Operand, pointer: Any, into: Any
) -> None:
    """An NHWC operand of the tail, in the order of the results."""
    g, strides = tile.g, image_strides(operand.strides)
    _for_channels(
        e, tile, lambda first, count: _emit_operand(
            e, tile, place, e.at(pointer, e.add(e.mul(place.group, g.outputs), first)), strides,
            e.at(into, e.mul(first, tile.pixel_bytes)), count,
        ),
    )  # fmt: skip


def _emit_operand(
    e: Emitter, tile: BytesTile, place: Place, pointer: Any, strides: Any, into: Any, count: int
) -> None:
    width, most = tile.g.width, tile.lanes // tile.places
    for number in range(tile.places):
        spot = Spot(e, tile, place, number)
        start = e.at(pointer, e.dot((spot.n, spot.h), strides[:2]))
        with e.loop(0, spot.rows) as row:
            source = e.at(start, e.mul(row, strides[1]))
            there = e.at(into, e.add(e.mul(row, tile.row_bytes), number * most))
            for w in range(0, width, most):
                here, target = e.at(source, w * strides[2]), e.at(there, w)
                pixels = min(most, width - w)
                transpose_bytes(e, here, strides[2], target, tile.pixel_bytes, pixels, count, most)


def emit_results(e: Emitter, tile: BytesTile, place: Place, region: Region, y: Any) -> None:
    """The results to their places in the output."""
    g = tile.g
    _for_channels(
        e, tile, lambda first, count: _emit_results(
            e, tile, place, region, e.at(region.results, e.mul(first, tile.pixel_bytes)),
            e.at(y, e.add(e.mul(place.group, g.outputs), first)), count,
        ),
    )  # fmt: skip


def _for_channels(e: Emitter, tile: BytesTile, emit: Any) -> None:
    """emit(first, count) for TOGETHER output channels at a time."""
    whole, rest = divmod(tile.g.outputs, TOGETHER)
    with e.loop(0, whole) as number:
        emit(e.mul(number, TOGETHER), TOGETHER)
    if rest:
        emit(whole * TOGETHER, rest)


def _emit_results(
    e: Emitter, tile: BytesTile, place: Place, region: Region, planes: Any, y: Any, count: int
) -> None:
    spots = [Spot(e, tile, place, number) for number in range(tile.places)]
    most = tile.lanes // tile.places
    with e.loop(0, tile.rows) as row:
        for v in range(tile.row_vectors):
            at = e.add(e.mul(row, tile.row_bytes), v * tile.lanes)
            _to_square(e, tile, e.at(planes, at), region.square)
            for spot in spots:
                with e.when(e.less(row, spot.rows)):
                    out = e.dot((spot.n, e.add(spot.h, row), v * tile.lanes), tile.g.y)
                    into, width = e.at(y, out), min(most, tile.g.width - v * tile.lanes)
                    source = e.at(region.square, spot.number * most * PART)
                    with e.loop(0, width) as w:
                        pixel = e.load(e.at(source, e.mul(w, PART)), u8, PART)
                        e.store(pixel, e.at(into, e.mul(w, tile.g.y[2])), u8, active=count)


def _to_square(e: Emitter, tile: BytesTile, planes: Any, square: Any) -> None:
    """square[pixel][channel] of one vector of pixels."""
    lanes, step = tile.lanes, tile.pixel_bytes

    def build(f: Emitter, arguments: Any) -> None:
        source, into = arguments
        rows = [f.load(f.at(source, c * step), u8, lanes) for c in range(PART)]
        for p, pixels in enumerate(transposed_parts(f, rows)):
            for part in range(lanes // PART):
                one = shuffle(f, pixels, pixels, range(part * PART, (part + 1) * PART))
                f.store(one, f.at(into, (part * PART + p) * PART), u8)

    name = f"pixels_of_planes_{step}"
    e.b.call(e.shared(name, [ir.PointerType()] * 2, build), [planes, square])
