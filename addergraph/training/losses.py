"""Losses: what they are, and their expression on symbolic tensors and on finished predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..border import settle
from ..errors import DataError, GraphError, nearest
from ..ir import Array, Graph, Op
from ..ir.trace import Tensor, apply
from ..ops.pointwise.binary import add
from ..ops.reduction.mean_squared_error import MeanSquaredError
from ..ops.reduction.reduce import reduce_mean
from ..ops.reduction.softmax import Softmax
from ..ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The mean over the samples of what `op` gives for predictions and targets of the same type.

        label_smoothing  s in [0, 1): targets become (1 - s) targets + s / T over T classes
                         (Szegedy et al. 2016, arXiv:1512.00567, section 7)

    `of_classes`: targets are classes, or rows of their probabilities. Raises DataError for a
    smoothing out of range, or of targets that are no probabilities.
    """

    op: ClassVar[Op]
    of_classes: ClassVar[bool]

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        if not 0.0 <= self.label_smoothing < 1.0:
            found = f"label_smoothing={self.label_smoothing!r}"
            raise DataError(f"{found} must be at least 0 and below 1")
        if self.label_smoothing and not self.of_classes:
            raise DataError(
                f"label_smoothing={self.label_smoothing} spreads the probabilities of classes; "
                f"{self.op.name} has none: use cat_cross_entropy, or no smoothing"
            )

    def mean(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """Appends the loss f32[] to the graph of these tensors."""
        if self.label_smoothing:
            kept = (1.0 - self.label_smoothing) * targets
            share = self.label_smoothing / targets.type.sizes[-1]
            targets = add(kept, share, name="smoothed")
        losses = apply(self.op, self.scores(prediction), targets, name="losses")
        return reduce_mean(losses, (0,), name="loss")

    def scores(self, prediction: Tensor) -> Tensor:
        """What `op` takes for a prediction."""
        return prediction

    def of_samples(self, prediction: Array, targets: Array, probabilities: bool) -> Array:
        """f32[N], without smoothing. `probabilities`: a softmax made the prediction."""
        (losses,) = self.op.reference(prediction, targets)
        return losses


@dataclass(frozen=True, kw_only=True)
class CatCrossEntropy(Loss):
    """-sum_t targets_t log softmax(logits)_t. A final softmax of the network is left out."""

    op = SoftmaxCrossEntropy()
    of_classes = True

    def scores(self, prediction: Tensor) -> Tensor:
        """The logits of a final softmax (the stable form); any other prediction is logits."""
        builder = prediction.builder
        last = next((n for n in reversed(builder.nodes) if prediction.value in n.outputs), None)
        if last is None or not isinstance(last.op, Softmax):
            return prediction
        return Tensor(builder, last.inputs[0])

    def of_samples(self, prediction: Array, targets: Array, probabilities: bool) -> Array:
        """As for any loss; of probabilities, that of their logarithms, whose softmax they are.

        Where a probability underflowed to zero, the smallest normal f32 replaces it: a loss of at
        most 87.4.
        """
        if probabilities:
            prediction = np.log(np.maximum(prediction, np.finfo(np.float32).tiny))
        return super().of_samples(prediction, targets, probabilities)


@dataclass(frozen=True, kw_only=True)
class MeanSquared(Loss):
    """The mean of (prediction - targets)^2."""

    op = MeanSquaredError()
    of_classes = False


def gives_probabilities(graph: Graph) -> bool:
    """Whether a softmax makes the answers of a network."""
    last = graph.producers().get(graph.outputs[0])
    return last is not None and isinstance(last.op, Softmax)


LOSSES: Mapping[str, type[Loss]] = {
    "cat_cross_entropy": CatCrossEntropy,
    "mean_squared_error": MeanSquared,
}


def loss_named(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss of this name; GraphError with the nearest name for an unknown one."""
    if not isinstance(name, str) or name not in LOSSES:
        raise GraphError(
            f'unknown loss "{name}"{nearest(str(name), LOSSES)}; known: {", ".join(LOSSES)}'
        )
    return LOSSES[name](label_smoothing=label_smoothing)
