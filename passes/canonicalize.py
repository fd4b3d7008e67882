"""One form for what can be written in several ways.

    rewrite (some of the rules):
      %b = neg(%a)  %c = neg(%b)                        ->  %a
      %y = sub(%x, %b)                                  ->  %y = add(%x, %a)
      %r = reshape(%x) shape=(N,64)  %s = flatten(%r)   ->  flatten(%x)
      %t = transpose(transpose(%x))                     ->  %x, or one transpose
      %w = broadcast_to(%g)  %y = mul(%x, %w)           ->  %y = mul(%x, %g)
      reshape, transpose, slice, pad, cast, ... that do nothing  ->  %x
      reshape, transpose, ... of full                   ->  full

Every rule keeps every bit, of -0.0 as well (so x + 0.0 stays: -0.0 + 0.0 is +0.0), but not the sign
or payload of a NaN. Nodes left without a reader stay for `eliminate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from addergraph.ir import MOVEMENT, POINTWISE, Graph, Node, Op, Value
from addergraph.ir.types import TensorType, i8, i32, u8
from addergraph.ops.fused import Fused
from addergraph.ops.movement.broadcast_to import BroadcastTo
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten, Reshape
from addergraph.ops.movement.slice import Slice
from addergraph.ops.movement.transpose import Transpose
from addergraph.ops.pointwise.binary import Add, Div, Maximum, Minimum, Mul, Sub
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.greater import Greater
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.pointwise.select import Select
from addergraph.ops.pointwise.unary import Abs, Neg
from addergraph.ops.reduction.max_pool2d import MaxPool2d

from .rewrite import Draft, Rule, rewrite


def canonicalize(graph: Graph) -> Graph:
    """Applies the rules below to a fixpoint."""
    return rewrite("canonicalize", graph, RULES)


def same_type_is_same_value(draft: Draft, node: Node) -> Sequence[Value] | None:
    """These ops change nothing but the type: where it stays, they do nothing."""
    if not isinstance(node.op, Reshape | Flatten | BroadcastTo | Slice | Cast):
        return None
    (x,) = node.inputs
    return (x,) if x.type == node.outputs[0].type else None


def pad_by_nothing(draft: Draft, node: Node) -> Sequence[Value] | None:
    if not isinstance(node.op, Pad) or any(node.op.before) or any(node.op.after):
        return None
    return node.inputs


def pool_of_one(draft: Draft, node: Node) -> Sequence[Value] | None:
    """max_pool2d only: an average starts its sum at +0.0, which loses a -0.0."""
    return node.inputs if node.op == MaxPool2d((1, 1), (1, 1)) else None


def transpose_in_order(draft: Draft, node: Node) -> Sequence[Value] | None:
    if not isinstance(node.op, Transpose):
        return None
    in_order = node.op.permutation == tuple(range(node.inputs[0].type.rank))
    return node.inputs if in_order else None


def transpose_of_transpose(draft: Draft, node: Node) -> Sequence[Value] | None:
    if not isinstance(node.op, Transpose):
        return None
    inner = draft.producer(node.inputs[0])
    if inner is None or not isinstance(inner.op, Transpose):
        return None
    op = Transpose(tuple(inner.op.permutation[axis] for axis in node.op.permutation))
    return draft.add(op, inner.inputs, node.outputs)


def reshape_of_reshape(draft: Draft, node: Node) -> Sequence[Value] | None:
    """The order of elements stays, so only the last shape counts."""
    if not isinstance(node.op, Reshape | Flatten):
        return None
    inner = draft.producer(node.inputs[0])
    if inner is None or not isinstance(inner.op, Reshape | Flatten):
        return None
    before, after = inner.inputs[0].type, node.outputs[0].type
    flattens = before.rank > 1 and Flatten().infer(before) == (after,)
    return draft.add(Flatten() if flattens else Reshape(after.shape), inner.inputs, node.outputs)


def movement_of_full(draft: Draft, node: Node) -> Sequence[Value] | None:
    """Equal elements moved about are equal elements; a pad has to pad with the same."""
    fulls = _fulls(draft, node)
    if node.op.kind != MOVEMENT or not fulls:
        return None
    values = {str(float(full.value)) for full in fulls}
    if isinstance(node.op, Pad):
        values.add(str(float(node.op.value)))
    if len(values) > 1:
        return None
    return _add_full(draft, node, fulls[0].value)


def pointwise_of_full(draft: Draft, node: Node) -> Sequence[Value] | None:
    """One element computed by the op's reference stands for all."""
    fulls = _fulls(draft, node)
    if node.op.kind != POINTWISE or not fulls or isinstance(node.op, Fused):
        return None
    if node.outputs[0].type.dtype in (u8, i8):
        return None  # of which there are no constants
    (result,) = node.op.reference(*(np.full((), full.value, full.dtype.numpy) for full in fulls))
    return _add_full(draft, node, result.item())


