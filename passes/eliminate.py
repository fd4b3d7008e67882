"""Common subexpressions and dead nodes.

    rewrite:
      %a = mul(%x, %s) : f32[N,4]          %a = mul(%x, %s) : f32[N,4]
      %b = mul(%x, %s) : f32[N,4]    ->    %y = sub(%a, %a) : f32[N,4]
      %c = exp(%x) : f32[N,4]              return %y
      %y = sub(%a, %b) : f32[N,4]
      return %y

Ops are frozen dataclasses, so equal nodes are found by a dict on (op, operands).
"""

from __future__ import annotations

from addergraph.ir import Graph, Value
from addergraph.ir.walk import append, upstream

from .rewrite import Draft


def eliminate(graph: Graph) -> Graph:
    """Merges nodes with equal op and operands, then drops what no output and no update reads.

    The first of equal nodes stays. Parameters that nothing reads or updates are dropped; inputs
    stay. No result changes by a bit.
    """
    return without_dead(_merge_equal(graph))


def without_dead(graph: Graph, keep_parameters: bool = False) -> Graph:
    """The graph without nodes and (unless `keep_parameters`) parameters that nothing needs."""
    live: set[Value] = {*graph.outputs}
    for u in graph.updates:
        live |= {u.parameter, u.value}
    nodes = upstream(graph.nodes, live)
    live.update(v for node in nodes for v in node.inputs)
    draft = Draft(graph, [p for p in graph.parameters if keep_parameters or p in live])
    append(draft, nodes, draft.new)
    return draft.close()


def _merge_equal(graph: Graph) -> Graph:
    draft = Draft(graph)
    seen: dict[tuple[object, tuple[Value, ...]], tuple[Value, ...]] = {}
    for original in graph.nodes:
        node = draft.moved(original)
        key = node.op.key, node.inputs
        if key not in seen:
            seen[key] = draft.keep(node)
        draft.stand_in(node, seen[key])
    return draft.close()
