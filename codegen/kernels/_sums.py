"""The window sums of x that the minimum form needs: see the contract in `contraction.py`."""

from __future__ import annotations

import math
from typing import Any

from ..builder import Emitter, Index, Register
from ._geometry import SUM_LANES, Geometry


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
    with e.loop(low, high) as item, e.loop(0, g.width) as w:
        image, h = e.split(item, (g.groups * g.samples, g.height))
        first = e.dot((image, h, w), (math.prod(g.read), g.stride[0] * g.read[1], g.stride[1]))
        total = e.number(0.0, 1)
        for i in range(g.kernel[0]):
            for j in range(g.kernel[1]):
                tap = i * g.dilation[0] * g.read[1] + j * g.dilation[1]
                total = e.b.fadd(total, e.load(e.at(channels, e.mul(e.add(first, tap), 4))))
        e.store(total, e.at(windows, e.mul(e.add(e.mul(item, g.width), w), 4)))


def _emit_channel_sums(
    e: Emitter, g: Geometry, x: Any, sums: Any, size: tuple[int, int], stride: tuple[int, int]
) -> None:
    """f32[group][n][rows][columns]: blocks of SUM_LANES channels in sequence, each by a tree."""
    whole = g.inputs - g.inputs % SUM_LANES
    low, high = e.share(g.groups * g.samples * size[0])
    with e.loop(low, high) as item, e.loop(0, size[1]) as w:
        group, n, h = e.split(item, (g.groups, g.samples, size[0]))
        at = e.dot((n, h, w), (g.x[0], stride[0] * g.x[1], stride[1] * g.x[2]))
        pixel = e.at(x, e.add(at, e.mul(group, 4 * g.inputs)))

        def over_blocks(k: Index, acc: list[Register], pixel: Any = pixel) -> list[Register]:
            block = e.load(e.at(pixel, e.mul(k, 4)), lanes=SUM_LANES)
            return [e.b.fadd(acc[0], e.tree_sum(block))]

        total = e.carry(0, whole, SUM_LANES, [e.number(0.0, 1)], over_blocks)[0]
        if g.inputs % SUM_LANES:
            rest = g.inputs % SUM_LANES
            last = e.load(e.at(pixel, 4 * whole), lanes=SUM_LANES, active=rest)
            total = e.b.fadd(total, e.tree_sum(last))
        e.store(total, e.at(sums, e.mul(e.add(e.mul(item, size[1]), w), 4)))


def emit_tree(e: Emitter, values: list[Register]) -> Register:
    """The sum of up to SUM_LANES registers, zeros for the others, added as `tree_sum` does."""
    values = values + [e.number(0.0, values[0].type.count)] * (SUM_LANES - len(values))
    while len(values) > 1:
        half = len(values) // 2
        values = [e.b.fadd(a, b) for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]
