"""Progress of training: a bar on a terminal; elsewhere plain lines, one an epoch and one every
half minute within it; or silence."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from .. import stages
from ..stages import is_terminal

WIDTH = 80  # columns of a line


def _lines(words: Sequence[str], indent: int) -> list[str]:
    """The words in lines of at most WIDTH columns, all but the first begun by `indent` spaces."""
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]}  {word}"
        if len(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(" " * indent + word)
    return lines


class Progress:
    """Shows `epochs` epochs of `steps` steps over `samples` samples; a context manager.

    Both forms tell images a second and the time that is left. `verbose=0` shows nothing.
    """

    def __init__(self, epochs: int, steps: int, samples: int, verbose: int) -> None:
        self.epochs, self.steps, self.samples, self.verbose = epochs, steps, samples, verbose
        self._bar: Any = None
        self._task: Any = None
        self._began, self._first, self._done = time.perf_counter(), 0, 0
        self._said = self._began

    def __enter__(self) -> Self:
        if self.verbose and is_terminal(sys.stdout):
            self._start_bar()
        return self

    def __exit__(self, *error: object) -> None:
        stages.stop(self._bar)

    def start(self, done: int) -> None:
        """`done` steps of the run were made before, by another process."""
        self._began, self._first, self._done = time.perf_counter(), done, done
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def step(self, epoch: int, loss: float) -> None:
        """One more step of `epoch` (counted from 0) is done; `loss` is the epoch's mean so far."""
        self._done += 1
        if self._bar is not None:
            label = f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4f}"
            speed = f"{self._images_per_second():,.0f} images/s"
            self._bar.update(self._task, completed=self._done, description=label, speed=speed)
        elif self.verbose and time.perf_counter() - self._said >= stages.EVERY:
            at = (self._done - 1) % self.steps + 1
            self._print(
                f"epoch {epoch + 1}/{self.epochs}, step {at}/{self.steps}  loss {loss:.4f}  "
                f"({self._images_per_second():,.0f} images/s, {self._left()} left)"
            )

    def epoch(self, epoch: int, record: Mapping[str, float]) -> None:
        """`epoch` is done, with these results; its speed is its own, as in the log."""
        if not self.verbose:
            return
        head = f"epoch {epoch + 1:{len(str(self.epochs))}}/{self.epochs}"
        numbers = [f"{k} {v:.4f}" for k, v in record.items() if k != "seconds"]
        seconds = record["seconds"]
        speed = f"{self.samples / seconds:,.0f} images/s"
        time_ = f"({seconds:.2f} s, {speed}, {self._left()} left)"
        self._print("\n".join(_lines([head, *numbers, time_], len(head) + 2)))

    def _print(self, line: str) -> None:
        self._said = time.perf_counter()
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _images_per_second(self) -> float:
        """The mean since this process began, validation included."""
        elapsed = time.perf_counter() - self._began
        return (self._done - self._first) / self.steps * self.samples / max(elapsed, 1e-9)

    def _left(self) -> str:
        """The time that the remaining steps take at the mean speed so far, as 1:02:03."""
        elapsed = time.perf_counter() - self._began
        remaining = self.epochs * self.steps - self._done
        seconds = round(elapsed * remaining / max(self._done - self._first, 1))
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def _start_bar(self) -> None:
        self._bar = stages.bar("speed")
        total = self.epochs * self.steps
        self._task = self._bar.add_task("starting", total=total, speed="")
        self._bar.start()
