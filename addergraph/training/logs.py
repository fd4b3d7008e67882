"""Logs of a run, a row an epoch, as CSV and as JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import StorageError
from ..files import storage
from .history import History

LOG_NAMES = ("log.csv", "log.jsonl")


class Logs:
    """`log.csv` and `log.jsonl` in a run's folder: one row an epoch, the same in both.

    A row goes out as one write to a file opened for appending. Starting rewrites both from the
    history, so that they hold the epochs of the checkpoint and no others.
    """

    def __init__(self, folder: Path, rows: list[dict[str, float]]) -> None:
        self._csv, self._jsonl = (folder / name for name in LOG_NAMES)
        header = _csv_names(rows[0]) if rows else ""
        storage.atomic_write(
            self._csv, (header + "".join(_csv_values(row) for row in rows)).encode()
        )
        storage.atomic_write(self._jsonl, "".join(map(_json_line, rows)).encode())
        self._empty = not rows

    def append(self, row: Mapping[str, float]) -> None:
        """One more epoch; StorageError when the disk does not take it."""
        _append(self._csv, (_csv_names(row) if self._empty else "") + _csv_values(row))
        _append(self._jsonl, _json_line(row))
        self._empty = False


def log_row(history: History, epoch: int, rate: float, samples: int) -> dict[str, float]:
    """The row of an epoch, counted from 0: `rate` is that at its start."""
    record = history.record(epoch)
    speed = samples / record["seconds"] if record["seconds"] else 0.0
    return {"epoch": epoch + 1, "learning_rate": rate, **record, "images_per_second": speed}


def _csv_names(names: Mapping[str, float]) -> str:
    return ",".join(names) + "\n"


def _csv_values(row: Mapping[str, float]) -> str:
    return ",".join(map(repr, row.values())) + "\n"


def _json_line(row: Mapping[str, float]) -> str:
    return json.dumps(dict(row)) + "\n"


def _append(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            written = os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f'cannot write "{path}": {error.strerror or error}') from None
    if written != len(text.encode()):
        raise StorageError(f'cannot write "{path}": no space left; free some and resume')
