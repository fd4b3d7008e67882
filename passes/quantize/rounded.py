"""A float network that rounds where its integer network will.

    rewrite (4 bits; the ranges of %x and %y are known):
      %a = adder2d(%x, %f) : f32[N,6,6,8]
      %y = relu(%a) : f32[N,6,6,8]
      %b = adder2d(%y, %g) : f32[N,4,4,8]
      ->
      %x.rounded = fake_quantize(%x) scale=0.0039 : f32[N,8,8,1]
      %f.rounded = fake_quantize(%f) scale=0.0039 saturate=false : f32[3,3,1,8]
      %a = adder2d(%x.rounded, %f.rounded) : f32[N,6,6,8]
      %y = relu(%a) : f32[N,6,6,8]
      %y.rounded = fake_quantize(%y) scale=0.21 bits=4 : f32[N,6,6,8]
      %g.rounded = fake_quantize(%g) scale=0.21 bits=4 saturate=false : f32[3,3,8,8]
      %b = adder2d(%y.rounded, %g.rounded) : f32[N,4,4,8]

    a filter of conv2d or dense has a grid of its own for each output channel:
      %b = conv2d(%y, %g) : f32[N,4,4,8]
      ->
      %g.rounded = fake_quantize_filter(%g) bits=4 : f32[3,3,8,8]
      %b = conv2d(%y.rounded, %g.rounded) : f32[N,4,4,8]

Training graphs have other nodes beside, which compute from parameters and statistics; those stay.
So the inference and the training form of a network round alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar, TypeVar

from addergraph.errors import GraphError, UnsupportedError
from addergraph.ir import CONTRACTION, Graph, Node, Op, Parameter, Value
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.pointwise.dropout import Dropout
from addergraph.ops.pointwise.fake_quantize import (
    FakeQuantize,
    FakeQuantizeFilter,
    Rounding,
    stated,
)
from addergraph.ops.reduction.softmax import Softmax

from ..rewrite import Draft
from .rules import RULES, Emitter, Factors, Rule, not_computed, reads_bytes

Grid = Callable[[Value], FakeQuantize]
"""The fake quantization of an activation (of the float network)."""
FilterGrid = Callable[[Value], FakeQuantizeFilter]
"""The fake quantization of a filter of a convolution or dense layer."""
Kind = TypeVar("Kind", FakeQuantize, FakeQuantizeFilter)


def quantization_aware(graph: Graph, rounded: Mapping[str, Rounding]) -> Graph:
    """`graph`, in inference or in training form, with the roundings that `rounded` gives by name.

    Roundings that it has are taken off first. Raises UnsupportedError, naming the nodes, for ops
    that cannot be trained so; GraphError where `rounded` says nothing of a value that is rounded.
    """
    graph, _ = without_roundings(graph)

    def known(value: Value, kind: type[Kind]) -> Kind:
        op = rounded.get(value.name)
        if not isinstance(op, kind):
            raise GraphError(
                f'"{graph.name}" is not the network that was calibrated: nothing is known of the '
                f"integers of {value}; calibrate this one with ag.quantization_aware"
            )
        return op

    return rounded_values(
        graph, lambda v: known(v, FakeQuantize), lambda f: known(f, FakeQuantizeFilter)
    )


def rounded_values(graph: Graph, grid: Grid, filter_grid: FilterGrid) -> Graph:
    """`graph` with what these answer behind every value that its integer network rounds."""
    _require_known(graph)
    emitter = RoundedEmitter(graph, grid, filter_grid)
    for node in graph.nodes:
        emitter.write(node)
    return emitter.draft.close()


def _require_known(graph: Graph) -> None:
    """UnsupportedError, naming all of them, for ops without a rule that compute from the image."""
    reached, computing = {*graph.inputs}, []
    for node in graph.nodes:
        if not reached.isdisjoint(node.inputs):
            computing.append(node)
            # Statistics go into updates, which stay as they are.
            reached.update(() if isinstance(node.op, BatchNormStatistics) else node.outputs)
    RoundedEmitter.require_known(computing)
    RoundedEmitter.require_centers(computing)


def as_trained(graph: Graph) -> tuple[Graph, dict[str, Rounding], dict[str, str]]:
    """A graph without its roundings, what they state, and names as `without_roundings` gives them.

    GraphError unless the roundings stand where those of the integer network will.
    """
    known = stated(graph)
    plain, names = without_roundings(graph)
    if names and quantization_aware(plain, known) != graph:
        raise GraphError(
            f'"{graph.name}" has nodes that round where its integer network does not round, or '
            "lacks some: let ag.quantization_aware place them"
        )
    return plain, known, names


def without_roundings(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """`graph` without the nodes that round; name of what each made -> of what it rounded."""
    draft, names = Draft(graph), {}
    for original in graph.nodes:
        node = draft.moved(original)
        if isinstance(node.op, Rounding):
            names[node.outputs[0].name] = node.inputs[0].name
            draft.stand_in(original, node.inputs)
        else:
            draft.stand_in(node, draft.keep(node))
    return draft.close(), names


class RoundedEmitter(Emitter[FakeQuantize]):
    """Writes the rounded network. `forms` has the values of the network that depend on the image:
    the op that rounded bytes, None for sums."""

    refused: ClassVar[str] = "cannot be trained for integers; quantization_aware knows"

    def __init__(self, graph: Graph, grid: Grid, filter_grid: FilterGrid) -> None:
        super().__init__(graph)
        self.grid, self.filter_grid = grid, filter_grid
        self.draft = Draft(graph)
        self.forms: dict[Value, FakeQuantize | None] = {}
        (image,) = graph.inputs
        self._round(image)

    def write(self, node: Node) -> None:
        """Nodes that do not compute from the image stay; a layer always should."""
        layer = node.op.kind == CONTRACTION and node.op.integer_form
        if layer or any(v in self.forms for v in node.inputs):
            super().write(node)
        else:
            self._keep(node)

    def ends(self, value: Value, user: Node) -> tuple[float, float] | None:
        form = self._form(value, user)
        return None if form is None else form.known.ends(form.top)

    def bytes(self, value: Value, user: Node) -> FakeQuantize:
        """UnsupportedError unless the node reads an activation, then parameters alone."""
        if value not in self.forms or not all(isinstance(v, Parameter) for v in user.inputs[1:]):
            raise UnsupportedError(
                f"{user.label} reads {', '.join(map(str, user.inputs))}: "
                "quantization_aware takes an activation, then parameters"
            )
        return self.forms[value] or self._round(value)

    def distances(self, node: Node, x: FakeQuantize) -> None:
        self._layer(node, replace(x, saturate=False))

    def products(self, node: Node, x: FakeQuantize) -> None:
        self._layer(node, self.filter_grid(node.inputs[1]))

    def normalized(self, node: Node) -> None:
        self._sums(node)

    def added(self, node: Node) -> None:
        self._sums(node)

    def channel_mean(self, node: Node) -> None:
        self._sums(node)

    def centered(self, node: Node) -> None:
        self._sums(node)

    def averaged(self, node: Node, x: FakeQuantize) -> None:
        self._sums(node)

    def moved(self, node: Node, x: FakeQuantize) -> None:
        self._keep(node)
        self.forms[node.outputs[0]] = x

    def regrouped(self, node: Node) -> None:
        self._sums(node)

    def padded(self, node: Node, x: FakeQuantize) -> None:
        self.moved(node, x)

    def same(self, node: Node, x: Value) -> None:
        self._keep(node)
        self.forms[node.outputs[0]] = self.forms[x]

    def limited(self, node: Node, x: Value, lo: float, hi: float) -> None:
        self._rounded(node)

    def extreme(self, node: Node, op: Op, operands: Factors) -> None:
        self.joined(node)

    def joined(self, node: Node) -> None:
        for x in node.inputs:
            self._form(x, node)
        self._rounded(node)

    def tabulated(self, node: Node, x: FakeQuantize) -> None:
        self._rounded(node)

    def _rounded(self, node: Node) -> None:
        self._keep(node)
        self._round(node.outputs[0])

    def _form(self, value: Value, user: Node) -> FakeQuantize | None:
        """UnsupportedError where the operand does not depend on the image."""
        if value not in self.forms:
            raise UnsupportedError(not_computed(value, user))
        return self.forms[value]

    def _softmax(self, node: Node) -> None:
        """Of the logits, in f32: the integer network ends before."""
        if node.outputs[0] not in self.graph.outputs:
            raise UnsupportedError(
                f"{node.label} is not the network's answer: integers have no softmax inside"
            )
        self._keep(node)

    def _dropped(self, node: Node) -> None:
        """Of the grid of its operand, which is rounded before where a reader rounds it: scaled up,
        it would leave the grid."""
        (x, _), (y,) = node.inputs, node.outputs
        if self.forms[x] is None and self._is_rounded(y):
            self._round(x)
        self.same(node, x)

    def _is_rounded(self, dropped: Value) -> bool:
        """Whether a reader takes bytes, behind further dropouts or not."""
        return any(
            self._is_rounded(r.outputs[0]) if r.op.training_only else reads_bytes(r)
            for r in self.graph.uses()[dropped]
        )

    def _keep(self, node: Node) -> None:
        self.draft.stand_in(node, self.draft.keep(self.draft.moved(node)))

    def _sums(self, node: Node) -> None:
        self._keep(node)
        self.forms[node.outputs[0]] = None

    def _layer(self, node: Node, op: Rounding) -> None:
        """A layer whose filter `op` rounds."""
        moved, f = self.draft.moved(node), node.inputs[1]
        x, _, *bias = moved.inputs
        (rounded,) = self.draft.add(op, [self.draft.new[f]], f"{f.name}.rounded")
        layer = Node(node.op, (x, rounded, *bias), node.outputs)
        self.draft.stand_in(node, self.draft.keep(layer))
        self.forms[node.outputs[0]] = None

    def _round(self, value: Value) -> FakeQuantize:
        """From here on all readers of `value` see it on its grid."""
        op = self.grid(value)
        made = self.draft.add(op, [self.draft.new[value]], f"{value.name}.rounded")
        (self.draft.new[value],) = made
        self.forms[value] = op
        return op

    rules: ClassVar[Mapping[type[Op], Rule]] = {
        **RULES,
        BatchNormStatistics: _keep,
        Dropout: _dropped,
        Softmax: _softmax,
    }
