"""One rule for each op of a network that is quantized, and the walk that applies them.

A value that depends on the image is one of

    bytes   u8 integers q in [0, top] of one grid: value = scale (q - zero_point)
    sums    i32 parts, each with a factor and a constant for every channel c:
            value[c] = sum over parts of factor[c] q + constant[c]

and becomes bytes behind an activation, a limit or a join, and where an op reads bytes. A rule says
which of them an op reads and makes, and of which grid. What that is written as is the emitter's:
`IntegerEmitter` (`integers.py`) writes u8 and i32 ops, `RoundedEmitter` (`rounded.py`) the same
numbers in f32, for training. As the walk is one, a network is trained with the grids that its
integers have.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from addergraph.errors import UnsupportedError
from addergraph.ir import CONTRACTION, Graph, Node, Op, Parameter, Value
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.movement.concat import Concat
from addergraph.ops.movement.pad import Pad
from addergraph.ops.movement.reshape import Flatten, Reshape
from addergraph.ops.movement.resize_nearest import ResizeNearest
from addergraph.ops.pointwise.batch_norm import BatchNorm, BatchNormStatistics
from addergraph.ops.pointwise.binary import Add, Maximum, Minimum, Sub
from addergraph.ops.pointwise.clip import Clip
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.relu import LeakyRelu, Relu, Relu6
from addergraph.ops.pointwise.unary import Sigmoid, Tanh
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.max_pool2d import MaxPool2d
from addergraph.ops.reduction.reduce import ReduceMean

Bytes = TypeVar("Bytes")
Rule = Callable[[Any, Node], None]
"""Takes an emitter and a node of the network; its emitters' `rules` say which ones."""
Factors = Sequence[tuple[Value, float]]


class Emitter(ABC, Generic[Bytes]):
    """Writes a network in one of its quantized forms, node by node.

    rules    by op: `RULES`, and those of ops that this form alone has
    refused  what a message says of nodes whose op has no rule
    graph    the float network
    """

    rules: ClassVar[Mapping[type[Op], Rule]]
    refused: ClassVar[str]

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        made = ((v, node.op.constant) for node in graph.nodes for v in node.outputs)
        self.constants = {v: number for v, number in made if number is not None}

    def write(self, node: Node) -> None:
        """Appends what `node` becomes."""
        self.rule(node)(self, node)

    @classmethod
    def rule(cls, node: Node) -> Rule:
        """The rule of the node's op; UnsupportedError as `require_known`."""
        cls.require_known([node])
        return cls.rules[type(node.op)]

    @classmethod
    def require_known(cls, nodes: Iterable[Node]) -> None:
        """UnsupportedError, naming all of them and what is known, for nodes without a rule."""
        unknown = [node for node in nodes if type(node.op) not in cls.rules]
        if unknown:
            odd = ", ".join(f"{node.label}{_instead(node.op)}" for node in unknown)
            known = ", ".join(sorted(op.name for op in cls.rules if op is not BatchNormStatistics))
            raise UnsupportedError(f"{odd} {cls.refused} {known}")

    @classmethod
    def require_centers(cls, nodes: Iterable[Node]) -> None:
        """UnsupportedError for a mean or difference other than those that center an adder layer:
        they would need integers of one scale, which the channels of other values do not have."""
        made: dict[Value, Node] = {}
        for node in nodes:
            made.update(dict.fromkeys(node.outputs, node))
            if cls.rule(node) in CENTERING and not _centers(node, made):
                raise UnsupportedError(
                    f"{node.label}: integers know reduce_mean and sub where they take from the "
                    "sums of an adder layer the mean of their channels, as layers.Adder(..., "
                    "center=True) does"
                )

    @abstractmethod
    def ends(self, value: Value, user: Node) -> tuple[float, float] | None:
        """What the least and the largest of an operand's bytes stand for; None where it is sums."""

    @abstractmethod
    def bytes(self, value: Value, user: Node) -> Bytes:
        """An operand as bytes, from here on for all readers; sums go to the grid of its range."""

    @abstractmethod
    def distances(self, node: Node, x: Bytes) -> None:
        """Sums: the filter is on the grid of x, so that |x - f| = scale |qx - qf|."""

    @abstractmethod
    def products(self, node: Node, x: Bytes) -> None:
        """Sums: the filter has a symmetric grid for each output channel: x f = sx sf (qx-z) qf."""

    @abstractmethod
    def normalized(self, node: Node) -> None:
        """Sums: a batch norm changes factors and constants, and no integer."""

    @abstractmethod
    def added(self, node: Node) -> None:
        """Sums: the parts of both operands, where bytes are a part and a parameter a constant."""

    @abstractmethod
    def channel_mean(self, node: Node) -> None:
        """Sums of one channel: the mean of those of an adder layer, which have one factor."""

    @abstractmethod
    def centered(self, node: Node) -> None:
        """Sums: those of an adder layer less the mean of their channels."""

    @abstractmethod
    def averaged(self, node: Node, x: Bytes) -> None:
        """Sums: those of windows, with 1/area in the factor."""

    @abstractmethod
    def moved(self, node: Node, x: Bytes) -> None:
        """Bytes of the grid of x, chosen or moved."""

    @abstractmethod
    def regrouped(self, node: Node) -> None:
        """Sums in another shape of the same channels."""

    @abstractmethod
    def padded(self, node: Node, x: Bytes) -> None:
        """Bytes of the grid of x, with those that stand for 0.0 around them."""

    @abstractmethod
    def same(self, node: Node, x: Value) -> None:
        """What the operand x is."""

    @abstractmethod
    def limited(self, node: Node, x: Value, lo: float, hi: float) -> None:
        """Bytes on the grid of the range of the node's result: the operand x within [lo, hi]."""

    @abstractmethod
    def extreme(self, node: Node, op: Op, operands: Factors) -> None:
        """Bytes on the grid of the range of the node's result: `op`, a maximum or a minimum, of two
        values, each a multiple of an operand. It commutes with rounding."""

    @abstractmethod
    def joined(self, node: Node) -> None:
        """Bytes on the grid of the range of the node's result, one operand's behind the other's."""

    @abstractmethod
    def tabulated(self, node: Node, x: Bytes) -> None:
        """Bytes on the grid of the range of the node's result, a function of those of x."""


