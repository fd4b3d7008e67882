"""Random graphs whose numbers are exact, so that interpreter and native code agree in every bit.

A case is made node by node and evaluated on the way. Leaves hold small integers times 2^-k; for
every value a power of two is known that divides all its elements (`quantum`), and a node is added
only if the largest intermediate sum that any order or form of it can meet is below 2^24 quanta. So
nothing ever rounds in f32. Zeros have defined signs as well: sums start from +0.0.

Batch norm and division take part with statistics and divisors that are powers of two. What is never
exact (`NOT_EXACT`) has its own tests with stated bounds. The nodes are in `strategies_nodes.py`.

Hypothesis draws only the seed of a case: a choice sequence that it mutates would repeat itself.
What fails is made small by `tests/minimize.py`, which knows what a graph is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from addergraph.ir import Array, Builder, Graph, Init, Parameter, Value, op_named
from addergraph.ir.check import check
from addergraph.ir.types import DType, Shape, TensorType, f32

NOT_EXACT = frozenset({
    "exp", "log", "sqrt", "sigmoid", "tanh", "softmax", "softmax_cross_entropy",
})  # fmt: skip
MADE_BY_PASSES = frozenset({"completed", "fused", "replica_mean"})
MOST_NODES = 12
MOST_ELEMENTS = 3000  # of one value: the interpreter is slow, and small shapes have most edges
# What the plan and the kernels decide by whole cache lines of channels has edges only here.
WIDE_SHARE, WIDE_ELEMENTS = 12, 24_000  # of a hundred graphs; of one value
WIDE_CHANNELS = (128, 512, 256, 512, 128, 512, 127, 129, 64, 192, 16, 3)
CHANNELS = (3, 1, 2, 4, 5, 7, 8, 11, 16, 17, 33, 3, 4, 8, 2, 0)
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A graph (its batch may be open) and numbers on which it is exact; `random_case(seed)`."""

    seed: int
    graph: Graph
    inputs: tuple[Array, ...]
    weights: dict[str, Array]

    def __repr__(self) -> str:
        batch = [str(a.shape) for a in self.inputs]
        return f"case {self.seed}, inputs of shapes {', '.join(batch)}:\n{self.graph}\n"


@dataclass(frozen=True)
class Known:
    """A value of the graph being drawn, its numbers, and what divides them: 2^quantum."""

    value: Value
    array: Array
    quantum: int = 0

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(np.abs(self.array.astype("f8")).max(initial=0.0))


def is_exact(bound: float, quantum: int) -> bool:
    """Whether f32 holds every multiple of 2^quantum up to `bound`."""
    return bound <= 2.0 ** (24 + quantum) and quantum >= -60


def is_dull(array: Array) -> bool:
    """Whether an array is almost all zeros or one number: a wrong program might give it as well."""
    _, counts = np.unique(array, return_counts=True)
    return array.size >= 16 and int(counts.max()) > 0.95 * array.size


