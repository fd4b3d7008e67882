"""The loss and the accuracy of data that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, UnsupportedError
from ..ir import Array
from .labels import Targets, as_samples, require_trainable, targets_for
from .losses import CUSTOM, LOST, loss_of
from .settings import NATIVE, Fit
from .trainee import Trainee

HeldOut = tuple[object, object]  # x and y; both None where there is no validation
Observer = Callable[[slice, Array], None]  # of the rows of some samples, and their answers
MEASURED = 4096  # samples whose answers are in memory together


@dataclass(frozen=True)
class Validation:
    """Data that are held out, as the model takes them, and what gives their `val_` numbers."""

    samples: Array
    targets: Targets
    measure: Callable[[], Mapping[str, float]]


def measure(
    model: Trainee,
    samples: Array,
    targets: Targets,
    engine: str,
    threads: int | None,
    observe: Observer | None = None,
) -> dict[str, float]:
    """The mean loss of checked data and, where the targets are classes, the accuracy.

    Where samples are independent, some at a time: the answers of all of them may be large.
    """
    graph = model.graph(training=False)
    loss, losses, correct = loss_of(model.loss), [], 0
    finished, told = loss.finishes(graph), model.loss != CUSTOM
    if not told and targets.labels is None:
        raise UnsupportedError(LOST)
    size = MEASURED if graph.per_sample else len(samples)
    for start in range(0, len(samples), size):
        part = slice(start, start + size)
        prediction = model.predict(samples[part], engine=engine, threads=threads)
        if observe is not None:
            observe(part, prediction)
        if told:
            losses.append(loss.of_samples(prediction, targets.rows(part), finished))
        correct += targets.correct(part, prediction) or 0
    result = {}
    if told:
        result["loss"] = float(np.mean(np.concatenate(losses), dtype=np.float64))
    return result if targets.labels is None else result | {"accuracy": correct / len(samples)}


def validation_of(model: Trainee, held_out: HeldOut, settings: Fit) -> Validation | None:
    """The held-out data, checked; None where there are none. DataError where they do not fit."""
    (x, y), engine, threads = held_out, settings.engine, settings.threads
    if x is None and y is None:
        return None
    if x is None or y is None:
        raise DataError("validation needs both x_val and y_val")
    samples = as_samples(x, model.input_shape, "x_val")
    if model.preprocessing is not None:
        samples = model.preprocessing.pixels(samples, "x_val")
    require_trainable(samples, "x_val")
    targets = targets_for(model, y, len(samples), "y_val")
    if engine == NATIVE:
        model.prepare(len(samples), threads=threads)  # in no epoch's seconds

    def measured() -> dict[str, float]:
        found = measure(model, samples, targets, engine, threads)
        return {f"val_{name}": value for name, value in found.items()}

    return Validation(samples, targets, measured)
