"""Convolutions of a network that become adder layers, ready to train.

    conv2d(x, f, b)        adder2d(x, f'), f' ~ N(0, 1) with eta
    batch_norm or none     batch_norm that begins anew: mean 0, variance 1, gamma 1, beta 0

The sums of distances are of another scale than those of products, so that neither the filter nor
what normalized its results says anything about the new layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from ..errors import GraphError, nearest, some
from ..ir import Builder, Graph, Init, Node, Parameter, Value
from ..ir.check import check
from ..ir.op import CONTRACTION, Op
from ..ir.state import initial_weights
from ..ir.types import TensorType, f32
from ..layers import Adder
from ..layers._parameters import STANDARD_NORMAL
from ..ops.contraction.adder2d import Adder2d
from ..ops.pointwise.batch_norm import BatchNorm
from .import_graph import Imported

INNER = "inner"
MOMENTUM = 0.1
_STARTS = (  # of a batch norm's operands, in their order: suffix, start, whether it is trained
    ("mean", Init("zeros"), False), ("variance", Init("ones"), False),
    ("gamma", Init("ones"), True), ("beta", Init("zeros"), True),
)  # fmt: skip


def with_adders(found: Imported, patterns: Sequence[str], seed: int) -> Imported:
    """The network with adder layers for the convolutions that a pattern names.

    GraphError, with the nearest name, for a pattern that none has.
    """
    chosen = _chosen(found.graph, patterns)
    made = _Rewriting(found.graph, chosen).run()
    check(made.graph)
    drawn = initial_weights(made.graph, seed)
    weights = {
        p.name: drawn[p.name] if p.name in made.anew else found.weights[p.name]
        for p in made.graph.parameters
    }
    return replace(
        found, graph=made.graph, weights=weights, momentum=found.momentum | made.momentum
    )


def convolutions(graph: Graph) -> list[Node]:
    """Those that could become adder layers: their filter is a parameter that nothing else reads."""
    uses = graph.uses()
    return [
        n
        for n in graph.nodes
        if n.op.kind == CONTRACTION
        and not n.op.measures_distance
        and isinstance(n.inputs[1], Parameter)
        and (n.inputs[1].type.dtype, n.inputs[1].type.rank) == (f32, 4)
        and len(uses[n.inputs[1]]) == 1
    ]


def _chosen(graph: Graph, patterns: Sequence[str]) -> set[Node]:
    known = convolutions(graph)
    names = [n.name for n in known]
    found: set[Node] = set()
    for pattern in patterns:
        matching = [n for n in known if fnmatchcase(n.name, pattern)]
        if pattern == INNER:
            matching = known[1:]
        if not matching and pattern == INNER:
            raise GraphError(f'adders: "{graph.name}" has no convolution but the first')
        if not matching:
            raise GraphError(
                f'adders: no convolution of "{graph.name}" is called "{pattern}"'
                f"{nearest(pattern, names)}; it has {some(names) or 'none'}"
            )
        found.update(matching)
    return found


@dataclass
class _Rewriting:
    """Builds the graph again, node by node."""

    graph: Graph
    chosen: set[Node]
    anew: set[str] = field(default_factory=set)  # parameters that are drawn
    momentum: dict[str, float] = field(default_factory=dict)

    def run(self) -> _Rewriting:
        uses = self.graph.uses()
        builder = Builder(self.graph.name)
        builder._names |= {v.name for v in self.graph.values()}  # fresh names are none of these
        self.builder, self.new = builder, dict[Value, Value]()
        self.norms = {
            n: reader
            for n in self.chosen
            if (reader := _norm_behind(n, uses, self.graph.outputs)) is not None
        }
        self.reset = {v for norm in self.norms.values() for v in norm.inputs[1:]}
        inputs = [Value(v.name, v.type) for v in self.graph.inputs]
        self.new.update(zip(self.graph.inputs, inputs, strict=True))
        builder.inputs.extend(inputs)
        for p in self.graph.parameters:
            self._parameter(p)
        for node in self.graph.nodes:
            self._node(node)
        made = builder.finish([self.new[v] for v in self.graph.outputs])
        read = {v for n in made.nodes for v in n.inputs} | set(made.outputs)
        parameters = tuple(p for p in made.parameters if p in read)
        self.graph = replace(made, parameters=parameters)
        return self

    def _parameter(self, p: Parameter) -> None:
        """Filters and statistics that begin anew keep their names and places."""
        if p in {n.inputs[1] for n in self.chosen}:
            p = self._drawn(replace(p, init=STANDARD_NORMAL, eta=Adder.eta, trainable=True), p)
        elif p in self.reset:
            p = self._drawn(p, p)
        else:
            self.new[p] = p
        self.builder.parameters[p.name] = p

    def _drawn(self, made: Parameter, before: Parameter) -> Parameter:
        self.anew.add(made.name)
        self.new[before] = made
        return made

    def _node(self, node: Node) -> None:
        if node not in self.chosen:
            self._add(node.op, [self.new[v] for v in node.inputs], node.outputs)
            return
        op: Any = node.op
        adder = Adder2d(op.stride, op.padding, op.dilation, op.groups)
        operands = [self.new[v] for v in node.inputs[:2]]
        (result,) = node.outputs
        if node in self.norms:
            self._add(adder, operands, [result])
            return
        # What read the convolution reads the batch norm, which takes its name.
        sums = Value(self.builder.fresh(f"{result.name}.adder"), result.type)
        inner = self._new_node(adder, operands, [sums])
        parts = [self._norm_parameter(result, *start) for start in _STARTS]
        self._add(BatchNorm(), [inner.outputs[0], *parts], [result])
        self.momentum[result.name] = MOMENTUM

    def _norm_parameter(self, result: Value, suffix: str, init: Init, trained: bool) -> Parameter:
        name = self.builder.fresh(f"{result.name}.{suffix}")
        type = TensorType(f32, (result.type.shape[-1],))
        made = Parameter(name, type, init, trained)
        self.builder.parameters[name] = made
        self.anew.add(name)
        return made

    def _add(self, op: Op, operands: Sequence[Value], results: Sequence[Value]) -> None:
        made = self._new_node(op, operands, results)
        self.new.update(zip(results, made.outputs, strict=True))

    def _new_node(self, op: Op, operands: Sequence[Value], results: Sequence[Value]) -> Node:
        outputs = tuple(Value(v.name, v.type) for v in results)
        made = Node(op, tuple(operands), outputs)
        self.builder.nodes.append(made)
        return made


def _norm_behind(
    node: Node, uses: dict[Value, list[Node]], outputs: Sequence[Value]
) -> Node | None:
    """The batch norm that alone reads a convolution, with parameters of its own."""
    (result,) = node.outputs
    readers = uses[result]
    if result in outputs or len(readers) != 1 or not readers[0].op.normalizes:
        return None
    parts = readers[0].inputs[1:]
    own = all(isinstance(p, Parameter) and len(uses[p]) == 1 for p in parts)
    return readers[0] if readers[0].inputs[0] is result and own else None
