"""A quantized network: its integer graph and numbers, and the way between them and real numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

import numpy as np

from .. import border, display
from ..data import preprocessing
from ..data.preprocessing import Preprocessing
from ..errors import AdderGraphError, DataError, GraphError, StorageError
from ..files import records, storage
from ..ir import Array, Graph, Value
from ..ir.interpreter import bind_inputs
from ..ir.quantization import value_quantizations
from ..ir.state import bind_weights
from ..ir.text import parse
from ..ops._elementwise import INTEGER_BOUNDS
from ..tables import Table

FORMAT, VERSION = "addergraph.quantized", "1"
_ENTRIES = ("graph", "errors", "chosen")


@dataclass(frozen=True)
class Quantized:
    """What `ag.quantize` makes: `ag.compile(q)` is the integer program.

    graph    integers from the image to the logits; its input and filters have scale and zero point
    weights  u8 filters and i32 numbers of the requantizations, by name
    errors   relative RMS error of the outputs against the float network's on the calibration data,
             by the kind of requantization: "shift2" for two powers of two, "multiply"
    chosen   the kind that this network has
    preprocessing  what its images are, where that is known: `inputs` then takes these as they are

    Raises GraphError for a graph of another kind.
    """

    graph: Graph
    weights: Mapping[str, Array]
    errors: Mapping[str, float]
    chosen: str
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        check_quantized(self.graph)

    def __repr__(self) -> str:
        size = sum(array.nbytes for array in self.weights.values())
        return f'<Quantized "{self.graph.name}": {size:,} bytes, error {self.error:.2%}>'

    def _repr_html_(self) -> str:
        rows = [(k, f"{e:.2%}", "yes" * (k == self.chosen)) for k, e in self.errors.items()]
        heads = ("requantization", "error of the outputs", "chosen")
        known = [] if self.preprocessing is None else [display.text(str(self.preprocessing))]
        parts = [display.head(self), *known, display.table(Table(heads, rows, heads[::2]))]
        return "".join([*parts, display.folded("graph", self.graph._repr_html_())])

    @property
    def error(self) -> float:
        """Of this network."""
        return self.errors[self.chosen]

    def inference_graph(self) -> Graph:
        """`graph`: that of integers predicts."""
        return self.graph

    def inference_weights(self) -> Mapping[str, Array]:
        """`weights`."""
        return self.weights

    def inputs(self, x: object) -> Array:
        """Samples `x` as the integer graph takes them: pixels as bytes where the preprocessing is
        known, else real numbers, which are quantized.

        DataError where `x` is no array of real numbers, or they are no pixels.
        """
        (value,) = self.graph.inputs
        images = self.preprocessing
        if images is not None and images.dtype == "u8":
            pixels = images.pixels(border.array("x", x))
            bind_inputs(self.graph, [pixels])
            return pixels
        known = value.type.quantization
        assert known is not None  # check_quantized
        with np.errstate(over="ignore"):
            array = border.array("x", x).astype(np.float32, copy=False)
        if images is not None:
            array = images.apply(array)
        integers = known.quantized(array, *INTEGER_BOUNDS[value.type.dtype])
        samples = integers.astype(value.type.dtype.numpy)
        bind_inputs(self.graph, [samples])
        return samples

    @overload
    def outputs(self, y: tuple[Array, ...]) -> tuple[Array, ...]: ...

    @overload
    def outputs(self, y: Array) -> Array: ...

    def outputs(self, y: Array | tuple[Array, ...]) -> Array | tuple[Array, ...]:
        """The first output, dequantized to f32; of a tuple of all outputs, as programs of several
        give it, a tuple.

        DataError where `y` holds no real numbers, or another number of outputs.
        """
        outputs = self.graph.outputs
        if not isinstance(y, tuple):
            return self._real(outputs[0], y)
        if len(y) != len(outputs):
            names = ", ".join(v.name for v in outputs)
            raise DataError(
                f"y: expected a tuple of {len(outputs)}, {names}; found one of {len(y)}"
            )
        return tuple(map(self._real, outputs, y))

    def _real(self, output: Value, y: Array) -> Array:
        known = value_quantizations(self.graph)[output.name]
        if known is None:
            raise DataError(f"output {output} has no scale and zero point")
        return known.values(border.array("y", y)).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes graph and weights to a `.safetensors` file, atomically."""
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "graph": str(self.graph),
            "errors": json.dumps(dict(self.errors), sort_keys=True),
            "chosen": self.chosen,
            **preprocessing.entry(self.preprocessing),
        }
        storage.save(path, self.weights, metadata)


def is_quantized(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata holds a quantized network."""
    return metadata.get("format") == FORMAT


def load_quantized(path: str | os.PathLike[str]) -> Quantized:
    """The network that `Quantized.save` wrote; StorageError that says what is wrong with a file."""
    tensors, metadata = storage.load(path)
    what = "quantized network: addergraph quantize writes those"
    records.require_format(path, metadata, FORMAT, VERSION, what, _ENTRIES)
    try:
        graph = parse(metadata["graph"])
        weights = bind_weights(f'"{path}"', graph.parameters, tensors)
        check_quantized(graph)
        known = preprocessing.from_entry(metadata)
    except AdderGraphError as error:
        raise StorageError(f'"{path}": {error}') from None
    found = records.json_object(metadata["errors"], f'"{path}" is damaged: the entry "errors"')
    numbers = {name: border.accept(float, e) for name, e in found.items()}
    errors = {name: e for name, e in numbers.items() if e is not None}
    if metadata["chosen"] not in errors:
        raise StorageError(f'"{path}" is damaged: its errors do not name "{metadata["chosen"]}"')
    return Quantized(graph, weights, errors, metadata["chosen"], known)


def check_quantized(graph: Graph) -> None:
    """GraphError unless the graph is quantized: one input, which has a scale, and outputs."""
    if len(graph.inputs) != 1 or graph.inputs[0].type.quantization is None or not graph.outputs:
        raise GraphError(
            f'graph "{graph.name}" is no quantized network: expected one input with a scale'
        )