def _reads_any(write: Callable[[Any, Node], None]) -> Rule:
    return lambda emit, node: getattr(emit, write.__name__)(node)


def _reads_bytes(write: Callable[[Any, Node, Any], None]) -> Rule:
    def rule(emit: Emitter[Any], node: Node) -> None:
        getattr(emit, write.__name__)(node, emit.bytes(node.inputs[0], node))

    return rule


def _clipped(emit: Emitter[Any], node: Node, x: Value, lo: float, hi: float) -> None:
    """x within [lo, hi]: as it is where all its bytes stand for numbers in there."""
    ends = emit.ends(x, node)
    if ends is not None and f32(lo) <= f32(ends[0]) and f32(ends[1]) <= f32(hi):
        emit.same(node, x)
    else:
        emit.limited(node, x, lo, hi)


def not_computed(value: Value, user: Node) -> str:
    """What a refusal says of an operand that does not depend on the image."""
    return f"{user.label} reads {value}, a parameter or constant, as an activation"


def f32(number: float) -> np.float32:
    """`number` as the float network has it."""
    with np.errstate(over="ignore"):
        return np.float32(number)


def _within(lo: float, hi: float) -> Rule:
    return lambda emit, node: _clipped(emit, node, node.inputs[0], lo, hi)


def _clip(emit: Emitter[Any], node: Node) -> None:
    assert isinstance(node.op, Clip)
    _clipped(emit, node, node.inputs[0], node.op.lo, node.op.hi)


def _leaky(emit: Emitter[Any], node: Node) -> None:
    """max(x, slope x), or the minimum of a slope above 1."""
    assert isinstance(node.op, LeakyRelu)
    slope = float(f32(node.op.slope))
    (x,) = node.inputs
    emit.extreme(node, Maximum() if slope <= 1 else Minimum(), [(x, 1.0), (x, slope)])


def _extreme(limits: Callable[[float], tuple[float, float]]) -> Rule:
    """Of two operands, or of one and a number, which limits it."""

    def rule(emit: Emitter[Any], node: Node) -> None:
        _require_equal_types(emit, node)
        a, b = node.inputs
        x, other = (b, a) if a in emit.constants else (a, b)
        if other in emit.constants:
            _clipped(emit, node, x, *limits(emit.constants[other]))
        else:
            emit.extreme(node, node.op, [(a, 1.0), (b, 1.0)])

    return rule


def _added(emit: Emitter[Any], node: Node) -> None:
    _require_equal_types(emit, node)
    emit.added(node)


