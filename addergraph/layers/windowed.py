"""Layers whose filters slide over an image, or over a sequence: adders and convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from .. import ops
from ..errors import ShapeError
from ..ir.attributes import Pair, flag, integer, pair
from ..ir.trace import Tensor
from ._padding import RULES, SidesOrRule, sides, sides_or_rule
from ._parameters import STANDARD_NORMAL, bias, he_normal, parameter, plain_eta, require_rank
from .base import Layer


class _Slides(Layer):
    """What layers with a window share, whatever the channels of their filters are."""

    kernel_size: int | Pair
    stride: int | Pair
    padding: SidesOrRule
    dilation: int | Pair
    bias: bool

    def validate(self) -> None:
        self.validate_window()
        self._store("bias", flag(self.where, "bias", self.bias))

    def validate_window(self) -> None:
        """Puts the attributes of the window in one form: pairs, and four sides or a rule."""
        for name in ("kernel_size", "stride", "dilation"):
            self._store(name, pair(self.where, name, getattr(self, name)))
        self._store("padding", sides_or_rule(self.where, self.padding))

    def filter_of(self, channels: int, op: str, name: str) -> tuple[int, int]:
        """Output channels and groups, for so many input channels."""
        raise ShapeError(f'{op} "{name}" does not say what filters it has')

    def steps(self) -> tuple[Pair, Pair, Pair, SidesOrRule]:
        """Kernel, stride and dilation, as pairs, and the padding."""
        return cast(
            tuple[Pair, Pair, Pair, SidesOrRule],
            (self.kernel_size, self.stride, self.dilation, self.padding),
        )

    def added(self, x: Tensor, name: str, eta: float | None) -> Tensor:
        """The distances of `x` to a filter that this layer makes."""
        shape, window = self._window(x, "adder2d", name)
        f = parameter(x, f"{name}.f", shape, STANDARD_NORMAL, eta=eta)
        return ops.adder2d(x, f, bias(x, name, shape[3], self.bias), name=name, **window)

    def multiplied(self, x: Tensor, name: str) -> Tensor:
        """The products of `x` with a filter that this layer makes."""
        shape, window = self._window(x, "conv2d", name)
        f = parameter(x, f"{name}.f", shape, he_normal(math.prod(shape[:3])))
        return ops.conv2d(x, f, bias(x, name, shape[3], self.bias), name=name, **window)

    def _window(self, x: Tensor, op: str, name: str) -> tuple[tuple[int, ...], dict[str, Any]]:
        """The shape of the filter, HWIO, and the attributes of the op, for images `x`."""
        require_rank(x, 4, op, name, "NHWC")
        channels, (kernel, stride, dilation, padding) = int(x.shape[3]), self.steps()
        outputs, groups = self.filter_of(channels, op, name)
        if channels % groups:
            raise ShapeError(
                f'{op} "{name}": the {channels} channels of the input do not divide into '
                f"groups={groups} (x: {x.type})"
            )
        around = sides(self.where, padding, x, kernel, stride, dilation)
        shape = *kernel, channels // groups, outputs
        return shape, {
            "stride": stride, "padding": around, "dilation": dilation, "groups": groups
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Windowed(_Slides):
    """The attributes that adder and convolution layers share. `padding` is zeros on the sides of
    the image, "same" or "valid": see `_padding.py`."""

    output_channels: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: SidesOrRule = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = False

    def validate(self) -> None:
        for name in ("output_channels", "groups"):
            self._store(name, integer(self.where, name, getattr(self, name), 1))
        super().validate()
        if self.output_channels % self.groups:
            raise ShapeError(
                f"{self.where}: output_channels={self.output_channels} does not divide into "
                f"groups={self.groups}"
            )

    def filter_of(self, channels: int, op: str, name: str) -> tuple[int, int]:
        return self.output_channels, self.groups


@dataclass(frozen=True, eq=False)
class _Distances(_Slides):
    """Layers of distances: their `eta`, and how they are built."""

    eta: float | None = 0.2

    def validate(self) -> None:
        super().validate()
        self._store("eta", plain_eta(self.where, self.eta))

    def build(self, x: Tensor, name: str) -> Tensor:
        return self.added(x, name, self.eta)


@dataclass(frozen=True, eq=False)
class Adder(_Distances, _Windowed):
    """Y[n,h,w,t] = - sum_{i,j,k} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]|  (+ b[t]).

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]; filter `.f` f32[I,J,C/groups,T] ~ N(0, 1).
    `eta` sets the layer-adaptive learning rate (Chen et al. 2020, eq. 13; 0.2 in the authors'
    release); None trains the filter with the plain rate. Gradients are the paper's.

    `center` subtracts from every pixel the mean of its T channels. Each term |X - F| with F <= 0 is
    X - F: a sum over X that all filters share, and that hides what tells them apart, the more taps
    are such (docs/training.md, "Training for speed"). The mean takes it away.
    """

    prefix: ClassVar[str] = "adder"
    center: bool = False

    def validate(self) -> None:
        super().validate()
        self._store("center", flag(self.where, "center", self.center))

    def build(self, x: Tensor, name: str) -> Tensor:
        y = super().build(x, name)
        if not self.center:
            return y
        mean = ops.reduce_mean(y, (3,), keepdims=True, name=f"{name}_mean")
        return ops.sub(y, mean, name=f"{name}_centered")


@dataclass(frozen=True, eq=False)
class Conv(_Windowed):
    """Y[n,h,w,t] = sum_{i,j,k} X[n, s*h + d*i - p, s*w + d*j - p, k] F[i,j,k,t]  (+ b[t]).

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]; filter `.f` f32[I,J,C/groups,T], He normal.
    """

    prefix: ClassVar[str] = "conv"

    def build(self, x: Tensor, name: str) -> Tensor:
        return self.multiplied(x, name)


# --- sequences: the same on images of one row ---------------------------------------------------


class _Sequence(_Windowed):
    """Makes a layer of images one of sequences f32[N,W,C], whose attributes are plain integers."""

    def validate_window(self) -> None:
        for name in ("kernel_size", "stride", "dilation"):
            self._store(name, integer(self.where, name, getattr(self, name), 1))
        if not (isinstance(self.padding, str) and self.padding in RULES):
            self._store("padding", integer(self.where, "padding", self.padding, 0))

    def steps(self) -> tuple[Pair, Pair, Pair, SidesOrRule]:
        kernel, stride, dilation = (
            (1, cast(int, n)) for n in (self.kernel_size, self.stride, self.dilation)
        )
        padded = self.padding if isinstance(self.padding, str) else (0, cast(int, self.padding))
        return kernel, stride, dilation, padded

    def build(self, x: Tensor, name: str) -> Tensor:
        require_rank(x, 3, type(self).__name__, name, "f32[N,W,C]")
        samples, width, channels = x.shape
        row = ops.reshape(x, (samples, 1, width, channels), name=f"{name}.row")
        y = super().build(row, name)
        return ops.reshape(y, (samples, *y.shape[2:]), name=f"{name}.sequence")


@dataclass(frozen=True, eq=False)
class Adder1d(_Sequence, Adder):
    """Y[n,w,t] = - sum_{j,k} |X[n, s*w + d*j - p, k] - F[0,j,k,t]|  (+ b[t]).

    x f32[N,W,C] -> f32[N,OW,output_channels]; filter `.f` f32[1,J,C/groups,T] ~ N(0, 1). This is
    `Adder` on images of one row, with integers for kernel_size, stride, padding (as much on either
    side, or "same" or "valid") and dilation; `eta` as there.
    """


@dataclass(frozen=True, eq=False)
class Conv1d(_Sequence, Conv):
    """Y[n,w,t] = sum_{j,k} X[n, s*w + d*j - p, k] F[0,j,k,t]  (+ b[t]).

    x f32[N,W,C] -> f32[N,OW,output_channels]; filter `.f` f32[1,J,C/groups,T], He normal. This is
    `Conv` on images of one row, with integers for kernel_size, stride, padding (as much on either
    side, or "same" or "valid") and dilation.
    """
