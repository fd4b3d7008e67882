"""Layers without weights: pools, activations, flatten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import ops
from ..errors import GraphError, nearest
from ..ir import registry
from ..ir.attributes import Padding, Pair, padding, pair
from ..ir.trace import Tensor
from .base import Layer

ACTIVATIONS = tuple(sorted(name for name, op in registry().items() if op.activation))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """f32[N,...] -> f32[N,K], the samples' elements in row-major order."""

    prefix: ClassVar[str] = "flatten"

    def build(self, x: Tensor, name: str) -> Tensor:
        return ops.flatten(x, name=name)


@dataclass(frozen=True, eq=False)
class _Pool(Layer):
    """The attributes of pooling layers; `stride` is the pool's size unless given."""

    prefix: ClassVar[str] = "pool"
    pool_size: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair | Padding = 0

    def validate(self) -> None:
        self._store("pool_size", pair(self.where, "pool_size", self.pool_size))
        if self.stride is not None:
            self._store("stride", pair(self.where, "stride", self.stride))
        self._store("padding", padding(self.where, self.padding))


@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """The largest value of each window; padding is ignored.  f32[N,H,W,C] -> f32[N,OH,OW,C]."""

    def build(self, x: Tensor, name: str) -> Tensor:
        size, stride = self.pool_size, self.stride
        return ops.max_pool2d(x, size, stride=stride, padding=self.padding, name=name)


@dataclass(frozen=True, eq=False)
class AvgPool(_Pool):
    """The mean of each window; padding counts as zeros.  f32[N,H,W,C] -> f32[N,OH,OW,C]."""

    def build(self, x: Tensor, name: str) -> Tensor:
        size, stride = self.pool_size, self.stride
        return ops.avg_pool2d(x, size, stride=stride, padding=self.padding, name=name)


@dataclass(frozen=True, eq=False)
class GlobalAvgPool(Layer):
    """The mean over height and width.  f32[N,H,W,C] -> f32[N,C]."""

    prefix: ClassVar[str] = "pool"

    def build(self, x: Tensor, name: str) -> Tensor:
        return ops.global_avg_pool(x, name=name)


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """`function`: the op of this name in `ops`, with its attributes as they are by default.

    ACTIVATIONS has the names: `docs/ops.md` has what they mean. The result has the type of x.
    """

    prefix: ClassVar[str] = "act"
    function: str

    def validate(self) -> None:
        if not isinstance(self.function, str) or self.function not in ACTIVATIONS:
            raise GraphError(
                f'{self.where}: unknown activation "{self.function}"'
                f"{nearest(str(self.function), ACTIVATIONS)}; known: {', '.join(ACTIVATIONS)}"
            )

    def build(self, x: Tensor, name: str) -> Tensor:
        made: Tensor = getattr(ops, self.function)(x, name=name)
        return made
