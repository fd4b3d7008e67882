"""The table that `Model.summary` prints."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import numpy as np

from .ir import Array, Cost, Graph, Node, Parameter
from .ops.adder2d import Adder2d
from .ops.full import Full


def summary_text(
    graph: Graph, findings: Iterable[object], weights: Mapping[str, Array] | None = None
) -> str:
    """One row a node of an inference graph: shapes, parameters, arithmetic of one sample.

    A parameter counts in the row of the first node that reads it. `weights`, where known, give the
    share of an adder's taps above zero: behind a relu, the others need no work. `findings` follow
    as warnings.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = ("layer", "op", "output", "parameters", "additions", "multiplications", "taps > 0")
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, title=graph.name, title_justify="left")
    rows = _rows(graph)
    totals = [f"{sum(row[i] for _, row in rows):,}" for i in range(3)]
    for name, footer in zip(columns, ["total", "", "", *totals, ""], strict=True):
        right = name in columns[3:]
        table.add_column(name, footer=footer, justify="right" if right else "left")
    for node, numbers in rows:
        shape = str(node.outputs[0].type)
        shown = [f"{n:,}" if n else "" for n in numbers]
        table.add_row(node.name, node.op.name, shape, *shown, _kept(node, weights or {}))
    console = Console(file=io.StringIO(), width=120, color_system=None, highlight=False)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    trainable = sum(p.type.elements for p in graph.parameters if p.trainable)
    fixed = sum(p.type.elements for p in graph.parameters if not p.trainable)
    lines.append(f"{trainable:,} trainable and {fixed:,} fixed parameters; arithmetic a sample")
    lines += [f"warning: {finding}" for finding in findings]
    return "\n".join(lines).strip("\n")


def _kept(node: Node, weights: Mapping[str, Array]) -> str:
    """The share of an adder's filter above zero, as `48 %`."""
    if not isinstance(node.op, Adder2d) or node.inputs[1].name not in weights:
        return ""
    return f"{100 * np.mean(weights[node.inputs[1].name] > 0):.0f} %"


def _rows(graph: Graph) -> list[tuple[Node, tuple[int, int, int]]]:
    """(node, parameters, additions, multiplications), written constants left out."""
    bound = graph.bind(1) if graph.is_open else graph
    counted: set[Parameter] = set()
    rows = []
    for node, sized in zip(graph.nodes, bound.nodes, strict=True):
        if isinstance(node.op, Full):
            continue
        new = {v for v in node.inputs if isinstance(v, Parameter)} - counted
        counted |= new
        cost: Cost = sized.op.cost([v.type for v in sized.inputs])
        parameters = sum(p.type.elements for p in new)
        rows.append((node, (parameters, cost.additions, cost.multiplications)))
    return rows
