"""What is likely wrong with a network, found in its graph: the layer, and what to do about it.

* a relu that is always zero, and other constants: proven from value ranges (`compiler.findings`);
* an adder whose results reach a relu, another layer or the output without a batch norm;
* an adder whose input may be negative: it cannot use the fast kernel;
* an `eta` on a parameter that is no adder's filter: nothing there needs the adaptive rate;
* an adder's filter without an `eta`: it learns at another pace than the rest of the network.

What shows only in numbers (vanished gradients, dead channels) is found by `diagnostics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .. import compiler
from ..ir import MOVEMENT, Graph, Node, Parameter, Value
from ..ir.intervals import value_ranges
from ..ir.types import f32
from ..ops.pointwise.fake_quantize import unrounded
from .findings import Finding

OUTPUT = "the output"


def lint(graph: Graph) -> tuple[Finding, ...]:
    """All findings of an inference graph as it is declared, before the passes."""
    proven = compiler.findings(graph)
    dead = {finding.node for finding in proven}
    adders = _without_batch_norm(graph, dead), _slow_inputs(graph)
    return (*proven, *(f for found in adders for f in found), *_idle_etas(graph), *_no_etas(graph))


def _without_batch_norm(graph: Graph, dead: set[str]) -> Iterator[Finding]:
    """`dead`: nodes with a finding of their own, which already asks for the batch norm."""
    uses = graph.uses()
    for node in graph.nodes:
        # Integers are not trained, and their requantization is a batch norm's factor and offset.
        if not node.op.measures_distance or node.outputs[0].type.dtype != f32:
            continue
        reached = [end for end in _readers(node.outputs[0], graph, uses) if end.name not in dead]
        for end in reached[:1]:
            where = end.label or OUTPUT
            yield Finding(
                node.name,
                f"{node.label} reaches {where} without a batch norm: its results are sums of "
                "distances, large and never positive without a bias, and training rarely gets "
                "anywhere",
                f"put layers.BatchNorm() between {node.label} and {where}",
            )


@dataclass(frozen=True)
class _End:
    """Where the results of an adder arrive unnormalised; without a label, at the output."""

    name: str
    label: str


def _readers(value: Value, graph: Graph, uses: Mapping[Value, Sequence[Node]]) -> list[_End]:
    """What reads `value` behind moves, pools and sums, batch norms left out."""
    ends, waiting, seen = [], [value], {value}
    while waiting:
        v = waiting.pop()
        ends += [_End("", "")] if v in graph.outputs else []
        for node in uses[v]:
            if node.op.normalizes or _is_scaled(node):
                continue
            if node.op.kind != MOVEMENT and not node.op.keeps_scale:
                ends.append(_End(node.name, node.label))
            elif node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return ends


def _is_scaled(node: Node) -> bool:
    """Whether a parameter scales the channels: a batch norm that is folded already."""
    factor = node.op.multiplies and node.op.broadcasts
    return factor and any(_is_channelwise(v) for v in node.inputs)


def _is_channelwise(value: Value) -> bool:
    return value.type.rank == 1 and not value.type.is_open


def _slow_inputs(graph: Graph) -> Iterator[Finding]:
    known, producers = value_ranges(graph), graph.producers()
    for node in graph.nodes:
        if not node.op.measures_distance:
            continue
        x = node.inputs[0]
        if x.type.dtype != f32 or known[x.name].nonnegative:
            continue
        hint = f"put layers.Activation('relu') between {_origin(x, producers)} and {node.label}"
        if x in graph.inputs:
            hint += ", which changes nothing where samples are never negative (as pixels in 0..1)"
        yield Finding(
            node.name,
            f"{node.label} loses the fast kernel, which takes half the time: its input "
            f'"{x.name}" may be negative',
            hint,
        )


def _origin(value: Value, producers: Mapping[Value, Node]) -> str:
    return producers[value].label if value in producers else f'the input "{value.name}"'


def _idle_etas(graph: Graph) -> Iterator[Finding]:
    filters = _adder_filters(graph)
    given = [p for p in graph.parameters if p.eta is not None and p.trainable]
    for parameter in given:
        if parameter in filters:
            continue
        yield Finding(
            parameter.name,
            f'parameter "{parameter.name}" has eta={parameter.eta:g} but is no filter of an adder '
            f"layer{_readers_of(graph, parameter)}: eta fixes the norm of its gradient, which only "
            "adder layers need",
            "leave eta out, or make the layer an adder",
        )


def _no_etas(graph: Graph) -> Iterator[Finding]:
    filters = _adder_filters(graph)
    for p in graph.parameters:
        if p in filters and p.trainable and p.eta is None:
            yield Finding(
                p.name,
                f'parameter "{p.name}" is the filter of an adder layer{_readers_of(graph, p)} and '
                "has no eta: its gradient is a sum of differences, whose size has nothing to do "
                "with that of other layers, so that one learning rate does not fit both",
                "leave eta at 0.2, which gives its gradient a norm of its own (Chen et al. 2020, "
                "eq. 12-13), or pass eta=",
            )


def _adder_filters(graph: Graph) -> set[Value]:
    under = unrounded(graph)
    read = (node.inputs[1] for node in graph.nodes if node.op.measures_distance)
    return {under.get(v, v) for v in read}


def _readers_of(graph: Graph, parameter: Parameter) -> str:
    labels = ", ".join(node.label for node in graph.uses()[parameter])
    return f" ({labels} reads it)" if labels else ""
