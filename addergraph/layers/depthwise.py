"""Layers with a filter for each channel, and blocks of these and 1x1 layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import GraphError
from ..ir.attributes import Pair, integer
from ..ir.trace import Tensor
from ._padding import SidesOrRule
from .base import Layer, scope_of
from .batch_norm import BatchNorm
from .plain import Activation
from .windowed import Adder, Conv, _Distances, _Slides


@dataclass(frozen=True, eq=False)
class _Depthwise(_Slides):
    """The attributes that depthwise layers share; `multiplier` is filters for each channel."""

    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: SidesOrRule = 0
    dilation: int | Pair = 1
    multiplier: int = 1
    bias: bool = False

    def validate(self) -> None:
        self._store("multiplier", integer(self.where, "multiplier", self.multiplier, 1))
        super().validate()

    def filter_of(self, channels: int, op: str, name: str) -> tuple[int, int]:
        return channels * self.multiplier, channels


@dataclass(frozen=True, eq=False)
class DepthwiseAdder(_Distances, _Depthwise):
    """Y[n,h,w,k m + q] = - sum_{i,j} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,0,k m + q]|.

    x f32[N,H,W,C] -> f32[N,OH,OW,C m], m being `multiplier`; filter `.f` f32[I,J,1,C m] ~ N(0, 1).
    This is `Adder` with as many groups as channels; `padding`, `eta` and `bias` as there.
    """

    prefix: ClassVar[str] = "depthwise"


@dataclass(frozen=True, eq=False)
class DepthwiseConv(_Depthwise):
    """Y[n,h,w,k m + q] = sum_{i,j} X[n, s*h + d*i - p, s*w + d*j - p, k] F[i,j,0,k m + q].

    x f32[N,H,W,C] -> f32[N,OH,OW,C m], m being `multiplier`; filter `.f` f32[I,J,1,C m], He normal.
    This is `Conv` with as many groups as channels; `padding` and `bias` as there.
    """

    prefix: ClassVar[str] = "depthwise"

    def build(self, x: Tensor, name: str) -> Tensor:
        return self.multiplied(x, name)


@dataclass(frozen=True, eq=False)
class _Separable(Layer):
    """A depthwise layer, batch norm, relu, and a 1x1 layer; what follows is a layer of its own.

    The parts are named within this layer: `separable1.depthwise.f`, `separable1.bn.gamma`,
    `separable1.pointwise.f`. Without the batch norm sums of distances, which are all negative,
    would reach the 1x1 layer on a scale of their own, and a relu would make them zeros.
    """

    prefix: ClassVar[str] = "separable"
    output_channels: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: SidesOrRule = 0
    dilation: int | Pair = 1
    multiplier: int = 1
    bias: bool = False

    def validate(self) -> None:
        self._store("_parts", tuple(self.made()))  # which refuse what makes no sense

    def made(self) -> Sequence[Layer]:
        """The parts, in order."""
        raise GraphError(f"{type(self).__name__} does not say what it is made of")

    def _made(self) -> Sequence[Layer]:
        found: Sequence[Layer] = vars(self)["_parts"]
        return found

    def build(self, x: Tensor, name: str) -> Tensor:
        with scope_of(x.builder).inside(name):
            for layer in self._made():
                x = layer(x)
        return x

    def _window(self) -> tuple[int | Pair, int | Pair, SidesOrRule, int | Pair, int]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.multiplier


@dataclass(frozen=True, eq=False)
class SeparableAdder(_Separable):
    """`DepthwiseAdder`, `BatchNorm`, relu, then an `Adder` of 1x1 to `output_channels`.

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]. `eta` is of both, `bias` of the 1x1 layer, all
    else of the depthwise one.
    """

    eta: float | None = 0.2

    def made(self) -> Sequence[Layer]:
        return (
            DepthwiseAdder(*self._window(), eta=self.eta, name="depthwise"),
            BatchNorm(name="bn"),
            Activation("relu", name="act"),
            Adder(self.output_channels, 1, bias=self.bias, eta=self.eta, name="pointwise"),
        )


@dataclass(frozen=True, eq=False)
class SeparableConv(_Separable):
    """`DepthwiseConv`, `BatchNorm`, relu, then a `Conv` of 1x1 to `output_channels`.

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]. `bias` is of the 1x1 layer, all else of the
    depthwise one.
    """

    def made(self) -> Sequence[Layer]:
        return (
            DepthwiseConv(*self._window(), name="depthwise"),
            BatchNorm(name="bn"),
            Activation("relu", name="act"),
            Conv(self.output_channels, 1, bias=self.bias, name="pointwise"),
        )
