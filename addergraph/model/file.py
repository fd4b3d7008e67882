"""What a model file says beside the weights, and how it becomes a model again.

Metadata (text, all covered by the file's checksum):

    format   "addergraph.model"
    version  "1"
    graph    the inference graph, as text
    model    JSON: name, seed, loss_name, input_shape, layers; where there are several inputs or
             outputs, shapes and names of losses are objects by name, and there is loss_weights
    preprocessing  JSON, where known: normalize (mean, std, scale), dtype, channels, classes

`layers` is as in `descriptions.py`. It is null for a model that was made from a Python function: a
file holds no code, so such a model loads with its inference graph, and trains on by these two:

    momentum JSON, of a function alone: that of each batch norm, by its name; see `replay.py`
    dropout  JSON, of a function with some: what each leaves out of, rate and seed, by its name
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
from ..ir.graph import WORD
from ..ir.text import parse
from ..layers.descriptions import describe, restore
from ..ops.pointwise.fake_quantize import stated
from ..training.objective import objective_of
from .changes import stated_bounds
from .freezing import frozen_names
from .replay import Left, Replay, replay_of

if TYPE_CHECKING:
    from .model import Model

FORMAT, VERSION = "addergraph.model", "1"
_ENTRIES = ("graph", "model")
MOMENTUM, DROPOUT = "momentum", "dropout"


@dataclass(frozen=True)
class _Description:
    """The entry `model`."""

    name: str
    seed: int
    loss_name: str | dict[str, Any]
    input_shape: list[int] | dict[str, Any]
    layers: list[Any] | None
    loss_weights: dict[str, Any] | None = None


def require_writable_model(path: str | os.PathLike[str]) -> None:
    """StorageError unless a model file could be written to `path`: long work asks first."""
    if Path(path).suffix != ".safetensors":
        raise StorageError(f'--output "{path}": the name of a model file ends in .safetensors')
    storage.require_writable(path)


def metadata_of(model: Model) -> dict[str, str]:
    """The metadata of a model file."""
    described = describe(model.layers) or None
    shapes = {name: list(shape) for name, shape in model.input_shapes.items()}
    objective = objective_of(model)
    names = {name: loss.name for name, loss in objective.losses.items()}
    weights = dict(objective.weights) if len(names) > 1 else None
    description = _Description(
        model.name, model.seed, border.bare(names), border.bare(shapes), described, weights
    )
    without = ("loss_weights",) if weights is None else ()
    return {
        "format": FORMAT,
        "version": VERSION,
        "graph": str(model.graph(training=False)),
        "model": json.dumps(records.encode(description, without=without), sort_keys=True),
        **preprocessing.entry(model.preprocessing),
        **(_training_form(model) if described is None else {}),
    }


def _training_form(model: Model) -> dict[str, str]:
    """The entries of a function's training form; none where it does not follow from the graph."""
    found = replay_of(model.holding(()).graph)
    if found is None:
        return {}
    left = {name: records.encode(one) for name, one in found.dropouts.items()}
    entries = {MOMENTUM: found.momentum} | ({DROPOUT: left} if left else {})
    return {name: json.dumps(entry, sort_keys=True) for name, entry in entries.items()}


def _read_momentum(metadata: Mapping[str, str]) -> dict[str, float] | None:
    if MOMENTUM not in metadata:
        return None
    found = records.json_object(metadata[MOMENTUM], MOMENTUM)
    numbers = {name: border.accept(float, value) for name, value in found.items()}
    known = {name: value for name, value in numbers.items() if value is not None}
    if len(known) < len(found) or not all(0 <= value <= 1 for value in known.values()):
        raise StorageError(f"{MOMENTUM} does not give a number of 0..1 for each batch norm")
    return known


def _read_dropouts(metadata: Mapping[str, str]) -> dict[str, Left]:
    found = records.json_object(metadata.get(DROPOUT, "{}"), DROPOUT)
    made = {}
    for name, values in found.items():
        if not isinstance(values, dict) or not WORD.fullmatch(name):
            raise StorageError(f"{DROPOUT} does not describe a dropout as {border.shown(name)}")
        made[name] = Left(**records.read(Left, values, DROPOUT, error=StorageError, complete=True))
    return made


def load_model(kind: type[Model], path: str | os.PathLike[str]) -> Model:
    """The model in `path`; StorageError that names the file and what is wrong with it."""
    tensors, metadata = storage.load(path)
    what = "model file: Model.save writes those"
    records.require_format(path, metadata, FORMAT, VERSION, what, _ENTRIES)
    try:
        description = _read_description(metadata["model"])
        layers, shape = description.pop("layers"), description.pop("input_shape")
        description["loss"] = description.pop("loss_name")
        graph = parse(metadata["graph"])
        if layers is None:
            model = kind(**description)
            momentum, dropouts = _read_momentum(metadata), _read_dropouts(metadata)
            known = None if momentum is None else Replay(graph, momentum, dropouts)
            model.restore(graph, known, shape)
        else:
            model = _with_layers(kind(input_shape=shape, **description), layers, graph)
        objective_of(model)  # it says what is wrong with losses and weights
        model.weights = tensors
        model.preprocessing = preprocessing.from_entry(metadata)
    except AdderGraphError as error:
        raise StorageError(f'"{path}": {error}') from None
    return model


def _read_description(text: str) -> dict[str, Any]:
    what = "the description of the model"
    found = {"loss_weights": None} | records.json_object(text, what)
    return records.read(_Description, found, what, error=StorageError, complete=True)


def _with_layers(model: Model, descriptions: object, graph: Graph) -> Model:
    """The model of these layers; what it bounds and rounds is in the graph alone."""
    for layer in restore(descriptions, len(graph.nodes)):  # each layer makes a node
        model.add(layer)
    frozen = frozen_names(graph)
    if frozen != model.frozen:
        model = model.holding(frozen)
    if bounds := stated_bounds(graph, model.graph(training=False)):
        model = model.bounded(bounds)
    if rounding := stated(graph):
        model = model.rounded(rounding)
    if model.graph(training=False) != graph:
        raise GraphError(
            "the stored layers do not build the stored graph; "
            "use the version of AdderGraph that wrote the file"
        )
    return model
