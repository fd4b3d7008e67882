"""The adder layers of a model, with its own filters, for `bench --layers --weights MODEL`.

Sparse kernels are as fast as a filter has taps at or below zero, and a trained filter has another
share of these than one from N(0,1). Only the shapes and the filters are the model's: input, batch
norm and what chains the layers are those of every layer that is timed (`graphs.py`). Where the
model's activations have upper bounds, as of `addergraph clip`, filters are divided by those of
their input: then every layer has the bound 1, and the kinds of taps that it had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...ir import Array, Node
from ...ir.intervals import value_ranges
from ...ir.types import u8
from ..commands.source import open_trained
from .graphs import BOUNDED, BYTES, OWN, SUMS
from .timing import Layer


@dataclass(frozen=True)
class Own:
    """The filters of a model by the shape of their layer, HWIO.

    name      of the model's file, without its folder
    dtype     of the operands: f32 or u8
    left_out  layers of other forms, which are not timed
    bounded   whether every input has an upper bound, of f32
    """

    name: str
    dtype: str
    filters: Mapping[Layer, Sequence[Array]]
    left_out: Sequence[str] = ()
    bounded: bool = False

    @property
    def kinds(self) -> Sequence[str]:
        """Of the layers that are timed, see `graphs.KINDS`."""
        if self.dtype == "u8":
            return SUMS, BYTES
        return (BOUNDED if self.bounded else OWN,)

    def notes(self) -> list[str]:
        """What the tables do not show."""
        if not self.left_out:
            return []
        return [f"Not timed, as they have another form: {', '.join(self.left_out)}."]


def own_filters(file: str) -> Own:
    """The adder layers of a trained model or of an int8 model: square images and filters, "same"
    padding, one group, no dilation, and inputs that are proven non-negative.

    Raises DataError where there are none, and what `open_trained` does.
    """
    source = open_trained(file, classes=False)
    graph, numbers = source.graph, source.required_weights()
    ranges, name = value_ranges(graph), Path(file).name
    found: dict[tuple[str, Layer], list[tuple[Array, float]]] = {}
    left_out: list[str] = []
    for node in graph.nodes:
        if not node.op.measures_distance or node.inputs[1].type.rank != 4:
            continue
        layer = _layer(name, node)
        if layer is None or not ranges[node.inputs[0].name].nonnegative:
            left_out.append(node.outputs[0].name)
            continue
        dtype = "u8" if node.inputs[0].type.dtype == u8 else "f32"
        filter = numbers[node.inputs[1].name], ranges[node.inputs[0].name].hi
        found.setdefault((dtype, layer), []).append(filter)
    dtypes = {dtype for dtype, _ in found}
    if len(dtypes) != 1:
        what = "adder layers of f32 and of u8" if dtypes else "no such layer"
        raise DataError(
            f'"{file}" has {what}: expected adder layers of one dtype, with square images and '
            "filters, one group, and a relu in front"
        )
    (dtype,) = dtypes
    tops = [top for several in found.values() for _, top in several]
    bounded = dtype == "f32" and all(0 < top < math.inf for top in tops)
    filters = {
        layer: [f / np.float32(top) if bounded else f for f, top in several]
        for (_, layer), several in found.items()
    }
    return Own(name, dtype, filters, left_out, bounded)


def operands(dtype: str | None, file: str | None) -> tuple[str, Own | None]:
    """The dtype of the layers that are timed, and the model that they are of.

    Raises DataError where the model's layers have another, and what `own_filters` does.
    """
    if file is None:
        return dtype or "f32", None
    own = own_filters(file)
    if dtype not in (None, own.dtype):
        raise DataError(
            f'the adder layers of "{file}" are of {own.dtype}: leave out --dtype {dtype}'
        )
    return own.dtype, own


def _layer(network: str, node: Node) -> Layer | None:
    """The shape of a layer; None where `Layer` cannot say it."""
    x, f = (v.type.bind(1).sizes for v in node.inputs[:2])
    op: Any = node.op  # an adder2d, by its filter
    (_, height, width, inputs), (kernel, across, _, outputs) = x, f
    square = height == width and kernel == across and op.stride[0] == op.stride[1]
    if not square or op.groups != 1 or set(op.dilation) != {1}:
        return None
    if set(op.padding) != {kernel // 2}:
        return None
    return Layer(network, inputs, height, outputs, kernel, op.stride[0])
