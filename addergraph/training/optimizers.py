"""Descriptions of optimizers. What they compute is in `passes/train_step.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import DataError


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum and weight decay, as in the authors' release.

    For each trainable parameter p with gradient g and learning rate lr:

        g <- g * eta * sqrt(k) / max(||g||_2, 1e-12)    where p.eta is set; k elements in p
        g <- g + weight_decay * p
        v <- momentum * v + g                            v starts at zero
        p <- p - lr * v

    Defaults are the AdderNet release's. Raises DataError unless 0 <= momentum < 1 and
    weight_decay >= 0.
    """

    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise DataError(f"SGD: momentum={self.momentum} must be at least 0 and below 1")
        if not (self.weight_decay >= 0.0 and math.isfinite(self.weight_decay)):
            raise DataError(f"SGD: weight_decay={self.weight_decay} must be a number of at least 0")
