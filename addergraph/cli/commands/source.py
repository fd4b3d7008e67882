"""What the FILE of a command is: a model or a quantized network in a file, the text of a graph, or
the name of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import zoo
from ...data import Dataset, Preprocessing
from ...data.npz import read_npz
from ...errors import DataError, ParseError, StorageError, UnsupportedError, nearest
from ...files import storage
from ...ir import Array, Graph
from ...ir.state import bind_weights, initial_weights
from ...ir.text import parse
from ...model import Model
from ...model.samples import Shapes, shapes_of, the_only
from ...quantization import Quantized, is_quantized, load_quantized
from ...zoo.networks import network_named


@dataclass(frozen=True)
class Source:
    """An inference graph with its numbers; `weights` is None where none were given."""

    file: str
    graph: Graph
    weights: Mapping[str, Array] | None
    model: Model | None
    quantized: Quantized | None = None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What a pixel is, as far as the file says."""
        known = self.model or self.quantized
        return None if known is None else known.preprocessing

    def class_names(self, count: int, otherwise: Sequence[str] | None = None) -> list[str]:
        """Names of so many classes: those of the file, `otherwise`, or numbers."""
        known = None if self.preprocessing is None else self.preprocessing.classes
        for names in (known, otherwise):
            if names is not None and len(names) == count:
                return list(names)
        return [str(number) for number in range(count)]

    def required_weights(self) -> Mapping[str, Array]:
        """The weights; DataError where the graph has parameters and none were given."""
        if self.weights is None and self.graph.parameters:
            raise DataError(
                f'"{self.file}" has parameters: give their numbers as --weights file.npz, with an '
                f'array for each, such as "{self.graph.parameters[0].name}"'
            )
        return self.weights or {}

    def some_weights(self, seed: int = 0) -> tuple[Mapping[str, Array], str]:
        """The weights, drawn by their `init` where none were given; and a note that says so."""
        if self.weights is not None or not self.graph.parameters:
            return self.weights or {}, ""
        note = f"note: no --weights, so they are drawn as the graph says (seed {seed})"
        return initial_weights(self.graph, seed), note


def of_model(file: str, model: Model) -> Source:
    """The model as a source; its graph takes pixels where it knows what they are."""
    return Source(file, model.inference_graph(), model.inference_weights(), model)


def open_source(
    file: str, weights: str | None = None, first: str | None = None, last: str | None = None
) -> Source:
    """Reads FILE and, for the text of a graph, its weights from an `.npz` file; `first` and `last`
    are options of networks that are called by name.

    Raises StorageError where a file cannot be read or is of no known kind, ParseError for text that
    is no graph, DataError or ShapeError for weights that do not fit.
    """
    if file in zoo.NETWORKS and not Path(file).exists():
        _refuse(weights, f'the network "{file}" starts with random weights')
        return of_model(file, zoo.build(file, first=first, last=last))
    _refuse_ends(file, first, last)
    if storage.is_tensor_file(file):
        _refuse(weights, f'the model file "{file}" holds its weights')
        _, metadata = storage.load(file)
        if is_quantized(metadata):
            made = load_quantized(file)
            return Source(file, made.graph, made.weights, None, made)
        return of_model(file, Model.load(file))
    if Path(file).suffix == ".onnx":
        raise StorageError(
            f'"{file}" is an ONNX model; make a model file of it: addergraph import {file} -o '
            f"{Path(file).stem}.safetensors"
        )
    if Path(file).suffix != ".ag":
        known = ", ".join(zoo.NETWORKS)
        raise StorageError(
            f'"{file}": expected a model file (.safetensors), the text of a graph (.ag), or the '
            f"name of a network{nearest(file, zoo.NETWORKS)}: {known}"
        )
    graph = _parsed(file)
    return Source(file, graph, None if weights is None else _read_weights(graph, weights), None)


def open_trained(file: str, weights: str | None = None, *, classes: bool = True) -> Source:
    """`open_source` for what is asked of a trained network alone; DataError for a network by name,
    missing weights, and a model with the very weights that its seed draws; UnsupportedError for
    several inputs or outputs where it is to tell `classes` of images."""
    if file in zoo.NETWORKS and not Path(file).exists():
        raise DataError(
            f'the network "{file}" starts with random weights, which guess: train it, and give the '
            "model file"
        )
    source = open_source(file, weights)
    source.required_weights()
    if classes:
        _require_one_of_each(shapes_of(source.graph.inputs), shapes_of(source.graph.outputs))
    model = source.model
    if model is None or not source.graph.parameters:
        return source
    drawn = initial_weights(model.graph(training=False), model.seed)
    if all(np.array_equal(drawn[name], a) for name, a in model.weights.items()):
        raise DataError(
            f'"{source.file}" has the random weights that it starts with, which guess: train it'
        )
    return source


def model_in_file(network: str) -> Model | None:
    """The model of a file, before data are read for it; None for a built-in network. StorageError
    for a model file that cannot be read, GraphError for the name of no network, UnsupportedError
    for the text of a graph."""
    if storage.is_tensor_file(network):
        model = Model.load(network)
        _require_one_of_each(model.input_shapes, model.output_shapes)
        return model
    if Path(network).suffix == ".ag":
        raise UnsupportedError(
            f'"{network}" is the text of a graph, which says nothing of training (batch '
            "statistics, loss): build the network as a model in Python, or give a model file or "
            "the name of a network"
        )
    network_named(network)
    return None


def _require_one_of_each(inputs: Shapes, outputs: Shapes) -> None:
    """UnsupportedError where there are several: data sets have images and one label for each."""
    for shapes, what in ((inputs, "input"), (outputs, "output")):
        if len(shapes) > 1:
            the_only(shapes, what)


def model_for(
    network: str,
    trained: Model | None,
    data: Dataset,
    seed: int = 0,
    first: str | None = None,
    last: str | None = None,
) -> Model:
    """The model that `model_in_file` found, or a new network by name with the shape and the classes
    of `data`."""
    if trained is not None:
        _refuse_ends(network, first, last)
        return trained
    return zoo.build(network, data.shape, data.class_count, seed, first=first, last=last)


def _refuse_ends(file: str, first: str | None, last: str | None) -> None:
    if (first, last) != (None, None):
        raise DataError(
            f'--first and --last go with the name of a built-in network; the layers of "{file}" '
            "are what they are"
        )


def _refuse(weights: str | None, why: str) -> None:
    if weights is not None:
        raise DataError(f"--weights goes with the text of a graph only; {why}")


def _parsed(file: str) -> Graph:
    try:
        text = storage.read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StorageError(f'"{file}" is not text (byte {error.start} is no UTF-8)') from None
    try:
        return parse(text)
    except ParseError as error:
        raise ParseError(f'"{file}", {error}') from None


def _read_weights(graph: Graph, file: str) -> Mapping[str, Array]:
    names = [p.name for p in graph.parameters]
    found = dict(zip(names, read_npz(file, *names), strict=True))
    return bind_weights(f'"{file}"', graph.parameters, found)
