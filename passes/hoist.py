"""hoist: what depends on parameters alone is computed once, in a setup graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from addergraph.ir import Builder, Graph, Init, Parameter, Value
from addergraph.ir.intervals import Interval, value_ranges
from addergraph.ir.walk import append, upstream


def hoist(graph: Graph) -> tuple[Graph, Graph]:
    """Splits `graph` into (setup, main): main, given setup's outputs, means what `graph` means.

    rewrite:  graph g(%x: ..) params(%f: .., %v: ..) {
                %s = sqrt(%v)  %y = adder2d(%x, %f)  %z = mul(%y, %s)  return %z }
    ->        graph g_setup() params(%v: ..) { %s = sqrt(%v)  return %s }
              graph g(%x: ..) params(%f: .., %s: .. fixed) {
                %y = adder2d(%x, %f)  %z = mul(%y, %s)  return %z }

    Setup's outputs are parameters of main: same name and type, fixed, initially zeros. A graph
    output stays computed in main even where it depends on parameters alone. Constants (`full`)
    move only as operands of what moves. Programs with updates keep their raw parameters, which
    change between calls: such a graph is returned as it is, with a setup that has no outputs. So is
    one where an `input_nonnegative` rests on the range of a value that would become a parameter.
    """
    moved = hoistable(graph)
    needed = _needed(graph, moved)
    main = _main(graph, moved, needed)
    if not needed or not _claims_hold(main):
        return _setup(graph, []), graph
    return _setup(graph, needed), main


def hoistable(graph: Graph) -> frozenset[Value]:
    """The values that `hoist` may move: each depends on at least one parameter and no input."""
    if graph.updates:
        return frozenset()
    returned = set(graph.outputs)
    constant: set[Value] = set()  # computed from nothing at all
    moved: set[Value] = set()
    sources: set[Value] = set(graph.parameters)
    for node in graph.nodes:
        if any(v in returned or v.type.is_open for v in node.outputs):
            continue
        if constant.issuperset(node.inputs):
            constant.update(node.outputs)
            sources.update(node.outputs)
        elif sources.issuperset(node.inputs):
            moved.update(node.outputs)
            sources.update(node.outputs)
    return frozenset(moved)


def _claims_hold(graph: Graph, inputs: Sequence[Interval] | None = None) -> bool:
    """Whether each `input_nonnegative` is provable in `graph`, also inside fused bodies."""
    ranges = value_ranges(graph, inputs)
    for node in graph.nodes:
        known = [ranges[v.name] for v in node.inputs]
        if getattr(node.op, "input_nonnegative", False) and not known[0].nonnegative:
            return False
        body = node.op.subgraph
        if body is not None and not _claims_hold(body, known):
            return False
    return True


def _needed(graph: Graph, moved: Collection[Value]) -> list[Value]:
    """The moved values that a node of main reads, in order of definition."""
    read = {
        v for node in graph.nodes if node.outputs[0] not in moved for v in node.inputs if v in moved
    }
    return [v for node in graph.nodes for v in node.outputs if v in read]


def _setup(graph: Graph, needed: list[Value]) -> Graph:
    nodes = upstream(graph.nodes, needed)
    read = {v for node in nodes for v in node.inputs}
    builder = Builder(f"{graph.name}_setup")
    new: dict[Value, Value] = {p: builder.parameter(p) for p in graph.parameters if p in read}
    append(builder, nodes, new)
    return builder.finish([new[v] for v in needed])


def _main(graph: Graph, moved: Collection[Value], needed: list[Value]) -> Graph:
    kept = [node for node in graph.nodes if node.outputs[0] not in moved]
    read = {v for node in kept for v in node.inputs} | set(graph.outputs)
    read_before = {v for node in graph.nodes for v in node.inputs}
    # A constant whose readers have all moved goes with them; what was never read stays.
    kept = [n for n in kept if n.inputs or n.outputs[0] in read or n.outputs[0] not in read_before]
    builder = Builder(graph.name)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type) for v in graph.inputs}
    new |= {p: builder.parameter(p) for p in graph.parameters if p in read}
    for v in needed:
        new[v] = builder.parameter(Parameter(v.name, v.type, Init("zeros"), trainable=False))
    append(builder, kept, new)
    return builder.finish([new[v] for v in graph.outputs])
