"""What PyTorch logs and prints while it exports: given where that succeeds; where it fails, the
error that is raised says the same."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator

LOGGER = "torch"  # with all below it


@contextlib.contextmanager
def logs_held_back() -> Iterator[None]:
    """Holds back what loggers of PyTorch say in this thread, and the graph so far that
    `torch.export` prints on stderr; an error that leaves the block drops both. What the user's own
    module logs or prints comes in any case."""
    held: list[logging.LogRecord] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            held.append(record)
        return record.thread != thread

    loggers, said = _loggers(), io.StringIO()
    for logger in loggers:
        logger.addFilter(keep)
    try:
        with contextlib.redirect_stderr(said):
            yield
    except BaseException as error:
        held.clear()
        graph = getattr(error, "partial_fx_graph", None)
        text = said.getvalue()
        said = io.StringIO(text if graph is None else text.replace(f"{graph}\n", ""))
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
        if said.getvalue():
            print(said.getvalue(), end="", file=sys.stderr)
        for record in held:
            logging.getLogger(record.name).handle(record)


def _loggers() -> list[logging.Logger]:
    """Those that there are: a filter is asked by the logger that a record was given to alone."""
    known = [*logging.root.manager.loggerDict]
    names = [name for name in known if name == LOGGER or name.startswith(f"{LOGGER}.")]
    return [logging.getLogger(name) for name in names]
