"""Value ranges put to use: faster kernels and warnings.

    rewrite (a proven operand licenses the min form of the adder kernels):
      %r = relu(%x) : f32[N,8,8,16]
      %y = adder2d(%r, %f) : f32[N,6,6,8]
      ->
      %r = relu(%x) : f32[N,8,8,16]
      %y = adder2d(%r, %f) input_nonnegative=true : f32[N,6,6,8]

Ranges speak of the elements that are not NaN. So a value with one possible number, such as relu
straight after an adder, whose sums are never positive, is warned about and computed all the same:
where a NaN comes in, a NaN comes out.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

from addergraph.errors import RangeWarning
from addergraph.ir import Graph, Node, Op, Value
from addergraph.ir.intervals import Interval, value_ranges
from addergraph.ir.types import f32
from addergraph.report.findings import Finding

from .rewrite import Draft, rebuild

Ranges = Mapping[str, Interval]


def ranges(graph: Graph) -> Graph:
    """Sets `input_nonnegative` where it is provable.

    Warns (RangeWarning) once for each of `findings(graph)`.
    """
    known = value_ranges(graph)
    for finding in _findings(graph, known):
        warnings.warn(str(finding), RangeWarning, stacklevel=2)

    def transform(draft: Draft, node: Node) -> Sequence[Value]:
        return draft.add(_licensed(node, known), node.inputs, node.outputs)

    return rebuild(graph, transform)


def findings(graph: Graph) -> tuple[Finding, ...]:
    """The nodes that are constant although their operands are not, in graph order."""
    return _findings(graph, value_ranges(graph))


def _findings(graph: Graph, known: Ranges) -> tuple[Finding, ...]:
    producers = graph.producers()
    return tuple(
        _finding(node, known, producers)
        for node in graph.nodes
        if _is_fixed(node, known) and _is_first(node, known, producers)
    )


def _finding(node: Node, known: Ranges, producers: Mapping[Value, Node]) -> Finding:
    always = f"{node.label} is always {known[node.name].lo + 0.0:g}"
    origin = _nonpositive_origin(node.inputs[0], known, producers)
    if node.op.rectifies and origin is not None:
        between = f"{origin.label} and {node.label}"
        return Finding(
            node.name,
            f"{always}: the values of {origin.label} are never positive",
            f"add a batch norm between {between}",
        )
    varying = ", ".join(str(v) for v in node.inputs if not known[v.name].constant)
    return Finding(
        node.name,
        f"{always}, whatever {varying} holds",
        "leave it out, or look for the operand that is not what was meant",
    )


def _is_fixed(node: Node, known: Ranges) -> bool:
    """Whether the node has one f32 result, and that has one possible value."""
    if len(node.outputs) != 1 or node.outputs[0].type.dtype != f32:
        return False
    return known[node.name].constant


def _is_first(node: Node, known: Ranges, producers: Mapping[Value, Node]) -> bool:
    """Whether the node's operands vary (written constants and empty tensors aside)."""
    varies = False
    for v in node.inputs:
        written = v in producers and producers[v].op.constant is not None
        if 0 in v.type.shape or (known[v.name].constant and not written):
            return False
        varies = varies or not known[v.name].constant
    return varies


def _nonpositive_origin(
    value: Value, known: Ranges, producers: Mapping[Value, Node]
) -> Node | None:
    """The first node on the way to `value` whose results are never positive."""
    origin = None
    while value in producers and known[value.name].hi <= 0:
        origin = producers[value]
        if not origin.inputs:
            break
        value = min(origin.inputs, key=lambda v: known[v.name].hi)
    return origin


def _licensed(node: Node, known: Ranges) -> Op:
    """The node's op, told that its input is not negative where it can use that and it is proven."""
    op = node.op
    if not hasattr(op, "input_nonnegative") or node.inputs[0].type.dtype != f32:
        return op
    if not known[node.inputs[0].name].nonnegative:
        return op
    licensed: Op = dataclasses.replace(op, input_nonnegative=True)  # type: ignore[type-var]
    return licensed
