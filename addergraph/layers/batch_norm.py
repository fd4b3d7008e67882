"""Batch normalization, with the running statistics that inference uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .. import ops
from ..errors import GraphError, ShapeError
from ..ir import Parameter
from ..ir.attributes import real
from ..ir.trace import Tensor
from ._parameters import ONES, ZEROS, parameter
from .base import Layer


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """Y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, per channel (the last axis).

    In training mean and variance are the batch's (biased variance), and the running ones, which
    inference uses, move towards them by `momentum`; the running variance takes the unbiased one,
    as in PyTorch: running = (1 - momentum) running + momentum batch (Keras' momentum is 1 minus
    ours). A batch with one value a channel has no unbiased variance and leaves the running variance
    alone.
    Where gamma and beta are frozen, training uses the running ones, too, and leaves them alone.
    Parameters: `.gamma`, `.beta`, and fixed `.mean`, `.variance`, each f32[C]. Rank 2 or more.
    """

    prefix: ClassVar[str] = "bn"
    momentum: float = 0.1
    epsilon: float = 1e-5

    def validate(self) -> None:
        self._store("momentum", real(self.where, "momentum", self.momentum, 0.0, 1.0))
        self._store("epsilon", real(self.where, "epsilon", self.epsilon, 1e-12))

    def build(self, x: Tensor, name: str) -> Tensor:
        if x.type.rank < 2:
            raise ShapeError(f'batch_norm "{name}": input must have rank 2 or more, found {x.type}')
        shape = (int(x.shape[-1]),)
        gamma = parameter(x, f"{name}.gamma", shape, ONES)
        beta = parameter(x, f"{name}.beta", shape, ZEROS)
        mean = parameter(x, f"{name}.mean", shape, ZEROS, trainable=False)
        variance = parameter(x, f"{name}.variance", shape, ONES, trainable=False)
        if x.builder.training and not self.is_frozen(gamma, beta):
            mean, variance = self.batch_statistics(x, name, mean, variance)
        return ops.batch_norm(x, mean, variance, gamma, beta, epsilon=self.epsilon, name=name)

    @staticmethod
    def is_frozen(gamma: Tensor, beta: Tensor) -> bool:
        """Whether a batch norm with these parameters is: both of them are."""
        return all(isinstance(t.value, Parameter) and t.value.frozen for t in (gamma, beta))

    def batch_statistics(
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
