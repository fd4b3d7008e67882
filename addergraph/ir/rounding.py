"""What NumPy says of a graph on one set of inputs, and how far f32 rounding may be from it.

Each op has a closed-form bound on its own rounding error (`Op.rounding`). How such errors travel
to a value is sampled: the graph is evaluated again with every result moved to a random corner of
its bound, and an element may differ from the reference by SLACK times the largest deviation that
*this element* showed in the draws. A graph of one op gets exactly SLACK times its bound. A graph
that only moves data and does pointwise arithmetic has bound zero: its values must be equal, as must
outputs that are not f32, where no draw changes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Graph, Node, Value
from .interpreter import bind_inputs
from .op import Array, Bound
from .state import bind_weights
from .walk import evaluate

SLACK = 2.0  # the draws are a sample of the corners, not all of them
# Draws of a bound that is kept: an error of a third of the standard deviation exceeds it with a
# chance of 2^-35.
KEPT = 12

Visit = Callable[[object, Node, Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True)
class _Step:
    """A node as the reference has it: what it read, its results, and their bounds."""

    operands: Sequence[Array]
    results: Sequence[Array]
    bounds: Sequence[Bound]


class Rounded:
    """The reference on one set of inputs, the rounding bound of each result, and draws.

    `known` has every value of the graph (bound to the batch of the inputs).
    """

    def __init__(
        self,
        graph: Graph,
        arrays: Sequence[Array],
        weights: Mapping[str, Array],
        rng: np.random.Generator,
    ) -> None:
        batch, _ = bind_inputs(graph, arrays)
        self._declared = graph
        self.graph = graph if batch is None else graph.bind(batch)
        numbers = bind_weights(f'graph "{graph.name}"', graph.parameters, weights)
        self._rng, self._drawn = rng, 0
        self._start = [*arrays, *numbers.values()]
        self._steps: dict[object, _Step] = {}
        self.known = _walk(self.graph, self._start, self._note, ())
        self.outputs = [self.known[v] for v in self.graph.outputs]
        self._spread = [np.zeros(y.shape) for y in self.outputs]

    def spread(self, draws: int) -> list[Array]:
        """The largest deviation of each element of the outputs in so many draws, or more."""
        while self._drawn < draws:
            moved = _walk(self.graph, self._start, self._move, ())
            for spread, v, y in zip(self._spread, self.graph.outputs, self.outputs, strict=True):
                np.maximum(spread, deviations(moved[v], y, 0.0), out=spread)
            self._drawn += 1
        return self._spread

    def allowed(self) -> list[Array]:
        """How far each element of the outputs may be off: inf for one of another type than f32
        that rounding decides, which may be any."""
        return [
            SLACK * s if y.dtype == np.float32 else np.where(s > 0, np.inf, 0.0)
            for s, y in zip(self.spread(KEPT), self.outputs, strict=True)
        ]

    def _note(self, key: object, node: Node, operands: Sequence[Array]) -> Sequence[Array]:
        results = node.op.reference(*operands)
        bounds = tuple(node.op.rounding(operands, results))
        self._steps[key] = _Step(tuple(operands), results, bounds)
        return results

    def _move(self, key: object, node: Node, operands: Sequence[Array]) -> Sequence[Array]:
        """The results on moved operands, moved themselves to a random corner of their bounds."""
        step = self._steps[key]
        same = all(a is b for a, b in zip(operands, step.operands, strict=True))
        results = step.results if same else node.op.reference(*operands)
        return [_moved(r, b, self._rng) for r, b in zip(results, step.bounds, strict=True)]


def deviations(found: Array, reference: Array, otherwise: float) -> Array:
    """|found - reference|, and `otherwise` where one of them is not finite."""
    finite = np.isfinite(found) & np.isfinite(reference)
    with np.errstate(invalid="ignore"):
        errors = np.abs(found.astype("f8") - reference.astype("f8"))
    return np.where(finite, errors, otherwise)


def _moved(result: Array, bound: Bound, rng: np.random.Generator) -> Array:
    if result.dtype != np.float32 or (isinstance(bound, float) and bound == 0.0):
        return result
    shift = np.where(rng.integers(0, 2, result.shape, dtype=np.int8), bound, np.negative(bound))
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(shift), result + shift, result).astype(np.float32)


def _walk(
    graph: Graph, arrays: Sequence[Array], visit: Visit, path: tuple[int, ...]
) -> dict[Value, Array]:
    """Every value of a bound graph, each node's results as `visit` returns them.

    Fused bodies are walked too; a node's key is its path of positions.
    """
    positions = itertools.count()

    def step(node: Node, operands: list[Array]) -> Sequence[Array]:
        key = (*path, next(positions))
        if (body := node.op.subgraph) is not None:
            inside = _walk(body, operands, visit, key)
            return [inside[v] for v in body.outputs]
        with np.errstate(all="ignore"):
            return visit(key, node, operands)

    return evaluate(graph, arrays, step)
