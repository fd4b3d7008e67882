"""What an op is: its rules and its traits. `addergraph/ops` has the ops themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from ..errors import GraphError, nearest
from .intervals import ANY, Interval
from .quantization import Known, Quantization, common
from .types import TensorType, bind_shape

if TYPE_CHECKING:
    from .graph import Graph, Node, Value
    from .trace import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Types: TypeAlias = Sequence[TensorType]
Intervals: TypeAlias = Sequence[Interval]
Tensors: TypeAlias = "Sequence[Tensor]"
Gradients: TypeAlias = "Sequence[Tensor | None]"
"""Of tensors, in their order; None: the loss does not depend on it, or it gets no gradient."""
Bound = Array | float
"""For each element of a result, how far an f32 evaluation may be from it; 0.0: bit-equal."""
CONTRACTION, POINTWISE, REDUCTION, MOVEMENT = "contraction", "pointwise", "reduction", "movement"
KINDS = (CONTRACTION, POINTWISE, REDUCTION, MOVEMENT)


@dataclass(frozen=True)
class Halo:
    """Rows and columns of zeros that a consumer reads around an NHWC tensor."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def union(self, other: Halo) -> Halo:
        return Halo(
            max(self.top, other.top), max(self.bottom, other.bottom),
            max(self.left, other.left), max(self.right, other.right),
        )  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Arithmetic of one call, by kind, for one set of bound shapes."""

    additions: int = 0
    multiplications: int = 0
    transcendentals: int = 0


@dataclass(frozen=True)
class Source:
    """A value that a node reads, and the node that computes it; None for inputs, parameters."""

    value: Value
    node: Node | None

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def op(self) -> Op | None:
        return None if self.node is None else self.node.op

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The operands of `node`."""
        return () if self.node is None else self.node.inputs

    @property
    def constant(self) -> float | None:
        """The number that every element is, where a `full` wrote it."""
        return None if self.node is None else self.node.op.constant


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
    exchanged           processes that share a training step exchange what it takes
    activation          `layers.Activation` knows it by its name
    training_only       stands in training forms alone: readers see its first operand elsewhere
    rectifies           max(x, 0), limited above or not: what is never above 0 becomes 0
    keeps_scale         results are elements, means, sums or differences of elements of comparable
                        operands, so that what is out of scale before is so behind it; every
                        movement of more than bytes is
    aliases             the position of the operand whose elements the result has, all of them in
                        row-major order, so that both may share memory; None: no operand's
    broadcasts          pointwise, of operands that broadcast
    cheap               pointwise, an instruction or two an element: computing a result again takes
                        less than reading it
    integer_form        `quantize` has a rule for it, in passes/quantize; a differentiable op has to
                        say so or that it has none
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
    exchanged: ClassVar[bool] = False
    activation: ClassVar[bool] = False
    training_only: ClassVar[bool] = False
    rectifies: ClassVar[bool] = False
    keeps_scale: ClassVar[bool] = False
    aliases: ClassVar[int | None] = None
    broadcasts: ClassVar[bool] = False
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
            ("broadcasts", POINTWISE),
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
        said = any("integer_form" in vars(c) for c in cls.__mro__ if c is not Op)
        if not said and not cls.not_differentiable:
            return "integer_form must be True (passes/quantize has a rule) or False"
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

    @property
    def estimates(self) -> bool:
        """Whether it makes the statistics of a batch norm."""
        return self.normalizes and self.kind == REDUCTION

    @property
    def elementwise(self) -> bool:
        """Whether element e of each result depends on element e of equally shaped operands alone.

        What has another shape broadcasts.
        """
        return self.kind == POINTWISE

    def in_step(self, operands: int) -> tuple[int, ...]:
        """Positions of the operands that are read element by element, each when it is written.

        Of those, one with the result's type may share its memory. `operands`: how many there are.
        """
        return tuple(range(operands)) if self.elementwise else ()

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Result types from operand types; ShapeError (without the node's name) if unfit."""
        raise GraphError(f'op "{self.name}" has no shape rule')

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        """The meaning, in NumPy: sums in float64, results in the inferred dtype."""
        raise GraphError(f'op "{self.name}" has no reference')

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        """Gradients of the operands `xs`, given results `ys` and their gradients `gs`.

        None in `gs` is a result that the loss does not use; None in the answer is an operand
        that gets no gradient.
        """
        raise GraphError(f'op "{self.name}" is not differentiable')

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        """Range of each result from the ranges of the operands; unknown unless an op knows more."""
        return (ANY,) * len(self.result_names)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """What gives the same bits more simply, from what the operands are made of.

        A value that exists already, an op and its operands, or None. Bits are kept, those of -0.0
        as well, but not the sign or payload of a NaN.
        """
        return None

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        """Scale and zero point of the results, from those of the operands.

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

    def limited(self, most: float) -> Op | None:
        """min(self, most), `most` > 0, as an op of the same operands that is never below 0; None
        where there is none, or where the results are limited already."""
        return None

    def halo(self, types: Types) -> tuple[Halo, ...]:
        """The zeros that this op reads around each operand."""
        return (Halo(),) * len(types)

    def cost(self, types: Types) -> Cost:
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


Canonical: TypeAlias = "Value | tuple[Op, Sequence[Value]] | None"
"""What `Op.canonical` answers."""

_REGISTRY: dict[str, type[Op]] = {}


def registry() -> Mapping[str, type[Op]]:
    """Every op by its name in the textual IR. Closed once `addergraph.ops` is imported."""
    from .. import ops  # noqa: F401  (defining the ops registers them)

    return MappingProxyType(_REGISTRY)


def op_named(name: str) -> type[Op]:
    """The op class called `name`; GraphError with the nearest name otherwise."""
    known = registry()
    if name not in known:
        raise GraphError(f'unknown op "{name}"{nearest(name, known)}')
    return known[name]


def result_names(op: Op, count: int) -> tuple[str, ...]:
    """Suffixes of an op's results: its own `result_names`, or ("", "1", "2", ...)."""
    if len(op.result_names) == count:
        return op.result_names
    return ("", *(str(i) for i in range(1, count)))
