"""Native against reference layer by layer: which node of a compiled program is wrong.

Two errors of each layer, with the bounds of `reference.py`:

* On its own inputs: the reference takes the *native* operands of this one layer, so that nothing
  but the layer's own arithmetic is between both results. Integers, comparisons and moved data must
  be equal, f32 within its closed-form bound (through a fused body: by draws). This error decides,
  and the first layer beyond its bound is the wrong one: every layer before it did what its
  operands ask for. (The reference's operands would isolate a layer as well, but native code would
  have to be built and called for each layer alone, without its neighbours.)
* In the network: against the reference of the whole network up to there. It shows how rounding
  grows on its way, and every layer behind a wrong one is wrong here; so it is shown, and decides
  nothing.

Layers are the nodes of the compiled graph: batch norms are folded, and a fused node shows its last
value. What the passes or the memory plan do wrong is for `verify`, which compares the program that
is shipped with the graph as it was declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .. import display
from ..errors import DataError
from ..ir import Array, Graph, Node, Value
from ..ir.network import Network, graph_of
from ..ir.state import bind_weights
from ..ir.walk import computed
from ..stages import Stages
from ..tables import Table
from .outputs import Outcome, Runnable, require_verifiable
from .reference import OutputReport, Reference, Total
from .samples import drawn_calls, given_calls

SAMPLES = 16
HEADS = ("layer", "op", "type", "error", "bound", "share", "in network", "share")
TEXT = ("layer", "op", "type")
LONGEST_OP = 30  # characters of a fused node's ops in the table


class LayerProgram(Runnable, Protocol):
    """What `verify_layers` needs: a program whose outputs are all values of its graph."""

    @property
    def graph(self) -> Graph:
        """The compiled graph."""


@dataclass(frozen=True)
class LayerRow:
    """One result of one layer.

    name, node     the value's name and the name of its node, which differ for further results
    op             of a fused node: all that it computes, as "adder2d+mul+add+relu"
    type           of the value, for one sample where the batch was open
    own, network   errors on the layer's own (native) inputs, and through the whole network
    """

    name: str
    node: str
    op: str
    type: str
    own: OutputReport
    network: OutputReport

    @property
    def ok(self) -> bool:
        return self.own.ok

    def cells(self) -> tuple[str, ...]:
        """The row of the table, as HEADS says."""
        op = self.op if len(self.op) <= LONGEST_OP else self.op[: LONGEST_OP - 3] + "..."
        bound = f"{self.own.allowed:.3g}" if self.own.allowed else "exact"
        return (
            f"{'' if self.ok else 'FAIL '}%{self.name}", op, self.type, f"{self.own.error:.3g}",
            bound, _share(self.own), f"{self.network.error:.3g}", _share(self.network),
        )  # fmt: skip


def _share(report: OutputReport) -> str:
    """Per cent of the bound, or how many times the bound; nothing where there is none."""
    if not report.allowed:
        return ""
    return f"{report.share:.1%}" if report.ok else f"{report.share:.3g} x"


@dataclass(frozen=True, repr=False)
class LayerReport(Outcome):
    """What `verify_layers` found: a row for each result, in the order of computation.

    `mistrusted`: results that hardly vary on these inputs, whose agreement says little.
    """

    rows: tuple[LayerRow, ...]
    mistrusted: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.first is None

    @property
    def first(self) -> LayerRow | None:
        """The first layer that is beyond its bound on its own inputs."""
        return next((row for row in self.rows if not row.ok), None)

    def _repr_html_(self) -> str:
        return display.head(self) + display.table(self._table())

    def _table(self) -> Table:
        return Table(HEADS, [row.cells() for row in self.rows], TEXT)

    def __str__(self) -> str:
        lines = [self.head("layers of"), *self._table().lines()]
        if (first := self.first) is not None:
            lines.append(f'first differing layer: {first.op} "{first.node}"')
            lines.append(f"  {first.own}")
        if self.mistrusted:
            names = ", ".join(f"%{name}" for name in self.mistrusted)
            lines.append(f"mistrusted, since nearly constant on these inputs: {names}")
        return "\n".join(lines)


def verify_layers(
    graph: Graph | Network,
    program: LayerProgram,
    samples: int = SAMPLES,
    seed: int = 0,
    *,
    inputs: Sequence[object] | None = None,
    verbose: int = 0,
) -> LayerReport:
    """Compares each layer of `program`, from `ag.compile_layers(graph)`, with its reference.

    Samples are as `verify` takes or draws them, and run one by one (a bound batch as a whole).
    `verbose=1` shows how far it is.

    Raises DataError for graphs with updates, for a number of samples below 1, and for a program
    that hides values of its graph or takes other inputs than `graph` has.
    """
    graph = graph_of(graph)
    samples, seed = require_verifiable(graph, program, samples, seed)
    layers = _layers(program.graph)
    _require_match(graph, program.graph)
    rng = np.random.default_rng(seed)
    own = [[Total(v.name) for v in layer.outputs] for layer in layers]
    network = [Total(v.name) for v in program.graph.outputs]
    weights = bind_weights("the program", program.graph.parameters, program.weights)
    if inputs is None:
        calls = drawn_calls(graph, samples, rng, per_call=1)
    else:
        calls = given_calls(graph, inputs, per_call=1)
    done, every = 0, sum(count for _, count in calls)
    with Stages(verbose) as say:
        for arrays, count in calls:
            native = program.run(arrays)
            known: dict[Value, Array] = dict(zip(program.graph.inputs, arrays, strict=True))
            known |= {p: weights[p.name] for p in program.graph.parameters}
            known |= dict(zip(program.graph.outputs, native, strict=True))
            for layer, totals in zip(layers, own, strict=True):
                found = [known[v] for v in layer.outputs]
                reference = Reference(layer, [known[v] for v in layer.inputs], {}, rng)
                reference.compare(totals, found, done)
            Reference(program.graph, arrays, program.weights, rng).compare(network, native, done)
            done += count
            say("verifying layers, samples", done, every)
    through = {total.name: total.report() for total in network}
    rows = [
        _row(layer.nodes[0], value, total.report(), through[value.name])
        for layer, totals in zip(layers, own, strict=True)
        for value, total in zip(layer.outputs, totals, strict=True)
    ]
    dull = tuple(total.name for totals in own for total in totals if total.variation.still)
    return LayerReport(graph.name, done, seed if inputs is None else None, tuple(rows), dull)


def _layers(graph: Graph) -> list[Graph]:
    """Each node as a graph of its own, whose inputs are what it reads; constants left out."""
    returned = set(graph.outputs)
    hidden = [v for v in computed(graph) if v not in returned]
    if hidden:
        raise DataError(
            f'the program of "{graph.name}" does not return {hidden[0]}; layers are compared on a '
            "program from ag.compile_layers"
        )
    return [
        Graph(node.name, tuple(dict.fromkeys(node.inputs)), (), (node,), node.outputs)
        for node in graph.nodes
        if node.op.constant is None
    ]


def _require_match(graph: Graph, compiled: Graph) -> None:
    bound = graph.bind(1) if graph.is_open else graph
    expected, found = ([f"{v}: {v.type}" for v in g.inputs] for g in (bound, compiled))
    if expected != found:
        raise DataError(
            f'the program takes ({", ".join(found)}), for one sample of graph "{graph.name}" '
            f"expected ({', '.join(expected)}); compile its layers from this graph"
        )


def _row(node: Node, value: Value, own: OutputReport, network: OutputReport) -> LayerRow:
    op = node.op.name
    if node.op.subgraph is not None:
        op = "+".join(n.op.name for n in node.atoms if n.op.constant is None)
    return LayerRow(value.name, node.name, op, str(value.type), own, network)
