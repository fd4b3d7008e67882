"""Layers whose filters slide over an image, or over a sequence: adders and convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from .. import ops
from ..errors import ShapeError
from ..ir.attributes import Padding, Pair, flag, integer, padding, pair
from ..ir.trace import Tensor
from ._parameters import STANDARD_NORMAL, bias, he_normal, parameter, plain_eta, require_rank
from .base import Layer


@dataclass(frozen=True, eq=False)
class _Windowed(Layer):
    """The attributes that adder and convolution layers share."""

    output_channels: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: int | Pair | Padding = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = False

    def validate(self) -> None:
        for name in ("output_channels", "groups"):
            self._store(name, integer(self.where, name, getattr(self, name), 1))
        self.validate_window()
        self._store("bias", flag(self.where, "bias", self.bias))
        if self.output_channels % self.groups:
            raise ShapeError(
                f"{self.where}: output_channels={self.output_channels} does not divide into "
                f"groups={self.groups}"
            )

    def validate_window(self) -> None:
        """Puts the attributes of the window in one form: pairs, and four sides of padding."""
        for name in ("kernel_size", "stride", "dilation"):
            self._store(name, pair(self.where, name, getattr(self, name)))
        self._store("padding", padding(self.where, self.padding))

    def kernel(self) -> Pair:
        """Rows and columns of the filter."""
        return pair(self.where, "kernel_size", self.kernel_size)

    def filter_shape(self, x: Tensor, op: str, name: str) -> tuple[int, int, int, int]:
        """HWIO, with the channels of `x` shared out over the groups."""
        require_rank(x, 4, op, name, "NHWC")
        channels = int(x.shape[3])
        if channels % self.groups:
            raise ShapeError(
                f'{op} "{name}": the {channels} channels of the input do not divide into '
                f"groups={self.groups} (x: {x.type})"
            )
        return *self.kernel(), channels // self.groups, self.output_channels

    def window(self) -> dict[str, Any]:
        """The attributes as the op takes them."""
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}


@dataclass(frozen=True, eq=False)
class Adder(_Windowed):
    """Y[n,h,w,t] = - sum_{i,j,k} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]|  (+ b[t]).

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]; filter `.f` f32[I,J,C/groups,T] ~ N(0, 1).
    `eta` sets the layer-adaptive learning rate (Chen et al. 2020, eq. 13; 0.2 in the authors'
    release); None trains the filter with the plain rate. Gradients are the paper's.
    """

    prefix: ClassVar[str] = "adder"
    eta: float | None = 0.2

    def validate(self) -> None:
        super().validate()
        self._store("eta", plain_eta(self.where, self.eta))

    def build(self, x: Tensor, name: str) -> Tensor:
        shape = self.filter_shape(x, "adder2d", name)
        f = parameter(x, f"{name}.f", shape, STANDARD_NORMAL, eta=self.eta)
        b = bias(x, name, self.output_channels, self.bias)
        return ops.adder2d(x, f, b, name=name, **self.window())


@dataclass(frozen=True, eq=False)
class Conv(_Windowed):
    """Y[n,h,w,t] = sum_{i,j,k} X[n, s*h + d*i - p, s*w + d*j - p, k] F[i,j,k,t]  (+ b[t]).

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]; filter `.f` f32[I,J,C/groups,T], He normal.
    """

    prefix: ClassVar[str] = "conv"

    def build(self, x: Tensor, name: str) -> Tensor:
        shape = self.filter_shape(x, "conv2d", name)
        f = parameter(x, f"{name}.f", shape, he_normal(math.prod(shape[:3])))
        b = bias(x, name, self.output_channels, self.bias)
        return ops.conv2d(x, f, b, name=name, **self.window())


# --- sequences: the same on images of one row ---------------------------------------------------


class _Sequence(_Windowed):
    """Makes a layer of images one of sequences f32[N,W,C], whose attributes are plain integers."""

    def validate_window(self) -> None:
        for name, least in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
            self._store(name, integer(self.where, name, getattr(self, name), least))

    def kernel(self) -> Pair:
        return 1, cast(int, self.kernel_size)

    def window(self) -> dict[str, Any]:
        across = {"stride": (1, self.stride), "dilation": (1, self.dilation)}
        padded = self.padding
        return {**across, "padding": (0, 0, padded, padded), "groups": self.groups}

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
    side) and dilation; `eta` as there.
    """


@dataclass(frozen=True, eq=False)
class Conv1d(_Sequence, Conv):
    """Y[n,w,t] = sum_{j,k} X[n, s*w + d*j - p, k] F[0,j,k,t]  (+ b[t]).

    x f32[N,W,C] -> f32[N,OW,output_channels]; filter `.f` f32[1,J,C/groups,T], He normal. This is
    `Conv` on images of one row, with integers for kernel_size, stride, padding (as much on either
    side) and dilation.
    """