def select_by_full(draft: Draft, node: Node) -> Sequence[Value] | None:
    """A constant condition chooses one operand for good, if that has (or can get) the shape."""
    mask = draft.producer(node.inputs[0]) if isinstance(node.op, Select) else None
    if mask is None or not isinstance(mask.op, Full):
        return None
    chosen = node.inputs[1 if mask.op.value else 2]
    if chosen.type == node.outputs[0].type:
        return (chosen,)
    made = draft.producer(chosen)
    if made is None or not isinstance(made.op, Full):
        return None
    return _add_full(draft, node, made.op.value)


def neutral_operand(draft: Draft, node: Node) -> Sequence[Value] | None:
    """x + -0.0, x - 0.0, x * 1, x / 1; in i32 also x + 0."""
    if not isinstance(node.op, Add | Sub | Mul | Div):
        return None
    x, y = node.inputs
    if _is_neutral(draft, node.op, y) and x.type == node.outputs[0].type:
        return (x,)
    commutes = isinstance(node.op, Add | Mul)
    if commutes and _is_neutral(draft, node.op, x) and y.type == node.outputs[0].type:
        return (y,)
    return None


def sign_of_sign(draft: Draft, node: Node) -> Sequence[Value] | None:
    """neg of neg, abs of neg; abs and relu of what is one of these already."""
    if not isinstance(node.op, Neg | Abs | Relu):
        return None
    inner = draft.producer(node.inputs[0])
    if inner is None:
        return None
    match node.op, inner.op:
        case Neg(), Neg():
            return inner.inputs
        case Abs(), Neg():
            return draft.add(Abs(), inner.inputs, node.outputs)
        case (Abs(), Abs() | Relu()) | (Relu(), Relu()):
            return node.inputs
    return None


def add_of_neg(draft: Draft, node: Node) -> Sequence[Value] | None:
    """x - -y = x + y,  x + -y = x - y,  -x + y = y - x: IEEE subtraction adds the negative."""
    if not isinstance(node.op, Add | Sub):
        return None
    x, y = node.inputs
    if (minus_y := _negated(draft, y)) is not None:
        op = Sub() if isinstance(node.op, Add) else Add()
        return draft.add(op, [x, minus_y], node.outputs)
    if isinstance(node.op, Add) and (minus_x := _negated(draft, x)) is not None:
        return draft.add(Sub(), [y, minus_x], node.outputs)
    return None


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
        wide = draft.producer(v)
        if wide is None or not isinstance(wide.op, Full) or not v.type.shape:
            continue
        if _may_have_type(node, position, TensorType(v.type.dtype, ())):
            scalar = dataclasses.replace(wide.op, shape=())
            return _with_operand(draft, node, position, draft.add(scalar, [], "const")[0])
    return None


RULES: tuple[Rule, ...] = (
    same_type_is_same_value,
    pad_by_nothing,
    pool_of_one,
    transpose_in_order,
    transpose_of_transpose,
    reshape_of_reshape,
    movement_of_full,
    pointwise_of_full,
    select_by_full,
    neutral_operand,
    sign_of_sign,
    add_of_neg,
    operand_broadcasts_itself,
    full_operand_is_scalar,
)


def _may_have_type(node: Node, position: int, type: TensorType) -> bool:
    """Whether an elementwise node gives results of the same type with an operand of `type`."""
    if not isinstance(node.op, Add | Sub | Mul | Div | Maximum | Minimum | Greater | Select):
        return False
    types = [v.type for v in node.inputs]
    types[position] = type
    return node.op.infer(*types) == tuple(v.type for v in node.outputs)


def _with_operand(draft: Draft, node: Node, position: int, value: Value) -> tuple[Value, ...]:
    operands = list(node.inputs)
    operands[position] = value
    return draft.add(node.op, operands, node.outputs)


def _fulls(draft: Draft, node: Node) -> list[Full]:
    """The `full` ops that give the node's operands; empty if any operand is something else."""
    made = [draft.producer(v) for v in node.inputs]
    fulls = [n.op for n in made if n is not None and isinstance(n.op, Full)]
    return fulls if len(fulls) == len(made) else []


def _add_full(draft: Draft, node: Node, value: float) -> tuple[Value, ...]:
    (result,) = node.outputs
    op = Full(shape=result.type.shape, value=float(value), dtype=result.type.dtype)
    return draft.add(op, [], node.outputs)


def _is_neutral(draft: Draft, op: Op, value: Value) -> bool:
    made = draft.producer(value)
    if made is None or not isinstance(made.op, Full):
        return False
    if isinstance(op, Mul | Div):
        return made.op.value == 1
    if value.type.dtype == i32:
        return made.op.value == 0
    return str(float(made.op.value)) == ("-0.0" if isinstance(op, Add) else "0.0")


def _negated(draft: Draft, value: Value) -> Value | None:
    """x, where `value` is neg(x)."""
    made = draft.producer(value)
    return made.inputs[0] if made is not None and isinstance(made.op, Neg) else None
