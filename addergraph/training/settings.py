"""The settings of one `Model.fit`: each is declared here, and checked before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from .. import border
from ..errors import DataError, GraphError, ShapeError
from ..ir.attributes import FULL_PRECISION, GRADIENTS
from ..settings import MOST_THREADS, require_valid, setting, settings_of
from .callbacks import Callback, require_callbacks
from .optimizers import SGD, Optimizer
from .replicas import MOST_PARTS, Communicator, require_communicator
from .schedules import Schedule

if TYPE_CHECKING:
    from ..data import Augment, Normalize

Rate = float | Schedule | Callable[[int], float]

NATIVE, REFERENCE = "native", "reference"
ENGINES = (NATIVE, REFERENCE)
LOCAL, SYNCHRONIZED = "local", "synchronized"  # batch statistics
DEFAULT_OPTIMIZER = SGD()
LARGEST_RATE = float(np.finfo(np.float32).max)
MOST_EPOCHS = 1_000_000
MOST_SPARSITY = 0.95  # every layer keeps some taps

# They change no bit of the epochs that there are; the engine is told by the step.
_CHANGE_NOTHING = {
    "epochs", "patience", "checkpoint", "checkpoint_steps", "resume", "engine", "threads",
    "verbose", "callbacks", "communicator",
}  # fmt: skip
# Bits of one process do not depend on them, nor do checkpoints of it have them.
_OF_PARTS = {"deterministic": 0, "batch_statistics": LOCAL}


def require_optimizer(value: object) -> None:
    """DataError for anything but a description of an optimizer."""
    if not isinstance(value, Optimizer):
        raise DataError(
            f"optimizer={border.shown(value)}: expected a description of one, such as "
            "training.SGD() or training.Adam()"
        )


def require_engine(engine: object) -> None:
    """GraphError, with the nearest name, unless `engine` is "native" or "reference"."""
    settings_of(Fit)["engine"].require("engine", engine)


def rate_at(learning_rate: Rate, epoch: int, fraction: float = 0.0) -> float:
    """The learning rate after a fraction of an epoch (from 0); functions see whole epochs.

    Raises DataError unless it is a finite number of at least 0.
    """
    if isinstance(learning_rate, Schedule):
        rate: object = learning_rate(epoch + fraction)
    else:
        rate = learning_rate(epoch) if callable(learning_rate) else learning_rate
    found = border.accept(float, rate)
    if found is None or not 0.0 <= found <= LARGEST_RATE:
        raise DataError(
            f"the learning rate of epoch {epoch + 1} is {border.shown(rate)}; "
            "expected a finite number of at least 0 that f32 holds"
        )
    return float(found)


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The settings that go with a method and no run: those that a recipe has."""

    epochs: int = setting(1, "How often each sample is seen.", least=1, most=MOST_EPOCHS)
    batch_size: int = setting(32, "Samples of a step.", least=1, name="batch")
    label_smoothing: float = setting(
        0.0, "Share of a label that is spread over all classes.", least=0, below=1
    )
    gradient: str = setting(
        FULL_PRECISION, "Rule of adder layers.", choices=tuple(GRADIENTS), error=ShapeError
    )
    patience: int = setting(
        0, "Stop after so many epochs without a better one; 0 for never.", least=0
    )
    keep_best: bool = setting(False, "End with the weights of the best epoch.")
    batch_norm_samples: int = setting(
        1024,
        "Samples by which batch norms estimate their statistics before validation, and at the end; "
        "0 for the running ones.",
        least=0,
    )
    sparsity: float = setting(
        0.0,
        "Share of the taps of adder layers that shall need no work in the end; 0 leaves them as "
        "they come, about one half.",
        least=0,
        most=MOST_SPARSITY,
    )
    sparsity_end: float = setting(0.5, "Part of the run that this takes.", above=0, most=1)
    optimizer: Optimizer = DEFAULT_OPTIMIZER

    def __post_init__(self) -> None:
        require_valid(self)
        require_optimizer(self.optimizer)


