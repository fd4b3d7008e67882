"""What a model does with its weights: it answers samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import border, display
from ..data.preprocessing import Preprocessing
from ..errors import AdderGraphError, DataError, UnsupportedError
from ..ir import Array, Graph
from ..ir.interpreter import run_reference
from ..ops.pointwise.fake_quantize import unrounded
from ..report.drawing import drawn
from ..report.summary import layer_table, training_only
from ..settings import integer
from ..training.labels import as_samples
from ..training.settings import REFERENCE, require_engine
from ..training.step import thread_count
from .pixels import with_preprocessing
from .programs import Programs
from .samples import warn_of_bytes

CHUNK = 1024  # samples that are converted to f32 and predicted at a time


class Predictor(ABC):
    """The half of `Model` that predicts; `Model` says what the network is and has its weights."""

    _input_shape: tuple[int, ...] | None
    _weights: dict[str, Array] | None

    def __init__(self, preprocessing: Preprocessing | None) -> None:
        self._programs = Programs()
        self._preprocessing: Preprocessing | None = None
        self._entry: tuple[Graph, dict[str, Array]] | None = None  # graph with preprocessing
        self.preprocessing = preprocessing

    @abstractmethod
    def graph(self, training: bool, batch: int | None = None) -> Graph:
        """The network; see `Model`."""

    @abstractmethod
    def build(self, input_shape: Sequence[int]) -> None:
        """Fixes the shape of a sample, and draws weights."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""

    @property
    @abstractmethod
    def output_shape(self) -> tuple[int, ...]:
        """Of one answer."""

    @property
    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """By name of the parameter."""

    def _repr_html_(self) -> str:
        known = "" if self.preprocessing is None else display.text(str(self.preprocessing))
        try:
            graph = self.inference_graph()
        except AdderGraphError as error:  # no layers or no shape yet
            return display.head(self) + known + display.text(str(error))
        layers = display.table(layer_table(graph, self._weights or {}))
        layers += "".join(map(display.text, self.training_only()))
        return display.head(self) + known + layers + display.folded("graph", drawn(graph))

    def training_only(self) -> list[str]:
        """A line of the dropouts, which inference graphs do not show, or of why it cannot train."""
        try:
            return training_only(self.graph(training=True, batch=2))
        except UnsupportedError:  # a file that holds no training form
            return []
        except AdderGraphError as error:
            return [f"cannot train: {error}"]

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What a pixel is; None where nobody said. Assigning raises DataError for other channels,
        and for another equation where the image is rounded on the grid of this one."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing | None) -> None:
        value = border.plain(Preprocessing | None, "preprocessing", value)
        if value is not None and self._input_shape is not None:
            value.require_shape(self._input_shape)
        if value is not None and self._preprocessing is not None:
            self._require_grid(self._preprocessing, value)
        if value != self._preprocessing:
            self._preprocessing, self._entry, self._programs = value, None, Programs()

    def _require_grid(self, old: Preprocessing, new: Preprocessing) -> None:
        same = (old.normalize, old.dtype) == (new.normalize, new.dtype)
        if same or self._weights is None:
            return
        graph = self.graph(training=False)
        if not set(graph.inputs).isdisjoint(unrounded(graph).values()):
            raise DataError(
                f"this model is quantization-aware and rounds images to the grid of: {old}. "
                f"It would keep it, and the new preprocessing is: {new}. Assign it to the model "
                "before ag.quantization_aware"
            )

    def inference_graph(self) -> Graph:
        """The graph that predicts, with an open batch: it takes pixels where the model knows what
        they are, else what `graph(training=False)` takes."""
        return self._inference()[0]

    def inference_weights(self) -> dict[str, Array]:
        """The numbers of the parameters of `inference_graph`: `weights` and the preprocessing's."""
        return self.weights | self._inference()[1]

    def _inference(self) -> tuple[Graph, dict[str, Array]]:
        graph = self.graph(training=False)
        if self._preprocessing is None:
            return graph, {}
        if self._entry is None:
            self._entry = with_preprocessing(graph, self._preprocessing)
        return self._entry

    def predict(self, x: object, *, engine: str = "native", threads: int | None = None) -> Array:
        """The answers for samples `x`, f32[N,...]; no samples give no answers.

        `x` are images as they are where the model has a `preprocessing`, else what the network
        takes, of which NaN and Inf are values like any other. Raises DataError for samples of
        another shape, or that are no pixels.
        """
        require_engine(engine)
        samples = self._samples(x, self.input_shape)
        warn_of_bytes(samples, self._preprocessing)
        if not len(samples):
            return np.zeros((0, *self.output_shape), np.float32)
        graph = self._graph_for(len(samples))
        dtype = graph.inputs[0].type.dtype.numpy
        run, size = self._runner(graph, engine, threads), CHUNK if graph.is_open else len(samples)
        parts = [
            run(np.ascontiguousarray(samples[start : start + size], dtype))
            for start in range(0, len(samples), size)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def entering(self, x: object) -> Array:
        """Samples `x` as the layers take them: by the `preprocessing`, where there is one."""
        samples = self._samples(x, self._input_shape)
        return samples if self._preprocessing is None else self._preprocessing.apply(samples)

    def prepare(self, samples: int, *, threads: int | None = None) -> None:
        """Compiles now what `predict` and `evaluate` need for so many samples."""
        self._program(self._graph_for(integer("samples", samples, 0)), thread_count(threads))

    def _graph_for(self, samples: int) -> Graph:
        """The inference graph, bound where it does not compute its samples one by one."""
        graph = self.inference_graph()
        return graph if graph.per_sample else graph.bind(samples)

    def _samples(self, x: object, shape: Sequence[int] | None, what: str = "x") -> Array:
        """`x`, one sample a row, as pixels where the model knows what these are."""
        samples = as_samples(x, shape, what)
        known = self._preprocessing
        return samples if known is None else known.pixels(samples, what)

    def _runner(self, graph: Graph, engine: str, threads: int | None) -> Callable[[Array], Array]:
        """The network with the weights as they are now."""
        if engine != REFERENCE:
            return self._program(graph, thread_count(threads))  # type: ignore[no-any-return]
        weights = self.inference_weights()
        return lambda x: run_reference(graph, [x], weights)[0][0]

    def _program(self, graph: Graph, threads: int) -> Any:
        """The compiled network, with the weights as they are now."""
        if self._weights is None:
            self.build(self.input_shape)
        entry = self._inference()[1]
        return self._programs.program(graph, threads, lambda: self._weights or {}, entry)
