"""Layers without weights: pools, activations, and those that move elements about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import ops
from ..border import accept, shown
from ..errors import GraphError, ShapeError, nearest
from ..ir import registry
from ..ir.attributes import Padding, Pair, integer, padding, pair, real
from ..ir.trace import Tensor
from ..ir.types import Dim
from ._padding import SidesOrRule, sides, sides_or_rule
from ._parameters import require_rank
from .base import Layer

F32_MOST = (2 - 2**-23) * 2.0**127
ACTIVATIONS = tuple(sorted(name for name, op in registry().items() if op.activation))


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """f32[N,...] -> f32[N,K], the samples' elements in row-major order."""

    prefix: ClassVar[str] = "flatten"

    def build(self, x: Tensor, name: str) -> Tensor:
        return ops.flatten(x, name=name)


@dataclass(frozen=True, eq=False)
class Reshape(Layer):
    """The samples' elements in row-major order as `shape`, one size of which may be -1: the rest.

    f32[N,...] -> f32[N,*shape]. Raises ShapeError where the numbers of elements differ.
    """

    prefix: ClassVar[str] = "reshape"
    shape: Sequence[int]

    def validate(self) -> None:
        given = accept(Sequence[object], self.shape)
        if given is None or isinstance(self.shape, str):
            raise ShapeError(f"{self.where}: shape={shown(self.shape)} must be a list of sizes")
        made = tuple(integer(self.where, "shape", size, -1) for size in given)
        if made.count(-1) > 1 or 0 in made:
            raise ShapeError(f"{self.where}: shape={made} must be sizes of at least 1, one -1")
        self._store("shape", made)

    def build(self, x: Tensor, name: str) -> Tensor:
        samples, *sizes = x.shape
        made, count = list(self.shape), math.prod(map(int, sizes))
        if -1 in made:
            made[made.index(-1)] = count // -math.prod(made)
        if math.prod(made) != count:
            raise ShapeError(
                f'reshape "{name}": a sample of {x.type} has {count} elements, which shape='
                f"{self.shape} cannot hold"
            )
        target: tuple[Dim, ...] = (samples, *made)
        return ops.reshape(x, target, name=name)


@dataclass(frozen=True, eq=False)
class UpSampling(Layer):
    """Each pixel becomes size[0] x size[1] of it.  f32[N,H,W,C] -> f32[N,a H,b W,C]."""

    prefix: ClassVar[str] = "up"
    size: int | Pair = 2

    def validate(self) -> None:
        self._store("size", pair(self.where, "size", self.size))

    def build(self, x: Tensor, name: str) -> Tensor:
        require_rank(x, 4, "up_sampling", name, "NHWC")
        return ops.resize_nearest(x, self.size, name=name)


@dataclass(frozen=True, eq=False)
class ZeroPadding(Layer):
    """Zeros around each image: `padding` as of `Conv`.  f32[N,H,W,C] -> f32[N,PH,PW,C]."""

    prefix: ClassVar[str] = "pad"
    padding: int | Pair | Padding = 1

    def validate(self) -> None:
        self._store("padding", padding(self.where, self.padding))

    def build(self, x: Tensor, name: str) -> Tensor:
        require_rank(x, 4, "zero_padding", name, "NHWC")
        top, bottom, left, right = padding(self.where, self.padding)
        return ops.pad(x, (0, top, left, 0), (0, bottom, right, 0), name=name)


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """Y[...,t] = e^X[...,t] / sum_u e^X[...,u], over the last axis; `Activation("softmax")`."""

    prefix: ClassVar[str] = "softmax"

    def build(self, x: Tensor, name: str) -> Tensor:
        return ops.softmax(x, name=name)


@dataclass(frozen=True, eq=False)
class _Pool(Layer):
    """The attributes of pooling layers; `stride` is the pool's size unless given, `padding` sides,
    "same" or "valid" (see `_padding.py`)."""

    prefix: ClassVar[str] = "pool"
    pool_size: int | Pair
    stride: int | Pair | None = None
    padding: SidesOrRule = 0

    def validate(self) -> None:
        self._store("pool_size", pair(self.where, "pool_size", self.pool_size))
        if self.stride is not None:
            self._store("stride", pair(self.where, "stride", self.stride))
        self._store("padding", sides_or_rule(self.where, self.padding))

    def pooled(self, pool: Any, x: Tensor, name: str) -> Tensor:
        size = pair(self.where, "pool_size", self.pool_size)
        stride = size if self.stride is None else pair(self.where, "stride", self.stride)
        around = sides(self.where, self.padding, x, size, stride)
        made: Tensor = pool(x, size, stride=stride, padding=around, name=name)
        return made


@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """The largest value of each window; padding is ignored.  f32[N,H,W,C] -> f32[N,OH,OW,C]."""

    def build(self, x: Tensor, name: str) -> Tensor:
        return self.pooled(ops.max_pool2d, x, name)


@dataclass(frozen=True, eq=False)
class AvgPool(_Pool):
    """The mean of each window; padding counts as zeros, also that of "same" (in TensorFlow it does
    not count).  f32[N,H,W,C] -> f32[N,OH,OW,C]."""

    def build(self, x: Tensor, name: str) -> Tensor:
        return self.pooled(ops.avg_pool2d, x, name)


@dataclass(frozen=True, eq=False)
class GlobalAvgPool(Layer):
    """The mean over height and width.  f32[N,H,W,C] -> f32[N,C]."""

    prefix: ClassVar[str] = "pool"

    def build(self, x: Tensor, name: str) -> Tensor:
        return ops.global_avg_pool(x, name=name)


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """`function`: the op of this name in `ops`; `slope` of leaky_relu alone, 0.01 unless given.

    ACTIVATIONS has the names: `docs/ops.md` has what they mean. The result has the type of x.
    """

    prefix: ClassVar[str] = "act"
    function: str
    slope: float | None = None

    def validate(self) -> None:
        if not isinstance(self.function, str) or self.function not in ACTIVATIONS:
            raise GraphError(
                f'{self.where}: unknown activation "{self.function}"'
                f"{nearest(str(self.function), ACTIVATIONS)}; known: {', '.join(ACTIVATIONS)}"
            )
        if self.slope is None:
            return
        if self.function != "leaky_relu":
            raise GraphError(f"{self.where}: slope is for leaky_relu, {self.function} has none")
        self._store("slope", real(self.where, "slope", self.slope, 0.0, F32_MOST))

    def build(self, x: Tensor, name: str) -> Tensor:
        given = {} if self.slope is None else {"slope": self.slope}
        made: Tensor = getattr(ops, self.function)(x, **given, name=name)
        return made
