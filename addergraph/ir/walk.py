"""Walks over a graph, each written once: evaluating it, slicing it, appending its nodes again.

Nodes are in topological order, so each walk is one loop over them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .graph import Builder, Graph, Node, Value

T = TypeVar("T")


def evaluate(
    graph: Graph, given: Iterable[T], step: Callable[[Node, list[T]], Sequence[T]]
) -> dict[Value, T]:
    """What `step` makes of every value: arrays, ranges, quantizations, or whatever T is.

    `given` is one T for each input, then for each parameter; `step` gets a node and one T for each
    operand, and answers one for each result.
    """
    known = dict(zip((*graph.inputs, *graph.parameters), given, strict=True))
    for node in graph.nodes:
        made = step(node, [known[v] for v in node.inputs])
        known.update(zip(node.outputs, made, strict=True))
    return known


def computed(graph: Graph) -> tuple[Value, ...]:
    """Every value that a node computes, in order."""
    return tuple(v for node in graph.nodes for v in node.outputs)


def returning(graph: Graph, outputs: Iterable[Value]) -> Graph:
    """`graph` with other outputs and without updates."""
    return dataclasses.replace(graph, outputs=tuple(outputs), updates=())


def upstream(
    nodes: Sequence[Node], values: Iterable[Value], given: Container[Value] = ()
) -> list[Node]:
    """The nodes that `values` are computed from, in order; what is `given` needs none."""
    wanted, found = set(values), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(v for v in node.inputs if v not in given)
            found.append(node)
    return found[::-1]


def downstream(nodes: Sequence[Node], values: Iterable[Value]) -> set[Value]:
    """`values`, and every value that is computed from one of them."""
    reached = set(values)
    for node in nodes:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return reached


def renamed(graph: Graph, names: Mapping[Value, str]) -> Graph:
    """The graph with the computed values in `names` called so."""
    new = {v: dataclasses.replace(v, name=name) for v, name in names.items() if v.name != name}

    def called(values: Iterable[Value]) -> tuple[Value, ...]:
        return tuple(new.get(v, v) for v in values)

    nodes = [
        dataclasses.replace(n, inputs=called(n.inputs), outputs=called(n.outputs))
        for n in graph.nodes
    ]
    updates = [dataclasses.replace(u, value=new.get(u.value, u.value)) for u in graph.updates]
    return dataclasses.replace(
        graph, nodes=tuple(nodes), outputs=called(graph.outputs), updates=tuple(updates)
    )


def append(builder: Builder, nodes: Iterable[Node], new: dict[Value, Value]) -> None:
    """Appends `nodes` under their names, reading operands from `new` and adding results to it."""
    for node in nodes:
        made = builder.add(node.op, [new[v] for v in node.inputs], node.outputs)
        new.update(zip(node.outputs, made, strict=True))
