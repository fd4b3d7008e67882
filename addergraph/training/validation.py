"""The loss and the accuracy of data that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import border
from ..errors import DataError, UnsupportedError
from ..ir import Array
from .labels import Targets, count_of, require_trainable, targets_for
from .losses import LOST
from .objective import objective_of
from .replicas import Replicas
from .settings import NATIVE, Fit
from .trainee import Trainee

HeldOut = tuple[object, object]  # x and y; both None where there is no validation
Observer = Callable[[slice, Any], None]  # of the rows of some samples, and their answers
MEASURED = 4096  # samples whose answers are in memory together


@dataclass(frozen=True)
class Validation:
    """Data that are held out, as the model takes them, and what gives their `val_` numbers."""

    inputs: Mapping[str, Array]
    targets: Mapping[str, Targets]
    measure: Callable[[], Mapping[str, float]]


def measure(
    model: Trainee,
    inputs: Mapping[str, Array],
    targets: Mapping[str, Targets],
    engine: str,
    threads: int | None,
    observe: Observer | None = None,
    replicas: Replicas | None = None,
) -> dict[str, float]:
    """The mean loss of checked data and, where the targets are classes, the accuracy; of several
    outputs also those of each.

    Where samples are independent, some at a time: the answers of all of them may be large. Of
    several `replicas` each then answers for its share of them.
    """
    graph, objective, count = model.graph(training=False), objective_of(model), count_of(inputs)
    told = [name for name, loss in objective.losses.items() if loss.is_known]
    hits = {name: 0 for name, one in targets.items() if one.labels is not None}
    if not told and not hits:
        raise UnsupportedError(LOST)
    rows: dict[str, list[Array]] = {name: [] for name in told}
    size = MEASURED if graph.per_sample else count
    shared = replicas if graph.per_sample else None
    span = slice(0, count) if shared is None else shared.rows(count)
    for start in range(span.start, span.stop, size):
        part = slice(start, min(start + size, span.stop))
        some = border.bare({name: samples[part] for name, samples in inputs.items()})
        answers = model.predict(some, engine=engine, threads=threads)
        if observe is not None:
            observe(part, answers)
        predictions = border.by_name("the answers", answers, [*targets])
        for number, (name, prediction) in enumerate(predictions.items()):
            loss, wanted = objective.losses[name], targets[name]
            if name in rows:
                finished = loss.finishes(graph, number)
                rows[name].append(loss.of_samples(prediction, wanted.rows(part), finished))
            if name in hits:
                hits[name] += wanted.correct(part, prediction) or 0
    each = {name: np.concatenate(r or [np.zeros(0, np.float32)]) for name, r in rows.items()}
    if shared is not None:
        each = {name: shared.concatenated(r, count) for name, r in each.items()}
        hits = shared.total(hits)
    losses = {n: float(np.mean(r, dtype=np.float64)) for n, r in each.items()}
    result = {objective.column(name, "loss"): loss for name, loss in losses.items()}
    if len(told) == len(targets):
        result = {"loss": sum(objective.weights[n] * losses[n] for n in told)} | result
    return result | {objective.column(n, "accuracy"): hit / count for n, hit in hits.items()}


def validation_of(
    model: Trainee, held_out: HeldOut, settings: Fit, replicas: Replicas
) -> Validation | None:
    """The held-out data, checked; None where there are none. DataError where they do not fit."""
    (x, y), engine, threads = held_out, settings.engine, settings.threads
    if x is None and y is None:
        return None
    if x is None or y is None:
        raise DataError("validation needs both x_val and y_val")
    inputs = model.inputs(x, "x_val")
    require_trainable(inputs, "x_val")
    targets = targets_for(model, y, count_of(inputs), "y_val")
    if engine == NATIVE:
        model.prepare(count_of(inputs) // replicas.size, threads=threads)  # in no epoch's seconds

    def measured() -> dict[str, float]:
        found = measure(model, inputs, targets, engine, threads, replicas=replicas)
        return {f"val_{name}": value for name, value in found.items()}

    return Validation(inputs, targets, measured)
