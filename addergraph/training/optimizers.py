"""Descriptions of optimizers. What they compute is in `passes/train/optimizers.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import DataError


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

    Raises DataError for numbers out of range.
    """

    weight_decay: float = 0.0
    clip_norm: float = math.inf
    average: float = 0.0

    def __post_init__(self) -> None:
        self._require("weight_decay", 0.0 <= self.weight_decay < math.inf, "at least 0")
        self._require("clip_norm", self.clip_norm > 0.0, "above 0")
        self._require("average", 0.0 <= self.average < 1.0, "at least 0 and below 1")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            where = f"{type(self).__name__}: {name}={getattr(self, name)}"
            raise DataError(f"{where} must be a number {expected}")


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay, as in the authors' release.

    For each trainable parameter p, with g as `Optimizer` leaves it:

        g <- g + weight_decay * p
        v <- momentum * v + g                            v starts at zero
        p <- p - lr * v                                  with nesterov: p - lr * (g + momentum * v)

    Defaults are the AdderNet release's. Raises DataError unless 0 <= momentum < 1, and for nesterov
    without momentum.
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


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}


def average_name(parameter: str) -> str:
    """The parameter of the training step that holds the running average of `parameter`."""
    return f"{parameter}.average"
