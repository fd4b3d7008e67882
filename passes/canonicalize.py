"""One form for what can be written in several ways.

    rewrite (some of the rules):
      %b = neg(%a)  %c = neg(%b)                        ->  %a
      %y = sub(%x, %b)                                  ->  %y = add(%x, %a)
      %r = reshape(%x) shape=(N,64)  %s = flatten(%r)   ->  flatten(%x)
      %t = transpose(transpose(%x))                     ->  %x, or one transpose
      %w = broadcast_to(%g)  %y = mul(%x, %w)           ->  %y = mul(%x, %g)
      reshape, transpose, slice, pad, cast, ... that do nothing  ->  %x
      reshape, transpose, ... of full                   ->  full

What concerns one op and what it reads stands in the op, as `Op.canonical`; here are the rules for
all ops of a kind. Every rule keeps every bit, of -0.0 as well (so x + 0.0 stays: -0.0 + 0.0 is
+0.0), but not the sign or payload of a NaN. Nodes left without a reader stay for `eliminate`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from addergraph.ir import MOVEMENT, Graph, Node, Source, Value
from addergraph.ir.types import TensorType, i8, u8
from addergraph.ops.movement.broadcast_to import BroadcastTo
from addergraph.ops.movement.pad import Pad
from addergraph.ops.pointwise.full import Full

from .rewrite import Draft, Rule, rewrite


def canonicalize(graph: Graph) -> Graph:
    """Applies the rules below to a fixpoint."""
    return rewrite("canonicalize", graph, RULES)


def canonical_form(draft: Draft, node: Node) -> Sequence[Value] | None:
    """What the op says of itself."""
    if len(node.outputs) != 1:
        return None
    sources = [Source(v, draft.producer(v)) for v in node.inputs]
    made = node.op.canonical(sources, node.outputs[0].type)
    if isinstance(made, tuple):
        op, operands = made
        return draft.add(op, operands, node.outputs)
    return None if made is None else (made,)


def movement_of_full(draft: Draft, node: Node) -> Sequence[Value] | None:
    """Equal elements moved about are equal elements; a pad has to pad with the same."""
    constants = _constants(draft, node)
    if node.op.kind != MOVEMENT or not constants:
        return None
    values = {str(float(value)) for value in constants}
    if isinstance(node.op, Pad):
        values.add(str(float(node.op.value)))
    if len(values) > 1:
        return None
    return _add_full(draft, node, constants[0])


def pointwise_of_full(draft: Draft, node: Node) -> Sequence[Value] | None:
    """One element computed by the op's reference stands for all."""
    constants = _constants(draft, node)
    if not node.op.elementwise or not constants or node.op.subgraph is not None:
        return None
    if node.outputs[0].type.dtype in (u8, i8):
        return None  # of which there are no constants
    values = zip(constants, node.inputs, strict=True)
    (result,) = node.op.reference(*(np.full((), c, v.type.dtype.numpy) for c, v in values))
    return _add_full(draft, node, result.item())


def operand_broadcasts_itself(draft: Draft, node: Node) -> Sequence[Value] | None:
    """An elementwise op needs no broadcast_to where its other operands have the shape."""
    for position, v in enumerate(node.inputs):
        wide = draft.producer(v)
        if wide is None or not isinstance(wide.op, BroadcastTo):
            continue
        if _may_have_type(node, position, wide.inputs[0].type):
            return _with_operand(draft, node, position, wide.inputs[0])
    return None


def full_operand_is_scalar(draft: Draft, node: Node) -> Sequence[Value] | None:
    """The same for `full`: what stays is one number."""
    for position, v in enumerate(node.inputs):
        constant = Source(v, draft.producer(v)).constant
        if constant is None or not v.type.shape:
            continue
        if _may_have_type(node, position, TensorType(v.type.dtype, ())):
            scalar = Full(constant, (), v.type.dtype)
            return _with_operand(draft, node, position, draft.add(scalar, [], "const")[0])
    return None


RULES: tuple[Rule, ...] = (
    canonical_form,
    movement_of_full,
    pointwise_of_full,
    operand_broadcasts_itself,
    full_operand_is_scalar,
)


def _may_have_type(node: Node, position: int, type: TensorType) -> bool:
    """Whether an elementwise node gives results of the same type with an operand of `type`."""
    if not node.op.broadcasts:
        return False
    types = [v.type for v in node.inputs]
    types[position] = type
    return node.op.infer(*types) == tuple(v.type for v in node.outputs)


def _with_operand(draft: Draft, node: Node, position: int, value: Value) -> tuple[Value, ...]:
    operands = list(node.inputs)
    operands[position] = value
    return draft.add(node.op, operands, node.outputs)


def _constants(draft: Draft, node: Node) -> list[float]:
    """The numbers that the node's operands are throughout; empty if any is something else."""
    found = [Source(v, draft.producer(v)).constant for v in node.inputs]
    return [] if None in found else [c for c in found if c is not None]


def _add_full(draft: Draft, node: Node, value: float) -> tuple[Value, ...]:
    (result,) = node.outputs
    op = Full(shape=result.type.shape, value=float(value), dtype=result.type.dtype)
    return draft.add(op, [], node.outputs)
