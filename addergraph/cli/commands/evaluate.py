"""`addergraph evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import compiler, zoo
from ...data import Dataset, load
from ...errors import DataError, GraphError
from ...ir import Array
from ...ir.interpreter import run_reference
from ...ir.state import initial_weights
from ...settings import like
from ...training.recipes import Images
from ...training.settings import REFERENCE, Fit
from .. import options as shared
from .images import normalized, warn_of_others
from .source import Source, open_source


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The options of the command."""

    file: str = shared.file("MODEL")
    weights: str | None = shared.weights()
    data: str = shared.data()
    normalize: str = like(Images, "normalize")
    engine: str = like(Fit, "engine", help="")
    threads: int | None = like(Fit, "threads")


def evaluate(options: Evaluation) -> None:
    """Prints how many images get their class, and of a model that is trained on them the loss."""
    if options.file in zoo.NETWORKS and not Path(options.file).exists():
        raise DataError(
            f'the network "{options.file}" starts with random weights, which guess: train it, and '
            "give the model file"
        )
    source = open_source(options.file, options.weights)
    numbers = source.required_weights()
    _require_trained(source)
    data = load(options.data)
    warn_of_others(options.file, source.model or source.quantized, data, options.normalize)
    images, classes, part = _held_out(data)
    images = normalized(images, data, options.normalize)
    if source.model is not None:
        found = source.model.evaluate(
            images, classes, engine=options.engine, threads=options.threads
        )
    else:
        if source.quantized is not None:
            images = source.quantized.inputs(images)
        if options.engine == REFERENCE:
            answers = run_reference(source.graph, [images], numbers)[0][0]
        else:
            program = compiler.compile(source.graph, weights=numbers, threads=options.threads or 1)
            answers = program.run([images])[0]
        found = {"accuracy": _accuracy(source, answers, classes)}
    shown = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"{options.file} on {options.data}, {len(images):,} {part} images: {shown}")


def _require_trained(source: Source) -> None:
    """DataError for a model with the very weights that its seed draws."""
    if source.model is None or not source.graph.parameters:
        return
    drawn = initial_weights(source.graph, source.model.seed)
    if all(np.array_equal(drawn[name], a) for name, a in source.model.weights.items()):
        raise DataError(
            f'"{source.file}" has the random weights that it starts with, which guess: train it'
        )


def _held_out(data: Dataset) -> tuple[Array, Array, str]:
    """The images to test on with their classes; all there are where no part is held out."""
    if len(data.x_test):
        return data.x_test, data.y_test, "test"
    return data.x_train, data.y_train, "training"


def _accuracy(source: Source, answers: Array, classes: Array) -> float:
    """The share of answers, scores [N,T] or class numbers [N], that name the right class."""
    if answers.ndim == 2 and answers.shape[1] > 1:
        if int(classes.max()) >= answers.shape[1]:
            raise DataError(
                f'"{source.file}" has {answers.shape[1]} classes, the images have labels up to '
                f"{int(classes.max())}"
            )
        answers = answers.argmax(axis=1)
    if answers.shape != classes.shape:
        output = source.graph.outputs[0]
        raise GraphError(
            f'"{source.file}" answers with {output}: {output.type}, which are no classes: expected '
            "a score for each class [N,T], or class numbers [N]"
        )
    return float(np.mean(answers == classes))
