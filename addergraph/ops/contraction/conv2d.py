"""conv2d: convolution (cross-correlation), and its two gradient ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import Array, Bound, Cost, Gradients, Halo, Intervals, Op, Tensors, Types
from ...ir.attributes import Pair
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32, i32
from .._rounding import of_sum, per_channel
from .._window import require_image, require_operands
from . import _rounding
from ._contraction import (
    PRODUCTS,
    Forms,
    Windowed,
    grouped,
    product_quantization,
    product_range,
    product_result,
    require_byte_products,
    require_trainable,
    require_zero_padding,
    windowed,
)


@dataclass(frozen=True)
class Conv2d(Windowed):
    """Y[n,h,w,t] = sum_{i,j,k} X[n, s*h + d*i - p, s*w + d*j - p, k] F[i,j,k,t]  (+ b[t]).

    Operands: x f32[N,H,W,C], f f32[I,J,C/groups,T], optional bias f32[T]; result
    f32[N,OH,OW,T] with OH = floor((H + top + bottom - d*(I-1) - 1) / s) + 1, OW likewise.
    Padding is zeros. With groups, output channel t sees only the input channels of its own group.

    Or integers: x u8, f i8, optional bias i32, result i32, exact (only adding the bias wraps). A
    sum over more than 65,793 terms is a ShapeError: 255 * 128 times as much could leave i32.

    Gradient: those of the f32 form; of integers none, GraphError. Raises ShapeError for wrong ranks
    or dtypes, channels that do not match, or an empty output.
    Source: the cross-correlation of Dumoulin and Visin 2016 (arXiv:1603.07285).
    """

    name: ClassVar[str] = "conv2d"
    takes_tail: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    forms: ClassVar[Forms] = PRODUCTS

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "f", "bias", optional=1)
        y = self.output(*types)
        if y.dtype == i32:
            require_byte_products(types[1])
        return (y,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, f, *bias = arrays
        window = self.window_of(f.shape[:2])
        out = window.output_size(x.shape[1], x.shape[2])
        # Sums of bytes are exact in f64, too: below 2^53.
        y = np.zeros((x.shape[0], *out, f.shape[3]))
        x64, f64 = window.pad(x).astype("f8"), f.astype("f8")
        for y_g, x_g, f_g in grouped(self.groups, y, x64, f64):
            for i, j, tap in window.taps(x_g, out):
                y_g += np.einsum("nhwk,kt->nhwt", tap, f_g[i, j])
        return (product_result(x, y, bias),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..reduction.reduce import reduce_sum

        g, (x, f, *bias) = gs[0], xs
        assert g is not None
        require_trainable(self.name, x)
        same = (self.stride, self.padding, self.dilation, self.groups)
        input_size = (int(x.shape[1]), int(x.shape[2]))
        kernel_size = (int(f.shape[0]), int(f.shape[1]))
        dx = apply(Conv2dGradInput(*same, input_size=input_size), g, f)
        df = apply(Conv2dGradFilter(*same, kernel_size=kernel_size), g, x)
        return (dx, df, *(reduce_sum(g, (0, 1, 2)) for _ in bias))

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (product_range(ranges, types, padded=max(self.padding) > 0),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        require_zero_padding(self.padding, known[0])
        return (product_quantization(known),)

    rounding = _rounding.products

    def halo(self, types: Types) -> tuple[Halo, ...]:
        return (self.input_halo(types[0], types[1]), *(Halo() for _ in types[1:]))

    def cost(self, types: Types) -> Cost:
        terms = self.terms(types[0], types[1])
        return Cost(additions=terms, multiplications=terms)


@dataclass(frozen=True)
class Conv2dGradInput(Windowed):
    """dX[n,h',w',k] = sum_{i,j,t} g[n,h,w,t] F[i,j,k,t].

    The sum runs over the outputs (h, w) whose tap (i, j) reads (h', w') of the input.
    Operands: g f32[N,OH,OW,T], f f32[I,J,C/groups,T]; result f32[N,H,W,C], where
    `input_size` is (H, W), which the size of g alone does not tell when stride > 1.

    Raises ShapeError when g is not what the forward layer gives for that input.
    """

    name: ClassVar[str] = "conv2d_grad_input"
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = Conv2d
    multiplies: ClassVar[bool] = True
    input_size: Pair = field(kw_only=True)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "g", "f")
        g, f = types
        x = self._input(g, f)
        self.require_gradient(g, x, f)
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, f = arrays
        window = self.window_of(f.shape[:2])
        shape = (g.shape[0], *self.input_size, f.shape[2] * self.groups)
        dx = window.pad(np.zeros(shape))
        for g_g, f_g, dx_g in grouped(self.groups, g.astype("f8"), f.astype("f8"), dx):
            for i, j, into in window.taps(dx_g, g.shape[1:3]):
                into += np.einsum("nhwt,kt->nhwk", g_g, f_g[i, j])
        return (window.crop(dx).astype(np.float32),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        magnitude = self.reference(*map(np.abs, operands))[0]
        return (of_sum(_rounding.reached(operands[1], self.groups) + 2, magnitude),)

    def halo(self, types: Types) -> tuple[Halo, ...]:
        g, f = types
        return (self.gradient_halo(self._input(g, f), f), Halo())

    def cost(self, types: Types) -> Cost:
        g, f = types
        terms = self.terms(self._input(g, f), f)
        return Cost(additions=terms, multiplications=terms)

    def _input(self, g: TensorType, f: TensorType) -> TensorType:
        """The type of the forward layer's input."""
        require_image("output gradient", g)
        self.window(f)
        return TensorType(f32, (g.shape[0], *self.input_size, int(f.shape[2]) * self.groups))


