"""Rounding bounds of the contractions, see `ops/_rounding.py`.

    distance, direct form   gamma(n + 2) sum|x - f| + 2 u |b|
    distance, min form      gamma(n + 3) (2 sum min(x, f+) + sum x + sum|f|) + 2 u |b|    (x >= 0)
    product                 gamma(n + 2) (sum|x f| + |b|)

The min form's magnitude is 2 (sum x + sum|f|) - sum|x - f|, and never less than the direct form's.
Integers are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir import Array, Bound, Op
from .._rounding import U, leading, of_sum, per_channel


def of_distances(x_sums: Array, operands: Sequence[Array], result: Array) -> Bound:
    """`x_sums` has the sum of x over the window of each output, which the min form reads."""
    x, f, *bias = operands
    b = bias[0].astype("f8") if bias else np.zeros(1)
    magnitude = np.abs(result - b)
    if x.size and x.min() >= 0:  # whether the min form serves is proven elsewhere; it may
        magnitude = 2 * (x_sums + np.abs(f.astype("f8")).sum(leading(f))) - magnitude
    return of_sum(per_channel(f) + 3, magnitude) + 2 * U * np.abs(b)


def products(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
    """Of a forward contraction of products."""
    if operands[0].dtype != np.float32:
        return (0.0,)
    magnitude = op.reference(*map(np.abs, operands))[0]
    return (of_sum(per_channel(operands[1]) + 2, magnitude),)


def hard_tanh_by_input(op: Op, operands: Sequence[Array], groups: int = 1) -> Sequence[Bound]:
    """sum g clip(f - x, -1, 1): f - x is rounded only where it is not clipped, by u at most."""
    g, x, f = operands
    weight = op.reference(np.abs(g), np.zeros_like(x), np.full_like(f, 2.0))[0]
    return (of_sum(reached(f, groups) + 3, weight),)


def difference_by_filter(
    op: Op, operands: Sequence[Array], results: Sequence[Array]
) -> Sequence[Bound]:
    """sum g (x - f), also as sum g x - f sum g."""
    g, x, f = operands
    magnitude = op.reference(np.abs(g), np.abs(x), -np.abs(f))[0]
    return (of_sum(per_channel(g) + 3, magnitude),)


def reached(f: Array, groups: int) -> int:
    """Terms of one element of an input gradient, at most: kernel positions times filters."""
    return int(f.size) // max(1, int(f.shape[-2])) // groups
