"""A run's folder: the checkpoint that it resumes from, and the lock that keeps others out.

`checkpoint.safetensors` is a tensor file (`storage.py`: temporary file, fsync, rename, checksum):

    state/<name>  every parameter of the training step: weights, the optimizer's state, averages
    best/<name>   the network's weights after the best epoch, where those are kept
    format, version          "addergraph.checkpoint", "1"
    network, data, settings  what the run is of; another one does not resume from it
    frozen                   JSON, where there are any: the parameters that are not trained
    position                 JSON: where the run is, and its history

The order of the data and its augmentation are pure functions of seed, epoch and step
(`data/loader.py`), as the learning rate is of the position: there is no other state.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from .. import border
from ..errors import DataError, EnvironmentWarning, StorageError, some
from ..files import records, storage
from ..ir import Array, Graph
from .logs import LOG_NAMES

NAME, BEST, LOCK = "checkpoint.safetensors", "best.safetensors", ".lock"
FORMAT, VERSION = "addergraph.checkpoint", "1"
_STATE, _BEST = "state/", "best/"


@dataclass
class Position:
    """How far a run is: after `epoch` epochs and `step` steps of the next one.

    `loss` (summed over samples), `correct` and `seconds` are those of the unfinished epoch, and
    `parts`: of several outputs, what the history has of each, summed over samples.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    best_epoch: int = 0  # counted from 1; 0 for none
    best_score: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on."""

    state: Mapping[str, Array]
    best: Mapping[str, Array] | None
    position: Position


@dataclass(frozen=True)
class Identity:
    """What a run is of: the network, the data, and the settings that decide its bits."""

    network: str
    data: str
    settings: Mapping[str, str]
    frozen: Sequence[str] = ()


def digest_of_network(graph: Graph) -> str:
    """The graph's name and the beginning of its text's SHA-256."""
    return f"{graph.name} {hashlib.sha256(str(graph).encode()).hexdigest()[:16]}"


def digest_of_data(*arrays: Array | None) -> str:
    """The number of samples, and a digest over dtypes, shapes and bytes."""
    digest, count = hashlib.blake2b(digest_size=8), 0
    for array in arrays:
        if array is not None:
            count = len(array)
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return f"{count} samples {digest.hexdigest()}"


class RunFolder:
    """The folder of one run; a context manager that holds it for this process alone.

    Makes the folder, and removes it where an error leaves nothing in it. Raises StorageError when
    it cannot be written or another run uses it, and when it holds a checkpoint that `resume` does
    not ask for. Where the file system has no locks, an EnvironmentWarning says that nothing keeps
    another run out.
    """

    def __init__(self, path: Path, identity: Identity, *, resume: bool) -> None:
        self.path, self.identity, self.resume = path, identity, resume
        self.file = path / NAME
        self._lock: Any = None
        self._is_new = False

    def __enter__(self) -> Self:
        self._is_new = not os.path.exists(self.path)  # that of a Path raises for a long name
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f'cannot write "{self.path}": {error.strerror or error}') from None
        storage.require_writable(self.file)
        self._acquire()
        if self.file.exists() and not self.resume:
            self.__exit__()
            raise StorageError(
                f'"{self.file}" is there already: resume that run, choose another folder, or '
                "delete the file"
            )
        for name in (NAME, BEST, *LOG_NAMES):  # of a process that was killed while it wrote
            for left in self.path.glob(f".{name}.*.tmp"):
                storage.discard(left)
        return self

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StorageError(
                f'another run is using "{self.path}"; wait for it, or choose another folder'
            ) from None
        except (OSError, NotImplementedError) as error:  # the latter is filelock's, without flock
            warnings.warn(
                f'"{self.path}" cannot be locked ({getattr(error, "strerror", None) or error}): '
                "let no other run use it",
                EnvironmentWarning,
                stacklevel=2,
            )
        else:
            self._lock = lock

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()
        if self._is_new and any(error):
            with suppress(OSError):  # something is in it
                storage.discard(self.path / LOCK)
                self.path.rmdir()

    def save(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint; StorageError, and the old one stays, when that fails."""
        tensors = {f"{_STATE}{name}": array for name, array in checkpoint.state.items()}
        tensors |= {f"{_BEST}{name}": array for name, array in (checkpoint.best or {}).items()}
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "network": self.identity.network,
            "data": self.identity.data,
            "settings": json.dumps(dict(self.identity.settings), sort_keys=True),
            "position": json.dumps(_encoded(checkpoint.position)),
        }
        if self.identity.frozen:
            metadata["frozen"] = json.dumps(list(self.identity.frozen))
        storage.save(self.file, tensors, metadata)

    def load(self) -> Checkpoint | None:
        """The checkpoint, None where there is none yet.

        Raises StorageError for a damaged file or another format, and DataError, with what differs,
        for the checkpoint of another run.
        """
        if not self.file.exists():
            return None
        tensors, metadata = storage.load(self.file)
        what = "checkpoint: Model.fit writes those"
        entries = ("network", "data", "settings", "position")
        records.require_format(self.file, metadata, FORMAT, VERSION, what, entries)
        self._require_same_run(metadata)
        best = _under(_BEST, tensors)
        return Checkpoint(_under(_STATE, tensors), best or None, self._position(metadata))

    def _require_same_frozen(self, metadata: Mapping[str, str]) -> None:
        text = '{"frozen": ' + metadata.get("frozen", "[]") + "}"
        read = records.json_object(text, f'"{self.file}" is damaged: the entry "frozen"')["frozen"]
        theirs = border.accept(Sequence[str], read)
        if theirs is None:
            raise StorageError(f'"{self.file}" is damaged: the entry "frozen" is no list of names')
        ours = self.identity.frozen
        more, less = ([n for n in a if n not in b] for a, b in ((ours, theirs), (theirs, ours)))
        if not more and not less:
            return
        sides = (("there alone", less), ("here alone", more))
        told = "; ".join(f"{where}: {some(names)}" for where, names in sides if names)
        raise DataError(
            f'"{self.file}" was made with other frozen parameters ({told}); resume with the same '
            "ones (model.freeze, model.unfreeze), or choose another folder"
        )

    def _require_same_run(self, metadata: Mapping[str, str]) -> None:
        self._require_same_frozen(metadata)  # first: the network's text tells them, too
        for name, ours in (("network", self.identity.network), ("data", self.identity.data)):
            found = metadata.get(name)
            if found != ours:
                raise DataError(
                    f'"{self.file}" is of another {name}: {found}, this run has {ours}; '
                    "resume with what it was made with, or choose another folder"
                )
        made_with, wanted = self._json(metadata, "settings"), self.identity.settings
        for name in [*wanted, *made_with]:
            if made_with.get(name) == wanted.get(name):
                continue
            made = f"before there was {name}"
            if name in made_with:
                made = f"with {name}={made_with[name]}"
            has = f"{name}={wanted[name]}" if name in wanted else f"no {name}"
            raise DataError(
                f'"{self.file}" was made {made}, this run has {has}; resume with the same '
                "settings, or choose another folder"
            )

    def _position(self, metadata: Mapping[str, str]) -> Position:
        where = f'the position of "{self.file}"'
        found = {"parts": {}} | self._json(metadata, "position")
        read = records.read(Position, found, where, error=StorageError, complete=True)
        position = Position(**read)
        if problem := _problem(position):
            raise StorageError(f"{where} is damaged: {problem}")
        return position

    def _json(self, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
        return records.json_object(metadata[name], f'"{self.file}" is damaged: the entry "{name}"')


def _encoded(at: Position) -> dict[str, Any]:
    """As JSON has it; `parts` where there are any."""
    return records.encode(at, without=() if at.parts else ("parts",))


def _problem(at: Position) -> str:
    """What no run writes, or nothing."""
    counts = (at.epoch, at.step, at.correct, at.best_epoch)
    if not all(0 <= n < 1 << 53 for n in counts) or at.best_epoch > at.epoch:
        return "its counts are out of range"
    parts = [border.accept(float, number) for number in at.parts.values()]
    if not all(number is not None and math.isfinite(number) for number in (at.loss, *parts)):
        return "its losses are no such numbers"
    if not 0.0 <= at.seconds < math.inf:
        return "its seconds are no such number"
    columns = list(at.history.values())
    if at.epoch and not {"loss", "seconds"} <= at.history.keys():
        return "its history lacks the loss or the seconds"
    if not all(isinstance(c, list) and len(c) == at.epoch for c in columns):
        return f"its history is not of {at.epoch} epochs"
    if not all(type(number) in (int, float) for column in columns for number in column):
        return "its history has something else than numbers"
    return ""


def _under(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
