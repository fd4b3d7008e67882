"""The input side of the sparse adder: channel sums, shifted copies and window sums of a strip.

Scratch memory and the meaning of each part: see `sparse_adder.py`. All functions work on the planes
of one region, f32[k][row][column], which hold the padded input of a strip.
"""

from __future__ import annotations

from typing import Any

from ..builder import Emitter, Index, Register
from ._geometry import Geometry
from ._sparse_tile import SparseTile
from ._sums import emit_tree
from ._transpose import shuffle


class Region:
    """Pointers to the sections of one strip's scratch memory."""

    def __init__(self, e: Emitter, tile: SparseTile, base: Any) -> None:
        planes, copies, partial, windows, sums, _ = tile.sections
        self.planes = base
        self.copies = e.at(base, planes)
        self.partial = e.at(base, planes + copies)
        self.windows = e.at(base, planes + copies + partial)
        self.sums = e.at(base, planes + copies + partial + windows)
        self.square = e.at(base, planes + copies + partial + windows + sums)


def emit_plane_sums(
    e: Emitter, tile: SparseTile, planes: Any, region: Region, block: Index, size: int, rows: Index
) -> None:
    """sums[row][column] += tree over the block's channels; absent channels are zeros."""
    lanes, zero = tile.lanes, e.number(0.0, tile.lanes)
    first = e.b.icmp_signed("==", e.index(block), e.index(0))
    pixels = e.mul(rows, tile.plane_pitch)
    with e.loop(0, pixels, lanes) as at:
        here = e.at(planes, e.mul(at, 4))
        values = [e.load(e.at(here, k * tile.plane_bytes), lanes=lanes) for k in range(size)]
        total = e.at(region.sums, e.mul(at, 4))
        before = e.choose(first, lambda: [zero], lambda: [e.load(total, lanes=lanes)])
        e.store(e.b.fadd(before[0], emit_tree(e, values)), total)


def emit_copies(
    e: Emitter, g: Geometry, tile: SparseTile, planes: Any, region: Region, size: int, rows: Index
) -> None:
    """copies[k][j][phase][row][column] = planes[k][s * row + phase][s * column + d * j]."""
    step, lanes = tile.stride[0], min(tile.lanes, tile.pitch)
    with e.loop(0, size) as k:
        plane = e.at(planes, e.mul(k, tile.plane_bytes))
        for phase in range(step):
            count = e.div(e.add(e.sub(rows, phase), step - 1), step)
            with e.loop(0, e.minimum(count, tile.copy_rows)) as row:
                source = e.add(e.mul(row, step), phase)
                line = e.at(plane, e.mul(source, 4 * tile.plane_pitch))
                for j in range(g.kernel[1]):
                    number = e.add(e.mul(k, tile.copies), j * step + phase)
                    into = e.at(region.copies, e.mul(number, tile.copy_bytes))
                    into = e.at(into, e.mul(row, 4 * tile.pitch))
                    for w in range(0, tile.pitch, lanes):
                        value = _pixels(e, tile, line, w, j * g.dilation[1], lanes)
                        e.store(value, e.at(into, 4 * w))


def emit_strip_windows(e: Emitter, g: Geometry, tile: SparseTile, region: Region, h: Index) -> None:
    """windows[row][column] = the channel sums of its taps, in order."""
    lanes = min(tile.lanes, tile.pitch)
    with e.loop(0, e.minimum(tile.strip_rows, e.sub(g.height, h))) as row:
        first = e.at(region.sums, e.mul(row, 4 * tile.stride[0] * tile.plane_pitch))
        for w in range(0, tile.pitch, lanes):
            total = e.number(0.0, lanes)
            for i in range(g.kernel[0]):
                line = e.at(first, 4 * i * g.dilation[0] * tile.plane_pitch)
                for j in range(g.kernel[1]):
                    total = e.b.fadd(total, _pixels(e, tile, line, w, j * g.dilation[1], lanes))
            e.store(total, e.at(region.windows, e.mul(e.add(e.mul(row, tile.pitch), w), 4)))


def _pixels(e: Emitter, tile: SparseTile, line: Any, w: int, shift: int, lanes: int) -> Register:
    """Columns s * w + shift, s * (w + 1) + shift, ... of one row of a plane."""
    step = tile.stride[1]
    start = e.at(line, 4 * (step * w + shift))
    low = e.load(start, lanes=lanes)
    if step == 1 or lanes == 1:
        return low
    high = e.load(e.at(start, 4 * lanes), lanes=lanes)
    return shuffle(e, low, high, range(0, 2 * lanes, 2))
