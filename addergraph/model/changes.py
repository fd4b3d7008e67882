"""What a model changes in the graphs that its layers or its function make: relus that are bounded,
and values that are rounded. Both are known by name, so that the inference and the training form of
a network are changed alike, and a file needs the inference graph alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from .. import border, compiler
from ..errors import GraphError, UnsupportedError
from ..ir import Graph, Node
from ..ir.walk import downstream

if TYPE_CHECKING:
    from ..ops.pointwise.fake_quantize import Rounding


class Changeable:
    """The part of `Model` that changes its graphs; those of a new model are as they are traced."""

    _bounds: Mapping[str, float] = {}
    _rounding: Mapping[str, Rounding] = {}

    def bounded(self, bounds: Mapping[str, float]) -> Self:
        """A copy, with its own weights, whose relus are clip(0, bound), the bounds by the names of
        their results; see `ag.activation_bounds`.

        GraphError for what is no mapping of names to numbers above 0; `graph` raises it where the
        names are not those of the relus.
        """
        given = border.mapping("bounds", bounds, GraphError)
        made = copy(self)  # without the graphs that were traced
        made._bounds = {name: _bound(name, bound) for name, bound in given.items()}
        return made

    def rounded(self, rounding: Mapping[str, Rounding]) -> Self:
        """A copy, with its own weights, that rounds these values; see `ag.quantization_aware`."""
        rounding = border.mapping("rounding", rounding, GraphError)
        made = copy(self)
        made._rounding = rounding
        return made

    def _changed(self, graph: Graph) -> Graph:
        """A graph as it was traced, in either form, with the changes."""
        if self._bounds:
            graph = _with_bounds(graph, self._bounds)
        if self._rounding:
            graph = compiler.quantization_aware_graph(graph, self._rounding)
        return graph


def relus_of(graph: Graph) -> list[Node]:
    """The nodes that compute from the samples and can be bounded, in order.

    UnsupportedError, naming it, for a fused node with one inside.
    """
    reached = downstream(graph.nodes, graph.inputs)
    for node in graph.nodes:
        if node.op.subgraph is not None and any(map(_is_open, node.atoms)):
            raise UnsupportedError(
                f'{node.label} of "{graph.name}" has a relu inside, whose results nothing sees: '
                "bound the relus of the network as it was declared"
            )
    return [n for n in graph.nodes if _is_open(n) and n.outputs[0] in reached]


def stated_bounds(graph: Graph, plain: Graph) -> dict[str, float]:
    """The bounds that `graph` has where `plain`, the same network without them, has relus."""
    found: dict[str, float] = {}
    known = {node.name: node.op for node in graph.nodes}
    for node in relus_of(plain):
        op = known.get(node.name)
        bound = getattr(op, "hi", None)
        if isinstance(bound, float) and bound > 0 and node.op.limited(bound) == op:
            found[node.name] = bound
    return found


def _is_open(node: Node) -> bool:
    """Whether the results have no bound and could have one."""
    return node.op.limited(1.0) is not None


def _with_bounds(graph: Graph, bounds: Mapping[str, float]) -> Graph:
    """GraphError unless there is a bound for each relu, and no other."""
    names = {node.name for node in relus_of(graph)}
    if names != bounds.keys():
        odd = sorted(names ^ bounds.keys())[0]
        what = f'nothing is known of the relu "{odd}"' if odd in names else f'it has no "{odd}"'
        raise GraphError(
            f'"{graph.name}" is not the network whose relus were bounded: {what}; bound those of '
            "this one by ag.activation_bounds"
        )

    def limited(node: Node) -> Node:
        op = node.op.limited(bounds[node.name]) if node.name in names else None
        return node if op is None else replace(node, op=op)

    return replace(graph, nodes=tuple(map(limited, graph.nodes)))


def _bound(name: object, bound: object) -> float:
    found: float | None = border.accept(float, bound)
    if not isinstance(name, str) or found is None or not 0 < found < math.inf:
        raise GraphError(
            f"the bound of {border.shown(name)} is {border.shown(bound)}: expected a number above 0"
        )
    return found
