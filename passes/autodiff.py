"""Reverse-mode differentiation, with the paper's gradients where an op declares them (`surrogate`).

    rewrite (grad of net with respect to f):
      graph net(%x: f32[2,4,4,1]) params(%f: f32[3,3,1,8]) {
        %y = adder2d(%x, %f) : f32[2,2,2,8]
        return %y
      }
      ->
      graph net_grad(%x: f32[2,4,4,1], %dy: f32[2,2,2,8]) params(%f: f32[3,3,1,8]) {
        %f.grad = adder2d_grad_filter(%dy, %x, %f) : f32[3,3,1,8]
        return %f.grad
      }

Names: the gradient of %v is %v.grad, what the gradient of node %y needs on the way is %y.grad.<op>.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from addergraph.errors import GraphError, nearest
from addergraph.ir import Gradients, Graph, Node, Value
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.ir.walk import downstream, renamed
from addergraph.ops.pointwise.full import Full

from .eliminate import without_dead
from .rewrite import Draft


def grad(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The graph (inputs of `graph`, then a d<output> for each output) -> gradients of `wrt`.

    `wrt` names inputs and parameters; there is one output for each, in that order and of the same
    type: zeros where no output depends on it. Updates are left out: a gradient graph changes
    nothing. Raises GraphError for an unknown name, a value that is not f32, and an op without a
    gradient on the path.
    """
    draft = Draft(dataclasses.replace(graph, name=f"{graph.name}_grad", updates=()))
    draft.copy()
    targets = [draft.new[v] for v in _named(graph, wrt)]
    seeds: dict[Value, Tensor] = {}
    for v in graph.outputs:
        _require_f32(f"output %{v.name}", v)
        upstream = _new_input(draft, f"d{v.name}", v.type)
        y = draft.new[v]
        seeds[y] = seeds[y] + upstream if y in seeds else upstream
    gradients = differentiate(draft, seeds, targets)
    outputs = [gradients[v] if v in gradients else _zeros(draft, v) for v in targets]
    return close(draft, gradients, [g.value for g in outputs])


def differentiate(
    draft: Draft, seeds: Mapping[Value, Tensor], wrt: Iterable[Value]
) -> dict[Value, Tensor]:
    """Appends the backward pass to `draft`: the gradient of each value between `wrt` and `seeds`.

    `seeds` gives the gradients of the results. A value of `wrt` that no seed depends on is not in
    the answer. Contributions of several readers are summed, last reader first. Raises GraphError,
    naming the node, for an op without a gradient on the path.
    """
    nodes = tuple(draft.nodes)
    varying = downstream(nodes, wrt)
    gradients = dict(seeds)
    for node in reversed(nodes):
        gs = [gradients.get(v) for v in node.outputs]
        if varying.isdisjoint(node.outputs) or all(g is None for g in gs):
            continue
        draft.scope = f"{node.name}.grad."
        for v, g in zip(node.inputs, _operand_gradients(draft, node, gs), strict=True):
            if g is not None and v in varying:
                gradients[v] = gradients[v] + g if v in gradients else g
    draft.scope = ""
    return gradients


def close(draft: Draft, gradients: Mapping[Value, Tensor], outputs: Sequence[Value]) -> Graph:
    """The finished graph: gradients named after their values, nodes that nothing reads gone."""
    taken = set(draft.new.values())
    names: dict[Value, str] = {}
    for v, g in gradients.items():
        if g.value not in taken and draft.producer(g.value) is not None:
            taken.add(g.value)
            names[g.value] = draft.fresh(f"{v.name}.grad")
    return without_dead(renamed(draft.finish(outputs), names), keep_parameters=True)


def _operand_gradients(draft: Draft, node: Node, gs: Gradients) -> Gradients:
    if node.op.not_differentiable:
        raise GraphError(
            f"{node.label} has no gradient, but the gradient has to pass through it; "
            "take it off the path or differentiate with respect to something after it"
        )
    xs = [draft.tensor(v) for v in node.inputs]
    ys = [draft.tensor(v) for v in node.outputs]
    return node.op.grad(xs, ys, gs)


def _named(graph: Graph, wrt: Sequence[str]) -> list[Value]:
    known = {v.name: v for v in (*graph.inputs, *graph.parameters)}
    for name in wrt:
        if name not in known:
            raise GraphError(
                f'cannot differentiate "{graph.name}" with respect to "{name}"'
                f"{nearest(name, known)}; its inputs and parameters: {', '.join(known)}"
            )
        _require_f32(f"%{name}", known[name])
    return [known[name] for name in wrt]


def _require_f32(what: str, value: Value) -> None:
    if value.type.dtype != f32:
        raise GraphError(f"{what} is {value.type}; only f32 values have gradients")


def _new_input(draft: Draft, name: str, type: TensorType) -> Tensor:
    """An input called `name`, numbered where that is taken (an output returned twice)."""
    value = Value(draft.fresh(name), type)
    draft.inputs.append(value)
    return draft.tensor(value)


def _zeros(draft: Draft, value: Value) -> Tensor:
    op = Full(shape=value.type.shape, value=0.0, dtype=f32)
    return draft.tensor(draft.add(op, [], f"{value.name}.grad")[0])
