"""A quantized network: its integer graph and numbers, and the way between them and real numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import storage
from .errors import AdderGraphError, DataError, StorageError
from .interpreter import bind_inputs
from .ir import Array, Graph
from .ops._elementwise import INTEGER_BOUNDS
from .quantization import value_quantizations
from .state import bind_weights
from .text import parse

FORMAT, VERSION = "addergraph.quantized", "1"


@dataclass(frozen=True)
class Quantized:
    """What `ag.quantize` makes: `ag.compile(q.graph, weights=q.weights)` is the integer program.

    graph    integers from the image to the logits; its input and filters say what they stand for
    weights  u8 filters and i32 numbers of the requantizations, by name
    errors   how far the outputs were from the float network's on the calibration data, as a share
             of their rms: by the number of powers of two in a factor, "multiply" for products
    """

    graph: Graph
    weights: Mapping[str, Array]
    errors: Mapping[str, float]

    def inputs(self, x: object) -> Array:
        """The integers that stand for samples `x`: what the integer graph takes.

        DataError where `x` is no array of real numbers.
        """
        (value,) = self.graph.inputs
        known = value.type.quantization
        if known is None:
            raise DataError(f"input {value} does not say what its integers stand for")
        try:
            array = np.asarray(x, np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"expected an array of real numbers, found none ({error})") from None
        integers = known.quantized(array, *INTEGER_BOUNDS[value.type.dtype])
        samples = integers.astype(value.type.dtype.numpy)
        bind_inputs(self.graph, [samples])
        return samples

    def outputs(self, y: Array) -> Array:
        """The f32 numbers that the graph's first output stands for."""
        output = self.graph.outputs[0]
        known = value_quantizations(self.graph)[output.name]
        if known is None:
            raise DataError(f"output {output} does not say what its integers stand for")
        return known.values(y).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes graph and weights to a `.safetensors` file, atomically."""
        errors = " ".join(f"{name}={error!r}" for name, error in self.errors.items())
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "graph": str(self.graph),
            "errors": errors,
        }
        storage.save(path, self.weights, metadata)


def is_quantized(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata holds a quantized network."""
    return metadata.get("format") == FORMAT


def load_quantized(path: str | os.PathLike[str]) -> Quantized:
    """The network that `Quantized.save` wrote; StorageError that says what is wrong with a file."""
    tensors, metadata = storage.load(path)
    if not is_quantized(metadata) or not {"graph", "errors", "version"} <= metadata.keys():
        raise StorageError(f'"{path}" is no quantized network: addergraph quantize writes those')
    if metadata["version"] != VERSION:
        raise StorageError(
            f'"{path}" has format version {metadata["version"]}, this program reads version '
            f"{VERSION}; use the version of AdderGraph that wrote it"
        )
    try:
        graph = parse(metadata["graph"])
        weights = bind_weights(f'"{path}"', graph.parameters, tensors)
        errors = dict(_error(one) for one in metadata["errors"].split())
    except (AdderGraphError, ValueError) as error:
        raise StorageError(f'"{path}": {error}') from None
    return Quantized(graph, weights, errors)


def _error(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    return name, float(number)
