"""Fused nodes: the family of the body's first node carries the rest of it."""

from __future__ import annotations

from addergraph.ir import CONTRACTION
from addergraph.ops.fused import Fused

from . import Call, Kernel, kernel
from .forward.choice import forward_contraction
from .pointwise import PointwiseKernel
from .reduction.channel_sums import ChannelSumsKernel


@kernel(Fused)
def fused_kernel(call: Call) -> Kernel:
    """A contraction with its tail, or one pass over a group of pointwise nodes and their sums."""
    assert isinstance(call.op, Fused)
    if call.op.body.nodes[0].op.kind == CONTRACTION:
        return forward_contraction(call, call.op.body)
    if call.op.sums:
        return ChannelSumsKernel(call)
    return PointwiseKernel(call)