class Drawing:
    """A graph under construction."""

    def __init__(self, seed: int) -> None:
        self.seed, self._random = seed, Random(seed)
        self.rng = np.random.default_rng(seed)
        self.open = self.chance(50)
        self.batch = self.one_of((2, 1, 3, 4, 5, 7, 2, 3, 4, 0))
        self.wide = Random(f"wide {seed}").randrange(100) < WIDE_SHARE
        self.channels = WIDE_CHANNELS if self.wide else CHANNELS
        self.most_elements = WIDE_ELEMENTS if self.wide else MOST_ELEMENTS
        self.builder = Builder("g")
        self.values: list[Known] = []
        self.inputs: list[Array] = []
        self.weights: dict[str, Array] = {}

    # -- choices ---------------------------------------------------------------------------------

    def integer(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def one_of(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)

    def chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def pick(self, wanted: Callable[[Known], bool]) -> Known | None:
        """One of the newest values that are `wanted`."""
        found = [v for v in reversed(self.values) if wanted(v)][:6]
        return self.one_of(found) if found else None

    # -- growing the graph -----------------------------------------------------------------------

    def leaf(
        self,
        shape: Shape,
        *,
        dtype: DType = f32,
        source: str | None = None,
        choices: Sequence[float] = (),
        near: float = 0.0,
    ) -> Known:
        """A new input or parameter: one of `choices`, or a small number around `near`, each."""
        source = source or self.one_of(("parameter", "parameter", "input"))
        type = TensorType(dtype, shape)
        bound = type.bind(self.batch)
        if choices:
            array, quantum = self.rng.choice(np.array(choices), bound.sizes), -2
        else:
            quantum = -self.integer(0, 2) if dtype == f32 else 0
            near = near if is_exact(abs(near) + 9, quantum) else 0.0
            least = -8 if dtype.name != "bool" else 0
            small = self.rng.integers(least, 9 if least else 2, bound.sizes)
            array = small * 2.0**quantum + math.floor(near)
            if not least or self.chance(10):
                array = np.where(array == 0, -0.0, array)
        numbers = array.astype(dtype.numpy)
        if type.is_open or source == "input":
            value: Value = self.builder.input(f"x{len(self.inputs)}", type)
            self.inputs.append(numbers)
        else:
            made = Parameter(f"p{len(self.weights)}", type, Init("normal", (0.0, 1.0)))
            value = self.builder.parameter(made)
            self.weights[value.name] = numbers
        self.values.append(Known(value, numbers, quantum))
        return self.values[-1]

    def add(
        self,
        name: str,
        *operands: Known,
        quantum: int | Sequence[int] = 0,
        bound: float = 0.0,
        **attributes: Any,
    ) -> list[Known]:
        """Appends a node; its results, or nothing where it would round or be too large.

        `bound` is what no intermediate sum exceeds, `quantum` divides each result (of each).
        """
        op = op_named(name)(**attributes)
        types = op.infer(*(v.type for v in operands))
        quanta = [quantum] * len(types) if isinstance(quantum, int) else list(quantum)
        exact = all(
            t.dtype != f32 or is_exact(bound, q) for t, q in zip(types, quanta, strict=True)
        )
        if not exact or any(t.bind(self.batch).elements > self.most_elements for t in types):
            return []
        with np.errstate(all="ignore"):
            arrays = op.bind(self.batch).reference(*(v.array for v in operands))
        values = self.builder.add(op, [v.value for v in operands], f"v{len(self.builder.nodes)}")
        made = [Known(*facts) for facts in zip(values, arrays, quanta, strict=True)]
        for known in made:
            require_multiples(known)
        self.values += made
        return made

    def finish(self, outputs: Sequence[Known], updates: Sequence[tuple[Known, Known]]) -> Case:
        for parameter, value in updates:
            assert isinstance(parameter.value, Parameter)
            self.builder.update(parameter.value, value.value)
        graph = self.builder.finish([v.value for v in outputs])
        check(graph)
        return Case(self.seed, graph, tuple(self.inputs), dict(self.weights))


def require_multiples(known: Known) -> None:
    """The rule that named the quantum of a value must have been right."""
    if known.type.dtype == f32:
        quanta = np.ldexp(known.array.astype("f8"), -known.quantum)
        assert (quanta == np.round(quanta)).all() and np.abs(quanta).max(initial=0) <= 2**24, (
            f"{known.value}: {known.type} is not made of multiples of 2^{known.quantum}"
        )


def random_case(seed: int, nodes: int | None = None) -> Case:
    """The case of this seed: `nodes`, otherwise up to MOST_NODES, and a few more where a layer is
    added whole."""
    from tests.strategies_nodes import add_some, results, updates

    d = Drawing(seed)
    wanted = nodes or d.integer(1, MOST_NODES)
    while len(d.builder.nodes) < wanted:
        add_some(d)
    changed = updates(d) if not d.open and d.chance(25) else []
    return d.finish(results(d), changed)


def cases() -> st.SearchStrategy[Case]:
    """Random graphs with numbers on which they are exact: see the module's docstring."""
    return st.integers(0, 2**32 - 1).map(random_case)
