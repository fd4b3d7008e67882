"""Fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import ops
from ..ir.attributes import flag, integer
from ..ir.trace import Tensor
from ._parameters import STANDARD_NORMAL, bias, he_normal, parameter, plain_eta, require_rank
from .base import Layer


@dataclass(frozen=True, eq=False)
class _DenseLayer(Layer):
    """The attributes that dense layers share."""

    output_channels: int
    bias: bool = False

    def validate(self) -> None:
        outputs = integer(self.where, "output_channels", self.output_channels, 1)
        self._store("output_channels", outputs)
        self._store("bias", flag(self.where, "bias", self.bias))

    def filter_shape(self, x: Tensor, name: str) -> tuple[int, int]:
        require_rank(x, 2, self.prefix, name, "f32[N,K], flatten first")
        return int(x.shape[1]), self.output_channels


@dataclass(frozen=True, eq=False)
class Dense(_DenseLayer):
    """Y[n,t] = sum_k X[n,k] F[k,t]  (+ b[t]).  x f32[N,K] -> f32[N,output_channels]; He normal."""

    prefix: ClassVar[str] = "dense"
    bias: bool = True

    def build(self, x: Tensor, name: str) -> Tensor:
        shape = self.filter_shape(x, name)
        f = parameter(x, f"{name}.f", shape, he_normal(shape[0]))
        return ops.dense(x, f, bias(x, name, self.output_channels, self.bias), name=name)


@dataclass(frozen=True, eq=False)
class AdderDense(_DenseLayer):
    """Y[n,t] = - sum_k |X[n,k] - F[k,t]|  (+ b[t]).  x f32[N,K] -> f32[N,output_channels].

    Filter `.f` f32[K,T] ~ N(0, 1); `eta` as in `Adder`.
    """

    prefix: ClassVar[str] = "adder_dense"
    eta: float | None = 0.2

    def validate(self) -> None:
        super().validate()
        self._store("eta", plain_eta(self.where, self.eta))

    def build(self, x: Tensor, name: str) -> Tensor:
        f = parameter(x, f"{name}.f", self.filter_shape(x, name), STANDARD_NORMAL, eta=self.eta)
        return ops.adder_dense(x, f, bias(x, name, self.output_channels, self.bias), name=name)
