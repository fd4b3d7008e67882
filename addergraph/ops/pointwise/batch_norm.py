"""batch_norm and batch_norm_statistics: two ops, so that fusion and memory planning see both.

The gradients are compositions of primitive ops; the compiled step fuses them. Chained, they are
the true gradient of normalization by batch statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import POINTWISE, REDUCTION, Array, Bound, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.intervals import ANY, NONNEGATIVE, Interval
from ...ir.trace import Tensor, apply, apply_all
from ...ir.types import TensorType, f32
from .._rounding import TINY, leading, of_sum, per_channel
from .._rounding import gamma as roundings
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class BatchNorm(Op):
    """Y[...,c] = (X[...,c] - mean[c]) gamma[c] / sqrt(variance[c] + epsilon) + beta[c].

    Operands: x f32[...,C] of rank 2 or more, and mean, variance, gamma, beta f32[C]; result of the
    type of x. The statistics are operands: `batch_norm_statistics` gives a batch's own.

    Raises ShapeError for wrong ranks, dtypes or channel counts, and unless epsilon > 0.
    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2.
    """

    name: ClassVar[str] = "batch_norm"
    kind: ClassVar[str] = POINTWISE
    normalizes: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "mean", "variance", "gamma", "beta")
        x = types[0]
        _require_channels(x)
        if not 0.0 < self.epsilon < math.inf:
            raise ShapeError(f"epsilon={self.epsilon} must be positive and finite")
        expected = TensorType(f32, (x.shape[-1],))
        for what, type in zip(("mean", "variance", "gamma", "beta"), types[1:], strict=True):
            if type != expected:
                raise ShapeError(f"{what} must be {expected} for the input {x}, found {type}")
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, mean, variance, gamma, beta = (a.astype("f8") for a in arrays)
        y = (x - mean) * (gamma / np.sqrt(variance + self.epsilon)) + beta
        return (y.astype(np.float32),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..reduction.reduce import reduce_sum
        from .unary import sqrt

        g, (x, mean, variance, gamma, _) = gs[0], xs
        assert g is not None
        axes = tuple(range(x.type.rank - 1))
        inverse = 1.0 / sqrt(variance + self.epsilon)
        scale = gamma * inverse
        dbeta = reduce_sum(g, axes)
        dgamma = reduce_sum(g * (x - mean), axes) * inverse
        dvariance = dgamma * gamma * (inverse * inverse) * -0.5
        return (g * scale, -(dbeta * scale), dvariance, dgamma, dbeta)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """Native code computes x scale + (beta - mean scale), where scale has 3 roundings."""
        x, mean, _, gamma, beta = (np.abs(a.astype("f8")) for a in operands)
        scale = gamma / np.sqrt(operands[2].astype("f8") + self.epsilon)
        return (roundings(8) * ((x + mean) * scale + beta) + 8 * TINY,)

    def cost(self, types: Types) -> Cost:
        elements = types[0].elements
        return Cost(additions=2 * elements, multiplications=elements)


@dataclass(frozen=True)
class BatchNormStatistics(Op):
    """mean[c] = 1/M sum X[...,c],  variance[c] = 1/M sum (X[...,c] - mean[c])^2.

    The sums run over all axes but the last; M is their number of terms. The variance is the biased
    one, in two passes: an adder layer's mean may be a thousand times its spread, where
    E[x^2] - E[x]^2 cancels. Operand: x f32[...,C] of rank 2 or more; results f32[C], f32[C].

    Gradient: dX = (dmean + 2 (X - mean) dvariance) / M; it needs a bound batch, for M.
    Raises ShapeError for a wrong rank or dtype, and for statistics of no elements (M = 0).
    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithm 1.
    """

    name: ClassVar[str] = "batch_norm_statistics"
    kind: ClassVar[str] = REDUCTION
    normalizes: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    per_sample: ClassVar[bool] = False
    result_names: ClassVar[tuple[str, ...]] = ("mean", "variance")

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        _require_channels(x)
        if 0 in x.shape[:-1]:
            raise ShapeError(f"the input {x} has no elements in a channel: nothing to average")
        channels = TensorType(f32, (x.shape[-1],))
        return (channels, channels)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x = arrays[0].astype("f8")
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes) + 0.0  # a zero mean is +0.0
        variance = np.square(x - mean).mean(axes)
        return (mean.astype(np.float32), variance.astype(np.float32))

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..movement.broadcast_to import broadcast_to

        (x,), (mean, _), (dmean, dvariance) = xs, ys, gs
        each = 1.0 / math.prod(x.type.sizes[:-1])
        if dvariance is None:
            assert dmean is not None
            return (broadcast_to(dmean * each, x.shape),)
        through_variance = (x - mean) * (dvariance * (2.0 * each))
        if dmean is None:
            return (through_variance,)
        return (through_variance + dmean * each,)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        if types[0].is_open:
            return (ANY, NONNEGATIVE)
        count = math.prod(types[0].sizes[:-1])
        return (ranges[0].total(count) * Interval(1 / count, 1 / count), NONNEGATIVE)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """A mean that is off by e adds e^2 to the mean of the squared deviations from it."""
        x, variance = operands[0], results[1].astype("f8")
        n = per_channel(x)
        mean = of_sum(n + 2, np.abs(x.astype("f8")).mean(leading(x)) if n else np.zeros(1))
        return (mean, of_sum(n + 6, variance) + mean**2)

    def cost(self, types: Types) -> Cost:
        elements = types[0].elements
        return Cost(additions=3 * elements, multiplications=elements)


def _require_channels(x: TensorType) -> None:
    """ShapeError unless `x` is f32 and has axes to normalize over beside its channels."""
    if x.rank < 2:
        raise ShapeError(f"input must have rank 2 or more (channels last), found {x}")
    require_f32("input", x)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    epsilon: float = 1e-5,
    name: str | None = None,
) -> Tensor:
    """Normalizes the channels of `x` by the statistics given; see `BatchNorm`."""
    return apply(BatchNorm(epsilon), x, mean, variance, gamma, beta, name=name)


def batch_norm_statistics(x: Tensor, *, name: str | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of `x`; see `BatchNormStatistics`."""
    mean, variance = apply_all(BatchNormStatistics(), x, name=name)
    return mean, variance
