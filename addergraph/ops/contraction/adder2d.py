"""adder2d: the adder layer, and the two gradient ops of the paper.

Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020
(arXiv:1912.13200), equations 2, 5 and 6; placement of the adaptive learning rate as in the
authors' release is in `training/optimizers.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import Array, Bound, Cost, Gradients, Halo, Intervals, Op, Tensors, Types
from ...ir.attributes import FULL_PRECISION, GRADIENTS, SIGN, Pair, choice
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32, i32
from .._window import require_operands
from . import _rounding
from ._contraction import (
    DISTANCES,
    Forms,
    Windowed,
    byte_distance_range,
    distance_quantization,
    grouped,
    plus_bias,
    require_byte_distances,
    require_trainable,
    require_zero_padding,
    windowed,
)

_BLOCK = 1 << 15  # results that the reference works on at a time: they stay in a cache


@dataclass(frozen=True)
class Adder2d(Windowed):
    """Y[n,h,w,t] = - sum_{i,j,k} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]|  (+ b[t]).

    Operands: x f32[N,H,W,C], f f32[I,J,C/groups,T], optional bias f32[T]. Zero padding is a
    value: a padded tap contributes -|F|. `input_nonnegative` states that every x >= 0 is proven;
    it licenses the min form, |x - f| = x + |f| - 2 min(x, max(f, 0)), and `check` re-derives it.

    Or integers: x u8, f u8, optional bias i32, result i32, exact (only adding the bias wraps).
    There `input_nonnegative` says nothing and is refused, and a sum over more than 8,421,504 terms
    is a ShapeError: 255 times as much could leave i32.

    Gradient (surrogate, eq. 5 and 6): dF = sum g (X - F), dX = sum_t g clip(F - X, -1, 1); with
    gradient=sign (section 3.2) dF = sum g sign(X - F), dX = sum_t g sign(F - X). Of u8 operands:
    none, GraphError. Raises ShapeError for wrong ranks or dtypes, channels that do not match, an
    empty output, or an unknown gradient.
    Source: Chen et al. 2020, eq. 2; zero padding as in the authors' release.
    """

    name: ClassVar[str] = "adder2d"
    surrogate: ClassVar[bool] = True
    takes_tail: ClassVar[bool] = True
    measures_distance: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    forms: ClassVar[Forms] = DISTANCES
    input_nonnegative: bool = False
    gradient: str = FULL_PRECISION

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "f", "bias", optional=1)
        choice("attributes", "gradient", self.gradient, GRADIENTS)
        y = self.output(*types)
        if y.dtype == i32:
            require_byte_distances(self.input_nonnegative, types[1])
        return (y,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, f, *bias = arrays
        window = self.window_of(f.shape[:2])
        out = window.output_size(x.shape[1], x.shape[2])
        sums, made = ("i8", np.int32) if x.dtype == np.uint8 else ("f8", np.float32)
        y = np.zeros((x.shape[0], *out, f.shape[3]), sums)
        x64, f64 = window.pad(x).astype(sums), f.astype(sums)
        some = max(1, _BLOCK // max(1, math.prod(y.shape[1:]) // self.groups))
        for start in range(0, len(y), some):
            part = slice(start, start + some)
            for y_g, x_g, f_g in grouped(self.groups, y[part], x64[part], f64):
                self._subtract(y_g, list(window.taps(x_g, out)), f_g)
        return ((y + bias[0] if bias else y).astype(made),)

    def _subtract(self, y: Array, taps: Sequence[tuple[int, int, Array]], f: Array) -> None:
        """Takes the distances of a group off y. Filters lead, so that NumPy's inner loops are
        long."""
        total = np.zeros((y.shape[3], *y.shape[:3]), y.dtype)
        away = np.empty_like(total)
        for i, j, tap in taps:
            for plane, ends in zip(np.moveaxis(tap, 3, 0).copy(), f[i, j], strict=True):
                np.subtract(plane, ends[:, None, None, None], out=away)
                total -= np.abs(away, out=away)
        y += np.moveaxis(total, 0, 3)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..reduction.reduce import reduce_sum
        from ._sign_gradient import SCALE, by_filter2d

        g, (x, f, *bias) = gs[0], xs
        assert g is not None
        require_trainable(self.name, x)
        same = (self.stride, self.padding, self.dilation, self.groups)
        if self.gradient == SIGN:
            dx = apply(Adder2dGradInput(*same), g, SCALE * x, SCALE * f)
            df = by_filter2d(self, g, x, f)
        else:
            dx = apply(Adder2dGradInput(*same), g, x, f)
            df = apply(Adder2dGradFilter(*same), g, x, f)
        return (dx, df, *(reduce_sum(g, (0, 1, 2)) for _ in bias))

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        if types[0].dtype == f32:
            return (plus_bias(Interval(hi=0.0), ranges),)
        return (byte_distance_range(ranges, types, padded=any(self.padding)),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        require_zero_padding(self.padding, known[0] or known[1])
        return (distance_quantization(known),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        x, f, *_ = operands
        if x.dtype != np.float32:
            return (0.0,)
        # The distance to a filter of zeros, one for each group.
        plain = Adder2d(self.stride, self.padding, self.dilation, self.groups)
        zeros = np.zeros((*f.shape[:-1], self.groups), np.float32)
        sums = -plain.reference(x, zeros)[0].astype("f8")
        x_sums = np.repeat(sums, f.shape[-1] // self.groups, axis=-1)
        return (_rounding.of_distances(x_sums, operands, results[0]),)

    def halo(self, types: Types) -> tuple[Halo, ...]:
        return (self.input_halo(types[0], types[1]), *(Halo() for _ in types[1:]))

    def cost(self, types: Types) -> Cost:
        return Cost(additions=2 * self.terms(types[0], types[1]))


@dataclass(frozen=True)
class Adder2dGradInput(Windowed):
    """dX[n,h',w',k] = sum_{i,j,t} g[n,h,w,t] clip(F[i,j,k,t] - X[n,h',w',k], -1, 1).

    The sum runs over the outputs (h, w) whose tap (i, j) reads (h', w'). HardTanh gradient,
    eq. 6 of the paper. Operands: g f32[N,OH,OW,T], x f32[N,H,W,C], f f32[I,J,C/groups,T].
    """

    name: ClassVar[str] = "adder2d_grad_input"
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = Adder2d
    multiplies: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "g", "x", "f")
        self.require_gradient(*types)
        return (types[1],)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, x, f = arrays
        window = self.window_of(f.shape[:2])
        x64, f64 = window.pad(x).astype("f8"), f.astype("f8")
        dx = np.zeros_like(x64)
        for g_g, x_g, f_g, dx_g in grouped(self.groups, g.astype("f8"), x64, f64, dx):
            pairs = zip(
                window.taps(x_g, g.shape[1:3]), window.taps(dx_g, g.shape[1:3]), strict=True
            )
            for (i, j, tap), (_, _, into) in pairs:
                for t in range(f_g.shape[3]):
                    into += g_g[..., t, None] * np.clip(f_g[i, j, :, t] - tap, -1.0, 1.0)
        return (window.crop(dx).astype(np.float32),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        return _rounding.hard_tanh_by_input(self, operands, self.groups)

    def halo(self, types: Types) -> tuple[Halo, ...]:
        return (self.gradient_halo(types[1], types[2]), Halo(), Halo())

    def cost(self, types: Types) -> Cost:
        terms = self.terms(types[1], types[2])
        return Cost(additions=4 * terms, multiplications=terms)


@dataclass(frozen=True)
class Adder2dGradFilter(Windowed):
    """dF[i,j,k,t] = sum_{n,h,w} g[n,h,w,t] (X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]).

    Full-precision gradient, eq. 5 of the paper; padded taps have X = 0. Operands as for
    `adder2d_grad_input`.
    """

    name: ClassVar[str] = "adder2d_grad_filter"
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = Adder2d
    multiplies: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "g", "x", "f")
        self.require_gradient(*types)
        return (types[2],)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, x, f = arrays
        window = self.window_of(f.shape[:2])
        x64, df = window.pad(x).astype("f8"), np.zeros(f.shape)
        operands = (g.astype("f8"), x64, f.astype("f8"), df)
        for g_g, x_g, f_g, df_g in grouped(self.groups, *operands):
            total = g_g.sum((0, 1, 2))
            for i, j, tap in window.taps(x_g, g.shape[1:3]):
                df_g[i, j] += np.einsum("nhwk,nhwt->kt", tap, g_g) - f_g[i, j] * total
        return (df.astype(np.float32),)

    rounding = _rounding.difference_by_filter

    def halo(self, types: Types) -> tuple[Halo, ...]:
        return (Halo(), self.input_halo(types[1], types[2]), Halo())

    def cost(self, types: Types) -> Cost:
        terms = self.terms(types[1], types[2])
        return Cost(additions=terms, multiplications=terms)


def adder2d(
    x: Tensor,
    f: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    name: str | None = None,
) -> Tensor:
    """Negative L1 distance of each filter to each window; see `Adder2d`."""
    return windowed(Adder2d, x, f, bias, stride, padding, dilation, groups, name)
