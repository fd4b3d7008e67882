"""Makes a failing case small: fewer outputs and updates, and inner values as inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from addergraph.ir import Builder, Graph, Node, Update, Value
from addergraph.ir.interpreter import evaluate
from tests.strategies import Case


def minimize(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The smallest case found, by greedy steps, that still fails."""
    smaller = next((c for c in _smaller(case) if fails(c)), None)
    while smaller is not None:
        case = smaller
        smaller = next((c for c in _smaller(case) if fails(c)), None)
    return case


def _smaller(case: Case) -> Iterator[Case]:
    graph = case.graph
    outputs, updates = graph.outputs, graph.updates
    for update in updates:
        yield _part(case, outputs, [u for u in updates if u is not update], None)
    for value in outputs if len(outputs) > 1 else ():
        yield _part(case, [value], updates, None)
    for node in graph.nodes[:-1]:
        yield _part(case, node.outputs[:1], updates, None)
    kept = {*outputs, *(u.value for u in updates)}
    for node in graph.nodes:
        if kept.isdisjoint(node.outputs):
            yield _part(case, outputs, updates, node)


def _part(
    case: Case, outputs: Sequence[Value], updates: Sequence[Update], cut: Node | None
) -> Case:
    """What `outputs` and `updates` need of a case; the results of `cut` become inputs."""
    arrays = evaluate(case.graph, case.inputs, case.weights)
    ends = [*outputs, *(u.value for u in updates)]
    nodes = _needed(case.graph, ends, cut)
    read = {*ends, *(u.parameter for u in updates)}
    read.update(v for node in nodes for v in node.inputs)
    builder = Builder(case.graph.name)
    new: dict[Value, Value] = {}
    for v in [*case.graph.inputs, *(cut.outputs if cut else ())]:
        if v in read:
            new[v] = builder.input(v.name, v.type)
    for p in case.graph.parameters:
        if p in read:
            new[p] = builder.parameter(p)
    for node in nodes:
        made = builder.add(node.op, [new[v] for v in node.inputs], node.outputs)
        new.update(zip(node.outputs, made, strict=True))
    for u in updates:
        builder.update(u.parameter, new[u.value])
    graph = builder.finish([new[v] for v in outputs])
    inputs = tuple(arrays[v.name] for v in graph.inputs)
    weights = {p.name: case.weights[p.name] for p in graph.parameters}
    return dataclasses.replace(case, graph=graph, inputs=inputs, weights=weights)


def _needed(graph: Graph, outputs: Sequence[Value], cut: Node | None) -> list[Node]:
    wanted, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if node is not cut and not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    return nodes[::-1]
