"""From the arguments of `Model.fit` to its first epoch: everything is checked before any work."""

from __future__ import annotations

import warnings

import numpy as np

from .. import compiler
from ..errors import DataError, RangeWarning
from ..ir import Array
from ..ops.reduction.softmax import Softmax
from .history import History
from .labels import Targets, as_samples, require_trainable, targets_for
from .loop import Validation, run_epochs
from .losses import loss_named
from .settings import Fit
from .step import NATIVE, TrainStep
from .trainee import Trainee

HeldOut = tuple[object, object]  # x and y; both None where there is no validation


def fit(
    model: Trainee,
    samples: Array,
    y: object,
    held_out: HeldOut,
    settings: Fit,
    engine: str,
    threads: int | None,
) -> History:
    """As `Model.fit`, which alone calls it: warnings point at the line that called that."""
    require_trainable(samples)
    model.build(samples.shape[1:])
    targets = targets_for(model, y, len(samples))
    if settings.verbose and engine == NATIVE:
        print("compiling the training step", flush=True)
    validation = _validation(model, held_out, settings, engine, threads)
    _warn(model)
    step = TrainStep(
        model,
        min(settings.batch_size, len(samples)),
        settings.optimizer,
        label_smoothing=settings.label_smoothing,
        gradient=settings.gradient,
        engine=engine,
        threads=threads,
    )
    return run_epochs(step, samples, targets, settings, validation)


def measure(
    model: Trainee, samples: Array, targets: Targets, engine: str, threads: int | None
) -> dict[str, float]:
    """The mean loss of checked data and, where the targets are classes, the accuracy."""
    prediction = model.predict(samples, engine=engine, threads=threads)
    graph = model.graph(training=False)
    last = graph.producers().get(graph.outputs[0])
    probabilities = last is not None and isinstance(last.op, Softmax)
    everything = slice(None)
    loss = loss_named(model.loss_name)
    losses = loss.of_samples(prediction, targets.rows(everything), probabilities)
    result = {"loss": float(np.mean(losses, dtype=np.float64))}
    correct = targets.correct(everything, prediction)
    return result if correct is None else result | {"accuracy": correct / len(samples)}


def _validation(
    model: Trainee, held_out: HeldOut, settings: Fit, engine: str, threads: int | None
) -> Validation | None:
    x, y = held_out
    if x is None and y is None:
        return None
    if x is None or y is None:
        raise DataError("validation needs both x_val and y_val")
    samples = as_samples(x, model.input_shape, "x_val")
    require_trainable(samples, "x_val")
    if settings.normalize is not None:
        samples = settings.normalize.apply(samples)
    targets = targets_for(model, y, len(samples), "y_val")
    if engine == NATIVE:
        model.prepare(len(samples), threads=threads)  # in no epoch's seconds

    def measured() -> dict[str, float]:
        found = measure(model, samples, targets, engine, threads)
        return {f"val_{name}": value for name, value in found.items()}

    return Validation(samples, targets, measured)


def _warn(model: Trainee) -> None:
    for finding in compiler.findings(model.graph(training=False)):
        warnings.warn(str(finding), RangeWarning, stacklevel=4)
