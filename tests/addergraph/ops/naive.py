"""Independent oracles: plain loops over single numbers, in float64, straight from the equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from addergraph.ir import Array


class Tap(NamedTuple):
    """Output (h, w) reads input (row, column) with kernel tap (i, j); maybe in the padding."""

    h: int
    w: int
    i: int
    j: int
    row: int
    column: int
    inside: bool


def taps(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> list[Tap]:
    """Every tap, found by trying outputs until a window leaves the padded input."""
    rows = _positions(size[0], kernel[0], stride[0], padding[0], padding[1], dilation[0])
    columns = _positions(size[1], kernel[1], stride[1], padding[2], padding[3], dilation[1])
    return [
        Tap(h, w, i, j, row, column, 0 <= row < size[0] and 0 <= column < size[1])
        for h, i, row in rows
        for w, j, column in columns
    ]


def _positions(
    extent: int, taps: int, stride: int, before: int, after: int, dilation: int
) -> list[tuple[int, int, int]]:
    found, out = [], 0
    while out * stride - before + (taps - 1) * dilation < extent + after:
        found += [(out, i, out * stride - before + i * dilation) for i in range(taps)]
        out += 1
    return found


def op_taps(op: Any, x: Array, kernel: tuple[int, int]) -> list[Tap]:
    return taps((x.shape[1], x.shape[2]), kernel, op.stride, op.padding, op.dilation)


def terms(op: Any, x: Array, f: Array) -> Iterator[tuple[tuple[int, ...], ...]]:
    """(index of y, index of x, index of f, or None for x in the padding), for every term."""
    taken, made = f.shape[2], f.shape[3]
    for tap in op_taps(op, x, (f.shape[0], f.shape[1])):
        for n in range(x.shape[0]):
            for t in range(made):
                first = t // (made // op.groups) * taken
                for k in range(taken):
                    x_index = (n, tap.row, tap.column, first + k) if tap.inside else ()
                    yield (n, tap.h, tap.w, t), x_index, (tap.i, tap.j, k, t)


def contraction(op: Any, x: Array, f: Array, combine: Callable[[float, float], float]) -> Array:
    """sum combine(x, f), padding being zeros."""
    found = op_taps(op, x, (f.shape[0], f.shape[1]))
    height, width = (max((t[a] for t in found), default=-1) + 1 for a in (0, 1))
    y = np.zeros((x.shape[0], height, width, f.shape[3]))
    for y_at, x_at, f_at in terms(op, x, f):
        y[y_at] += combine(float(x[x_at]) if x_at else 0.0, float(f[f_at]))
    return y


def gradients(
    op: Any,
    g: Array,
    x: Array,
    f: Array,
    by_x: Callable[[float, float], float],
    by_f: Callable[[float, float], float],
) -> tuple[Array, Array]:
    """(sum g by_x(x, f), sum g by_f(x, f)): the gradients of both operands."""
    dx, df = np.zeros(x.shape), np.zeros(f.shape)
    for y_at, x_at, f_at in terms(op, x, f):
        upstream, x_value, f_value = float(g[y_at]), float(x[x_at]) if x_at else 0.0, float(f[f_at])
        df[f_at] += upstream * by_f(x_value, f_value)
        if x_at:
            dx[x_at] += upstream * by_x(x_value, f_value)
    return dx, df


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
