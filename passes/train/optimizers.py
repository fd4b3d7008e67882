"""optimizers: what `training/optimizers.py` describes, as nodes of the training step.

    rewrite (SGD(momentum=0.9, weight_decay=0), gradient %g of parameter %w):
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
from collections.abc import Mapping

from addergraph.errors import GraphError
from addergraph.ir import Init, Parameter, Value
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.ops.pointwise.binary import add, div, maximum, minimum, mul, sub
from addergraph.ops.pointwise.unary import sqrt
from addergraph.ops.reduction.reduce import reduce_sum
from addergraph.training.optimizers import SGD, Adam, Optimizer, average_name

from ..rewrite import Draft

SMALLEST_NORM = 1e-12  # of a gradient that a norm divides
SCALAR = TensorType(f32, ())


def append_updates(
    draft: Draft, optimizer: Optimizer, gradients: Mapping[Parameter, Tensor], rate: Tensor
) -> None:
    """Appends the optimizer's work: a new value for each parameter of `gradients`, and its state.

    With `average`, also the averages of these and of what the draft updated before.
    """
    network = frozenset(draft.parameters.values())
    descend = _Descent(draft, optimizer, rate)
    for p, g in _clipped(draft, optimizer, gradients).items():
        draft.scope = f"{p.name}."
        g = g if p.eta is None else _adapted(p, p.eta, g)
        draft.update(p, descend(p, g).value)
    draft.scope = ""
    if optimizer.average:
        _average(draft, optimizer, {p: v for p, v in draft.updates if p in network})


def _clipped(
    draft: Draft, optimizer: Optimizer, gradients: Mapping[Parameter, Tensor]
) -> Mapping[Parameter, Tensor]:
    """The gradients scaled down to the norm `clip_norm`, those with an adaptive rate left out."""
    squares = [_square_sum(g) for p, g in gradients.items() if p.eta is None]
    if not (math.isfinite(optimizer.clip_norm) and squares):
        return gradients
    norm = sqrt(functools.reduce(add, squares), name="gradient_norm")
    scale = minimum(optimizer.clip_norm / maximum(norm, SMALLEST_NORM), 1.0, name="clip_scale")
    return {
        p: g if p.eta is not None else mul(g, scale, name=f"{p.name}.clipped")
        for p, g in gradients.items()
    }


def _adapted(p: Parameter, eta: float, g: Tensor) -> Tensor:
    norm = sqrt(_square_sum(g), name="grad_norm")
    scale = eta * math.sqrt(p.type.elements) / maximum(norm, SMALLEST_NORM)
    return mul(g, scale, name="adapted")


def _square_sum(g: Tensor) -> Tensor:
    return reduce_sum(g * g, tuple(range(g.type.rank)))


class _Descent:
    """The rule of one optimizer: new weights from old ones and their gradient."""

    def __init__(self, draft: Draft, optimizer: Optimizer, rate: Tensor) -> None:
        self.draft, self.optimizer, self.rate = draft, optimizer, rate
        if isinstance(optimizer, Adam):
            self.corrections = [
                _moving_mean(draft, f"adam.correction{k}", beta, None)
                for k, beta in enumerate((optimizer.beta1, optimizer.beta2), 1)
            ]

    def __call__(self, p: Parameter, g: Tensor) -> Tensor:
        weights = self.draft.tensor(p)
        if isinstance(self.optimizer, SGD):
            direction = self._sgd(self.optimizer, p, weights, g)
        elif isinstance(self.optimizer, Adam):
            direction = self._adam(self.optimizer, p, weights, g)
        else:
            raise GraphError(f"{self.optimizer!r} is no optimizer that a training step knows")
        return sub(weights, mul(self.rate, direction, name="step"), name="new")

    def _sgd(self, sgd: SGD, p: Parameter, weights: Tensor, g: Tensor) -> Tensor:
        if sgd.weight_decay:
            g = add(g, sgd.weight_decay * weights, name="decayed")
        if not sgd.momentum:
            return g
        velocity = _state(self.draft, f"{p.name}.velocity", p.type)
        new = add(sgd.momentum * self.draft.tensor(velocity), g, name="velocity.new")
        self.draft.update(velocity, new.value)
        return add(g, sgd.momentum * new, name="ahead") if sgd.nesterov else new

    def _adam(self, adam: Adam, p: Parameter, weights: Tensor, g: Tensor) -> Tensor:
        if adam.weight_decay and not adam.decoupled:
            g = add(g, adam.weight_decay * weights, name="decayed")
        first = _moving_mean(self.draft, f"{p.name}.moment1", adam.beta1, g)
        second = _moving_mean(self.draft, f"{p.name}.moment2", adam.beta2, g * g)
        mean, square = div(first, self.corrections[0]), div(second, self.corrections[1])
        direction = div(mean, sqrt(square) + adam.epsilon, name="direction")
        if adam.weight_decay and adam.decoupled:
            direction = add(direction, adam.weight_decay * weights, name="decayed")
        return direction


def _average(draft: Draft, optimizer: Optimizer, new: Mapping[Parameter, Value]) -> None:
    """a <- a + (p - a) (1 - d) / (1 - d^t): the first average is the first weights themselves."""
    decay = optimizer.average
    weight = div(1.0 - decay, _moving_mean(draft, "average.correction", decay, None))
    for p, value in new.items():
        average = _state(draft, average_name(p.name), p.type)
        old = draft.tensor(average)
        moved = add(old, (draft.tensor(value) - old) * weight, name=f"{average.name}.new")
        draft.update(average, moved.value)


def _moving_mean(draft: Draft, name: str, decay: float, x: Tensor | None) -> Tensor:
    """m <- decay m + (1 - decay) x in the state `name`, of x = 1 where there is none."""
    state = _state(draft, name, SCALAR if x is None else x.type)
    scope, draft.scope = draft.scope, f"{name}."
    kept = decay * draft.tensor(state)
    new = add(kept, 1.0 - decay if x is None else (1.0 - decay) * x, name="new")
    draft.scope = scope
    draft.update(state, new.value)
    return new


def _state(draft: Draft, name: str, type: TensorType) -> Parameter:
    return draft.parameter(Parameter(name, type, Init("zeros"), trainable=False))
