"""The graph: immutable SSA in topological order. Read this page first.

    Graph(name, inputs, parameters, nodes, outputs, updates)
    Node(op, inputs, outputs)          op: a frozen dataclass whose fields are the attributes
    Value(name, type)                  compared by identity
    Parameter(name, type, init, trainable, eta, frozen)   a value, its numbers beside the graph

Topological order is an invariant (`check` verifies it), not a computation. Nothing here is ever
changed in place: a pass builds a new graph, usually with `Builder`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from .. import display
from ..border import shown
from ..errors import GraphError, ShapeError, nearest
from .attributes import integer
from .op import CONTRACTION, Array, Op, result_names
from .types import TensorType
from .walk import append

NAME = re.compile(r"[\w.]+")  # of values
WORD = re.compile(r"[^\W\d][\w.]*")  # of graphs, ops, attributes


def _quoted(name: object) -> str:
    return f'"{name:.300}"' if isinstance(name, str) else shown(name)


def require_name(name: object) -> None:
    """GraphError unless it can be the name of a value."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise GraphError(
            f'value name {_quoted(name)} may hold only letters, digits, "_" and ".", at least one'
        )


def require_word(name: object) -> None:
    """GraphError unless it can be the name of a graph."""
    if not (isinstance(name, str) and WORD.fullmatch(name)):
        raise GraphError(
            f'graph {_quoted(name)}: a graph\'s name is one word of letters, digits, "_" and "."'
        )


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of a graph: a name that is unique in it, and a type."""

    name: str
    type: TensorType

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Init:
    """How a parameter starts: `zeros`, `ones`, `normal(mean, std)`, `uniform(low, high)`."""

    kind: str = "zeros"
    args: tuple[float, ...] = ()

    ARITY: ClassVar[dict[str, int]] = {"zeros": 0, "ones": 0, "normal": 2, "uniform": 2}

    def __post_init__(self) -> None:
        if self.kind not in self.ARITY:
            raise GraphError(
                f'unknown initializer "{self.kind}"{nearest(self.kind, self.ARITY)}; '
                f"known: {', '.join(self.ARITY)}"
            )
        if len(self.args) != self.ARITY[self.kind]:
            raise GraphError(
                f"initializer {self.kind} takes {self.ARITY[self.kind]} numbers, "
                f"found {len(self.args)}"
            )

    def sample(self, type: TensorType, rng: np.random.Generator) -> Array:
        """An array of `type`, drawn from `rng`."""
        drawn: Array
        if self.kind in ("zeros", "ones"):
            drawn = np.full(type.sizes, float(self.kind == "ones"))
        else:
            draw = rng.normal if self.kind == "normal" else rng.uniform
            drawn = draw(self.args[0], self.args[1], type.sizes)
        return drawn.astype(type.dtype.numpy, copy=False)


@dataclass(frozen=True, eq=False)
class Parameter(Value):
    """A named value that persists between calls; its numbers live in a `weights` dict.

    `trainable` parameters receive gradients. `eta`, where set, asks for the layer-adaptive
    learning rate (Chen et al. 2020, eq. 12-13) on this parameter's gradient. A `frozen` parameter
    is not trainable, but would be if nobody had frozen it.
    """

    init: Init = Init()
    trainable: bool = True
    eta: float | None = None
    frozen: bool = False

    @property
    def learns(self) -> bool:
        """Whether it is trainable where nothing is frozen."""
        return self.trainable or self.frozen

    def held(self, frozen: bool) -> Parameter:
        """The same parameter, frozen or not; what is not trainable by itself stays as it is."""
        return replace(self, trainable=not frozen, frozen=frozen) if self.learns else self


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an op. It is known by the name of its first output."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def name(self) -> str:
        return self.outputs[0].name

    @property
    def label(self) -> str:
        """How messages speak of it: `adder2d "conv2"`."""
        return f'{self.op.name} "{self.name}"'

    @property
    def atoms(self) -> tuple[Node, ...]:
        """The nodes of a fused node's body; of any other node itself."""
        body = self.op.subgraph
        return (self,) if body is None else body.nodes

    @property
    def contraction(self) -> Node | None:
        """The contraction that this node is, or that opens its body; None where there is none."""
        first = self.atoms[0]
        return first if first.op.kind == CONTRACTION else None


@dataclass(frozen=True)
class Update:
    """After a call, `parameter` holds `value`."""

    parameter: Parameter
    value: Value


