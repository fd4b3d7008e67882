"""The settings of one `Model.fit`, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .optimizers import Optimizer
from .schedules import Schedule

if TYPE_CHECKING:
    from ..data import Augment, Normalize

Rate = float | Schedule | Callable[[int], float]


def at_least_one(name: str, value: object) -> int:
    """An integer of at least 1; DataError otherwise."""
    return _integer(name, value, 1)


def _integer(name: str, value: object, least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise DataError(f"{name}={value!r} must be an integer of at least {least}")
    return int(value)


def require_optimizer(value: object) -> None:
    """DataError for anything but a description of an optimizer."""
    if not isinstance(value, Optimizer):
        raise DataError(
            f"optimizer={value!r}: expected a description of one, such as training.SGD() or "
            "training.Adam()"
        )


def rate_at(learning_rate: Rate, epoch: int, fraction: float = 0.0) -> float:
    """The learning rate after a fraction of an epoch (from 0); functions see whole epochs.

    Raises DataError unless it is a finite number of at least 0.
    """
    if isinstance(learning_rate, Schedule):
        rate: object = learning_rate(epoch + fraction)
    else:
        rate = learning_rate(epoch) if callable(learning_rate) else learning_rate
    if not (isinstance(rate, int | float | np.floating) and 0.0 <= rate < math.inf):
        raise DataError(
            f"the learning rate of epoch {epoch + 1} is {rate!r}; "
            "expected a finite number of at least 0"
        )
    return float(rate)


@dataclass(frozen=True)
class Fit:
    """The settings of one `Model.fit`; DataError for numbers out of range.

    A learning rate may be 0 in some epochs, but not in all: nothing would be learned.
    """

    epochs: int
    batch_size: int
    learning_rate: Rate
    optimizer: Optimizer
    label_smoothing: float
    gradient: str
    augment: Augment | None
    normalize: Normalize | None
    shuffle: bool
    seed: int
    patience: int
    keep_best: bool
    checkpoint: Path | None
    checkpoint_steps: int
    resume: bool
    verbose: int

    def __post_init__(self) -> None:
        at_least_one("epochs", self.epochs)
        at_least_one("batch_size", self.batch_size)
        _integer("seed", self.seed, 0)
        _integer("patience", self.patience, 0)
        _integer("checkpoint_steps", self.checkpoint_steps, 0)
        require_optimizer(self.optimizer)
        _require_preparation(self.augment, self.normalize)
        if self.checkpoint is None and (self.resume or self.checkpoint_steps):
            raise DataError("resume and checkpoint_steps need checkpoint=, the folder to use")
        if isinstance(self.learning_rate, Schedule):
            return  # starts above 0
        if not any([rate_at(self.learning_rate, epoch) for epoch in range(self.epochs)]):
            raise DataError(
                f"the learning rate is 0 in all {self.epochs} epochs: nothing would be learned; "
                "expected a number above 0, such as 0.1"
            )

    def description(self) -> dict[str, str]:
        """What decides the bits of a run, beside the network and the data, as text by name.

        The number of epochs is no part of it: a run may be made longer.
        """
        return {
            "learning_rate": _described(self.learning_rate),
            **{
                name: repr(getattr(self, name))
                for name in (
                    "batch_size", "optimizer", "label_smoothing", "gradient", "augment",
                    "normalize", "shuffle", "seed", "keep_best",
                )
            },
        }  # fmt: skip


def _require_preparation(augment: object, normalize: object) -> None:
    """DataError unless both are descriptions of what happens to images, or None."""
    if augment is None and normalize is None:
        return
    from ..data import Augment, Normalize

    for name, value, kind, example in (
        ("augment", augment, Augment, "Augment(padding=4, flip=0.5)"),
        ("normalize", normalize, Normalize, "data.normalize()"),
    ):
        if not (value is None or isinstance(value, kind)):
            what = f"addergraph.data.{kind.__name__}"
            raise DataError(f"{name}={value!r}: expected None or {what}, such as {example}")


def _described(rate: Rate) -> str:
    if isinstance(rate, Schedule) or not callable(rate):
        return repr(rate)
    return f"the function {getattr(rate, '__qualname__', type(rate).__qualname__)}"
