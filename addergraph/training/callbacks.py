"""Code of your own at the seams of a run: `fit(..., callbacks=[MyCallback()])`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import border
from ..errors import DataError, StorageError, UnsupportedError
from ..files.storage import user_path

if TYPE_CHECKING:
    from .trainee import Trainee

Logs = Mapping[str, float]
INSTALL = "pip install 'addergraph[tensorboard]'"


class Callback:
    """Base of every callback: a run calls these methods, which do nothing here.

    `epoch` and `batch` (within its epoch) count from 0, also where a run goes on from a checkpoint.
    `logs` have the numbers that there are: a batch's `learning_rate`, after it its `loss` (before
    the update); after an epoch also what `History` has of it, and the `learning_rate` at its start.

    `model` is the network with its weights as they are, averages aside. `stop_training`, set to
    True, ends the run after the step or the epoch: its checkpoint is written, `on_train_end` is
    called, and `resume` goes on from there. An exception ends the run, too, and comes out of `fit`
    as it is; the last whole step is in the checkpoint.
    """

    model: Trainee
    stop_training: bool = False

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first step of this process; `steps` are those that a checkpoint has."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last one, when the model has its final weights; not after an exception."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before an epoch, or the rest of one."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch, its validation and its checkpoint."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Before a step."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step."""


def require_callbacks(value: object) -> tuple[Callback, ...]:
    """The callbacks of a run; DataError for anything else, such as a class."""
    found = border.accept(Sequence[Callback], value)
    if found is None:
        raise DataError(
            f"callbacks={border.shown(value)}: expected a list of objects of classes that derive "
            "from training.Callback"
        )
    return tuple(found)


class TensorBoard(Callback):
    """Writes the numbers of a run as scalars for TensorBoard (extra `tensorboard`).

        folder  of the event files; each process adds one
        every   also write loss and learning rate of every so many steps, as `batch/loss` and
                `batch/learning_rate`; 0 for none

    An epoch's numbers stand at its number, from 1. Raises UnsupportedError where the package is
    missing, StorageError where the folder cannot be written, both when the run begins.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 0) -> None:
        self.folder = border.path("folder", folder)
        self.every = border.integer("every", every)
        if self.every < 0:
            raise DataError(f"every={self.every} must be 0 or more")
        self._writer: Any = None
        self._steps = 0

    def on_train_begin(self, logs: Logs) -> None:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise UnsupportedError(f"a log for TensorBoard needs its package: {INSTALL}") from None
        try:
            self._writer = EventFileWriter(os.fspath(user_path(self.folder)))
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f'cannot write "{self.folder}": {reason}') from None
        self._steps = int(logs["steps"])

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        self._steps += 1
        if self.every and self._steps % self.every == 0:
            self._write({f"batch/{name}": value for name, value in logs.items()}, self._steps)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._write(logs, epoch + 1)
        self._writer.flush()

    def on_train_end(self, logs: Logs) -> None:
        self._writer.close()

    def _write(self, numbers: Logs, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.add_event(event)