@dataclass(frozen=True, eq=False)
class Graph:
    """A network, or one training step of it. Equal to another when their canonical texts are."""

    name: str
    inputs: tuple[Value, ...]
    parameters: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    updates: tuple[Update, ...] = ()

    def values(self) -> Iterator[Value]:
        """Every value, in order of definition."""
        yield from self.inputs
        yield from self.parameters
        for node in self.nodes:
            yield from node.outputs

    def producers(self) -> dict[Value, Node]:
        """The node that defines each computed value."""
        return {v: node for node in self.nodes for v in node.outputs}

    def uses(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, once per operand position."""
        users: dict[Value, list[Node]] = {v: [] for v in self.values()}
        for node in self.nodes:
            for v in node.inputs:
                users[v].append(node)
        return users

    @cached_property
    def is_open(self) -> bool:
        """Whether the batch N is still open."""
        return any(v.type.is_open for v in self.values())

    @cached_property
    def per_sample(self) -> bool:
        """Whether a loop over samples computes this graph: every op that sees N says so."""
        if self.updates or not all(v.type.is_open for v in self.outputs):
            return False
        open_nodes = (n for n in self.nodes if any(v.type.is_open for v in n.inputs))
        return all(n.op.per_sample for n in open_nodes)

    def bind(self, batch: int) -> Graph:
        """The same graph with N bound to `batch`."""
        batch = integer(f'graph "{self.name}"', "batch", batch, 0)
        builder = Builder(self.name)
        new: dict[Value, Value] = {}
        for v in self.inputs:
            new[v] = builder.input(v.name, v.type.bind(batch))
        for p in self.parameters:
            new[p] = builder.parameter(p)
        append(builder, (replace(node, op=node.op.bind(batch)) for node in self.nodes), new)
        for u in self.updates:
            builder.update(u.parameter, new[u.value])
        return builder.finish([new[v] for v in self.outputs])

    def __str__(self) -> str:
        from .text import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        ends = (", ".join(str(v.type) for v in values) for values in (self.inputs, self.outputs))
        numbers = sum(p.type.elements for p in self.parameters)
        has = (
            f"{len(self.nodes):,} nodes, {len(self.parameters):,} parameters of {numbers:,} numbers"
        )
        return f'<Graph "{self.name}": {" -> ".join(ends)}; {has}>'

    def _repr_html_(self) -> str:
        from ..report.drawing import drawn

        return display.head(self) + drawn(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Graph) and hash(self) == hash(other) and str(self) == str(other)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Of the names alone: graphs of one text share them, and printing it takes long."""
        ops = tuple(node.op.name for node in self.nodes)
        return hash((self.name, ops, tuple(v.name for v in self.values())))


class Builder:
    """Builds a graph node by node, inferring types and keeping names unique.

    `scope` is put before the names that it makes up. GraphError for a name that cannot stand in a
    graph, or twice, when it is given.
    """

    def __init__(self, name: str, *, training: bool = False) -> None:
        require_word(name)
        self.name = name
        self.training = training  # layers that behave differently while training look here
        # Of a name, whether this parameter is frozen; None leaves it to its layer.
        self.frozen: Callable[[str], bool | None] = lambda name: None
        self.scope = ""
        self.inputs: list[Value] = []
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self.updates: list[tuple[Parameter, Value]] = []
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}  # the numbers below are taken: names stay

    def fresh(self, hint: str) -> str:
        """`scope` + `hint`, numbered `_1`, `_2` ... when it is taken; the name is then taken."""
        require_name(hint)
        first = self.scope + hint
        return self._claim(free_name(first, self._names, counts=self._counts))

    def input(self, name: str, type: TensorType) -> Value:
        value = Value(self._claim(name), type)
        self.inputs.append(value)
        return value

    def parameter(self, parameter: Parameter) -> Parameter:
        """Adds `parameter` itself (parameters are shared between the graphs of one model)."""
        require_name(parameter.name)
        if self.parameters.get(parameter.name) is parameter:
            return parameter
        self.parameters[self._claim(parameter.name)] = parameter
        return parameter

    def add(
        self, op: Op, inputs: Sequence[Value], names: str | Sequence[Value] | None = None
    ) -> tuple[Value, ...]:
        """Appends a node. `names`: a hint for fresh names, or values whose names are kept."""
        hint = names if isinstance(names, str) else op.name
        try:
            types = op.infer(*(v.type for v in inputs))
        except ShapeError as error:
            where = names if names is None or isinstance(names, str) else names[0].name
            where = where or free_name(hint, self._names)
            raise ShapeError(f'{op.name} "{where}": {error}') from None
        if names is None or isinstance(names, str):
            hints = [f"{hint}.{r}" if r else hint for r in result_names(op, len(types))]
            outputs = tuple(Value(self.fresh(h), t) for h, t in zip(hints, types, strict=True))
        else:
            outputs = tuple(
                Value(self._claim(v.name), t) for v, t in zip(names, types, strict=True)
            )
        self.nodes.append(Node(op, tuple(inputs), outputs))
        return outputs

    def update(self, parameter: Parameter, value: Value) -> None:
        """After a call, `parameter` shall hold `value`."""
        self.updates.append((parameter, value))

    def finish(self, outputs: Iterable[Value]) -> Graph:
        """The graph; whether it is well formed is for `check` to say."""
        return Graph(
            self.name,
            tuple(self.inputs),
            tuple(self.parameters.values()),
            tuple(self.nodes),
            tuple(outputs),
            tuple(Update(p, v) for p, v in self.updates),
        )

    def _claim(self, name: str) -> str:
        require_name(name)
        if name in self._names:
            raise GraphError(f'graph "{self.name}" already has a value named "{name}"')
        self._names.add(name)
        return name


def free_name(hint: str, *taken: Container[str], counts: dict[str, int] | None = None) -> str:
    """`hint`, or the first of `hint_1`, `hint_2` ... that is in none of `taken`.

    `counts`: where the last search for each hint ended, for names that stay taken.
    """
    name, count = hint, 0 if counts is None else counts.get(hint, 0)
    while any(name in names for names in taken):
        count += 1
        name = f"{hint}_{count}"
    if counts is not None:
        counts[hint] = count
    return name
