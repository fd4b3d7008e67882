"""Derived, read-only views of a graph: networkx for questions about paths, DOT for the eye.

Vertices are nodes by name, and inputs and parameters by theirs. Edges are operands: one per
operand position, which is the edge's key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..errors import GraphError
from ..ir import Graph, Node, Parameter, Value
from ..ir.text_attributes import shown_attributes


def to_networkx(graph: Graph) -> Any:
    """A networkx.MultiDiGraph of `graph`.

    Vertices carry `kind` ("input", "parameter" or the op's name); edges carry `value`, the name
    of the value that flows, and `type`.
    """
    import networkx as nx

    made = nx.MultiDiGraph(name=graph.name)
    source: dict[Value, str] = {v: v.name for v in (*graph.inputs, *graph.parameters)}
    for value in source:
        kind = "parameter" if isinstance(value, Parameter) else "input"
        made.add_node(value.name, kind=kind)
    for node in graph.nodes:
        made.add_node(node.name, kind=node.op.name)
        source.update(dict.fromkeys(node.outputs, node.name))
        for position, value in enumerate(node.inputs):
            edge = {"value": value.name, "type": value.type}
            made.add_edge(source[value], node.name, key=position, **edge)
    return made


def ancestors(graph: Graph, name: str) -> frozenset[str]:
    """The nodes, inputs and parameters that the node `name` depends on, by name."""
    import networkx as nx

    view = to_networkx(graph)
    _require_vertices(view, [name])
    return frozenset(nx.ancestors(view, name))


def critical_path(graph: Graph) -> tuple[str, ...]:
    """The names of the nodes along the most expensive chain of dependencies, first to last.

    A node costs the arithmetic of its op (an open batch counts as one sample) plus one.
    """
    bound = graph.bind(1) if graph.is_open else graph
    best: dict[Value, int] = {}
    before: dict[str, str | None] = {}
    producers = bound.producers()
    for node in bound.nodes:
        chain = max((v for v in node.inputs if v in best), key=best.__getitem__, default=None)
        before[node.name] = None if chain is None else producers[chain].name
        total = _cost(node) + (0 if chain is None else best[chain])
        best.update(dict.fromkeys(node.outputs, total))
    if not best:
        return ()
    step: str | None = producers[max(best, key=best.__getitem__)].name
    path = []
    while step is not None:
        path.append(step)
        step = before[step]
    return tuple(reversed(path))


def fusion_is_acyclic(graph: Graph, groups: Sequence[Collection[str]]) -> bool:
    """Whether the graph stays acyclic when each group of nodes (by name) becomes one node.

    Raises GraphError for a name that is not a node or stands in two groups.
    """
    import networkx as nx

    view = to_networkx(graph)
    owner: dict[str, object] = {}
    for number, group in enumerate(groups):
        _require_vertices(view, group)
        for name in group:
            if owner.setdefault(name, number) != number:
                raise GraphError(f'node "{name}" stands in two groups')
    quotient = nx.DiGraph()
    for before, after in view.edges():
        ends = owner.get(before, before), owner.get(after, after)
        if ends[0] != ends[1]:
            quotient.add_edge(*ends)
    return bool(nx.is_directed_acyclic_graph(quotient))


def to_dot(graph: Graph) -> str:
    """The graph in DOT: boxes for nodes (op, name, attributes, types), ovals for what enters."""
    lines = [f"digraph {_quoted(graph.name)} {{", "  node [shape=box];"]
    source: dict[Value, str] = {}
    for value in (*graph.inputs, *graph.parameters):
        style = "dashed" if isinstance(value, Parameter) else "solid"
        label = _quoted(value.name, str(value.type))
        lines.append(f"  {_quoted(value.name)} [shape=oval, style={style}, label={label}];")
        source[value] = value.name
    for node in graph.nodes:
        lines.append(f"  {_quoted(node.name)} [label={_quoted(*_describe(node))}];")
        source.update(dict.fromkeys(node.outputs, node.name))
        for value in node.inputs:
            label = f" [label={_quoted(value.name)}]" if value.name != source[value] else ""
            lines.append(f"  {_quoted(source[value])} -> {_quoted(node.name)}{label};")
    for position, value in enumerate(graph.outputs):
        end = _quoted(f"return {position}")
        lines.append(f"  {end} [shape=plaintext];")
        lines.append(f"  {_quoted(source[value])} -> {end};")
    for update in graph.updates:
        ends = f"{_quoted(source[update.value])} -> {_quoted(update.parameter.name)}"
        lines.append(f'  {ends} [style=dotted, constraint=false, label="update"];')
    return "\n".join([*lines, "}"])


def _describe(node: Node) -> list[str]:
    """The lines of a node's label: op and name, attributes that are not the default, types."""
    types = ", ".join(str(v.type) for v in node.outputs)
    return [f"{node.op.name} {node.name}", *shown_attributes(node.op), types]


def _quoted(*lines: str) -> str:
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _cost(node: Node) -> int:
    cost = node.op.cost([v.type for v in node.inputs])
    return 1 + cost.additions + cost.multiplications + cost.transcendentals


def _require_vertices(view: Any, names: Collection[str]) -> None:
    for name in names:
        if name not in view:
            raise GraphError(f'graph "{view.name}" has no node, input or parameter "{name}"')
