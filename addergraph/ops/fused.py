"""fused: a group of nodes that compiles to one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..border import plain
from ..errors import GraphError, ShapeError
from ..ir import CONTRACTION, POINTWISE, Array, Cost, Graph, Halo, Intervals, Node, Op, Types
from ..ir.intervals import value_ranges
from ..ir.quantization import Known, Quantization, value_quantizations
from ..ir.types import Shape, TensorType, broadcast_shapes, f32
from ..ir.walk import evaluate
from .reduction.reduce import ReduceSum


@dataclass(frozen=True)
class Fused(Op):
    """The results of `body`, a graph whose inputs are the operands; its nodes mean what they say.

    A body has no parameters and no updates, and is one of three forms; GraphError otherwise.

    * Pointwise: pointwise nodes only, each of the body's one iteration shape, except `full` of
      shape (). Inputs broadcast to that shape. Any node may be an output.
    * Sums: pointwise, and `reduce_sum` nodes over all axes but the last of f32 values of the
      iteration shape. Each is an output, and nothing in the body reads it.
    * Contraction: one contraction first, then pointwise nodes of its result's shape, or `full` of
      shape (). What they read of the inputs has that shape, or [T] (the last axis), or []. The one
      output is the last node.

    Made by the `fuse` pass, after differentiation. Infer raises ShapeError unless the operands have
    exactly the types of the body's inputs.
    """

    name: ClassVar[str] = "fused"
    kind: ClassVar[str] = POINTWISE  # a contraction body is told by `contraction`
    not_differentiable: ClassVar[bool] = True
    body: Graph

    def __post_init__(self) -> None:
        body = plain(Graph, "fused: body", self.body, GraphError)
        if body.parameters or body.updates:
            raise GraphError("a fused body has inputs only, found parameters or updates")
        if not body.nodes or not body.outputs:
            raise GraphError("a fused body needs at least one node and one output")
        tail = body.nodes if self.contraction is None else body.nodes[1:]
        sums = self.sums
        for node in tail:
            if node in sums:
                continue
            if node.op.kind != POINTWISE or isinstance(node.op, Fused):
                raise GraphError(
                    f"a fused body holds pointwise nodes behind at most one contraction, "
                    f"which comes first, or pointwise nodes and their channel sums; "
                    f"found {node.label}"
                )
        if self.contraction is None:
            _check_pointwise(body, sums)
        else:
            _check_contraction(body, self.contraction, tail)

    @property
    def subgraph(self) -> Graph:
        return self.body

    @property
    def elementwise(self) -> bool:
        return self.contraction is None and not self.sums

    def in_step(self, operands: int) -> tuple[int, ...]:
        return self.tail_operands

    @property
    def multiplies(self) -> bool:  # type: ignore[override]
        """Whether any node of the body does."""
        return any(node.op.multiplies for node in self.body.nodes)

    @property
    def sums(self) -> tuple[Node, ...]:
        """The channel sums of a body without a contraction."""
        return (
            tuple(n for n in self.body.nodes if is_channel_sum(n))
            if self.contraction is None
            else ()
        )

    @property
    def tail_operands(self) -> tuple[int, ...]:
        """Operands that only the nodes behind the contraction read, element by element.

        Of a body with sums: those of the iteration shape.
        """
        inputs = self.body.inputs
        if sums := self.sums:
            shape = sums[0].inputs[0].type.shape
            return tuple(i for i, v in enumerate(inputs) if v.type.shape == shape)
        if self.contraction is None:
            return tuple(range(len(inputs)))
        first = self.contraction.inputs
        return tuple(i for i, v in enumerate(inputs) if v not in first)

    @property
    def contraction(self) -> Node | None:
        """The contraction that opens the body; None for a pointwise body."""
        first = self.body.nodes[0]
        return first if first.op.kind == CONTRACTION else None

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        """Whether every node of the body is."""
        return all(node.op.per_sample for node in self.body.nodes)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        expected = tuple(v.type for v in self.body.inputs)
        if types != expected:
            raise ShapeError(
                f"operands must be as the body's inputs, ({', '.join(map(str, expected))}), "
                f"found ({', '.join(map(str, types))})"
            )
        return tuple(v.type for v in self.body.outputs)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        known = evaluate(self.body, arrays, lambda node, xs: node.op.reference(*xs))
        return tuple(known[v] for v in self.body.outputs)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        inner = value_ranges(self.body, ranges)
        return tuple(inner[v.name] for v in self.body.outputs)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        inner = value_quantizations(self.body, known)
        return tuple(inner[v.name] for v in self.body.outputs)

    def halo(self, types: Types) -> tuple[Halo, ...]:
        wanted = {v: Halo() for v in self.body.inputs}
        node = self.contraction
        if node is not None:
            for v, halo in zip(node.inputs, node.op.halo(_types(node)), strict=True):
                wanted[v] = wanted[v].union(halo)
        return tuple(wanted[v] for v in self.body.inputs)

    def cost(self, types: Types) -> Cost:
        costs = [node.op.cost(_types(node)) for node in self.body.nodes]
        return Cost(
            sum(c.additions for c in costs),
            sum(c.multiplications for c in costs),
            sum(c.transcendentals for c in costs),
        )

    def bind(self, batch: int) -> Fused:
        return Fused(self.body.bind(batch))


def _types(node: Node) -> list[TensorType]:
    return [v.type for v in node.inputs]


def _is_scalar_constant(node: Node) -> bool:
    return not node.inputs and node.outputs[0].type.shape == ()


def is_channel_sum(node: Node) -> bool:
    """Whether `node` sums several channels of f32 over all other axes."""
    op = node.op
    if not isinstance(op, ReduceSum) or op.keepdims or node.inputs[0].type.dtype != f32:
        return False
    shape = node.inputs[0].type.shape
    return len(shape) > 1 and shape[-1] != 1 and op.axes == tuple(range(len(shape) - 1))


def _check_pointwise(body: Graph, sums: Sequence[Node]) -> None:
    made = {v for n in sums for v in n.outputs}
    for node in body.nodes:
        if not made.isdisjoint(node.inputs):
            raise GraphError(f"{node.label} in a fused body reads a channel sum of the body")
    if not made.issubset(body.outputs):
        raise GraphError("a channel sum in a fused body is not among the body's outputs")
    shapes = {
        (n.inputs[0] if n in sums else n.outputs[0]).type.shape
        for n in body.nodes
        if not _is_scalar_constant(n)
    }
    if len(shapes) > 1:
        raise GraphError(
            "the nodes of a pointwise fused body have one shape, found "
            + " and ".join(sorted(map(_shown, shapes)))
        )
    shape = shapes.pop() if shapes else ()
    for v in body.inputs:
        if broadcast_shapes(f"fused body input {v}", v.type.shape, shape) != shape:
            raise GraphError(
                f"input {v}: {v.type} of a fused body does not broadcast to {_shown(shape)}"
            )


def _check_contraction(body: Graph, contraction: Node, tail: Sequence[Node]) -> None:
    shape = contraction.outputs[0].type.shape
    if body.outputs != body.nodes[-1].outputs:
        raise GraphError("a fused contraction has one output, its last node")
    inputs, readable = set(body.inputs), (shape, shape[-1:], ())
    for node in tail:
        made = node.outputs[0].type.shape
        if made != shape and not _is_scalar_constant(node):
            raise GraphError(
                f"{node.label} in a fused body has shape {_shown(made)}; expected that of the "
                f"contraction, {_shown(shape)}"
            )
        for v in node.inputs:
            if v in inputs and v.type.shape not in readable:
                raise GraphError(
                    f"{node.label} in a fused body reads {v}: {v.type}; expected the shape "
                    f"{_shown(shape)}, {_shown(shape[-1:])} or []"
                )


def _shown(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


def contraction_of(node: Node) -> Node | None:
    """The contraction that a node is or, fused, begins with."""
    if isinstance(node.op, Fused):
        return node.op.contraction
    return node if node.op.kind == CONTRACTION else None
