"""Layers: called on a symbolic tensor, they append ops and create named parameters.

A layer is a frozen dataclass of plain attributes, so a model file can describe it. Within one
trace layers are numbered from 1 by kind (`adder1`, `bn1`, `adder2`), their nodes carry these
names and their parameters extend them (`adder1.f`, `bn1.gamma`); the same network therefore gets
the same names in its training and its inference graph. A layer object that is called twice in
one trace shares its parameters.

    x = layers.Adder(16, kernel_size=3, padding=1)(x)
    x = layers.Activation("relu")(layers.BatchNorm()(x))

Weights start as N(0, 1) in adder layers (as the authors' release) and as He normal, N(0, 2 / K)
for K inputs of one output, where a layer multiplies (conv, dense); biases start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from .. import ops
from ..errors import GraphError, ShapeError, UnknownNameError, nearest
from ..ir import Init
from ..ir.attributes import Padding, Pair, flag, integer, padding, pair, real
from ..ir.trace import Tensor, new_parameter
from ..ir.types import TensorType, f32
from .base import Layer, scope_of

__all__ = [
    "ACTIVATIONS", "LAYERS", "Activation", "Adder", "AdderDense", "AvgPool", "BatchNorm", "Conv",
    "Dense", "Flatten", "FullyConnected", "GlobalAvgPool", "Layer", "MaxPool", "Residual",
    "adder_layer", "batch_norm_layer", "unknown_layer",
]  # fmt: skip

ZEROS, ONES, STANDARD_NORMAL = Init("zeros"), Init("ones"), Init("normal", (0.0, 1.0))


def _parameter(
    x: Tensor,
    name: str,
    shape: tuple[int, ...],
    init: Init,
    *,
    trainable: bool = True,
    eta: float | None = None,
) -> Tensor:
    """The parameter `name` of the graph of `x`; made on first use, shared afterwards."""
    known = scope_of(x.builder).parameters
    if name not in known:
        type = TensorType(f32, shape)
        known[name] = new_parameter(x, name, type, init, trainable=trainable, eta=eta).value
    return Tensor(x.builder, known[name])


def _bias_parameter(x: Tensor, name: str, layer: _Windowed | _DenseLayer) -> Tensor | None:
    return _parameter(x, f"{name}.b", (layer.output_channels,), ZEROS) if layer.bias else None


def _require_rank(x: Tensor, rank: int, kind: str, name: str, hint: str) -> None:
    if x.type.rank != rank:
        raise ShapeError(f'{kind} "{name}": input must be {hint} (rank {rank}), found {x.type}')


# --- layers with weights ------------------------------------------------------------------------


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
        for name in ("kernel_size", "stride", "dilation"):
            self._store(name, pair(self.where, name, getattr(self, name)))
        self._store("padding", padding(self.where, self.padding))
        flag(self.where, "bias", self.bias)
        if self.output_channels % self.groups:
            raise ShapeError(
                f"{self.where}: output_channels={self.output_channels} does not divide into "
                f"groups={self.groups}"
            )

    def filter_shape(self, x: Tensor, op: str, name: str) -> tuple[int, int, int, int]:
        """HWIO, with the channels of `x` shared out over the groups."""
        _require_rank(x, 4, op, name, "NHWC")
        channels = int(x.shape[3])
        if channels % self.groups:
            raise ShapeError(
                f'{op} "{name}": the {channels} channels of the input do not divide into '
                f"groups={self.groups} (x: {x.type})"
            )
        rows, columns = pair(self.where, "kernel_size", self.kernel_size)
        return rows, columns, channels // self.groups, self.output_channels

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
        _validate_eta(self.where, self.eta)

    def build(self, x: Tensor, name: str) -> Tensor:
        shape = self.filter_shape(x, "adder2d", name)
        f = _parameter(x, f"{name}.f", shape, STANDARD_NORMAL, eta=self.eta)
        return ops.adder2d(x, f, _bias_parameter(x, name, self), name=name, **self.window())


@dataclass(frozen=True, eq=False)
class Conv(_Windowed):
    """Y[n,h,w,t] = sum_{i,j,k} X[n, s*h + d*i - p, s*w + d*j - p, k] F[i,j,k,t]  (+ b[t]).

    x f32[N,H,W,C] -> f32[N,OH,OW,output_channels]; filter `.f` f32[I,J,C/groups,T], He normal.
    """

    prefix: ClassVar[str] = "conv"

    def build(self, x: Tensor, name: str) -> Tensor:
        shape = self.filter_shape(x, "conv2d", name)
        f = _parameter(x, f"{name}.f", shape, _he_normal(math.prod(shape[:3])))
        return ops.conv2d(x, f, _bias_parameter(x, name, self), name=name, **self.window())


@dataclass(frozen=True, eq=False)
class _DenseLayer(Layer):
    """The attributes that dense layers share."""

    output_channels: int
    bias: bool = False

    def validate(self) -> None:
        outputs = integer(self.where, "output_channels", self.output_channels, 1)
        self._store("output_channels", outputs)
        flag(self.where, "bias", self.bias)

    def filter_shape(self, x: Tensor, name: str) -> tuple[int, int]:
        _require_rank(x, 2, self.prefix, name, "f32[N,K], flatten first")
        return int(x.shape[1]), self.output_channels


@dataclass(frozen=True, eq=False)
class Dense(_DenseLayer):
    """Y[n,t] = sum_k X[n,k] F[k,t]  (+ b[t]).  x f32[N,K] -> f32[N,output_channels]; He normal."""

    prefix: ClassVar[str] = "dense"
    bias: bool = True

    def build(self, x: Tensor, name: str) -> Tensor:
        shape = self.filter_shape(x, name)
        f = _parameter(x, f"{name}.f", shape, _he_normal(shape[0]))
        return ops.dense(x, f, _bias_parameter(x, name, self), name=name)


@dataclass(frozen=True, eq=False)
class AdderDense(_DenseLayer):
    """Y[n,t] = - sum_k |X[n,k] - F[k,t]|  (+ b[t]).  x f32[N,K] -> f32[N,output_channels].

    Filter `.f` f32[K,T] ~ N(0, 1); `eta` as in `Adder`.
    """

    prefix: ClassVar[str] = "adder_dense"
    eta: float | None = 0.2

    def validate(self) -> None:
        super().validate()
        _validate_eta(self.where, self.eta)

    def build(self, x: Tensor, name: str) -> Tensor:
        f = _parameter(x, f"{name}.f", self.filter_shape(x, name), STANDARD_NORMAL, eta=self.eta)
        return ops.adder_dense(x, f, _bias_parameter(x, name, self), name=name)


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """Y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, per channel (the last axis).

    In training mean and variance are the batch's (biased variance), and the running ones, which
    inference uses, move towards them by `momentum`; the running variance takes the unbiased one,
    as in PyTorch: running = (1 - momentum) running + momentum batch. A batch with one value a
    channel has no unbiased variance and leaves the running variance alone.
    Parameters: `.gamma`, `.beta`, and fixed `.mean`, `.variance`, each f32[C]. Rank 2 or more.
    """

    prefix: ClassVar[str] = "bn"
    momentum: float = 0.1
    epsilon: float = 1e-5

    def validate(self) -> None:
        real(self.where, "momentum", self.momentum, 0.0, 1.0)
        real(self.where, "epsilon", self.epsilon, 1e-12)

    def build(self, x: Tensor, name: str) -> Tensor:
        if x.type.rank < 2:
            raise ShapeError(f'batch_norm "{name}": input must have rank 2 or more, found {x.type}')
        shape = (int(x.shape[-1]),)
        gamma = _parameter(x, f"{name}.gamma", shape, ONES)
        beta = _parameter(x, f"{name}.beta", shape, ZEROS)
        mean = _parameter(x, f"{name}.mean", shape, ZEROS, trainable=False)
        variance = _parameter(x, f"{name}.variance", shape, ONES, trainable=False)
        if x.builder.training:
            mean, variance = self._batch_statistics(x, name, mean, variance)
        return ops.batch_norm(x, mean, variance, gamma, beta, epsilon=self.epsilon, name=name)

    def _batch_statistics(
        self, x: Tensor, name: str, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The batch's statistics; the running ones get their updates."""
        if x.type.is_open:
            raise ShapeError(
                f'batch_norm "{name}": training needs a bound batch, found {x.type}; '
                "trace with a number, as model.graph(training=True, batch=64)"
            )
        if any(parameter is mean.value for parameter, _ in x.builder.updates):
            raise GraphError(
                f'batch_norm "{name}" is called twice in one training graph, so its running '
                "statistics would be updated twice; use one BatchNorm for each place"
            )
        batch = ops.batch_norm_statistics(x, name=f"{name}.batch")
        count = math.prod(x.type.sizes[:-1])
        self._move(mean, batch[0], 1.0, f"{name}.next_mean")
        if count > 1:
            self._move(variance, batch[1], count / (count - 1), f"{name}.next_variance")
        return batch[0], batch[1]

    def _move(self, running: Tensor, batch: Tensor, scale: float, name: str) -> None:
        kept = running * (1.0 - self.momentum)
        moved = ops.add(kept, batch * (self.momentum * scale), name=name)
        running.builder.update(running.value, moved.value)  # type: ignore[arg-type]


