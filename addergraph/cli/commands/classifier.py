"""A network as what tells classes: images in, scores and probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ... import compiler
from ...errors import GraphError
from ...ir import Array
from ...ir.interpreter import run_reference
from ...ops.reduction.softmax import Softmax
from ...training.losses import CatCrossEntropy
from ...training.settings import REFERENCE
from .source import Source

BLOCK = 4096  # images whose answers are in memory together


class Classifier:
    """What a source, which has its weights, says of images as it takes them (`images.entering`)."""

    def __init__(self, source: Source, engine: str, threads: int | None) -> None:
        self.source = source
        self._engine, self._threads = engine, threads
        self._run: Callable[[Array], Array] | None = None

    def answers(self, images: Array) -> Array:
        """Scores [N,T] or class numbers [N]; those of an int8 network are its integers."""
        if self._run is None:
            self._run = self._runner()
        return self._run(images)

    def in_blocks(self, images: Array) -> Iterator[tuple[slice, Array]]:
        """The answers to all images, some at a time where they do not depend on one another."""
        size = BLOCK if self.source.graph.per_sample else max(len(images), 1)
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            yield rows, self.answers(images[rows])

    def probabilities(self, answers: Array) -> Array:
        """f32[N,T]: the softmax of the scores, real numbers, unless the network ends in one."""
        source = self.source
        scores = answers if source.quantized is None else source.quantized.outputs(answers)
        if CatCrossEntropy().finishes(source.graph):
            return scores
        return Softmax().reference(scores.astype(np.float32))[0]

    def require_scores(self, answers: Array, count: int) -> None:
        """GraphError unless these are answers that tell the classes of `count` images."""
        if answers.shape == (count,) and answers.dtype.kind in "iu":
            return
        if answers.ndim == 2 and len(answers) == count and answers.shape[1] > 1:
            return
        output = self.source.graph.outputs[0]
        raise GraphError(
            f'"{self.source.file}" answers with {output}: {output.type}, which are no classes: '
            "expected a score for each class [N,T], or class numbers [N]"
        )

    def _runner(self) -> Callable[[Array], Array]:
        source, engine, threads = self.source, self._engine, self._threads
        if (model := source.model) is not None:
            return lambda x: model.predict(x, engine=engine, threads=threads)
        enter = (lambda x: x) if source.quantized is None else source.quantized.inputs
        numbers = source.required_weights()
        if engine == REFERENCE:
            return lambda x: run_reference(source.graph, [enter(x)], numbers)[0][0]
        program = compiler.compile(source.graph, weights=numbers, threads=threads or 1)
        return lambda x: program.run([enter(x)])[0]
