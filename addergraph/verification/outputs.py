"""Native against reference: every output within what f32 rounding can explain, no tuned tolerances.

Each op has a closed-form bound on its own rounding error (`rounding.py`). How such errors travel
to the outputs is sampled: the reference runs DRAWS more times, every result moved to a random
corner of its bound, and an output may differ from the reference by twice the largest deviation seen
in its tensor. A graph of one op gets exactly twice its bound. A graph that only moves data and does
pointwise arithmetic has bound zero: its values must be equal, as must outputs that are not f32,
where no draw changes them.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..border import shown
from ..errors import DataError, VerificationError
from ..ir import Array, Bound, Graph, Node
from ..ir.interpreter import bind_inputs
from ..ir.intervals import value_ranges
from ..ir.network import Network, graph_of
from ..ir.state import bind_weights
from ..ir.types import f32
from ..ir.walk import evaluate
from ..settings import integer

DRAWS = 4
SLACK = 2.0  # the draws are a sample of the corners, not all of them
PER_CALL = 16  # samples of one call of the program
FEWEST = 16  # elements from which an output that hardly varies is worth a word


class Runnable(Protocol):
    """What `verify` needs of a program."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """The numbers of the graph's parameters."""

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        """The outputs for `inputs`."""


@dataclass(frozen=True)
class Difference:
    """One element of an output that differs: its sample and index, and both values."""

    sample: int
    index: tuple[int, ...]
    native: float
    reference: float

    def __str__(self) -> str:
        place = ",".join(map(str, self.index))
        return (
            f"sample {self.sample} at [{place}]: native {self.native:.9g}, "
            f"reference {self.reference:.9g}"
        )


@dataclass(frozen=True)
class OutputReport:
    """One output over all samples.

    error, allowed   largest error of a call and what it was allowed, where their ratio is worst
    different        how many of the `elements` differ in value at all
    scale            the largest magnitude of the reference
    worst            the element of that error; None where nothing differs
    """

    name: str
    error: float
    allowed: float
    different: int
    elements: int
    scale: float
    worst: Difference | None

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed

    @property
    def share(self) -> float:
        """Of the bound that the error takes; inf for an error where none is allowed."""
        if self.allowed:
            return self.error / self.allowed
        return math.inf if self.error else 0.0

    def __str__(self) -> str:
        head = f"{'ok  ' if self.ok else 'FAIL'} %{self.name}: "
        if not self.elements:
            return head + "no elements"
        text = (
            f"{head}error {self.error:.3g}, allowed {self.allowed:.3g}, values up to "
            f"{self.scale:.3g}; {self.different:,} of {self.elements:,} elements differ"
        )
        return text if self.ok or self.worst is None else f"{text}\n       {self.worst}"


@dataclass(frozen=True)
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

    def head(self, what: str) -> str:
        source = "given inputs" if self.seed is None else f"random inputs of seed {self.seed}"
        verdict = "passed" if self.ok else "FAILED"
        return f'{what} "{self.graph}": {self.samples} samples, {source}: {verdict}'


@dataclass(frozen=True)
class Report(Outcome):
    """What `verify` found. `mistrusted`: outputs that hardly vary; agreement says little there."""

    outputs: tuple[OutputReport, ...]
    mistrusted: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(o.ok for o in self.outputs)

    def __str__(self) -> str:
        lines = [self.head("verify"), *(f"  {o}" for o in self.outputs)]
        lines += [
            f"  mistrusted: %{name} is nearly constant on these inputs; its check says little"
            for name in self.mistrusted
        ]
        return "\n".join(lines)


