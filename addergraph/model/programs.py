"""The compiled programs of a model, which follow its weights."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..ir import Array, Graph
from ..training.step import compile_silently

Weights = Mapping[str, Array]


class Programs:
    """Compiled inference graphs of one model, by batch and threads.

    Weights are arrays that whoever holds them may write into. They are compared, by their digest,
    whenever that may have happened: after they were handed out, until nobody but the model has
    them any more.
    """

    def __init__(self) -> None:
        self._programs: dict[object, Any] = {}
        self._current: dict[object, bytes] = {}  # digests of the weights that the programs have
        self._digest = b""
        self._times, self._settled = 0, -1  # that weights were handed out; when the digest was made

    def handed_out(self) -> None:
        """Somebody else may write into the weights from now on."""
        self._times += 1

    def program(
        self, graph: Graph, threads: int, weights: Callable[[], dict[str, Array]], entry: Weights
    ) -> Any:
        """The program of `graph`, with the weights as they are now. `weights` gives them as the
        model holds them; `entry` has those of the preprocessing, which nobody changes."""
        times = self._times
        if self._settled != times:
            self._digest = digest_of(weights())
            self._settled = times if _held_once(weights) else -1
        key = (*(v.type for v in graph.inputs), threads)
        program = self._programs.get(key)
        if program is None:
            program = compile_silently(graph, weights={**weights(), **entry}, threads=threads)
        elif self._current[key] != self._digest:
            program.set_weights({**weights(), **entry})
        self._programs[key], self._current[key] = program, self._digest
        return program


def digest_of(weights: Weights) -> bytes:
    """Of the numbers, in their order."""
    digest = hashlib.blake2b()
    for array in weights.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _held_once(weights: Callable[[], dict[str, Array]]) -> bool:
    """Whether nobody but the model can reach the memory of its weights.

    By counts of references: an array is held by the model's dictionary, and memory that several
    look into, after training, by each of these. Whoever else holds an array or a view of it holds
    one of these objects. A count that is too high for another reason costs time only.
    """
    held = weights()
    if sys.getrefcount(held) > 3:  # the model, `held` and the argument
        return False
    owners: Counter[int] = Counter(id(a.base) for a in held.values() if a.base is not None)
    for name in held:
        if sys.getrefcount(held[name]) > 2:  # the dictionary and the argument
            return False
        base = held[name].base
        if base is not None and sys.getrefcount(base) > owners[id(base)] + 2:  # `base`, argument
            return False
    return True
