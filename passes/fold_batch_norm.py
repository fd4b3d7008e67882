"""Batch norm as multiply and add.

    rewrite (inference: mean and variance are parameters):
      %y = batch_norm(%x, %bn.mean, %bn.variance, %bn.gamma, %bn.beta) : f32[N,8,8,16]
      ->
      %y.const = full() value=1e-05 : f32[]
      %y.add = add(%bn.variance, %y.const) : f32[16]
      %y.sqrt = sqrt(%y.add) : f32[16]
      %y.scale = div(%bn.gamma, %y.sqrt) : f32[16]
      %y.mul = mul(%bn.mean, %y.scale) : f32[16]
      %y.shift = sub(%bn.beta, %y.mul) : f32[16]
      %y.scaled = mul(%x, %y.scale) : f32[N,8,8,16]
      %y = add(%y.scaled, %y.shift) : f32[N,8,8,16]

    rewrite (training: the statistics are computed):
      %y.scale as above
      %y.centered = sub(%x, %mean) : f32[64,8,8,16]
      %y.scaled = mul(%y.centered, %y.scale) : f32[64,8,8,16]
      %y = add(%y.scaled, %beta) : f32[64,8,8,16]

Scale and shift of the inference form depend on parameters alone: `hoist` computes them once, and
what remains is the affine tail of a contraction.

Rounding: the last bits change. `batch_norm` rounds once; here each step rounds to f32. In the
training form that costs a few ulp of |(x - mean) scale| + |beta|. In the inference form it costs a
few ulp of |x scale| + |mean scale| + |beta|, which grows with |mean| / deviation, and that is large
behind an adder (sums of absolute values): the price of two operations instead of three.
"""

from __future__ import annotations

from collections.abc import Sequence

from addergraph.ir import Graph, Node, Parameter, Value
from addergraph.ops.pointwise.batch_norm import BatchNorm
from addergraph.ops.pointwise.binary import Add, div, mul, sub
from addergraph.ops.pointwise.unary import sqrt

from .rewrite import Draft, rebuild


def fold_batch_norm(graph: Graph) -> Graph:
    """Replaces every `batch_norm`; the last node of each replacement has its name."""
    return rebuild(graph, _fold)


def _fold(draft: Draft, node: Node) -> Sequence[Value] | None:
    if not isinstance(node.op, BatchNorm):
        return None
    x, mean, variance, gamma, beta = (draft.tensor(v) for v in node.inputs)
    draft.scope = f"{node.name}."
    scale = div(gamma, sqrt(variance + node.op.epsilon), name="scale")
    if isinstance(mean.value, Parameter) and isinstance(variance.value, Parameter):
        shift = sub(beta, mean * scale, name="shift")
    else:
        x, shift = sub(x, mean, name="centered"), beta
    scaled = mul(x, scale, name="scaled")
    draft.scope = ""
    return draft.add(Add(), [scaled.value, shift.value], node.outputs)