def verify(
    graph: Graph | Network,
    program: Runnable,
    samples: int = 100,
    seed: int = 0,
    *,
    inputs: Sequence[object] | None = None,
) -> Report:
    """Compares `program` with the NumPy reference of `graph` (of a model: of its inference graph).

    Inputs are drawn from N(0, 1) (integers from 0 to 3) with `seed`, unless `inputs` are given:
    then these are the samples. A graph whose batch is bound takes `samples` whole batches.
    The program must have been compiled from `graph`, and brings the weights.

    Raises DataError for programs with updates, whose calls change what they compute, for a number
    of samples below 1, and for a program whose outputs are of other types.
    """
    graph = graph_of(graph)
    samples, seed = require_verifiable(graph, program, samples, seed)
    rng = np.random.default_rng(seed)
    totals = [Total(v.name) for v in graph.outputs]
    calls = drawn_calls(graph, samples, rng) if inputs is None else given_calls(graph, inputs)
    done = 0
    for arrays, count in calls:
        native = program.run(arrays)
        reference = Reference(graph, arrays, program.weights)
        reference.compare(totals, native, rng, done)
        done += count
    ranges = value_ranges(graph)
    return Report(
        graph.name,
        done,
        seed if inputs is None else None,
        tuple(t.report() for t in totals),
        tuple(t.name for t in totals if t.dull and not ranges[t.name].constant),
    )


def require_verifiable(graph: Graph, program: object, samples: int, seed: int) -> tuple[int, int]:
    """Both numbers, plain; DataError for a graph with updates, for what is no program, and for
    numbers that are too small."""
    if not hasattr(program, "run") or not hasattr(program, "weights"):
        raise DataError(f"program={shown(program)} must be a program, as ag.compile makes it")
    if graph.updates:
        raise DataError(f'graph "{graph.name}" updates parameters; verify its forward graph')
    return integer("samples", samples, 1), integer("seed", seed, 0)


Call = tuple[list[Array], int]  # the inputs of one call, and how many samples they are


def drawn_calls(
    graph: Graph, samples: int, rng: np.random.Generator, per_call: int = PER_CALL
) -> list[Call]:
    """Random inputs, as `verify` says, in calls of at most `per_call` samples."""
    sizes = [1] * samples
    if graph.is_open:
        sizes = [min(per_call, samples - start) for start in range(0, samples, per_call)]
    calls = []
    for count in sizes:
        drawn = []
        for type in (v.type.bind(count) for v in graph.inputs):
            small = rng.integers(0, 2 if type.dtype.name == "bool" else 4, type.sizes)
            array = rng.normal(size=type.sizes) if type.dtype == f32 else small
            drawn.append(array.astype(type.dtype.numpy))
        calls.append((drawn, count))
    return calls


def given_calls(graph: Graph, inputs: Sequence[object], per_call: int = PER_CALL) -> list[Call]:
    """Given inputs in calls of at most `per_call` samples, where samples are independent."""
    batch, arrays = bind_inputs(graph, inputs)
    if batch is None or not graph.per_sample:
        return [(arrays, 1 if batch is None else batch)]
    return [
        (
            [
                a[start : start + per_call] if v.type.is_open else a
                for v, a in zip(graph.inputs, arrays, strict=True)
            ],
            min(per_call, batch - start),
        )
        for start in range(0, batch, per_call)
    ]


