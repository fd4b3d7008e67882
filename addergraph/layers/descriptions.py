"""Layers as plain JSON data, and back: the closed table of kinds is `layers.LAYERS`.

    {"kind": "Adder", "name": null, "output_channels": 16, "kernel_size": 3, ...}
    {"kind": "Residual", "name": "block0", "body": [...], "shortcut": [...]}
    {"repeat": i}      the layer object of position i once more

Positions count descriptions in the order of their opening braces, those inside a layer included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from .. import border
from ..errors import GraphError
from ..files import records
from . import LAYERS, Layer, unknown_layer

MAX_NESTING = 16  # layers inside layers, those that are repeated included


def describe(layers: Sequence[Layer]) -> list[dict[str, object]]:
    """Each layer as its kind and attributes.

    GraphError for a class of your own, and for nesting that `restore` would not read.
    """
    return _Writer().describe(layers, 0)


def restore(descriptions: object, most: int | None = None) -> list[Layer]:
    """The layers that `describe` described.

    GraphError for anything that is no such description: an unknown kind or attribute, a repeated
    position that does not exist, nesting beyond MAX_NESTING; and where more than `most` layers
    would be called, since a few that repeat each other in turn stand for any number.
    """
    reader = _Reader()
    layers = reader.restore(descriptions, 0)
    calls = sum(reader.sizes[layer].calls for layer in layers)
    if most is not None and calls > most:
        raise GraphError(f"{border.shown(calls)} layers are called, expected at most {most}")
    return layers


def _require_shallow(depth: int) -> None:
    if depth > MAX_NESTING:
        raise GraphError(f"layers stand inside layers more than {MAX_NESTING} deep")


class _Size(NamedTuple):
    """Of a layer with its parts: how deep these stand in it, and how many layers a call calls."""

    depth: int
    calls: int


class _Sizes(dict[Layer, _Size]):
    def add(self, layer: Layer) -> None:
        """Notes that of a layer whose parts are noted."""
        parts = [self[part] for name in layer.parts for part in getattr(layer, name)]
        deepest = max((part.depth + 1 for part in parts), default=0)
        own = int(layer.makes_node)  # what makes none is bounded by what it stands in
        self[layer] = _Size(deepest, own + sum(part.calls for part in parts))


class _Writer:
    def __init__(self) -> None:
        self.count, self.sizes = 0, _Sizes()
        self.positions: dict[Layer, int] = {}

    def describe(self, layers: Sequence[Layer], depth: int) -> list[dict[str, object]]:
        _require_shallow(depth)
        return [self._one(layer, depth) for layer in layers]

    def _one(self, layer: Layer, depth: int) -> dict[str, object]:
        position, self.count = self.count, self.count + 1
        if layer in self.positions:
            _require_shallow(depth + self.sizes[layer].depth)
            return {"repeat": self.positions[layer]}
        self.positions[layer] = position
        kind = type(layer).__name__
        if LAYERS.get(kind) is not type(layer):
            raise GraphError(
                f"{kind} is not a layer of this library, a model file could not describe it; "
                f"known: {', '.join(LAYERS)}. For anything else pass a function: Model(net)"
            )
        described = records.encode(layer, kind, layer.parts)
        parts = {name: self.describe(getattr(layer, name), depth + 1) for name in layer.parts}
        self.sizes.add(layer)
        return described | parts


class _Reader:
    def __init__(self) -> None:
        self.made: list[Layer | None] = []  # None while the layer's own parts are read
        self.sizes = _Sizes()

    def restore(self, descriptions: object, depth: int) -> list[Layer]:
        if not isinstance(descriptions, list):
            raise GraphError(
                f"expected a list of descriptions of layers, found {border.shown(descriptions)}"
            )
        _require_shallow(depth)
        return [self._one(description, depth) for description in descriptions]

    def _one(self, description: object, depth: int) -> Layer:
        if not isinstance(description, dict):
            raise GraphError(
                f"expected the description of a layer, found {border.shown(description)}"
            )
        position = len(self.made)
        self.made.append(None)
        if "repeat" in description:
            layer = self._repeated(position, description["repeat"])
            _require_shallow(depth + self.sizes[layer].depth)
        else:
            layer = self._new(description, depth)
            self.sizes.add(layer)
        self.made[position] = layer
        return layer

    def _repeated(self, position: int, first: object) -> Layer:
        if type(first) is int and 0 <= first < position:
            layer = self.made[first]
            if layer is not None:
                return layer
        raise GraphError(f"layer {position} repeats {border.shown(first)}, which does not exist")

    def _new(self, description: Mapping[str, Any], depth: int) -> Layer:
        kind = str(description.get("kind"))
        if kind not in LAYERS:
            unknown_layer(kind)
        given = {k: v for k, v in description.items() if k != "kind"}
        records.require_known(given, [f.name for f in fields(LAYERS[kind])], kind, GraphError)
        for name in LAYERS[kind].parts:
            given[name] = self.restore(given.get(name), depth + 1)
        return LAYERS[kind](**given)
