"""Progress of long work: a bar on a terminal, one plain line an epoch elsewhere, or silence."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


class Progress:
    """Shows `epochs` epochs of `steps` steps; a context manager. `verbose=0` shows nothing."""

    def __init__(self, epochs: int, steps: int, verbose: int) -> None:
        self.epochs, self.steps, self.verbose = epochs, steps, verbose
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.verbose and sys.stdout.isatty():
            self._start_bar()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, loss: float) -> None:
        """One more step of `epoch` (counted from 0) is done."""
        if self._bar is not None:
            label = f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4f}"
            self._bar.update(self._task, advance=1, description=label)

    def epoch(self, epoch: int, record: Mapping[str, float]) -> None:
        """`epoch` is done, with these results."""
        if not self.verbose:
            return
        numbers = "  ".join(f"{k} {v:.4f}" for k, v in record.items() if k != "seconds")
        width = len(str(self.epochs))
        line = f"epoch {epoch + 1:{width}}/{self.epochs}  {numbers}  ({record['seconds']:.2f} s)"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _start_bar(self) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task("compiling", total=self.epochs * self.steps)
        self._bar.start()
