"""Optimizers: what they are, and their update rules as mathematics on symbolic tensors.

    SGD(momentum=0.9, weight_decay=0).update({%w: %g}, %learning_rate) appends

      %w.velocity.new = add(mul(0.9, %w.velocity), %g)
      %w.step = mul(%learning_rate, %w.velocity.new)
      %w.new = sub(%w, %w.step)
      update %w.velocity <- %w.velocity.new
      update %w <- %w.new

State is in fixed parameters that start at zero: <p>.velocity (SGD), <p>.moment1 and <p>.moment2
(Adam), <p>.average, and f32[] scalars for bias correction. A moving mean m <- d m + (1 - d) x that
starts at 0 is too small by the factor 1 - d^t; the same recurrence on x = 1 is that factor, so no
step is counted and no power taken.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..border import settle
from ..errors import DataError, GraphError
from ..ir import Builder, Init, Parameter, Value
from ..ir.trace import Tensor
from ..ir.types import TensorType, f32
from ..ops.pointwise.binary import add, div, maximum, minimum, mul, sub
from ..ops.pointwise.select import select
from ..ops.pointwise.unary import sqrt
from ..ops.reduction.reduce import reduce_sum

SMALLEST_NORM = 1e-12  # of a gradient that a norm divides
SCALAR = TensorType(f32, ())


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What every optimizer may do around its own rule, for gradients g and learning rate lr:

        clip_norm  all gradients times min(1, clip_norm / ||all of them||_2), first of all.
                   Parameters with an `eta` stand aside: the adaptive rate fixes their norm.
                   Infinity clips nothing.
        (eta)      g <- g * eta * sqrt(k) / max(||g||_2, 1e-12)   where p.eta is set; k elements
                   in p (Chen et al. 2020, eq. 12 and 13, placed as in the authors' release)
        average    after the update, the running average of every weight that the step changes:
                   a <- a + (p - a) (1 - d) / (1 - d^t), t = 1, 2, ...: the mean of all weights so
                   far, each `average` = d times as heavy as the next. `Model.fit` evaluates and
                   ends with the averages. 0 keeps none.
        fan_in     a matrix f32[K,T] without `eta`, which multiplies K inputs for each output, moves
                   with the rate lr min(1, fan_in / K): its step for a sample x changes that
                   sample's outputs by lr |x|^2 of the error, and |x|^2 grows with K. Infinity
                   gives all the rate lr.

    A subclass says what a step's direction is (`direction`), and which tensors the directions of
    all parameters share (`shared`). Raises DataError for numbers out of range.
    """

    weight_decay: float = 0.0
    clip_norm: float = math.inf
    average: float = 0.0
    fan_in: float = 256.0

    def __post_init__(self) -> None:
        settle(self, where=f"{type(self).__name__}: ")
        self._require("weight_decay", 0.0 <= self.weight_decay < math.inf, "at least 0")
        self._require("clip_norm", self.clip_norm > 0.0, "above 0")
        self._require("average", 0.0 <= self.average < 1.0, "at least 0 and below 1")
        self._require("fan_in", self.fan_in > 0.0, "above 0")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            where = f"{type(self).__name__}: {name}={getattr(self, name)}"
            raise DataError(f"{where} must be a number {expected}")

    def update(
        self, gradients: Mapping[Parameter, Tensor], rate: Tensor, thinned: Collection[str] = ()
    ) -> None:
        """Appends one step to the graph of `rate`, the learning rate f32[]: a new value for each
        parameter of `gradients` and for the optimizer's state. With `average`, also the averages of
        these parameters and of those that the graph updated before.

        Of parameters called in `thinned` some elements are left out (`sparsity.py`): the step moves
        L = p + held, and then p = L where L > threshold, else min(L, 0). One of p and held is 0 in
        each element, so that nothing is rounded.
        """
        builder = rate.builder
        network = frozenset(builder.parameters.values())
        shared = self.shared(builder)
        for p, g in self._clipped(gradients).items():
            builder.scope = f"{p.name}."
            weights = Tensor(builder, p)
            direction = self.direction(weights, _adapted(p, g), shared)
            step = mul(self._rate(p, rate), direction, name="step")
            if p.name in thinned:
                _thin(weights, step)
            else:
                _assign(weights, sub(weights, step, name="new"))
        builder.scope = ""
        if self.average:
            moved = {p: v for p, v in builder.updates if p in network and p.type.dtype == f32}
            self._average(builder, moved)

    def _rate(self, p: Parameter, rate: Tensor) -> Tensor:
        """The learning rate of `p`."""
        if p.eta is not None or p.type.rank != 2 or p.type.sizes[0] <= self.fan_in:
            return rate
        return mul(rate, self.fan_in / p.type.sizes[0], name="rate")

    def shared(self, builder: Builder) -> tuple[Tensor, ...]:
        """Appends what the directions of all parameters share."""
        return ()

    def direction(self, weights: Tensor, g: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """Appends the direction u of a parameter's step: p <- p - lr * u, for its gradient `g`."""
        raise GraphError(f"{self!r} is no optimizer that a training step knows")

    def _clipped(self, gradients: Mapping[Parameter, Tensor]) -> Mapping[Parameter, Tensor]:
        """The gradients scaled down to the norm `clip_norm`, but for adaptive rates."""
        squares = [_square_sum(g) for p, g in gradients.items() if p.eta is None]
        if not (math.isfinite(self.clip_norm) and squares):
            return gradients
        norm = sqrt(functools.reduce(add, squares), name="gradient_norm")
        scale = minimum(self.clip_norm / maximum(norm, SMALLEST_NORM), 1.0, name="clip_scale")
        return {
            p: g if p.eta is not None else mul(g, scale, name=f"{p.name}.clipped")
            for p, g in gradients.items()
        }

    def _average(self, builder: Builder, new: Mapping[Parameter, Value]) -> None:
        """a <- a + (p - a) (1 - d) / (1 - d^t): the first average is the first weights."""
        decay = self.average
        weight = div(1.0 - decay, _moving_mean(builder, "average.correction", decay, None))
        for p, value in new.items():
            old = _state(builder, average_name(p.name), p.type)
            moved = (Tensor(builder, value) - old) * weight
            _assign(old, add(old, moved, name=f"{old.name}.new"))


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay, as in the authors' release.

    For each trainable parameter p, with g as `Optimizer` leaves it:

        g <- g + weight_decay * p
        v <- momentum * v + g                            v starts at zero
        p <- p - lr * v                                  with nesterov: p - lr * (g + momentum * v)

    Defaults are the AdderNet release's, `fan_in` aside. Raises DataError unless 0 <= momentum < 1,
    and for nesterov without momentum.
    Source: Sutskever et al. 2013, in the form of torch.optim.SGD (dampening 0).
    """

    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("momentum", 0.0 <= self.momentum < 1.0, "at least 0 and below 1")
        if self.nesterov and not self.momentum:
            raise DataError("SGD: nesterov=True looks ahead along the momentum, which is 0")

    def direction(self, weights: Tensor, g: Tensor, shared: Sequence[Tensor]) -> Tensor:
        if self.weight_decay:
            g = add(g, self.weight_decay * weights, name="decayed")
        if not self.momentum:
            return g
        velocity = _state(weights.builder, f"{weights.name}.velocity", weights.type)
        new = add(self.momentum * velocity, g, name="velocity.new")
        _assign(velocity, new)
        return add(g, self.momentum * new, name="ahead") if self.nesterov else new


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam with bias correction; weight decay decoupled (AdamW), or part of the gradient (L2).

    For each trainable parameter p and step t = 1, 2, ..., with g as `Optimizer` leaves it:

        g <- g + weight_decay * p                        unless decoupled
        m <- beta1 * m + (1 - beta1) * g                 m and v start at zero
        v <- beta2 * v + (1 - beta2) * g^2
        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
        p <- p - lr * u                                  decoupled: p - lr * (u + weight_decay * p)

    u does not change when g is scaled, so `eta` makes no difference here but through epsilon.
    Raises DataError unless 0 <= beta < 1 and epsilon > 0.
    Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; Loshchilov and Hutter 2019
    (arXiv:1711.05101), algorithm 2, with lr as the schedule's multiplier of both terms.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decoupled: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            self._require(name, 0.0 <= getattr(self, name) < 1.0, "at least 0 and below 1")
        self._require("epsilon", 0.0 < self.epsilon < math.inf, "above 0")

    def shared(self, builder: Builder) -> tuple[Tensor, ...]:
        """1 - beta1^t and 1 - beta2^t."""
        return tuple(
            _moving_mean(builder, f"adam.correction{k}", beta, None)
            for k, beta in enumerate((self.beta1, self.beta2), 1)
        )

    def direction(self, weights: Tensor, g: Tensor, shared: Sequence[Tensor]) -> Tensor:
        builder, (correction1, correction2) = weights.builder, shared
        if self.weight_decay and not self.decoupled:
            g = add(g, self.weight_decay * weights, name="decayed")
        first = _moving_mean(builder, f"{weights.name}.moment1", self.beta1, g)
        second = _moving_mean(builder, f"{weights.name}.moment2", self.beta2, g * g)
        mean, square = div(first, correction1), div(second, correction2)
        direction = div(mean, sqrt(square) + self.epsilon, name="direction")
        if self.weight_decay and self.decoupled:
            direction = add(direction, self.weight_decay * weights, name="decayed")
        return direction


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}


def average_name(parameter: str) -> str:
    """The parameter of the training step that holds the running average of `parameter`."""
    return f"{parameter}.average"


def held_name(parameter: str) -> str:
    """The parameter of the training step that holds what is left out of `parameter`."""
    return f"{parameter}.held"


def threshold_name(parameter: str) -> str:
    """The parameter f32[] of the training step by which elements of `parameter` are left out."""
    return f"{parameter}.threshold"


def _thin(weights: Tensor, step: Tensor) -> None:
    """A step of `weights`, of which what is at or below the threshold is held back."""
    builder, name = weights.builder, weights.name
    held = _state(builder, held_name(name), weights.type)
    threshold = _state(builder, threshold_name(name), SCALAR)
    latent = sub(weights + held, step, name="latent")
    new = select(latent > threshold, latent, minimum(latent, 0.0), name="new")
    _assign(weights, new)
    _assign(held, sub(latent, new, name="held.new"))


def _adapted(p: Parameter, g: Tensor) -> Tensor:
    """The gradient under the adaptive rate of `p`, where it has one."""
    if p.eta is None:
        return g
    norm = sqrt(_square_sum(g), name="grad_norm")
    scale = p.eta * math.sqrt(p.type.elements) / maximum(norm, SMALLEST_NORM)
    return mul(g, scale, name="adapted")


def _square_sum(g: Tensor) -> Tensor:
    return reduce_sum(g * g, tuple(range(g.type.rank)))


def _moving_mean(builder: Builder, name: str, decay: float, x: Tensor | None) -> Tensor:
    """m <- decay m + (1 - decay) x in the state `name`, of x = 1 where there is none."""
    state = _state(builder, name, SCALAR if x is None else x.type)
    scope, builder.scope = builder.scope, f"{name}."
    kept = decay * state
    new = add(kept, 1.0 - decay if x is None else (1.0 - decay) * x, name="new")
    builder.scope = scope
    _assign(state, new)
    return new


def _state(builder: Builder, name: str, type: TensorType) -> Tensor:
    """A fixed parameter that starts at zero."""
    made = Parameter(name, type, Init("zeros"), trainable=False)
    return Tensor(builder, builder.parameter(made))


def _assign(state: Tensor, new: Tensor) -> None:
    """After the step, the parameter `state` holds `new`."""
    assert isinstance(state.value, Parameter)
    state.builder.update(state.value, new.value)
