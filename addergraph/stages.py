"""Progress of long work: a bar on a terminal, elsewhere a line every half minute, or silence."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, Self

from . import border

EVERY = 30.0  # seconds between lines


def is_terminal(stream: object) -> bool:
    """Whether a stream is a terminal: it may be None, closed, or any object with a `write`."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def bar(*columns: str) -> Any:
    """A bar that goes when it is done: a description, how much of it, these fields, time left."""
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        *(progress.TextColumn(f"{{task.fields[{name}]}}") for name in columns),
        progress.TimeRemainingColumn(),
        transient=True,
    )


class Stages:
    """Shows work that has stages, in as many steps as each has; a context manager, which gives what
    to call with a stage, how much of it is done, and how much there is. `verbose=0` shows nothing;
    DataError for what is no number.
    """

    def __init__(self, verbose: int) -> None:
        self.verbose = border.plain(int | bool, "verbose", verbose)
        self._bar: Any = None
        self._task: Any = None
        self._said = time.perf_counter()

    def __enter__(self) -> Self:
        if self.verbose and is_terminal(sys.stdout):
            self._bar = bar()
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        stop(self._bar)

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is not None:
            new = self._bar.tasks[self._task].description != stage
            if new:
                self._bar.reset(self._task)
            self._bar.update(self._task, description=stage, completed=done, total=total)
        elif self.verbose and time.perf_counter() - self._said >= EVERY:
            self._said = time.perf_counter()
            print(f"{stage}: {done:,} of {total:,}", flush=True)


def stop(bar: Any) -> None:
    """Ends a bar, where there is one."""
    if bar is not None:
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            bar.stop()
