"""The graph: immutable SSA in topological order. Read this page first.

    Graph(name, inputs, parameters, nodes, outputs, updates)
    Node(op, inputs, outputs)          op: a frozen dataclass whose fields are the attributes
    Value(name, type)                  compared by identity
    Parameter(name, type, init, trainable, eta)   a value whose numbers travel beside the graph

Topological order is an invariant (`check` verifies it), not a computation. Nothing here is ever
changed in place: a pass builds a new graph, usually with `Builder`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import GraphError, ShapeError, nearest
from .attributes import integer
from .intervals import ANY, Interval
from .quantization import Known, Quantization, common
from .types import TensorType, bind_shape
from .walk import append

if TYPE_CHECKING:
    from .trace import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Bound = Array | float
"""For each element of a result, how far an f32 evaluation may be from it; 0.0: bit-equal."""
CONTRACTION, POINTWISE, REDUCTION, MOVEMENT = "contraction", "pointwise", "reduction", "movement"
KINDS = (CONTRACTION, POINTWISE, REDUCTION, MOVEMENT)


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
    learning rate (Chen et al. 2020, eq. 12-13) on this parameter's gradient.
    """

    init: Init = Init()
    trainable: bool = True
    eta: float | None = None


@dataclass(frozen=True)
class Halo:
    """Rows and columns of zeros that a consumer reads around an NHWC tensor."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def union(self, other: Halo) -> Halo:
        return Halo(*map(max, dataclasses.astuple(self), dataclasses.astuple(other)))


@dataclass(frozen=True)
class Cost:
    """Arithmetic of one call, by kind, for one set of bound shapes."""

    additions: int = 0
    multiplications: int = 0
    transcendentals: int = 0


class Op:
    """Base of every op: one frozen dataclass per op, its fields the attributes.

    A subclass sets `name` and `kind` and defines `infer`, `reference` and `grad`, contractions and
    reductions `rounding`, too; a class that lacks one is refused when it is defined (GraphError),
    as is one whose traits contradict each other. Passes and reports ask these traits and never for
    an op's class or name:

    per_sample          row n of the result depends on row n of the inputs alone
    surrogate           its gradient is a published one in place of the derivative
    not_differentiable  it has no gradient
    gradient_of         the op of whose gradient this is a part; None for all others
    takes_tail          a contraction whose kernels apply the pointwise nodes behind it to the sums
                        in registers
    measures_distance   a contraction whose terms are |x - f|
    multiplies          it takes products, quotients or transcendental functions by definition
    normalizes          a batch norm, or the statistics of one
    rectifies           max(x, 0), limited above or not: what is never above 0 becomes 0
    keeps_scale         results are elements, means or sums of elements of comparable operands, so
                        that what is out of scale before is so behind it; every movement is
    aliases             the position of the operand whose elements the result has, all of them in
                        row-major order, so that both may share memory; None: no operand's
    cheap               pointwise, an instruction or two an element: computing a result again takes
                        less than reading it
    integer_form        `quantize` has a rule for it, in passes/quantize
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    surrogate: ClassVar[bool] = False
    not_differentiable: ClassVar[bool] = False
    gradient_of: ClassVar[type[Op] | None] = None
    per_sample: ClassVar[bool] = True
    takes_tail: ClassVar[bool] = False
    measures_distance: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    normalizes: ClassVar[bool] = False
    rectifies: ClassVar[bool] = False
    keeps_scale: ClassVar[bool] = False
    aliases: ClassVar[int | None] = None
    cheap: ClassVar[bool] = False
    integer_form: ClassVar[bool] = False
    result_names: ClassVar[tuple[str, ...]] = ("",)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.name:
            return  # an abstract family, such as the common part of all poolings
        missing = [rule for rule in cls._required() if getattr(cls, rule) is getattr(Op, rule)]
        if missing:
            raise GraphError(f'op "{cls.name}" ({cls.__name__}) lacks: {", ".join(missing)}')
        if cls.kind not in KINDS:
            raise GraphError(f'op "{cls.name}": kind "{cls.kind}" is not one of {", ".join(KINDS)}')
        if wrong := cls._contradiction():
            raise GraphError(f'op "{cls.name}" ({cls.__name__}): {wrong}')
        if cls.name in _REGISTRY:
            raise GraphError(f'op "{cls.name}" is defined twice')
        _REGISTRY[cls.name] = cls

    @classmethod
    def _required(cls) -> list[str]:
        required = ["infer", "reference"] + ([] if cls.not_differentiable else ["grad"])
        return required + (["rounding"] if cls.kind in (CONTRACTION, REDUCTION) else [])

    @classmethod
    def _contradiction(cls) -> str:
        """What two of the traits say against each other, or nothing."""
        for trait, kind in (
            ("takes_tail", CONTRACTION),
            ("measures_distance", CONTRACTION),
            ("rectifies", POINTWISE),
            ("cheap", POINTWISE),
        ):
            if getattr(cls, trait) and cls.kind != kind:
                return f"{trait} is for the kind {kind}, found {cls.kind}"
        if cls.aliases is not None and cls.kind != MOVEMENT:
            return f"aliases is for the kind {MOVEMENT}, found {cls.kind}"
        if cls.gradient_of is not None and not cls.not_differentiable:
            return "a gradient op is not_differentiable"
        if cls.multiplies and cls.cost is Op.cost:
            return "it multiplies and states no cost"
        return ""

    @property
    def key(self) -> tuple[Op, tuple[str, ...]]:
        """Equal keys mean the same op. Floats count by their text, too, since 0.0 == -0.0."""
        values = (getattr(self, f.name) for f in dataclasses.fields(self))  # type: ignore[arg-type]
        return self, tuple(str(v) for v in values if isinstance(v, float))

    @property
    def constant(self) -> float | None:
        """The number that every element of the result is, for an op that writes one (`full`)."""
        return None

    @property
    def subgraph(self) -> Graph | None:
        """The graph that a call evaluates on its operands, for an op made of nodes (`fused`)."""
        return None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Result types from operand types; ShapeError (without the node's name) if unfit."""
        raise GraphError(f'op "{self.name}" has no shape rule')

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """The meaning, in NumPy: sums in float64, results in the inferred dtype."""
        raise GraphError(f'op "{self.name}" has no reference')

    def grad(
        self, xs: Sequence[Tensor], ys: Sequence[Tensor], gs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the operands `xs`, given results `ys` and their gradients `gs`.

        None in `gs` is a result that the loss does not use; None in the answer is an operand
        that gets no gradient.
        """
        raise GraphError(f'op "{self.name}" is not differentiable')

    def interval(
        self, ranges: Sequence[Interval], types: Sequence[TensorType]
    ) -> tuple[Interval, ...]:
        """Range of each result from the ranges of the operands; unknown unless an op knows more."""
        return (ANY,) * len(self.result_names)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        """What the results' integers stand for, from what those of the operands do.

        A movement keeps it; any other op makes it unknown unless it knows more. ShapeError for
        operands that must agree and do not.
        """
        kept = common("operands", known) if self.kind == MOVEMENT else None
        return (kept,) * len(self.result_names)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """For each result, how far an f32 evaluation may be from the reference's `results`.

        Pointwise ops and movements are IEEE operations each, in the reference as in native code:
        0.0, unless an op says otherwise. NaN or inf where the op meets them. Called with NumPy's
        floating-point warnings off.
        """
        return (0.0,) * len(results)

    def halo(self, types: Sequence[TensorType]) -> tuple[Halo, ...]:
        """The zeros that this op reads around each operand."""
        return (Halo(),) * len(types)

    def cost(self, types: Sequence[TensorType]) -> Cost:
        """Arithmetic of one call on operands of these bound types."""
        return Cost()

    def bind(self, batch: int) -> Op:
        """The same op with `N` in its shape-valued attributes replaced by `batch`."""
        bound = {
            f.name: bind_shape(value, batch)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), tuple) and "N" in value
        }
        return dataclasses.replace(self, **bound) if bound else self  # type: ignore[type-var]


_REGISTRY: dict[str, type[Op]] = {}


def registry() -> dict[str, type[Op]]:
    """Every op by its name in the textual IR. Closed once `addergraph.ops` is imported."""
    from .. import ops  # noqa: F401  (defining the ops registers them)

    return dict(sorted(_REGISTRY.items()))


def op_named(name: str) -> type[Op]:
    """The op class called `name`; GraphError with the nearest name otherwise."""
    known = registry()
    if name not in known:
        raise GraphError(f'unknown op "{name}"{nearest(name, known)}')
    return known[name]


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

    @property
    def is_open(self) -> bool:
        """Whether the batch N is still open."""
        return any(v.type.is_open for v in self.values())

    @property
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class Builder:
    """Builds a graph node by node, inferring types and keeping names unique.

    `scope` is put before the names that it makes up.
    """

    def __init__(self, name: str, *, training: bool = False) -> None:
        self.name = name
        self.training = training  # layers that behave differently while training look here
        self.scope = ""
        self.inputs: list[Value] = []
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self.updates: list[tuple[Parameter, Value]] = []
        self._names: set[str] = set()

    def fresh(self, hint: str) -> str:
        """`scope` + `hint`, numbered `_1`, `_2` ... when it is taken; the name is then taken."""
        return self._claim(free_name(self.scope + hint, self._names))

    def input(self, name: str, type: TensorType) -> Value:
        value = Value(self._claim(name), type)
        self.inputs.append(value)
        return value

    def parameter(self, parameter: Parameter) -> Parameter:
        """Adds `parameter` itself (parameters are shared between the graphs of one model)."""
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
        if name in self._names:
            raise GraphError(f'graph "{self.name}" already has a value named "{name}"')
        self._names.add(name)
        return name


def free_name(hint: str, *taken: Container[str]) -> str:
    """`hint`, or the first of `hint_1`, `hint_2` ... that is in none of `taken`."""
    name, count = hint, 0
    while any(name in names for names in taken):
        count += 1
        name = f"{hint}_{count}"
    return name


def result_names(op: Op, count: int) -> tuple[str, ...]:
    """Suffixes of an op's results: its own `result_names`, or ("", "1", "2", ...)."""
    if len(op.result_names) == count:
        return op.result_names
    return ("", *(str(i) for i in range(1, count)))
