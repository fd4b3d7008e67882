"""What may be given for a graph: whatever brings the graph that predicts, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .. import border
from ..errors import DataError, GraphError
from .graph import Graph
from .op import Array


class Network(Protocol):
    """A graph with the numbers of its parameters, as `Model` and `Quantized` are."""

    def inference_graph(self) -> Graph:
        """The graph that predicts, as it is declared."""

    def inference_weights(self) -> Mapping[str, Array]:
        """Name of a parameter of that graph -> array."""


def graph_of(given: Graph | Network) -> Graph:
    """A graph itself, of a network the one that predicts; GraphError for anything else."""
    if isinstance(given, Graph):
        return given
    if not hasattr(type(given), "inference_graph"):
        raise GraphError(
            f"expected a graph (from ag.trace or ag.parse) or a model, found {type(given).__name__}"
        )
    return given.inference_graph()


def graph_and_weights(
    given: Graph | Network, weights: Mapping[str, Array] | None
) -> tuple[Graph, Mapping[str, Array] | None]:
    """As `graph_of`, and the weights: a network's own; DataError where a network gets others."""
    if weights is not None:
        weights = border.mapping("weights", weights)
    if isinstance(given, Graph):
        return given, weights
    graph = graph_of(given)
    if weights is not None:
        raise DataError("a model brings its own weights; change model.weights instead")
    return graph, given.inference_weights()


def require_weights(graph: Graph, weights: Mapping[str, Array] | None) -> Mapping[str, Array]:
    """`weights`; DataError where the graph has parameters and there are none."""
    if weights is None and graph.parameters:
        names = ", ".join(p.name for p in graph.parameters[:3])
        raise DataError(
            f'graph "{graph.name}" has parameters ({names}, ...): pass their numbers as '
            "weights={name: array}"
        )
    return weights or {}