# --- layers without weights ---------------------------------------------------------------------


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
    """`relu`: max(x, 0); `softmax`: exp(x) / sum exp(x), over the last axis."""

    prefix: ClassVar[str] = "act"
    function: str

    def validate(self) -> None:
        if not isinstance(self.function, str) or self.function not in ACTIVATIONS:
            raise GraphError(
                f'{self.where}: unknown activation "{self.function}"'
                f"{nearest(str(self.function), ACTIVATIONS)}; known: {', '.join(ACTIVATIONS)}"
            )

    def build(self, x: Tensor, name: str) -> Tensor:
        return ACTIVATIONS[self.function](x, name=name)


ACTIVATIONS = {"relu": ops.relu, "softmax": ops.softmax}


# --- layers of layers ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Residual(Layer):
    """Y = body(X) + shortcut(X), each a sequence of layers; no shortcut means X itself.

    Both results must have one type (no broadcasting), else ShapeError. The parts are numbered and
    named within this layer: `Residual([Adder(16, 3, padding=1), BatchNorm()], name="block0")` has
    the parameters `block0.adder1.f`, `block0.bn1.gamma`. Source: He et al., arXiv:1512.03385,
    eq. 1 and 2; their relu after the sum is a layer of its own.
    """

    prefix: ClassVar[str] = "block"
    parts: ClassVar[tuple[str, ...]] = ("body", "shortcut")
    body: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def validate(self) -> None:
        for name in ("body", "shortcut"):
            given = getattr(self, name)
            listed = isinstance(given, Sequence) and all(isinstance(g, Layer) for g in given)
            if not listed:
                raise GraphError(f"{self.where}: {name} must be a list of layers, found {given!r}")
            self._store(name, tuple(given))
        if not self.body:
            raise GraphError(f"{self.where}: body has no layers, so there is nothing to add")

    def build(self, x: Tensor, name: str) -> Tensor:
        ends = []
        with scope_of(x.builder).inside(name):
            for branch in (self.body, self.shortcut):
                y = x
                for layer in branch:
                    y = layer(y)
                ends.append(y)
        if ends[0].type != ends[1].type:
            raise ShapeError(
                f'residual "{name}": its body gives {ends[0].type} and its shortcut '
                f"{ends[1].type}; give the shortcut the body's stride and channels"
            )
        return ops.add(ends[0], ends[1], name=f"{name}.add")


