"""What computes while a network is calibrated: native code, or NumPy where there is none.

Both give the same bits of what is computed from integers and of all moments; f32 results of a
network differ by rounding, as anywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from .. import compiler
from ..errors import EnvironmentWarning
from ..ir import Array, Graph
from ..ir.interpreter import run_reference
from ..training.settings import NATIVE, require_engine
from ..training.step import thread_count
from .programs import digest_of

Item = TypeVar("Item")
Made = TypeVar("Made")
Run = Callable[[Sequence[Array]], Sequence[Array]]


def engine_for(engine: str, threads: int | None) -> Interpreted | Native:
    """That of this name; NumPy, with an EnvironmentWarning, where this system runs no native code.

    Raises GraphError for another name, DataError for threads below 1.
    """
    require_engine(engine)
    count = thread_count(threads)
    if engine != NATIVE:
        return Interpreted()
    if compiler.has_native_code():
        return Native(count)
    warnings.warn(
        "this system runs no native code: NumPy calibrates, with the same result but for the "
        "rounding of f32, and some thirty times as slowly",
        EnvironmentWarning,
        stacklevel=3,
    )
    return Interpreted()


class Interpreted:
    """NumPy, on one thread."""

    def program(self, graph: Graph, weights: Mapping[str, Array], *, alone: bool = False) -> Run:
        return lambda inputs: run_reference(graph, inputs, weights)[0]

    def moments(self, values: Array) -> tuple[Array, Array]:
        rows = values.reshape(-1, values.shape[-1]).astype("f8")
        away, count = rows - rows[0], len(rows)
        total, squares = _total(away), _total(away * away)
        return rows[0] + total / count, (squares - total * total / count) / count

    def each(self, function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        return [function(item) for item in items]


def _total(rows: Array) -> Array:
    """Over the first axis, in order: `sum` of a single channel would be by pairs."""
    return np.asarray(np.add.accumulate(rows, axis=0)[-1])


class Native:
    """Compiled code on so many threads. Graphs of equal text are compiled once, and loaded once for
    equal numbers."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._built: dict[str, Any] = {}
        self._loaded: dict[tuple[str, bytes], Any] = {}
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def program(self, graph: Graph, weights: Mapping[str, Array], *, alone: bool = False) -> Run:
        text = str(graph)
        if text not in self._built:
            self._built[text] = compiler.without_weights(graph)
        key, threads = (text, digest_of(weights)), self.threads if alone else 1
        if key not in self._loaded:
            self._loaded[key] = compiler.load(self._built[text], weights, threads)
        program = self._loaded[key]
        return _reusing(program) if alone else program.run

    def moments(self, values: Array) -> tuple[Array, Array]:
        return compiler.channel_moments(values)

    def each(self, function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        if self._pool is None:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))


def _reusing(program: Any) -> Run:
    """Results are overwritten by the next call: new memory for a chunk takes as long as a
    network."""
    results: tuple[Array, ...] | None = None

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        nonlocal results
        results = program.run_into(inputs, results)
        return results

    return run
