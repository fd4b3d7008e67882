"""What a model file says beside the weights, and how it becomes a model again.

Metadata (text, all covered by the file's checksum):

    format   "addergraph.model"
    version  "1"
    graph    the inference graph, as text
    model    JSON: name, seed, loss_name, input_shape, layers
    preprocessing  JSON, where known: normalize (mean, std, scale), dtype, channels, classes

`layers` is as in `descriptions.py`. It is null for a model that was made from a Python function: a
file holds no code, so such a model loads with its inference graph, and trains on by `momentum`:

    momentum JSON, of a function alone: that of each batch norm, by its name; see `replay.py`
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import border
from ..data import preprocessing
from ..errors import AdderGraphError, GraphError, StorageError
from ..files import records, storage
from ..ir import Graph
from ..ir.text import parse
from ..layers.descriptions import describe, restore
from ..ops.pointwise.fake_quantize import stated
from .freezing import frozen_names
from .replay import momenta_of

if TYPE_CHECKING:
    from .model import Model

FORMAT, VERSION = "addergraph.model", "1"
_ENTRIES = ("graph", "model")
MOMENTUM = "momentum"


@dataclass(frozen=True)
class _Description:
    """The entry `model`."""

    name: str
    seed: int
    loss_name: str
    input_shape: list[int]
    layers: list[Any] | None


def require_writable_model(path: str | os.PathLike[str]) -> None:
    """StorageError unless a model file could be written to `path`: long work asks first."""
    if Path(path).suffix != ".safetensors":
        raise StorageError(f'--output "{path}": the name of a model file ends in .safetensors')
    storage.require_writable(path)


def metadata_of(model: Model) -> dict[str, str]:
    """The metadata of a model file."""
    described = describe(model.layers) or None
    shape = list(model.input_shape)
    description = _Description(model.name, model.seed, model.loss_name, shape, described)
    return {
        "format": FORMAT,
        "version": VERSION,
        "graph": str(model.graph(training=False)),
        "model": json.dumps(records.encode(description), sort_keys=True),
        **preprocessing.entry(model.preprocessing),
        **(_momentum(model) if described is None else {}),
    }


def _momentum(model: Model) -> dict[str, str]:
    """The entry of a function's training form; none where it does not follow from the graph."""
    found = momenta_of(model.holding(()).graph)
    return {} if found is None else {MOMENTUM: json.dumps(found, sort_keys=True)}


def _read_momentum(metadata: Mapping[str, str]) -> dict[str, float] | None:
    if MOMENTUM not in metadata:
        return None
    found = records.json_object(metadata[MOMENTUM], MOMENTUM)
    numbers = {name: border.accept(float, value) for name, value in found.items()}
    known = {name: value for name, value in numbers.items() if value is not None}
    if len(known) < len(found) or not all(0 <= value <= 1 for value in known.values()):
        raise StorageError(f"{MOMENTUM} does not give a number of 0..1 for each batch norm")
    return known


def load_model(kind: type[Model], path: str | os.PathLike[str]) -> Model:
    """The model in `path`; StorageError that names the file and what is wrong with it."""
    tensors, metadata = storage.load(path)
    what = "model file: Model.save writes those"
    records.require_format(path, metadata, FORMAT, VERSION, what, _ENTRIES)
    try:
        description = _read_description(metadata["model"])
        layers = description.pop("layers")
        model = kind(**description)
        graph = parse(metadata["graph"])
        if layers is None:
            model.restore(graph, _read_momentum(metadata))
        else:
            model = _with_layers(model, layers, graph)
        model.weights = tensors
        model.preprocessing = preprocessing.from_entry(metadata)
    except AdderGraphError as error:
        raise StorageError(f'"{path}": {error}') from None
    return model


def _read_description(text: str) -> dict[str, Any]:
    what = "the description of the model"
    found = records.json_object(text, what)
    return records.read(_Description, found, what, error=StorageError, complete=True)


def _with_layers(model: Model, descriptions: object, graph: Graph) -> Model:
    """The model of these layers; what it rounds is in the graph alone."""
    for layer in restore(descriptions, len(graph.nodes)):  # each layer makes a node
        model.add(layer)
    frozen = frozen_names(graph)
    if frozen != model.frozen:
        model = model.holding(frozen)
    if rounding := stated(graph):
        model = model.rounded(rounding)
    if model.graph(training=False) != graph:
        raise GraphError(
            "the stored layers do not build the stored graph; "
            "use the version of AdderGraph that wrote the file"
        )
    return model