@dataclass(frozen=True)
class Conv2dGradFilter(Windowed):
    """dF[i,j,k,t] = sum_{n,h,w} g[n,h,w,t] X[n, s*h + d*i - p, s*w + d*j - p, k].

    Operands: g f32[N,OH,OW,T], x f32[N,H,W,C]; result f32[I,J,C/groups,T], where
    `kernel_size` is (I, J). Padded taps have X = 0.

    Raises ShapeError when g is not what the forward layer gives for that kernel, or when the
    channels of x do not divide into `groups`.
    """

    name: ClassVar[str] = "conv2d_grad_filter"
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = Conv2d
    multiplies: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False
    kernel_size: Pair = field(kw_only=True)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "g", "x")
        g, x = types
        f = self._filter(g, x)
        self.require_gradient(g, x, f)
        return (f,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, x = arrays
        window = self.window_of(self.kernel_size)
        df = np.zeros((*self.kernel_size, x.shape[3] // self.groups, g.shape[3]))
        x64 = window.pad(x).astype("f8")
        for g_g, x_g, df_g in grouped(self.groups, g.astype("f8"), x64, df):
            for i, j, tap in window.taps(x_g, g.shape[1:3]):
                df_g[i, j] += np.einsum("nhwk,nhwt->kt", tap, g_g)
        return (df.astype(np.float32),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        magnitude = self.reference(*map(np.abs, operands))[0]
        return (of_sum(per_channel(operands[0]) + 2, magnitude),)

    def halo(self, types: Types) -> tuple[Halo, ...]:
        g, x = types
        return (Halo(), self.input_halo(x, self._filter(g, x)))

    def cost(self, types: Types) -> Cost:
        g, x = types
        terms = self.terms(x, self._filter(g, x))
        return Cost(additions=terms, multiplications=terms)

    def _filter(self, g: TensorType, x: TensorType) -> TensorType:
        """The type of the forward layer's filter."""
        require_image("output gradient", g)
        require_image("input", x)
        if self.groups < 1 or int(x.shape[3]) % self.groups:
            raise ShapeError(
                f"the input's {x.shape[3]} channels do not divide into {self.groups} groups"
            )
        return TensorType(f32, (*self.kernel_size, int(x.shape[3]) // self.groups, g.shape[3]))


def conv2d(
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
    """Convolution of NHWC `x` with HWIO `f`; see `Conv2d`."""
    return windowed(Conv2d, x, f, bias, stride, padding, dilation, groups, name)
