"""How far f32 evaluation of one op may be from its reference: closed forms, element by element.

u = 2^-24, gamma(n) = n u / (1 - n u). A sum of n terms in any order is within gamma(n - 1) of the
exact one, relative to the sum of the terms' magnitudes (Higham 2002, section 4.2). The rules also
count a term's own roundings, the bias, and the rounding of the reference to f32:

    adder, direct form    gamma(n + 2) sum|x - f| + 2 u |b|
    adder, min form       gamma(n + 3) (2 sum min(x, f+) + sum x + sum|f|) + 2 u |b|     (x >= 0)
    product               gamma(n + 2) (sum|x f| + |b|)

The min form's magnitude is 2 (sum x + sum|f|) - sum|x - f|, and never less than the direct form's.
Pointwise ops and movements are IEEE operations each, in the reference as in native code: no bound
but zero, unless `RULES` has one. Every contraction and reduction has a rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import GraphError
from ..ir import MOVEMENT, POINTWISE, Array, Op
from ..ops.contraction.adder2d import Adder2d, Adder2dGradFilter, Adder2dGradInput
from ..ops.contraction.adder_dense import AdderDense, AdderDenseGradFilter, AdderDenseGradInput
from ..ops.contraction.conv2d import Conv2d, Conv2dGradFilter, Conv2dGradInput
from ..ops.contraction.dense import Dense, Matmul
from ..ops.pointwise.batch_norm import BatchNorm, BatchNormStatistics
from ..ops.pointwise.fake_quantize import FakeQuantizeFilter
from ..ops.pointwise.unary import Exp, Log
from ..ops.reduction.argmax import Argmax
from ..ops.reduction.avg_pool2d import AvgPool2d, AvgPool2dGrad
from ..ops.reduction.global_avg_pool import GlobalAvgPool
from ..ops.reduction.max_pool2d import MaxPool2d, MaxPool2dGrad
from ..ops.reduction.mean_squared_error import MeanSquaredError
from ..ops.reduction.reduce import ReduceMax, ReduceMean, ReduceSum
from ..ops.reduction.softmax import Softmax
from ..ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy
from ..ops.reduction.sum_pool2d import SumPool2d

U = 2.0**-24  # half the distance from 1 to the next f32
TINY = 2.0**-149  # the least subnormal: what underflow may cost
Bound = Array | float
Rule = Callable[[Any, Sequence[Array], Sequence[Array]], Sequence[Bound]]


def rounding_bounds(
    op: Op, operands: Sequence[Array], results: Sequence[Array]
) -> tuple[Bound, ...]:
    """For each result, how far an f32 evaluation of `op` may be from it (0.0: bit-equal).

    `results` are the reference's for `operands`. NaN or inf where the op meets them. Raises
    GraphError for a contraction or reduction without a rule.
    """
    rule = RULES.get(type(op))
    if rule is None and op.kind in (POINTWISE, MOVEMENT):
        return (0.0,) * len(results)
    if rule is None:
        raise GraphError(f'op "{op.name}" has no rounding bound; rounding.py needs a rule for it')
    with np.errstate(all="ignore"):
        return tuple(rule(op, operands, results))


def gamma(n: int) -> float:
    """n u / (1 - n u), the relative error of n roundings; inf where that says nothing."""
    return n * U / (1 - n * U) if n * U < 1 else np.inf


def _wide(arrays: Sequence[Array]) -> list[Array]:
    """Magnitudes in float64."""
    return [np.abs(a.astype("f8")) for a in arrays]


def _sum(n: int, magnitude: Array) -> Array:
    """The bound of n roundings of partial sums of terms with this sum of magnitudes."""
    return gamma(n) * magnitude.astype("f8") + n * TINY


def _per_filter(f: Array) -> int:
    """Terms of one output of a forward contraction."""
    return int(f.size) // max(1, int(f.shape[-1]))


# --- contractions ---------------------------------------------------------------------------------


def _adder(op: Adder2d | AdderDense, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    x, f, *bias = operands
    if x.dtype != np.float32:
        return [0.0]  # integers are exact
    b = bias[0].astype("f8") if bias else np.zeros(1)
    magnitude = np.abs(results[0] - b)
    if x.size and x.min() >= 0:  # whether the min form serves is proven elsewhere; it may
        magnitude = 2 * (_window_sums(op, x, f) + np.abs(f.astype("f8")).sum(_all_but_last(f)))
        magnitude = magnitude - np.abs(results[0] - b)
    return [_sum(_per_filter(f) + 3, magnitude) + 2 * U * np.abs(b)]


def _window_sums(op: Adder2d | AdderDense, x: Array, f: Array) -> Array:
    """sum x over each window: the distance to a filter of zeros, one for each group."""
    groups = op.groups if isinstance(op, Adder2d) else 1
    plain = dataclasses.replace(op, input_nonnegative=False)
    sums = -plain.reference(x, np.zeros((*f.shape[:-1], groups), np.float32))[0].astype("f8")
    return np.repeat(sums, f.shape[-1] // groups, axis=-1)


def _all_but_last(a: Array) -> tuple[int, ...]:
    return tuple(range(a.ndim - 1))


def _product(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    if operands[0].dtype != np.float32:
        return [0.0]  # integers are exact
    magnitude = op.reference(*map(np.abs, operands))[0]
    return [_sum(_per_filter(operands[1]) + 2, magnitude)]


def _reached(op: Op, f: Array) -> int:
    """Terms of one element of an input gradient, at most: kernel positions times filters."""
    return int(f.size) // max(1, int(f.shape[-2])) // int(getattr(op, "groups", 1))


def _adder_grad_input(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """f - x is rounded only where it is not clipped: by u at most."""
    g, x, f = operands
    weight = op.reference(np.abs(g), np.zeros_like(x), np.full_like(f, 2.0))[0]
    return [_sum(_reached(op, f) + 3, weight)]


def _adder_grad_filter(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """Also as sum g x - f sum g."""
    g, x, f = operands
    magnitude = op.reference(np.abs(g), np.abs(x), -np.abs(f))[0]
    return [_sum(_per_filter(g) + 3, magnitude)]


def _conv_grad_input(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    magnitude = op.reference(*map(np.abs, operands))[0]
    return [_sum(_reached(op, operands[1]) + 2, magnitude)]


def _conv_grad_filter(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    magnitude = op.reference(*map(np.abs, operands))[0]
    return [_sum(_per_filter(operands[0]) + 2, magnitude)]


# --- reductions -----------------------------------------------------------------------------------


def _exact(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """Results are elements of the operands, counted, or f64 operations in a fixed order."""
    return [0.0]


def _total(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """A sum or mean over n elements: n - 1 additions, a division, the reference's rounding."""
    x, y = operands[0], results[0]
    return [_sum(x.size // max(1, y.size) + 2, op.reference(np.abs(x))[0])]


def _pool_grad(op: AvgPool2dGrad | MaxPool2dGrad, operands: Sequence[Array], results: Any) -> Any:
    """At most as many windows as a window has positions reach one element."""
    g, *x = operands
    return [_sum(op.area + 2, op.reference(np.abs(g), *x)[0])]


def _statistics(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """A mean that is off by e adds e^2 to the mean of the squared deviations from it."""
    x, variance = operands[0], results[1].astype("f8")
    n = _per_filter(x)
    mean = _sum(n + 2, np.abs(x.astype("f8")).mean(_all_but_last(x)) if n else np.zeros(1))
    return [mean, _sum(n + 6, variance) + mean**2]


def _softmax(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """e^-d is off by u d (from the rounding of d) and 1 ulp; then the sum and the division."""
    y = results[0].astype("f8")
    d = _below_maximum(operands[0])
    relative = U * (d + (y * d).sum(-1, keepdims=True)) + gamma(y.shape[-1] + 6)
    return [relative * y + 8 * TINY]


def _below_maximum(z: Array) -> Array:
    """max z - z, and 0 for -inf, whose power is exactly zero."""
    d = z.max(-1, keepdims=True, initial=-np.inf).astype("f8") - z
    return np.where(np.isposinf(d), 0.0, d)


def _cross_entropy(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """sum|p| times the error of L = m + ln s, and the roundings of both weighted sums."""
    z, p = operands[0].astype("f8"), np.abs(operands[1].astype("f8"))
    n, d, m = z.shape[-1], _below_maximum(operands[0]), z.max(-1)
    powers = np.exp(-d)
    s = powers.sum(-1)
    relative = U * (powers * d).sum(-1) / s + gamma(n + 4)  # of s
    logarithm = relative + 2 * U * np.abs(np.log(s)) + U * np.abs(m + np.log(s))
    finite = np.where(np.isfinite(z), np.abs(z), 0.0)
    weighted = (p * (finite + np.abs(m + np.log(s))[..., None])).sum(-1)
    return [p.sum(-1) * logarithm + _sum(n + 4, weighted)]


def _squared_error(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """Squares are non-negative: all roundings are relative."""
    n = operands[0].size // max(1, results[0].size)
    return [_sum(n + 5, results[0])]


# --- pointwise ------------------------------------------------------------------------------------


def _ulp(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """One unit in the last place (codegen/kernels/math.py)."""
    return [2 * U * np.abs(results[0].astype("f8")) + TINY]


def _batch_norm(op: BatchNorm, operands: Sequence[Array], results: Sequence[Array]) -> Any:
    """Native code computes x scale + (beta - mean scale), where scale has 3 roundings."""
    x, mean, _, gamma_, beta = _wide(operands)
    scale = gamma_ / np.sqrt(operands[2].astype("f8") + op.epsilon)
    return [gamma(8) * ((x + mean) * scale + beta) + 8 * TINY]


RULES: dict[type[Op], Rule] = {
    Adder2d: _adder,
    Adder2dGradFilter: _adder_grad_filter,
    Adder2dGradInput: _adder_grad_input,
    AdderDense: _adder,
    AdderDenseGradFilter: _adder_grad_filter,
    AdderDenseGradInput: _adder_grad_input,
    Argmax: _exact,
    AvgPool2d: _total,
    AvgPool2dGrad: _pool_grad,
    BatchNorm: _batch_norm,
    BatchNormStatistics: _statistics,
    Conv2d: _product,
    Conv2dGradFilter: _conv_grad_filter,
    Conv2dGradInput: _conv_grad_input,
    Dense: _product,
    Exp: _ulp,
    FakeQuantizeFilter: _exact,
    GlobalAvgPool: _total,
    Log: _ulp,
    Matmul: _product,
    MaxPool2d: _exact,
    MaxPool2dGrad: _pool_grad,
    MeanSquaredError: _squared_error,
    ReduceMax: _exact,
    ReduceMean: _total,
    ReduceSum: _total,
    Softmax: _softmax,
    SumPool2d: _exact,
    SoftmaxCrossEntropy: _cross_entropy,
}
