"""The numbers of a run: its history, and logs with a row an epoch, as CSV and as JSON lines."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import border, display
from ..errors import DataError, StorageError
from ..files import storage
from ..ir import Array
from ..report.findings import Finding
from ..tables import Table

MOST_COLUMNS = 1000
LOG_NAMES = ("log.csv", "log.jsonl")


@dataclass(frozen=True)
class History:
    """`history["loss"]`, `accuracy`, `val_loss`, `val_accuracy`, `seconds`: one number an epoch.

    `loss` and `accuracy` are means over the epoch's steps, each before its own update; the `val_`
    ones come from the weights at the end of the epoch and exist where validation data was given.
    Accuracies exist where the targets are classes. `seconds` is wall time, validation included.
    `findings` say what went wrong on the way: that the network has learned nothing.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"<History of {self.epochs} epochs{': ' * bool(last)}{last}>"

    def _repr_html_(self) -> str:
        columns = self.history.values()
        rows = [
            [str(epoch + 1), *(f"{v[epoch]:.4g}" if epoch < len(v) else "" for v in columns)]
            for epoch in range(self.epochs)
        ]
        shown = display.table(Table(("epoch", *self.history), rows, ()))
        return display.head(self) + shown + display.text(*map(str, self.findings))

    @property
    def epochs(self) -> int:
        """How many epochs there are numbers of."""
        return max(map(len, self.history.values()), default=0)

    def append(self, record: Mapping[str, float]) -> None:
        """Adds the numbers of one epoch."""
        numbers = border.mapping("record", record)
        plain = {name: border.number(name, value) for name, value in numbers.items()}
        for name, value in plain.items():
            self.history.setdefault(name, []).append(value)

    def record(self, epoch: int) -> dict[str, float]:
        """The numbers of one epoch, counted from 0; DataError where there is no such epoch."""
        epoch = border.integer("epoch", epoch)
        if not 0 <= epoch < min(map(len, self.history.values()), default=0):
            raise DataError(f"epoch={epoch}: there are numbers of {self.epochs} epochs, from 0")
        return {name: values[epoch] for name, values in self.history.items()}


# What an epoch is judged by: the first of these that there is, and whether more is better.
MONITORED = (("val_accuracy", True), ("val_loss", False), ("loss", False))


def score(record: Mapping[str, float]) -> float:
    """How good an epoch is, for early stopping and the best weights: more is better."""
    name, more = next((name, more) for name, more in MONITORED if name in record)
    if math.isnan(record[name]):
        return -math.inf
    return record[name] if more else -record[name]


# --- writing them ---------------------------------------------------------------------------------


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


# --- reading them back ----------------------------------------------------------------------------


def read_log(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The columns of a log by name, f64[rows]; NaN where a row has no such number.

    `.csv` has the names in its first line; `.jsonl` has an object with numbers in each. Raises
    StorageError for a file that cannot be read or is of another kind, DataError, naming the line,
    for a row that is not numbers, and for a log without rows.
    """
    path = border.path("path", path)
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    suffix = Path(path).suffix
    if suffix not in readers:
        raise StorageError(f'"{path}": expected a log that ends in {" or ".join(readers)}')
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StorageError(f'"{path}" is not text (byte {error.start} is no UTF-8)') from None
    rows = readers[suffix](path, text)
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise DataError(f'"{path}" has no rows yet; a run writes one after each epoch')
    if len(names) > MOST_COLUMNS:
        raise DataError(f'"{path}" has {len(names)} columns; a log has at most {MOST_COLUMNS}')
    return {name: np.asarray([row.get(name, np.nan) for row in rows]) for name in names}


def _csv_rows(path: object, text: str) -> list[dict[str, float]]:
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise DataError(f'"{path}" is no CSV file: {error}') from None
    names = lines[0] if lines else []
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if len(cells) != len(names):
            raise DataError(
                f'"{path}", line {number}: {len(cells)} numbers for the {len(names)} columns '
                f"{', '.join(names)}"
            )
        values = zip(names, cells, strict=True)
        rows.append({name: _number(path, number, name, cell) for name, cell in values})
    return rows


def _json_rows(path: object, text: str) -> list[dict[str, float]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f'"{path}", line {number}: no JSON ({error})') from None
        if not isinstance(row, dict):
            found = line[:80]
            raise DataError(
                f'"{path}", line {number}: expected an object of numbers, found {found}'
            )
        rows.append({name: _number(path, number, name, value) for name, value in row.items()})
    return rows


def _number(path: object, line: int, name: str, value: object) -> float:
    """A cell's number; an empty cell is one that the row does not have."""
    if value == "" or value is None:
        return float("nan")
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise DataError(f'"{path}", line {line}: {name} is {border.shown(value)}, expected a number')
