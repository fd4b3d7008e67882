"""Learning rate schedules: frozen descriptions that are functions of training time.

Time counts in epochs from 0, with the steps of an epoch as its fractions; a run of `epochs` epochs
ends at `epochs`. The rate is an input of the compiled step, so a schedule costs nothing there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ..border import number, settle
from ..errors import DataError


@dataclass(frozen=True)
class Schedule(ABC):
    """lr(t) = base * shape(t / epochs) * min(1, t / warmup).

        base     the rate at the start, above 0
        epochs   length of the run, at least 1
        warmup   epochs in which the rate rises from 0 along a straight line (Goyal et al. 2017,
                 arXiv:1706.02677); 0 for none
        by_step  let the shape follow every step; otherwise it stays as at the epoch's start, as in
                 the AdderNet release. Warm-up goes by steps in both cases.

    Raises DataError for numbers out of range.
    """

    base: float
    epochs: int
    warmup: float = field(default=0.0, kw_only=True)
    by_step: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        settle(self, where=f"{type(self).__name__}: ")
        self._require("base", 0.0 < self.base < math.inf, "above 0, such as 0.1")
        self._require("epochs", self.epochs >= 1, "of at least 1")
        self._require("warmup", 0.0 <= self.warmup < math.inf, "of at least 0")

    def __call__(self, time: float) -> float:
        """The rate at `time`, in epochs; DataError unless that is a number of at least 0."""
        time = number("time", time)
        if not 0.0 <= time < math.inf:
            raise DataError(f"time={time} must be a number of epochs, at least 0")
        fraction = (time if self.by_step else math.floor(time)) / self.epochs
        rate = self.base * self.shape(min(fraction, 1.0))
        return rate * (time / self.warmup) if time < self.warmup else rate

    @abstractmethod
    def shape(self, fraction: float) -> float:
        """The share of `base` after this fraction of the run, without warm-up."""

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            where = f"{type(self).__name__}: {name}={getattr(self, name)!r}"
            raise DataError(f"{where} must be a number {expected}")


@dataclass(frozen=True)
class Constant(Schedule):
    """lr(t) = base."""

    def shape(self, fraction: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """lr(t) = base (1 + cos(pi t / epochs)) / 2: half a period, from `base` down towards 0.

    Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), eq. 5, without restarts.
    """

    def shape(self, fraction: float) -> float:
        return (1.0 + math.cos(math.pi * fraction)) / 2.0


@dataclass(frozen=True)
class Step(Schedule):
    """lr(t) = base * factor^m, where m of the `milestones` (fractions of the run) have passed."""

    milestones: tuple[float, ...] = field(default=(0.5, 0.75), kw_only=True)
    factor: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = all(0.0 < m < 1.0 for m in self.milestones)
        ascending = list(self.milestones) == sorted(set(self.milestones))
        if not (inside and ascending):
            raise DataError(
                f"Step: milestones={self.milestones} must be fractions of the run, between 0 and "
                "1 and ascending, as (0.5, 0.75)"
            )
        self._require("factor", 0.0 <= self.factor < math.inf, "of at least 0")

    def shape(self, fraction: float) -> float:
        return float(self.factor ** sum(fraction >= m for m in self.milestones))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """lr(t) = base (1 - t / epochs)^power, down to 0."""

    power: float = field(default=0.9, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("power", 0.0 < self.power < math.inf, "above 0")

    def shape(self, fraction: float) -> float:
        return float((1.0 - fraction) ** self.power)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "step": Step,
    "polynomial": Polynomial,
}


def cosine(base: float, epochs: int) -> Cosine:
    """lr(e) = base (1 + cos(pi e / epochs)) / 2, the same through an epoch; see `Cosine`."""
    return Cosine(base, epochs)
