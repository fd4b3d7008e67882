"""The sign gradients of adder layers, in ops that exist: Chen et al. 2020, section 3.2.

The derivative of -|x - f| is sign(x - f) by f and sign(f - x) by x. The paper starts from these
and replaces them, because their steps tell nothing of the distance; they are here to compare with.

Both are HardTanh gradients of scaled operands: for a power of two S, S f - S x is S (f - x) without
rounding, and clip(S (f - x), -1, 1) = sign(f - x) wherever |f - x| >= 1 / S or x = f.
By the filter the batch and its pixels take the place of the output channels: for a tap (i, j)

    dF[i,j][k,t] = sum_p g[p,t] sign(X[p,k] - F[i,j][k,t])          p: all pixels of the batch

is the input gradient of an `adder_dense` with input F[i,j]^T [T,K], filter X^T [K,P] and upstream
gradient g^T [T,P].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.trace import Tensor, apply
from ..movement.concat import concat
from ..movement.pad import pad
from ..movement.reshape import reshape
from ..movement.slice import slice
from ..movement.transpose import transpose
from ..reduction.max_pool2d import max_pool2d
from ._contraction import Windowed
from .adder_dense import AdderDenseGradInput

SCALE = 2.0**60  # differences below 2^-60 count in proportion; operands up to 2^67 do not overflow


def by_filter(g: Tensor, x: Tensor, f: Tensor) -> Tensor:
    """sum_n g[n,t] sign(x[n,k] - f[k,t]): the filter's gradient of `adder_dense`, f32[K,T]."""
    rows = (transpose(t, (1, 0)) for t in (g, SCALE * f, SCALE * x))
    return transpose(apply(AdderDenseGradInput(), *rows), (1, 0))


def by_filter2d(op: Windowed, g: Tensor, x: Tensor, f: Tensor) -> Tensor:
    """The filter's gradient of `adder2d` with the attributes of `op`: f32[I,J,C/groups,T]."""
    top, bottom, left, right = op.padding
    padded = pad(x, (0, top, left, 0), (0, bottom, right, 0)) if any(op.padding) else x
    rows, columns = int(f.shape[0]), int(f.shape[1])
    made = []
    for i in range(rows):
        line = []
        for j in range(columns):
            tap = _tap(op, padded, g, (i * op.dilation[0], j * op.dilation[1]))
            line.append(_by_tap(op.groups, g, tap, _part(f, {0: (i, i + 1), 1: (j, j + 1)})))
        made.append(_joined(line, 1))
    return _joined(made, 0)


def _tap(op: Windowed, padded: Tensor, g: Tensor, first: tuple[int, int]) -> Tensor:
    """What one tap reads for each output: f32[N,OH,OW,C]."""
    extent = {
        axis: (start, start + stride * (int(g.shape[axis]) - 1) + 1)
        for axis, start, stride in zip((1, 2), first, op.stride, strict=True)
    }
    part = _part(padded, extent)
    return part if op.stride == (1, 1) else max_pool2d(part, 1, stride=op.stride)


def _by_tap(groups: int, g: Tensor, tap: Tensor, f: Tensor) -> Tensor:
    """The gradient of one tap of the filter: f32[1,1,C/groups,T]."""
    pixels = math.prod(g.type.sizes[:3])
    channels, outputs = int(f.shape[2]), int(f.shape[3]) // groups
    flat_g = reshape(g, (pixels, outputs * groups))
    flat_x, flat_f = reshape(tap, (pixels, channels * groups)), reshape(f, f.shape[2:])
    made = [
        by_filter(
            _part(flat_g, {1: (k * outputs, (k + 1) * outputs)}),
            _part(flat_x, {1: (k * channels, (k + 1) * channels)}),
            _part(flat_f, {1: (k * outputs, (k + 1) * outputs)}),
        )
        for k in range(groups)
    ]
    return reshape(_joined(made, 1), f.shape)


def _part(x: Tensor, extents: dict[int, tuple[int, int]]) -> Tensor:
    """x from start to stop along some axes; x itself where that is all of it."""
    start = [extents.get(axis, (0, 0))[0] for axis in range(x.type.rank)]
    stop = [extents[axis][1] if axis in extents else d for axis, d in enumerate(x.shape)]
    return x if tuple(stop) == x.shape and not any(start) else slice(x, start, stop)


def _joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else concat(parts, axis)
