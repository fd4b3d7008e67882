"""Reading the logs of a run back: a row an epoch, as CSV or as JSON lines."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, StorageError
from ..files import storage
from ..ir import Array


def read_log(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The columns of a log by name, f64[rows]; NaN where a row has no such number.

    `.csv` has the names in its first line; `.jsonl` has an object with numbers in each. Raises
    StorageError for a file that cannot be read or is of another kind, DataError, naming the line,
    for a row that is not numbers, and for a log without rows.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    suffix = Path(path).suffix
    if suffix not in readers:
        raise StorageError(f'"{path}": expected a log that ends in {" or ".join(readers)}')
    try:
        text = storage.read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise StorageError(f'"{path}" is not text (byte {error.start} is no UTF-8)') from None
    rows = readers[suffix](path, text)
    if not rows:
        raise DataError(f'"{path}" has no rows yet; a run writes one after each epoch')
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.asarray([row.get(name, np.nan) for row in rows]) for name in names}


def _csv_rows(path: object, text: str) -> list[dict[str, float]]:
    lines = list(csv.reader(text.splitlines()))
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
            raise DataError(f'"{path}", line {number}: expected an object of numbers, found {line}')
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
    raise DataError(f'"{path}", line {line}: {name} is {value!r}, expected a number')
