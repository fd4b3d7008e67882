"""What `Model.fit` returns."""

from __future__ import annotations

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

    def append(self, record: Mapping[str, float]) -> None:
        """Adds the numbers of one epoch."""
        for name, value in record.items():
            self.history.setdefault(name, []).append(float(value))
