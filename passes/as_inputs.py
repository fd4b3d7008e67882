"""as_inputs: parameters become inputs, so that a call says where their numbers are."""

from __future__ import annotations

from collections.abc import Collection

from addergraph.ir import Builder, Graph, Value
from addergraph.ir.walk import append


def as_inputs(graph: Graph, kept: Collection[str] = ()) -> Graph:
    """`graph`, of whose parameters only those called in `kept` stay, in their order; the others
    are inputs behind its own, in theirs.

    rewrite (kept: v):
      graph g(%x: f32[2,3]) params(%w: f32[3,1], %v: f32[1]) { ... }
      ->
      graph g(%x: f32[2,3], %w: f32[3,1]) params(%v: f32[1]) { ... }

    A program then reads them from wherever the caller keeps them: a state in RAM, or constants in
    flash. No kernel can be chosen by their numbers, and none is packed beforehand. Updated
    parameters have to be kept: an input cannot be written.
    """
    builder = Builder(graph.name)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type) for v in graph.inputs}
    for p in graph.parameters:
        new[p] = builder.parameter(p) if p.name in kept else builder.input(p.name, p.type)
    append(builder, graph.nodes, new)
    for u in graph.updates:
        builder.update(u.parameter, new[u.value])
    return builder.finish([new[v] for v in graph.outputs])
