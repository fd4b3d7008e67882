"""The losses that a model may name, and their value on finished predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import GraphError, nearest
from ..ir import Array, Op
from ..ops.reduction.mean_squared_error import MeanSquaredError
from ..ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy

LOSSES: Mapping[str, Op] = {
    "cat_cross_entropy": SoftmaxCrossEntropy(),
    "mean_squared_error": MeanSquaredError(),
}


def loss_named(name: str) -> Op:
    """The op of a loss; GraphError with the nearest name for an unknown one."""
    if not isinstance(name, str) or name not in LOSSES:
        raise GraphError(
            f'unknown loss "{name}"{nearest(str(name), LOSSES)}; known: {", ".join(LOSSES)}'
        )
    return LOSSES[name]


def takes_classes(name: str) -> bool:
    """Whether the targets of this loss are classes or probabilities of classes."""
    return isinstance(loss_named(name), SoftmaxCrossEntropy)


def sample_losses(name: str, prediction: Array, targets: Array, probabilities: bool) -> Array:
    """The loss of each sample, f32[N]. `probabilities` says that a softmax made the prediction.

    Cross-entropy is then that of log(prediction), whose softmax is the prediction again. Where a
    probability underflowed to zero, the smallest normal f32 stands for it: a loss of at most 87.4.
    """
    scores = prediction
    if takes_classes(name) and probabilities:
        scores = np.log(np.maximum(prediction, np.finfo(np.float32).tiny))
    (losses,) = loss_named(name).reference(scores, targets)
    return losses