def _validate_eta(where: str, eta: object) -> None:
    if eta is not None:
        real(where, "eta", eta, 0.0)


def _he_normal(inputs: int) -> Init:
    return Init("normal", (0.0, math.sqrt(2.0 / max(inputs, 1))))


# --- names --------------------------------------------------------------------------------------

LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        Activation, Adder, AdderDense, AvgPool, BatchNorm, Conv, Dense, Flatten, GlobalAvgPool,
        MaxPool, Residual,
    )
}  # fmt: skip


# The names of the original slide deck: the one table of second names in the project.
batch_norm_layer = BatchNorm
FullyConnected = Dense


def adder_layer(*, adaptive_eta: float | None = 0.2, **attributes: Any) -> Adder:
    """`Adder`, whose `eta` the deck calls `adaptive_eta`."""
    return Adder(eta=adaptive_eta, **attributes)


def unknown_layer(name: str) -> NoReturn:
    """UnknownNameError with the nearest name."""
    known = [*LAYERS, "adder_layer", "batch_norm_layer", "FullyConnected"]
    raise UnknownNameError(
        f'unknown layer "{name}"{nearest(name, known)}; known: {", ".join(LAYERS)}'
    )


if not TYPE_CHECKING:  # a type checker shall still see misspelled names itself

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        unknown_layer(name)