def _require_equal_types(emit: Emitter[Any], node: Node) -> None:
    """UnsupportedError where an operand but a parameter or a number broadcasts."""
    activations = [v for v in node.inputs if not (isinstance(v, Parameter) or v in emit.constants)]
    if any(v.type != node.outputs[0].type for v in activations):
        types = " and ".join(str(v.type) for v in node.inputs)
        raise UnsupportedError(f"{node.label} reads {types}; quantize takes equal types")


def _reshaped(emit: Emitter[Any], node: Node) -> None:
    """Sums, where each channel keeps its factor: around layers of sequences."""
    (x,), (y,) = node.inputs, node.outputs
    if y.type.rank < 2:
        raise UnsupportedError(f"{node.label} makes {y.type}, which has no channels")
    if emit.ends(x, node) is None and not reads_bytes(node):
        emit.regrouped(node)
    else:
        emit.moved(node, emit.bytes(x, node))


def _padded(emit: Emitter[Any], node: Node) -> None:
    assert isinstance(node.op, Pad)
    if node.op.value:
        raise UnsupportedError(
            f"{node.label} pads with {node.op.value:g}, which may be no number of the grid of its "
            "operand's bytes; 0 is one of every grid"
        )
    emit.padded(node, emit.bytes(node.inputs[0], node))


def _constant(emit: Emitter[Any], node: Node) -> None:
    """A number, which becomes part of what reads it."""


BYTES_READ: Mapping[type[Op], Rule] = {
    Adder2d: _reads_bytes(Emitter.distances),
    AdderDense: _reads_bytes(Emitter.distances),
    AvgPool2d: _reads_bytes(Emitter.averaged),
    Conv2d: _reads_bytes(Emitter.products),
    Dense: _reads_bytes(Emitter.products),
    Flatten: _reads_bytes(Emitter.moved),
    GlobalAvgPool: _reads_bytes(Emitter.averaged),
    MaxPool2d: _reads_bytes(Emitter.moved),
    Pad: _padded,
    ResizeNearest: _reads_bytes(Emitter.moved),
    Sigmoid: _reads_bytes(Emitter.tabulated),
    Tanh: _reads_bytes(Emitter.tabulated),
}
"""Of ops that read their first operand as bytes."""

_mean, _less_mean = _reads_any(Emitter.channel_mean), _reads_any(Emitter.centered)
CENTERING = (_mean, _less_mean)
RULES: Mapping[type[Op], Rule] = {
    **BYTES_READ,
    Add: _added,
    BatchNorm: _reads_any(Emitter.normalized),
    Clip: _clip,
    Concat: _reads_any(Emitter.joined),
    Full: _constant,
    LeakyRelu: _leaky,
    Maximum: _extreme(lambda number: (number, math.inf)),
    Minimum: _extreme(lambda number: (-math.inf, number)),
    ReduceMean: _mean,
    Relu: _within(0.0, math.inf),
    Relu6: _within(0.0, 6.0),
    Reshape: _reshaped,
    Sub: _less_mean,
}


def _centers(node: Node, made: Mapping[Value, Node]) -> bool:
    """Whether it is the mean of an adder layer's channels, or what subtracts that."""
    mean, last = ReduceMean((node.inputs[0].type.rank - 1,), True), made.get(node.inputs[-1])
    if last is None:
        return False
    if node.op == mean:
        return last.op.measures_distance
    return last.op == mean and last.inputs == node.inputs[:1]


def reads_bytes(node: Node) -> bool:
    """Whether the rule of a node rounds sums that it reads."""
    channels = [v.type.shape[-1:] for v in (*node.inputs[:1], *node.outputs)]
    reshapes = isinstance(node.op, Reshape) and channels[0] != channels[1]
    return reshapes or type(node.op) in BYTES_READ


def ranged_values(graph: Graph) -> set[Value]:
    """Values whose range a quantized form may ask for: outputs, what an op reads as bytes, and what
    all ops make but those of sums."""
    sums = {v for n in graph.nodes if _makes_sums(n.op) for v in n.outputs}
    made = {v for n in graph.nodes for v in n.outputs} - sums
    others = (n for n in graph.nodes if type(n.op) not in RULES or reads_bytes(n))
    return {*graph.outputs, *made, *(v for n in others for v in n.inputs)}


def _makes_sums(op: Op) -> bool:
    return op.kind == CONTRACTION or op.normalizes or isinstance(op, Add | ReduceMean | Sub)


HINTS = {
    "softmax": "hidden: use relu; a softmax before an output or an argmax is left out",
}
"""What a refusal says of an op: what to use."""


def _instead(op: Op) -> str:
    hint = HINTS.get(op.name)
    return f" ({hint})" if hint else ""
