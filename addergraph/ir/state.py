"""Parameters as memory: one aligned block of bytes, and named arrays that look into it.

The block is what native code receives as `weights`. Each parameter stands in it raw (row-major, in
its own dtype) at a 64-byte boundary, in the order of the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import border
from ..errors import DataError, ShapeError, nearest, some
from .graph import Graph, Parameter
from .op import Array
from .plan import ALIGNMENT, align


def parameter_offsets(parameters: Sequence[Parameter]) -> tuple[dict[str, int], int]:
    """The byte offset of each parameter in the block, by name, and the size of the block."""
    offsets, end = {}, 0
    for p in parameters:
        offsets[p.name] = end
        end += align(p.type.nbytes)
    return offsets, end


class State:
    """The values of `parameters`, zero at first, in one block of memory.

    blob   uint8 array over the whole block, 64-byte aligned, writable
    views  parameter name -> array that shares the block's memory
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        offsets, size = parameter_offsets(self.parameters)
        self.blob: Array = aligned_bytes(size)
        self.views: dict[str, Array] = {}
        for p in self.parameters:
            start = offsets[p.name]
            raw = self.blob[start : start + p.type.nbytes]
            self.views[p.name] = raw.view(p.type.dtype.numpy).reshape(p.type.sizes)

    def load(self, weights: Mapping[str, Array]) -> None:
        """Copies `weights` in: all parameters and no others, or an error and no change at all.

        Raises DataError for missing or unknown names or a wrong dtype, ShapeError for wrong shapes.
        """
        weights = border.mapping("weights", weights)
        unknown = [name for name in weights if name not in self.views]
        if unknown:
            raise DataError(
                f'there is no parameter named "{unknown[0]}"{nearest(unknown[0], self.views)}; '
                f"unknown names: {some(unknown)}"
            )
        assign(self.views, bind_weights("weights", self.parameters, weights))

    def __getstate__(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "blob": self.blob.copy()}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        State.__init__(self, saved["parameters"])  # the views look into the new block
        self.blob[...] = saved["blob"]

    def copy(self) -> State:
        """A state with equal values and memory of its own."""
        made = State(self.parameters)
        made.blob[...] = self.blob
        return made


def bind_weights(
    where: str, parameters: Sequence[Parameter], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """The array of each parameter, by name, in order; names beyond the parameters are left out.

    Raises DataError for a missing name or a wrong dtype, ShapeError for a wrong shape.
    """
    weights = border.mapping(f"{where}: weights", weights)
    missing = [p.name for p in parameters if p.name not in weights]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(parameters)} parameters have no weights: "
            f"{some(missing)}; expected an array for each"
        )
    found = {}
    for p in parameters:
        array = border.array(f"{where}: parameter {p}", weights[p.name])
        if array.dtype != p.type.dtype.numpy:
            raise DataError(f"{where}: parameter {p}: expected {p.type}, found {array.dtype}")
        if array.shape != p.type.sizes:
            shape = ",".join(map(str, array.shape))
            raise ShapeError(
                f"{where}: parameter {p}: expected {p.type}, found the shape [{shape}]"
            )
        found[p.name] = array
    return found


def assign(into: Mapping[str, Array], arrays: Mapping[str, Array]) -> None:
    """Copies each array into that of its name; they may be views of one another, in any order."""
    for name, array in {name: array.copy() for name, array in arrays.items()}.items():
        into[name][...] = array


def initial_weights(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """An array for each parameter, drawn as its `init` says.

    Each is drawn from a generator of its own, seeded by `seed` (0 or more) and the parameter's
    name: adding, removing or reordering parameters leaves the numbers of the others as they are.
    """
    seed = border.integer("seed", seed)
    if seed < 0:
        raise DataError(f"seed {seed} is negative; expected 0 or more")
    sizes = [p.type.nbytes for p in graph.parameters]
    most = sum(sizes) + 2 * max(sizes, default=0)  # numbers are drawn in f64
    border.require_memory(f'the weights of graph "{graph.name}"', most)
    return {p.name: p.init.sample(p.type, _generator(seed, p.name)) for p in graph.parameters}


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def aligned_bytes(size: int) -> Array:
    """`size` zero bytes that start at a multiple of ALIGNMENT."""
    border.require_memory("a block of memory", size)
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
