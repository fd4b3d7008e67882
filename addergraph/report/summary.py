"""The text that `Model.summary` and `addergraph summary` print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..ir import Array, Cost, Graph, Node, Parameter
from ..ir.intervals import Interval, value_ranges
from ..ir.types import TensorType, f32
from ..ops.pointwise.dropout import Dropout
from ..tables import Table
from .arithmetic import ADDER, by_kind, total, with_convolutions

SOURCE = (
    "Energy of the arithmetic only, without memory: Horowitz, ISSCC 2014, 45 nm. f32: 0.9 pJ an",
    "addition, 3.7 a multiplication. int8: 0.03 a difference, 0.2 a multiplication; sums and all",
    "other layers in int32: 0.1 and 3.1. An adder's |x - f| is two additions; relu is free.",
)
FROZEN = " *"  # behind the name of a layer with frozen parameters
KINDS = {  # of an adder's taps, as columns, and what they say
    "f>0": "taps above zero: behind a relu, the others add nothing",
    "f>=c": "taps at or above c, the upper bound of their input: they add it without a minimum",
}


def summary_text(
    graph: Graph,
    findings: Iterable[object],
    weights: Mapping[str, Array] | None = None,
    arena: int | None = None,
    notes: Iterable[str] = (),
) -> str:
    """One row a node of an inference graph: shape, parameters, arithmetic of one sample; then the
    totals by kind of layer and their energy, as `arithmetic.py` defines them.

    A parameter counts in the row of the first node that reads it. `weights`, where known, give the
    share of an adder's taps above zero: behind a relu, the others need no work; and, where its
    input has an upper bound c, of those at or above c, which need half of it. `arena` is the
    working memory of the compiled network in bytes. `findings` follow as warnings.
    `notes` stand below the layers.
    """
    layers = layer_table(graph, weights or {})
    lines = [graph.name, *layers.lines(), *notes]
    lines += [f"{kind}: {what}" for kind, what in KINDS.items() if kind in layers.heads]
    lines += ["", *_memory(graph, arena), ""]
    lines += _arithmetic(graph)
    lines += [f"warning: {finding}" for finding in findings]
    return "\n".join(lines)


def training_only(graph: Graph) -> list[str]:
    """A line of the dropouts of a training graph, which no inference graph shows; or none."""
    found = [
        f"{node.name} (rate {node.op.rate:g}) behind {node.inputs[0].name}"
        for node in graph.nodes
        if isinstance(node.op, Dropout)
    ]
    return [f"training only: {', '.join(found)}"] if found else []


def layer_table(graph: Graph, weights: Mapping[str, Array]) -> Table:
    """The nodes; those called a.b.c stand below a line that says a.b."""
    rows = _rows(graph)
    ranges = value_ranges(graph) if weights else {}
    nodes = [node for node, _ in rows]
    least = [0.0] * len(nodes), [_bound(node, ranges) for node in nodes]
    kinds = {
        kind: {node: _share(node, weights, c) for node, c in zip(nodes, bounds, strict=True)}
        for kind, bounds in zip(KINDS, least, strict=True)
    }
    kinds = {name: shares for name, shares in kinds.items() if any(shares.values())}
    names = ["layer", "op", "output", "parameters", "bytes", "additions", "multiplies"]
    totals = [sum(row[i] for _, row in rows) for i in range(4)]
    footers = ["total", "", "", f"{totals[0]:,}", size_text(totals[1]), *_counts(totals[2:])]
    names += kinds
    footers += [""] * len(kinds)
    cells: list[Sequence[str]] = []
    group = ""
    for node, (parameters, size, *arithmetic) in rows:
        path, _, name = node.name.rpartition(".")
        if path not in ("", group):
            cells.append([path])
        group = path
        mark = FROZEN if any(isinstance(v, Parameter) and v.frozen for v in node.inputs) else ""
        row = [f"{'  ' if path else ''}{name}{mark}", node.op.name, _shape(node.outputs[0].type)]
        row += [f"{parameters:,}" if parameters else "", size_text(size) if size else ""]
        cells.append([*row, *_counts(arithmetic), *(shares[node] for shares in kinds.values())])
    return Table(names, cells, ("layer", "op", "output"), footers)


def _rows(graph: Graph) -> list[tuple[Node, tuple[int, int, int, int]]]:
    """(node, (parameters, bytes, additions, multiplications)), written constants left out."""
    bound = graph.bind(1) if graph.is_open else graph
    counted: set[Parameter] = set()
    rows = []
    for node, sized in zip(graph.nodes, bound.nodes, strict=True):
        if node.op.constant is not None:
            continue
        new = {v for v in node.inputs if isinstance(v, Parameter)} - counted
        counted |= new
        cost: Cost = sized.op.cost([v.type for v in sized.inputs])
        parameters = sum(p.type.elements for p in new)
        rows.append((node, (parameters, _bytes(new), cost.additions, cost.multiplications)))
    return rows


def _memory(graph: Graph, arena: int | None) -> list[str]:
    trainable = sum(p.type.elements for p in graph.parameters if p.trainable)
    frozen = sum(p.type.elements for p in graph.parameters if p.frozen)
    fixed = sum(p.type.elements for p in graph.parameters if not p.learns)
    size = size_text(_bytes(graph.parameters))
    counts = f"{trainable:,} trainable" + (f", {frozen:,} frozen (*)" if frozen else "")
    lines = [f"{counts} and {fixed:,} fixed parameters, {size}"]
    if arena is not None:
        lines.append(f"arena of the compiled network, batch 1: {arena:,} bytes")
    return lines


def _arithmetic(graph: Graph) -> list[str]:
    """The table of kinds, its total, and the total of the same network with convolutions."""
    kinds = by_kind(graph)
    if not kinds:
        return []
    sums = [total("total", kinds)]
    ratios = []
    if any(one.kind == ADDER for one in kinds):
        sums.append(total("with convolutions for adders", with_convolutions(kinds)))
        real = sums[0].f32_picojoules / sums[1].f32_picojoules
        int8 = sums[0].int8_picojoules / sums[1].int8_picojoules
        ratios = [f"share of the energy with convolutions: {real:.2f} in f32, {int8:.2f} in int8"]
    unit, scale = ("uJ", 1e-6) if sums[0].f32_picojoules >= 1e7 else ("nJ", 1e-3)
    rows = []
    for one in (*kinds, *sums):
        energies = (scale * one.f32_picojoules, scale * one.int8_picojoules)
        numbers = [f"{one.additions:,}", f"{one.multiplications:,}"]
        rows.append([one.kind, *numbers, *(f"{e:,.2f}" for e in energies)])
    heads = ["one sample", "additions", "multiplications", f"f32, {unit}", f"int8, {unit}"]
    table = Table(heads, rows, ("one sample",), ruled=[len(kinds) - 1])
    return [*table.lines(), "", *ratios, *SOURCE]


def _counts(numbers: Iterable[int]) -> list[str]:
    return [f"{n:,}" if n else "" for n in numbers]


def _shape(type: TensorType) -> str:
    """`8x8x16`, without the open batch; the whole type where it is not f32 with one."""
    if type.is_open and type.dtype == f32:
        return "x".join(map(str, type.shape[1:]))
    return str(type)


def _bytes(parameters: Iterable[Parameter]) -> int:
    return sum(p.type.elements * p.type.dtype.itemsize for p in parameters)


def size_text(count: int) -> str:
    """`576 B`, `36.0 KiB`, `9.00 MiB`, `1.50 GiB`: three digits."""
    if count < 1024:
        return f"{count} B"
    power = min(3, (count.bit_length() - 1) // 10)
    value = count / (1 << 10 * power)
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {' KMG'[power]}iB"


def _bound(node: Node, ranges: Mapping[str, Interval]) -> float:
    """The largest value that a node's first operand can have."""
    return ranges[node.inputs[0].name].hi if node.inputs and ranges else math.inf


def _share(node: Node, weights: Mapping[str, Array], least: float) -> str:
    """The share of a 2-D adder's filter above zero and at least `least`, as `48%`."""
    count, taps = _counted(node, weights, least)
    return f"{100 * count / taps:.0f}%" if taps else ""


def _counted(node: Node, weights: Mapping[str, Array], least: float) -> tuple[int, int]:
    """How many taps of a 2-D adder are above zero and at least `least`, and how many it has."""
    if not node.op.measures_distance or node.inputs[1].type.rank != 4 or least == math.inf:
        return 0, 0
    if node.inputs[1].name not in weights:
        return 0, 0
    filter = weights[node.inputs[1].name]
    return int(np.sum((filter > 0) & (filter >= least))), filter.size


def saturated_taps(graph: Graph, weights: Mapping[str, Array]) -> tuple[int, int]:
    """How many taps of 2-D adders lie at or above the upper bound of their input, and how many
    taps have an input with a bound."""
    ranges = value_ranges(graph)
    counts = [_counted(node, weights, _bound(node, ranges)) for node in graph.nodes]
    return sum(count for count, _ in counts), sum(taps for _, taps in counts)
