"""The window sums of x that the minimum form needs: see the contract in `dense.py`."""

from __future__ import annotations

import math
from typing import Any

from ...emit.builder import Emitter, Index, Register
from ..transpose import shuffle
from .geometry import SUM_LANES, Geometry


def emit_window_sums(e: Emitter, g: Geometry, x: Any, windows: Any, channels: Any) -> None:
    """sum x over each window into `windows`: channel sums of each pixel, then the taps in order.

    The channel sums go to `channels`, f32[group][n][row][column]; unused where there is one tap.
    """
    corner = e.at(x, -(g.pad[0] * g.x[1] + g.pad[1] * g.x[2]))
    if g.kernel == (1, 1):
        _emit_channel_sums(e, g, corner, windows, (g.height, g.width), g.stride)
        return
    _emit_channel_sums(e, g, corner, channels, g.read, (1, 1))
    e.barrier()
    low, high = e.share(g.groups * g.samples * g.height)
    with e.loop(low, high) as item:
        image, h = e.split(item, (g.groups * g.samples, g.height))
        row = e.dot((image, h), (4 * math.prod(g.read), 4 * g.stride[0] * g.read[1]))
        into = e.at(windows, e.mul(item, 4 * g.width))
        _emit_row_of_windows(e, g, e.at(channels, row), into)


def _emit_row_of_windows(e: Emitter, g: Geometry, channels: Any, into: Any) -> None:
    """One row of window sums, vectors of neighbours first; `channels` is at its first tap."""
    lanes = e.lanes if g.stride[1] <= 2 else 1
    whole = g.width - g.width % lanes
    for begin, end, step in ((0, whole, lanes), (whole, g.width, 1)):
        with e.loop(begin, end, step) as w:
            first = e.at(channels, e.mul(w, 4 * g.stride[1]))
            total = e.number(0.0, step)
            for i in range(g.kernel[0]):
                for j in range(g.kernel[1]):
                    tap = i * g.dilation[0] * g.read[1] + j * g.dilation[1]
                    total = e.b.fadd(total, _neighbours(e, e.at(first, 4 * tap), g.stride[1], step))
            e.store(total, e.at(into, e.mul(w, 4)))


def _neighbours(e: Emitter, start: Any, stride: int, lanes: int) -> Register:
    """`lanes` numbers that stand `stride` apart, 1 or 2 where there are several."""
    low = e.load(start, lanes=lanes)
    if stride == 1 or lanes == 1:
        return low
    high = e.load(e.at(start, 4 * (lanes - 1)), lanes=lanes)  # ends at the last number wanted
    return shuffle(e, low, high, [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)])


def _emit_channel_sums(
    e: Emitter, g: Geometry, x: Any, sums: Any, size: tuple[int, int], stride: tuple[int, int]
) -> None:
    """f32[group][n][rows][columns]: blocks of SUM_LANES channels in sequence, each by a tree."""
    low, high = e.share(g.groups * g.samples * size[0])
    step = stride[1] * g.x[2]
    whole = size[1] - size[1] % SUM_LANES
    with e.loop(low, high) as item:
        group, n, h = e.split(item, (g.groups, g.samples, size[0]))
        at = e.add(e.dot((n, h), (g.x[0], stride[0] * g.x[1])), e.mul(group, 4 * g.inputs))
        row, into = e.at(x, at), e.at(sums, e.mul(item, 4 * size[1]))
        for begin, end, pixels in ((0, whole, SUM_LANES), (whole, size[1], 1)):
            with e.loop(begin, end, pixels) as w:
                total = _channel_sum(e, g, e.at(row, e.mul(w, step)), pixels, step)
                e.store(total, e.at(into, e.mul(w, 4)))


def _channel_sum(e: Emitter, g: Geometry, pixel: Any, pixels: int, step: int) -> Register:
    """The channel sums of 1 or SUM_LANES pixels, `step` bytes apart."""

    def block(k: Index, size: int) -> Register:
        here = [e.at(pixel, e.add(e.mul(k, 4), p * step)) for p in range(pixels)]
        rows = [e.load(at, lanes=SUM_LANES, active=size) for at in here]
        return e.tree_sum(rows[0]) if pixels == 1 else _tree_sums(e, rows)

    def over_blocks(k: Index, acc: list[Register]) -> list[Register]:
        return [e.b.fadd(acc[0], block(k, SUM_LANES))]

    rest = g.inputs % SUM_LANES
    total = e.carry(0, g.inputs - rest, SUM_LANES, [e.number(0.0, pixels)], over_blocks)[0]
    return e.b.fadd(total, block(g.inputs - rest, rest)) if rest else total


def _tree_sums(e: Emitter, rows: list[Register]) -> Register:
    """`tree_sum` of each of SUM_LANES rows of as many elements, several rows in a register."""
    for low, high in _FOLDS:
        rows = [
            e.b.fadd(shuffle(e, a, b, low), shuffle(e, a, b, high))
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
    return shuffle(e, rows[0], rows[0], [0, 4, 1, 5, 2, 6, 3, 7])


# What adds halves to halves within the 128-bit parts of two registers: (low halves, high halves).
_FOLDS = (
    ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
    ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    ([0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]),
)


def emit_tree(e: Emitter, values: list[Register]) -> Register:
    """The sum of up to SUM_LANES registers, zeros for the others, added as `tree_sum` does."""
    values = values + [e.number(0.0, values[0].type.count)] * (SUM_LANES - len(values))
    while len(values) > 1:
        half = len(values) // 2
        values = [e.b.fadd(a, b) for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]
