"""One training step as a callable, and the epochs that `Model.fit` makes of it."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, GraphError, RangeWarning, nearest
from ..interpreter import run_reference
from ..ir import Array, Graph
from ..state import State, initial_weights
from .history import History
from .labels import Targets, as_samples, as_targets, require_trainable
from .losses import takes_classes
from .optimizers import SGD
from .progress import Progress

if TYPE_CHECKING:
    from ..model import Model

ENGINES = ("native", "reference")
Schedule = float | Callable[[int], float]


def require_engine(engine: str) -> None:
    """GraphError, with the nearest name, unless `engine` is "native" or "reference"."""
    if engine not in ENGINES:
        raise GraphError(
            f'unknown engine "{engine}"{nearest(str(engine), ENGINES)}; known: {", ".join(ENGINES)}'
        )


def thread_count(threads: int | None) -> int:
    """`threads`, or as many as this process may use processors; DataError below 1."""
    if threads is not None:
        return _at_least_one("threads", threads)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compile_silently(graph: Graph, **options: Any) -> Any:
    """`driver.compile` without range warnings: `fit` gave them, for the inference graph."""
    from .. import driver

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        return driver.compile(graph, **options)


def _at_least_one(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise DataError(f"{name}={value!r} must be an integer of at least 1")
    return int(value)


class TrainStep:
    """`loss, prediction = step(x, y, learning_rate)`: one update of the weights of a model.

    Forward, loss, backward and the optimizer's update are one compiled program for each batch
    size, made when that size is first seen; all of them work on one `State`, which also holds the
    optimizer's. `model.weights` are views of it. With several steps of one model each keeps its
    own optimizer state and goes on from the model's weights.
    """

    def __init__(
        self, model: Model, batch: int, optimizer: SGD, engine: str, threads: int | None
    ) -> None:
        require_engine(engine)
        _at_least_one("batch", batch)
        self.model, self.optimizer, self.engine = model, optimizer, engine
        self.threads = thread_count(threads)
        graph = self.graph(batch)
        self._state = State(graph.parameters)
        self._state.load(initial_weights(graph) | model.weights)
        self._weights = {name: self._state.views[name] for name in model.weights}
        self._runs: dict[int, Callable[..., Any]] = {}
        self._run_for(batch, graph)
        model.attach(self._weights)

    def __call__(self, x: object, y: object, learning_rate: float) -> tuple[float, Array]:
        """The mean loss and the predictions, both before the update.

        x and y as `Model.fit` takes them. Raises DataError for data or a learning rate that does
        not fit.
        """
        samples = as_samples(x, self.model.input_shape)
        require_trainable(samples)
        classes = takes_classes(self.model.loss_name)
        targets = as_targets(y, len(samples), self.model.output_shape, classes)
        return self.run(samples, targets.rows(slice(None)), rate_at(learning_rate, 0))

    def graph(self, batch: int) -> Graph:
        """(x, targets, learning_rate) -> (loss, prediction), with updates, for `batch` samples."""
        from .. import driver

        forward = self.model.graph(training=True, batch=batch)
        step: Graph = driver.train_step_graph(forward, self.model.loss_name, self.optimizer)
        return step

    def run(self, x: Array, targets: Array, learning_rate: float) -> tuple[float, Array]:
        """As calling it, for data that is already checked and f32 targets."""
        if self.model.weights is not self._weights:  # another step worked on the model since
            for name, view in self._weights.items():
                view[...] = self.model.weights[name]
            self.model.attach(self._weights)
        run = self._run_for(len(x), None)
        rate = np.asarray(learning_rate, np.float32)
        loss, prediction = run(np.ascontiguousarray(x, np.float32), targets, rate)
        return float(loss), prediction

    def _run_for(self, batch: int, graph: Graph | None) -> Callable[..., Any]:
        if batch not in self._runs:
            self._runs[batch] = self._build(graph or self.graph(batch))
        return self._runs[batch]

    def _build(self, graph: Graph) -> Callable[..., Any]:
        if self.engine == "native":
            return compile_silently(graph, state=self._state, threads=self.threads)  # type: ignore[no-any-return]

        def interpret(*inputs: Array) -> Sequence[Array]:
            outputs, updated = run_reference(graph, inputs, self._state.views)
            for name, value in updated.items():
                self._state.views[name][...] = value
            return outputs

        return interpret


def rate_at(learning_rate: Schedule, epoch: int) -> float:
    """The learning rate of an epoch; DataError unless it is a finite number of at least 0."""
    rate = learning_rate(epoch) if callable(learning_rate) else learning_rate
    if not (isinstance(rate, int | float | np.floating) and 0.0 <= rate < math.inf):
        raise DataError(
            f"the learning rate of epoch {epoch + 1} is {rate!r}; "
            "expected a finite number of at least 0"
        )
    return float(rate)


@dataclass(frozen=True)
class Fit:
    """The settings of one `Model.fit`."""

    epochs: int
    batch_size: int
    learning_rate: Schedule
    shuffle: bool
    seed: int
    verbose: int

    def __post_init__(self) -> None:
        _at_least_one("epochs", self.epochs)
        _at_least_one("batch_size", self.batch_size)
        rate_at(self.learning_rate, 0)


def run_epochs(
    step: TrainStep,
    x: Array,
    targets: Targets,
    settings: Fit,
    validate: Callable[[], Mapping[str, float]] | None,
) -> History:
    """Trains; `validate` gives the `val_` numbers at the end of an epoch.

    Raises DataError when a loss or a weight is no longer finite; the weights are then those of
    the end of the last good epoch.
    """
    history, rng = History(), np.random.default_rng(settings.seed)
    steps = -(-len(x) // settings.batch_size)
    with Progress(settings.epochs, steps, settings.verbose) as progress:
        for epoch in range(settings.epochs):
            start = time.perf_counter()
            order = rng.permutation(len(x)) if settings.shuffle else np.arange(len(x))
            record = _run_epoch(step, x, targets, settings, epoch, order, progress)
            record |= validate() if validate else {}
            record["seconds"] = time.perf_counter() - start
            history.append(record)
            progress.epoch(epoch, record)
    return history


def _run_epoch(
    step: TrainStep,
    x: Array,
    targets: Targets,
    settings: Fit,
    epoch: int,
    order: Array,
    progress: Progress,
) -> dict[str, float]:
    rate = rate_at(settings.learning_rate, epoch)
    before = {name: array.copy() for name, array in step.model.weights.items()}
    total, correct = 0.0, 0
    for start in range(0, len(order), settings.batch_size):
        rows = order[start : start + settings.batch_size]
        loss, prediction = step.run(x[rows], targets.rows(rows), rate)
        if not math.isfinite(loss):
            where = f"step {start // settings.batch_size + 1}: the loss is {loss}"
            _give_up(step.model, before, epoch, where, rate)
        total += loss * len(rows)
        correct += targets.correct(rows, prediction) or 0
        progress.step(epoch, loss)
    for name, array in step.model.weights.items():
        if not np.isfinite(array).all():
            _give_up(step.model, before, epoch, f"{name} holds NaN or Inf after its end", rate)
    accuracy = {} if targets.labels is None else {"accuracy": correct / len(order)}
    return {"loss": total / len(order)} | accuracy


def _give_up(
    model: Model, before: Mapping[str, Array], epoch: int, where: str, rate: float
) -> None:
    model.weights = before
    kept = f"those of the end of epoch {epoch}" if epoch else "those before training"
    raise DataError(
        f"training diverged in epoch {epoch + 1}, {where}; the weights are {kept}. "
        f"Lower the learning rate (it was {rate:g}), or scale the data to about 0..1"
    )
