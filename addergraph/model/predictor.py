"""What a model does with its weights: it answers samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import border, display
from ..data.preprocessing import Preprocessing
from ..errors import AdderGraphError, DataError, GraphError, UnsupportedError
from ..ir import Array, Graph
from ..ir.interpreter import run_reference
from ..ops.pointwise.fake_quantize import unrounded
from ..report.drawing import drawn
from ..report.summary import layer_table, training_only
from ..settings import integer
from ..training.labels import count_of, inputs_of
from ..training.settings import REFERENCE, require_engine
from ..training.step import thread_count
from .pixels import with_preprocessing
from .programs import Programs
from .samples import Shapes, shapes_of, the_only, warn_of_bytes

CHUNK = 1024  # samples that are converted to f32 and predicted at a time


class Predictor(ABC):
    """The half of `Model` that predicts; `Model` says what the network is and has its weights."""

    _input_shapes: Shapes | None
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
    def build(self, input_shape: object) -> None:
        """Fixes the shape of a sample, and draws weights."""

    @abstractmethod
    def _input_names(self) -> list[str]:
        """In order."""

    @property
    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """By name of the parameter."""

    @property
    def input_shapes(self) -> Shapes:
        """The shape of one sample of each input, by its name; GraphError while they are unknown."""
        if self._input_shapes is None:
            hint = "pass input_shape=(8, 8, 1) to Model, or call model.build((8, 8, 1)) or fit"
            raise GraphError(f"the model does not know its input yet: {hint}")
        return dict(self._input_shapes)

    @property
    def output_shapes(self) -> Shapes:
        """The shape of one answer of each output, by its name."""
        return shapes_of(self.graph(training=False).outputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample; GraphError while it is unknown, UnsupportedError where there
        are several inputs."""
        return the_only(self.input_shapes, "input")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one answer; UnsupportedError where there are several outputs."""
        return the_only(self.output_shapes, "output")

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
        if value is not None and self._input_shapes is not None:
            value.input_of(self._input_shapes)
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
            image = self._preprocessing.input_of(self.input_shapes)
            self._entry = with_preprocessing(graph, self._preprocessing, image)
        return self._entry

    def predict(self, x: object, *, engine: str = "native", threads: int | None = None) -> Any:
        """The answers for samples `x`, f32[N,...]; of several outputs a dict of them by name, in
        the order of the outputs. No samples give no answers.

        `x` are images as they are where the model has a `preprocessing`, else what the network
        takes, of which NaN and Inf are values like any other; of several inputs, a dict of them by
        name, or a tuple in order. Raises DataError for samples of another shape, or that are no
        pixels, and for inputs of different numbers of samples.
        """
        require_engine(engine)
        inputs = self.inputs(x)
        warn_of_bytes(inputs, self._preprocessing)
        return border.bare(self._answers(inputs, engine, threads))

    def _answers(
        self, inputs: Mapping[str, Array], engine: str, threads: int | None
    ) -> dict[str, Array]:
        if not (count := count_of(inputs)):
            return {n: np.zeros((0, *s), np.float32) for n, s in self.output_shapes.items()}
        graph = self._graph_for(count)
        run, size = self._runner(graph, engine, threads), CHUNK if graph.is_open else count
        parts = [
            run(
                [
                    np.ascontiguousarray(samples[start : start + size], v.type.dtype.numpy)
                    for v, samples in zip(graph.inputs, inputs.values(), strict=True)
                ]
            )
            for start in range(0, count, size)
        ]
        whole = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return {v.name: array for v, array in zip(graph.outputs, whole, strict=True)}

    def entering(self, x: object) -> Any:
        """Samples `x` as the layers take them: by the `preprocessing`, where there is one. An
        array; of several inputs a dict of them."""
        inputs = self.inputs(x, known=False)
        if (known := self._preprocessing) is not None:
            image = known.input_of({n: a.shape[1:] for n, a in inputs.items()})
            inputs[image] = known.apply(inputs[image])
        return border.bare(inputs)

    def prepare(self, samples: int, *, threads: int | None = None) -> None:
        """Compiles now what `predict` and `evaluate` need for so many samples; not the code for
        blocks, which a program compiles when such calls have taken long enough (`Program`)."""
        self._program(self._graph_for(integer("samples", samples, 0)), thread_count(threads))

    def _graph_for(self, samples: int) -> Graph:
        """The inference graph, bound where it does not compute its samples one by one."""
        graph = self.inference_graph()
        return graph if graph.per_sample else graph.bind(samples)

    def inputs(self, x: object, what: str = "x", *, known: bool = True) -> dict[str, Array]:
        """Every input by its name, one sample a row, as pixels where the model knows what these
        are. GraphError where `input_shapes` are unknown and have to be `known`."""
        shapes = self.input_shapes if border.flag("known", known) else self._input_shapes
        found = inputs_of(x, self._input_names() if shapes is None else [*shapes], shapes, what)
        if (pixels := self._preprocessing) is not None:
            image = pixels.input_of({n: a.shape[1:] for n, a in found.items()})
            found[image] = pixels.pixels(found[image], border.called(what, image, found))
        return found

    def _runner(
        self, graph: Graph, engine: str, threads: int | None
    ) -> Callable[[list[Array]], Sequence[Array]]:
        """The network with the weights as they are now."""
        if engine != REFERENCE:
            return self._program(graph, thread_count(threads)).run  # type: ignore[no-any-return]
        weights = self.inference_weights()
        return lambda inputs: run_reference(graph, inputs, weights)[0]

    def _program(self, graph: Graph, threads: int) -> Any:
        """The compiled network, with the weights as they are now."""
        if self._weights is None:
            self.build(self.input_shapes)
        entry = self._inference()[1]
        return self._programs.program(graph, threads, lambda: self._weights or {}, entry)
