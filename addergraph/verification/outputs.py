"""A program against the NumPy reference of the graph that it was compiled from.

Compared are its outputs, and where the program was compiled in this process also the results of
each of its nodes alone (`nodes.py`): no output tells of a node whose results do not reach it.
Every element has to be within what f32 rounding can explain (`reference.py`); no tolerance is
tuned. What the samples do not reach is named.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .. import compiler, display
from ..border import shown
from ..errors import DataError, VerificationError
from ..ir import Array, Graph, Value
from ..ir.intervals import value_ranges
from ..ir.network import Network, graph_of
from ..ir.walk import computed, downstream
from ..settings import integer
from ..stages import Stages
from ..tables import Table
from .nodes import Nodes
from .reference import OutputReport, Reference, Total, Variation
from .samples import drawn_calls, given_calls

HEADS = ("result", "right", "error", "allowed", "different", "elements", "values up to")


class Runnable(Protocol):
    """What `verify` needs of a program."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """The numbers of the graph's parameters."""

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        """The outputs for `inputs`."""


@dataclass(frozen=True, repr=False)
class Outcome(ABC):
    """What was verified, on how many samples; `seed` is None for given inputs."""

    graph: str
    samples: int
    seed: int | None

    @property
    @abstractmethod
    def ok(self) -> bool:
        """Whether everything is within its bound."""

    def raise_for_failure(self) -> None:
        """VerificationError, with the whole report, unless it is `ok`."""
        if not self.ok:
            raise VerificationError(str(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.head('of')}>"

    def head(self, what: str) -> str:
        source = "given inputs" if self.seed is None else f"random inputs of seed {self.seed}"
        verdict = "passed" if self.ok else "FAILED"
        return f'{what} "{self.graph}": {self.samples} samples, {source}: {verdict}'


@dataclass(frozen=True, repr=False)
class Report(Outcome):
    """What `verify` found.

    layers      the results of the compiled nodes, each on operands of its own; empty where the
                program shows outputs only, as an exported library
    mistrusted  values that hardly vary with the sample: agreement says little there. Of the
                compiled nodes, where there are `layers`; otherwise of the declared graph
    constant    results of nodes that the weights make constant whatever the inputs are: what
                stands in front of them has no effect there
    """

    outputs: tuple[OutputReport, ...]
    layers: tuple[OutputReport, ...]
    mistrusted: tuple[str, ...]
    constant: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(o.ok for o in (*self.outputs, *self.layers))

    def __str__(self) -> str:
        lines = [*map(str, self.outputs), *self._of_layers(), *self._notes()]
        return "\n  ".join([self.head("verify"), *lines])

    def _notes(self) -> Iterator[str]:
        if self.constant:
            yield (
                f"constant with these weights, whatever the input: {_named(self.constant)}; "
                "nothing in front of them has an effect there"
            )
        if self.mistrusted:
            yield (
                f"mistrusted, since nearly constant on these inputs: {_named(self.mistrusted)}; "
                "the check of what they are computed from says little"
            )

    def _repr_html_(self) -> str:
        named = [(f"output %{o.name}", o) for o in self.outputs]
        named += [(f"%{o.name}", o) for o in self.layers]
        rows = [
            (name, "yes" if o.ok else "NO", f"{o.error:.3g}", f"{o.allowed:.3g}",
             f"{o.different:,}", f"{o.elements:,}", f"{o.scale:.3g}")
            for name, o in named
        ]  # fmt: skip
        shown = display.table(Table(HEADS, rows, HEADS[:2]))
        return display.head(self) + shown + display.text(*self._notes())

    def _of_layers(self) -> list[str]:
        if not self.layers:
            return []
        wrong = [str(row) for row in self.layers if not row.ok]
        worst = max(self.layers, key=lambda row: row.share)
        right = len(self.layers) - len(wrong)
        return [
            f"{right} of {len(self.layers)} results of layers are right on their own operands; "
            f"%{worst.name} has the largest error, {worst.share:.1%} of what rounding may do",
            *wrong,
        ]


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"%{name}" for name in names)


def verify(
    graph: Graph | Network,
    program: Runnable,
    samples: int = 100,
    seed: int = 0,
    *,
    inputs: Sequence[object] | None = None,
    weights: Mapping[str, Array] | None = None,
    layers: bool = True,
    verbose: int = 0,
) -> Report:
    """Compares `program` with the NumPy reference of `graph` (of a model: of its inference graph).

    Inputs are drawn as `samples.py` says, with `seed`, unless `inputs` are given: then these are
    the samples. A graph whose batch is bound takes `samples` whole batches. The program must have
    been compiled from `graph`. `weights` are the numbers that it should have; unless given, those
    that it says it has. `layers`: compare the compiled nodes, too, where the program has them.
    `verbose=1` shows how far it is.

    Raises DataError for programs with updates, whose calls change what they compute, for a number
    of samples below 1, and for a program whose outputs are of other types.
    """
    graph = graph_of(graph)
    samples, seed = require_verifiable(graph, program, samples, seed)
    rng, corners = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    numbers = program.weights if weights is None else weights
    totals = [Total(v.name) for v in graph.outputs]
    variations = {v.name: Variation() for v in _varying(graph)}
    nodes: Nodes | None = None
    calls = drawn_calls(graph, samples, rng) if inputs is None else given_calls(graph, inputs)
    done, every = 0, sum(count for _, count in calls)
    with Stages(verbose) as say:
        for arrays, count in calls:
            reference = Reference(graph, arrays, numbers, corners)
            reference.compare(totals, program.run(arrays), done)
            reference.note(variations)
            done += count
            if nodes is None and layers:
                nodes = _nodes(graph, reference, program, numbers)
            if nodes is not None:
                nodes.compare_in_network(reference, corners)
            say("verifying, samples", done, every)
        if nodes is not None:
            nodes.compare_drawn(rng, corners, say)
    still = [name for name, found in variations.items() if found.still]
    mistrusted, constant = (still, ()) if nodes is None else (nodes.still(), nodes.constant())
    return Report(
        graph.name,
        done,
        seed if inputs is None else None,
        tuple(t.report() for t in totals),
        () if nodes is None else nodes.reports(),
        tuple(name for name in mistrusted if name not in constant),
        constant,
    )


def _nodes(
    graph: Graph, reference: Reference, program: Runnable, numbers: Mapping[str, Array]
) -> Nodes | None:
    """Those of a program that was compiled in this process, which alone shows them."""
    if not compiler.is_compiled(program):
        return None
    lowered = program.built.lowered
    opened = graph if graph.is_open else lowered.source
    return Nodes(
        reference.graph if lowered.batched is None else opened,
        lowered.main,
        lowered.samples,
        compiler.main_weights(program, numbers) | dict(numbers),
        lambda alone: compiler.compile_as(program, alone),
    )


def _varying(graph: Graph) -> list[Value]:
    """What is computed from the inputs and not proven to be constant."""
    ranges = value_ranges(graph)
    reached = downstream(graph.nodes, graph.inputs)
    return [v for v in computed(graph) if v in reached and not ranges[v.name].constant]


def require_verifiable(graph: Graph, program: object, samples: int, seed: int) -> tuple[int, int]:
    """Both numbers, plain; DataError for a graph with updates, for what is no program, and for
    numbers that are too small."""
    if not hasattr(program, "run") or not hasattr(program, "weights"):
        raise DataError(f"program={shown(program)} must be a program, as ag.compile makes it")
    if graph.updates:
        raise DataError(f'graph "{graph.name}" updates parameters; verify its forward graph')
    return integer("samples", samples, 1), integer("seed", seed, 0)
