"""What `Model.fit` returns, and the rows of its logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class History:
    """`history["loss"]`, `accuracy`, `val_loss`, `val_accuracy`, `seconds`: one number an epoch.

    `loss` and `accuracy` are means over the epoch's steps, each before its own update; the `val_`
    ones come from the weights at the end of the epoch and exist where validation data was given.
    Accuracies exist where the targets are classes. `seconds` is wall time, validation included.
    """

    history: dict[str, list[float]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """How many epochs there are numbers of."""
        return max(map(len, self.history.values()), default=0)

    def append(self, record: Mapping[str, float]) -> None:
        """Adds the numbers of one epoch."""
        for name, value in record.items():
            self.history.setdefault(name, []).append(float(value))

    def record(self, epoch: int) -> dict[str, float]:
        """The numbers of one epoch, counted from 0."""
        return {name: values[epoch] for name, values in self.history.items()}


# What an epoch is judged by: the first of these that there is, and whether more is better.
MONITORED = (("val_accuracy", True), ("val_loss", False), ("loss", False))


def score(record: Mapping[str, float]) -> float:
    """How good an epoch is, for early stopping and the best weights: more is better."""
    name, more = next((name, more) for name, more in MONITORED if name in record)
    if math.isnan(record[name]):
        return -math.inf
    return record[name] if more else -record[name]