@dataclass(frozen=True, kw_only=True)
class Fit(Learning):
    """The settings of one `Model.fit`, where they are described; DataError for what may not be.

    A learning rate may be 0 in some epochs, but not in all: nothing would be learned.
    """

    learning_rate: Rate = 0.1
    augment: Augment | None = None
    normalize: Normalize | None = None
    shuffle: bool = True
    seed: int = setting(
        0, "Of the order of the samples, their augmentation, and dropouts.", least=0
    )
    checkpoint: str | os.PathLike[str] | None = setting(
        None, "Checkpoints after each epoch, log.csv and log.jsonl.", unset="none", metavar="FOLDER"
    )
    checkpoint_steps: int = setting(
        0, "Also write a checkpoint every STEPS steps.", least=0, metavar="STEPS"
    )
    resume: bool = setting(False, "Go on from the checkpoint, if there is one.")
    engine: str = setting(
        NATIVE,
        "Compiled code, or the same training step in NumPy (slow).",
        choices=ENGINES,
        error=GraphError,
    )
    threads: int | None = setting(
        None, "Threads to use.", kind=int, least=1, most=MOST_THREADS, unset="all processors"
    )
    deterministic: int = setting(
        0,
        "Cut each batch into so many parts and add them in order: the same bits for any number of "
        "processes that divides it; 4 without a value. 0: a part for each process.",
        least=0,
        most=MOST_PARTS,
        metavar="PARTS",
        alone=4,
    )
    batch_statistics: str = setting(
        LOCAL,
        "Batch norms of several parts take the statistics of each part, or those of the batch.",
        choices=(LOCAL, SYNCHRONIZED),
    )
    communicator: Communicator | None = None
    verbose: int = 1
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_communicator(self.communicator)
        object.__setattr__(self, "callbacks", require_callbacks(self.callbacks))
        _require_preparation(self.augment, self.normalize)
        object.__setattr__(self, "shuffle", border.flag("shuffle", self.shuffle))
        verbose = border.plain(int | bool, "verbose", self.verbose)
        object.__setattr__(self, "verbose", int(verbose))
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", border.path("checkpoint", self.checkpoint))
        if self.checkpoint is None and (self.resume or self.checkpoint_steps):
            raise DataError("resume and checkpoint_steps need checkpoint=, the folder to use")
        if isinstance(self.learning_rate, Schedule):
            return  # starts above 0
        if not callable(self.learning_rate):  # 1 and 1.0 are one rate, also when a run goes on
            object.__setattr__(self, "learning_rate", rate_at(self.learning_rate, 0))
        if not any([rate_at(self.learning_rate, epoch) for epoch in range(self.epochs)]):
            raise DataError(
                f"the learning rate is 0 in all {self.epochs} epochs: nothing would be learned; "
                "expected a number above 0, such as 0.1"
            )

    def description(self) -> dict[str, str]:
        """What decides the bits of a run, beside the network and the data, as text by name.

        The number of epochs is no part of it, but for `sparsity`: a run may be made longer. Nor is
        the number of processes: another number may go on.
        """
        unsaid = [name for name, usual in _OF_PARTS.items() if getattr(self, name) == usual]
        names = [f.name for f in fields(self) if f.name not in {*_CHANGE_NOTHING, *unsaid}]
        decided = {name: repr(getattr(self, name)) for name in names}
        if self.sparsity:
            decided["sparsity"] += f" in a run of {self.epochs} epochs"
        return decided | {"learning_rate": _described(self.learning_rate)}


def _require_preparation(augment: object, normalize: object) -> None:
    """DataError unless both are descriptions of what happens to images, or None."""
    if augment is None and normalize is None:
        return
    from ..data import Augment, Normalize

    for name, value, kind, example in (
        ("augment", augment, Augment, "Augment(padding=4, flip=0.5)"),
        ("normalize", normalize, Normalize, "data.normalize()"),
    ):
        if not (value is None or isinstance(value, kind)):
            what = f"addergraph.data.{kind.__name__}"
            raise DataError(
                f"{name}={border.shown(value)}: expected None or {what}, such as {example}"
            )


def _described(rate: Rate) -> str:
    if isinstance(rate, Schedule) or not callable(rate):
        return repr(rate)
    return f"the function {getattr(rate, '__qualname__', type(rate).__qualname__)}"
