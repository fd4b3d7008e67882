"""Learning rate schedules: functions from the epoch, counted from 0, to a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import DataError


def cosine(base: float, epochs: int) -> Callable[[int], float]:
    """lr(e) = base (1 + cos(pi e / epochs)) / 2: from `base` at epoch 0 down towards 0.

    Raises DataError unless epochs >= 1 and base >= 0.
    """
    if epochs < 1 or not 0.0 <= base < math.inf:
        raise DataError(f"cosine({base}, {epochs}): expected base >= 0 and epochs >= 1")
    return lambda epoch: base * (1.0 + math.cos(math.pi * epoch / epochs)) / 2.0
