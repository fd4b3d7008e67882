"""forget_scales: code needs no scale and zero point."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from addergraph.ir import Graph, Node, Value
from addergraph.ops.movement.lookup import Lookup
from addergraph.ops.pointwise.requantize import Requantize

from ..rewrite import Draft, rebuild


def forget_scales(graph: Graph) -> Graph:
    """Takes `scale` and `zero_point` off what states them, so that equal layers share a kernel.

    rewrite:  %y = requantize_shift(%x, %c, %o, %s, %t) lo=0 hi=255 scale=0.25 : u8[N,8]
    ->        %y = requantize_shift(%x, %c, %o, %s, %t) lo=0 hi=255 : u8[N,8]
    """
    return rebuild(graph, _forget)


def _forget(draft: Draft, node: Node) -> Sequence[Value] | None:
    if not isinstance(node.op, Requantize | Lookup):
        return None
    op = dataclasses.replace(node.op, scale=0.0, zero_point=0)
    return draft.add(op, node.inputs, node.outputs)
