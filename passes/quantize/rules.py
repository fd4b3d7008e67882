"""One rule for each op of a network that is quantized, and the walk that applies them.

A value that depends on the image is one of

    bytes   u8 integers q in [0, top] of one grid: value = scale (q - zero_point)
    sums    i32 parts, each with a factor and a constant for every channel c:
            value[c] = sum over parts of factor[c] q + constant[c]

and becomes bytes where a relu stands or an op reads bytes. A rule says which of them an op reads
and makes, and of which grid. What that is written as is the emitter's: `IntegerEmitter`
(`integers.py`) writes u8 and i32 ops, `RoundedEmitter` (`rounded.py`) the same numbers in f32, for
training. As the walk is one, a network is trained with the grids that its integers have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from addergraph.errors import UnsupportedError
from addergraph.ir import Node, Op, Value
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.movement.reshape import Flatten
from addergraph.ops.pointwise.batch_norm import BatchNorm, BatchNormStatistics
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.max_pool2d import MaxPool2d

Bytes = TypeVar("Bytes")
Rule = Callable[[Any, Node], None]
"""Takes an emitter and a node of the network; its emitters' `rules` say which ones."""


class Emitter(ABC, Generic[Bytes]):
    """Writes a network in one of its quantized forms, node by node.

    rules    by op: `RULES`, and those of ops that this form alone has
    refused  what a message says of nodes whose op has no rule
    """

    rules: ClassVar[Mapping[type[Op], Rule]]
    refused: ClassVar[str]

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

    @abstractmethod
    def zero_point(self, value: Value, user: Node) -> int | None:
        """That of an operand's bytes; None where it is sums."""

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
    def averaged(self, node: Node, x: Bytes) -> None:
        """Sums: those of windows, with 1/area in the factor."""

    @abstractmethod
    def moved(self, node: Node, x: Bytes) -> None:
        """Bytes of the grid of x, chosen or moved."""

    @abstractmethod
    def same(self, node: Node) -> None:
        """What the operand is."""

    @abstractmethod
    def rounded(self, node: Node) -> None:
        """Bytes on the grid of the range of the node's result."""


def _reads_any(write: Callable[[Any, Node], None]) -> Rule:
    return lambda emit, node: getattr(emit, write.__name__)(node)


def _reads_bytes(write: Callable[[Any, Node, Any], None]) -> Rule:
    def rule(emit: Emitter[Any], node: Node) -> None:
        getattr(emit, write.__name__)(node, emit.bytes(node.inputs[0], node))

    return rule


def _clipped(emit: Emitter[Any], node: Node) -> None:
    """Bytes whose least stands for 0.0: those of the operand, if they have nothing below."""
    if emit.zero_point(node.inputs[0], node) == 0:
        emit.same(node)
    else:
        emit.rounded(node)


RULES: Mapping[type[Op], Rule] = {
    Add: _reads_any(Emitter.added),
    Adder2d: _reads_bytes(Emitter.distances),
    AdderDense: _reads_bytes(Emitter.distances),
    AvgPool2d: _reads_bytes(Emitter.averaged),
    BatchNorm: _reads_any(Emitter.normalized),
    Conv2d: _reads_bytes(Emitter.products),
    Dense: _reads_bytes(Emitter.products),
    Flatten: _reads_bytes(Emitter.moved),
    GlobalAvgPool: _reads_bytes(Emitter.averaged),
    MaxPool2d: _reads_bytes(Emitter.moved),
    Relu: _clipped,
}

HINTS: Mapping[str, str] = {
    "concat": "layers.Concatenate: use layers.Add, of as many channels",
    "pad": "layers.ZeroPadding: give padding= to the layer behind it",
    "reshape": "layers.Reshape: use Flatten; layers of sequences: use those of images, of one row",
    "resize_nearest": "layers.UpSampling: leave it out, or enlarge the images",
    "sigmoid": "hidden: use relu; as the answer: leave it out, the sign of the logit tells",
    "softmax": "hidden: use relu; a softmax before an output or an argmax is left out",
}
"""What a refusal says of an op: the layer that made it, where that has another name, and what to
use; of other activations it is relu."""


def _instead(op: Op) -> str:
    hint = HINTS.get(op.name, "use relu" if op.activation else "")
    return f" ({hint})" if hint else ""
