"""Each node of a compiled program alone, on operands that reach what it can do.

A wrong node shows at the output only where every node behind it lets it through: behind a relu
that is dead for these samples, nothing does. So each node of the compiled graph is compiled once
more with its own kernel and weights, reading inputs, and compared on

* the values that its operands have in the network, and
* draws over the range that they are known to have, whatever the network makes of its samples.

What a node has to give is what the *declared* graph says of its result: the declared nodes between
its operands and the result of the same name (passes keep names). Nodes whose results only the
compiled graph has stay in front of those that read them. Where the declared graph computes a result
from something else than the compiled one does, the node is held to itself.

Where the numbers of the parameters prove a result constant (a relu behind an adder whose batch norm
does not raise it), nothing in front of it has an effect there. Such nodes are named, and no sample
could tell more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..ir import Array, Graph, Node, Value, free_name
from ..ir.graph import Builder
from ..ir.intervals import ANY, Interval, value_ranges
from ..ir.types import f32
from ..ir.walk import upstream
from ..ops.pointwise.clip import Clip
from ..stages import Stages
from .reference import OutputReport, Reference, Total
from .samples import draw, matched

SAMPLES = 16  # of the network's own values, at most
DRAWN = 12  # of operands drawn: two of each kind
MATCHED = 6  # of those that seek the ends of what a filter gives


@dataclass(frozen=True)
class _Layer:
    """A node of the compiled graph, and what it means: from what it reads to its results."""

    node: Node
    meaning: Graph


class _Contraction(NamedTuple):
    """What opens a node: the operand that it reads, its filter, and whether terms are distances."""

    x: Value
    filter: Array
    distances: bool


class LayersAlone(Protocol):
    """A compiled graph."""

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        """Its outputs."""


class Nodes:
    """The nodes of a compiled program alone, against the declared graph, bound as they are.

    opened, main    the graph that was given, and what the passes made of it
    samples         how many of an open batch `main` computes
    numbers         what the parameters of both should be
    compiled        native code for a graph of nodes of `main`, by their kernels and weights
    """

    def __init__(
        self,
        opened: Graph,
        main: Graph,
        samples: int,
        numbers: Mapping[str, Array],
        compiled: Callable[[Graph], LayersAlone],
    ) -> None:
        self._opened, self._samples, self._numbers = opened, samples, numbers
        self._main, declared = main, opened.bind(samples)
        stated = {v.name: v.type for v in declared.values()}
        same = {v for v in main.values() if stated.get(v.name) == v.type}
        read = (v for node in main.nodes for v in node.inputs)
        self._given = {
            v.name: v for v in read if v in main.inputs or (v in same and v not in main.parameters)
        }
        layers = [n for n in main.nodes if n.op.constant is None and same.issuperset(n.outputs)]
        self._layers = [_layer(n, main, declared, set(self._given.values())) for n in layers]
        self._ranges = value_ranges(main)
        alone = _alone(main, layers, self._given, self._ranges)
        self._program = compiled(alone)
        self._totals = [[Total(v.name) for v in n.outputs] for n in layers]
        self._filters = {
            x.name: found
            for node in main.nodes
            if (found := _contraction_of(node, self._numbers)) is not None
            and (x := found.x) in self._given.values()
        }
        self._seen = 0

    def compare_in_network(self, reference: Reference, corners: np.random.Generator) -> None:
        """Runs on the values that the operands have there, of SAMPLES samples in all."""
        blocks = reference.blocks(self._opened, self._samples)
        for values in blocks[: SAMPLES - self._seen]:
            self._compare(values, corners)

    def compare_drawn(
        self, rng: np.random.Generator, corners: np.random.Generator, say: Stages
    ) -> None:
        """Runs on draws over the ranges of the operands, from `rng`."""
        for number in range(DRAWN + MATCHED):
            operands = {}
            for k, (name, v) in enumerate(self._given.items()):
                known, found = self._ranges[name], self._filters.get(name)
                if number < DRAWN or found is None:
                    kind = number * (2 * k + 1)
                    operands[name] = draw(v.type.dtype, v.type.sizes, kind, rng, known)
                else:
                    operands[name] = matched(
                        v.type, found.filter, number, rng, known, found.distances
                    )
            self._compare(operands, corners)
            say("verifying, draws for each layer", number + 1, DRAWN + MATCHED)

    def _compare(self, operands: Mapping[str, Array], corners: np.random.Generator) -> None:
        native = iter(self._program.run([operands[name] for name in self._given]))
        for layer, totals in zip(self._layers, self._totals, strict=True):
            arrays = [operands[v.name] for v in layer.meaning.inputs]
            reference = Reference(layer.meaning, arrays, self._numbers, corners)
            reference.compare(totals, [next(native) for _ in layer.node.outputs], self._seen)
        self._seen += 1

    def reports(self) -> tuple[OutputReport, ...]:
        """Of every result, in the order of computation."""
        return tuple(t.report() for totals in self._totals for t in totals)

    def still(self) -> tuple[str, ...]:
        """Results that hardly vary, neither in the network nor on drawn operands."""
        return tuple(t.name for totals in self._totals for t in totals if t.variation.still)

    def constant(self) -> tuple[str, ...]:
        """Results that these weights make constant, whatever the inputs of the network are."""
        held = {
            name: Interval(float(a.min()), float(a.max()))
            for name, a in self._numbers.items()
            if a.size and np.isfinite(a).all()
        }
        ranges = value_ranges(self._main, parameters=held)
        results = (v for layer in self._layers for v in layer.node.outputs)
        return tuple(v.name for v in results if ranges[v.name].constant)


def _alone(
    main: Graph,
    layers: Sequence[Node],
    given: Mapping[str, Value],
    ranges: Mapping[str, Interval],
) -> Graph:
    """`main` with inputs in place of the given values, which returns the results of `layers`.

    What nodes were promised of them (`input_nonnegative`), a clip keeps.
    """
    builder = Builder(main.name)
    names = {v.name for v in main.values()}  # which the nodes keep

    def free(hint: str) -> str:
        names.add(name := free_name(hint, names))
        return name

    new: dict[Value, Value] = {v: builder.parameter(v) for v in main.parameters}
    for name, v in given.items():
        new[v] = builder.input(free(f"{name}.given"), v.type)
    for name, v in given.items():
        known = ranges[name]
        if v.type.dtype == f32 and known != ANY:
            held = Clip(known.lo, known.hi)
            (new[v],) = builder.add(held, [new[v]], free(f"{name}.held"))
    outputs: list[Value] = []
    for node in main.nodes:
        made = builder.add(node.op, [new[v] for v in node.inputs], node.outputs)
        new |= {v: m for v, m in zip(node.outputs, made, strict=True) if v not in new}
        outputs += made if node in layers else ()
    return builder.finish(outputs)


def _contraction_of(node: Node, numbers: Mapping[str, Array]) -> _Contraction | None:
    """The forward contraction of a node whose filter is a parameter."""
    first = node.contraction
    if first is None or not first.op.takes_tail:
        return None
    body = node.op.subgraph
    outer = dict(zip(node.inputs if body is None else body.inputs, node.inputs, strict=True))
    x, f = (outer[v] for v in first.inputs[:2])
    if f.name not in numbers:
        return None
    return _Contraction(x, numbers[f.name], first.op.measures_distance)


def _layer(node: Node, main: Graph, declared: Graph, given: set[Value]) -> _Layer:
    itself = _between(main, given, node.outputs)
    assert itself is not None  # inputs of the compiled graph are given
    names = {v.name for v in itself.inputs}
    by_name = {v.name: v for v in declared.values()}
    cut = {by_name[name] for name in names}
    return _Layer(node, _between(declared, cut, [by_name[v.name] for v in node.outputs]) or itself)


def _between(graph: Graph, cut: set[Value], results: Sequence[Value]) -> Graph | None:
    """The nodes that compute `results` from values of `cut` and parameters; None where these do not
    suffice."""
    parameters = set(graph.parameters)
    ends = cut | parameters
    nodes = upstream(graph.nodes, results, ends)
    made = {v for n in nodes for v in n.outputs}
    read = {v for n in nodes for v in n.inputs}
    if not made.issuperset(results) or read - ends - made:
        return None
    return Graph(
        results[0].name,
        tuple(v for v in graph.values() if v in read & cut and v not in parameters),
        tuple(p for p in graph.parameters if p in read),
        tuple(nodes),
        tuple(results),
    )
