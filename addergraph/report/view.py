"""Derived, read-only views of a graph: networkx for questions about paths, DOT for the eye.

Vertices are nodes by name, and inputs and parameters by theirs. Edges are operands: one per
operand position, which is the edge's key.
"""

from __future__ import annotations

from typing import Any

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