class Total:
    """Collects one output over several calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error = self.allowed = self.scale = 0.0
        self.different = self.elements = self.common = 0
        self.worst: Difference | None = None
        self._ratio = -1.0  # of error to allowed

    def add(self, native: Array, reference: Array, draws: Sequence[Array], first: int) -> None:
        """One call, whose samples count from `first`."""
        if not reference.size:
            return
        differs = (native != reference) & ~(np.isnan(native) & np.isnan(reference))
        if reference.dtype == np.float32:
            errors = _errors(native, reference, differs)
            allowed = SLACK * max(float(_errors(d, reference, None).max()) for d in draws)
            finite = reference[np.isfinite(reference)]
            self.scale = max(self.scale, float(np.abs(finite).max(initial=0.0)))
        else:
            settled = np.logical_and.reduce([d == reference for d in draws])
            errors, allowed = (differs & settled).astype("f8"), 0.0
            self.scale = max(self.scale, float(np.abs(reference.astype("f8")).max()))
        self.different += int(differs.sum())
        self.elements += reference.size
        self.common += int(np.unique(reference, return_counts=True)[1].max())
        error = float(errors.max())
        ratio = error / allowed if allowed else (np.inf if error else 0.0)
        if ratio > self._ratio:
            self._ratio, self.error, self.allowed = ratio, error, allowed
            self.worst = _worst(native, reference, errors, first) if error else None

    @property
    def dull(self) -> bool:
        return self.elements >= FEWEST and self.common > 0.95 * self.elements

    def report(self) -> OutputReport:
        return OutputReport(
            self.name, self.error, self.allowed, self.different, self.elements, self.scale,
            self.worst,
        )  # fmt: skip


def _errors(found: Array, reference: Array, differs: Array | None) -> Array:
    """|found - reference|; with `differs`, inf where one of them is not finite and they differ.

    Without it (for draws) such elements count nothing: overflow in a draw allows no error.
    """
    finite = np.isfinite(found) & np.isfinite(reference)
    with np.errstate(invalid="ignore"):
        errors = np.abs(found.astype("f8") - reference.astype("f8"))
    return np.where(finite, errors, 0.0 if differs is None else np.where(differs, np.inf, 0.0))


def _worst(native: Array, reference: Array, errors: Array, first: int) -> Difference:
    index = tuple(int(i) for i in np.unravel_index(int(errors.argmax()), errors.shape))
    sample = first + (index[0] if index else 0)
    return Difference(sample, index, float(native[index]), float(reference[index]))


Visit = Callable[[object, Node, Sequence[Array], Sequence[Array]], Sequence[Array]]


class Reference:
    """The reference on one set of inputs, the rounding bound of each result, and draws."""

    def __init__(self, graph: Graph, arrays: Sequence[Array], weights: Mapping[str, Array]) -> None:
        batch, _ = bind_inputs(graph, arrays)
        self._graph = graph if batch is None else graph.bind(batch)
        numbers = bind_weights(f'graph "{graph.name}"', graph.parameters, weights)
        self._start = [*arrays, *numbers.values()]
        self._bounds: dict[object, tuple[Bound, ...]] = {}
        self.outputs = _walk(self._graph, self._start, self._note, ())

    def compare(
        self, totals: Sequence[Total], native: Sequence[Array], rng: np.random.Generator, first: int
    ) -> None:
        """Adds the outputs of a call, whose samples count from `first`, to a total each.

        DataError for outputs that are not of this graph: broadcasting would compare them all the
        same.
        """
        expected, found = ([(a.shape, str(a.dtype)) for a in x] for x in (self.outputs, native))
        if found != expected:
            raise DataError(
                f'the program does not give what graph "{self._graph.name}" does: found '
                f"{_shown(found)}, expected {_shown(expected)}; compile it from this graph"
            )
        draws = [self.draw(rng) for _ in range(DRAWS)]
        for k, total in enumerate(totals):
            total.add(native[k], self.outputs[k], [d[k] for d in draws], first)

    def draw(self, rng: np.random.Generator) -> list[Array]:
        """The outputs when every result moves to a random corner of its bound."""

        def move(
            key: object, node: Node, operands: Sequence[Array], results: Sequence[Array]
        ) -> Sequence[Array]:
            return [_moved(r, b, rng) for r, b in zip(results, self._bounds[key], strict=True)]

        return _walk(self._graph, self._start, move, ())

    def _note(
        self, key: object, node: Node, operands: Sequence[Array], results: Sequence[Array]
    ) -> Sequence[Array]:
        self._bounds[key] = tuple(node.op.rounding(operands, results))
        return results


def _shown(outputs: Sequence[tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{dtype}{list(shape)}" for shape, dtype in outputs) or "nothing"


def _moved(result: Array, bound: Bound, rng: np.random.Generator) -> Array:
    if result.dtype != np.float32 or (isinstance(bound, float) and bound == 0.0):
        return result
    shift = rng.choice((-1.0, 1.0), result.shape) * bound
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(shift), result + shift, result).astype(np.float32)


def _walk(
    graph: Graph, arrays: Sequence[Array], visit: Visit, path: tuple[int, ...]
) -> list[Array]:
    """The outputs of a bound graph, each node's results as `visit` returns them.

    Fused bodies are walked too; a node's key is its path of positions.
    """
    positions = itertools.count()

    def step(node: Node, operands: list[Array]) -> Sequence[Array]:
        key = (*path, next(positions))
        if node.op.subgraph is not None:
            return _walk(node.op.subgraph, operands, visit, key)
        with np.errstate(all="ignore"):
            return visit(key, node, operands, node.op.reference(*operands))

    known = evaluate(graph, arrays, step)
    return [known[v] for v in graph.outputs]
