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

    a filter of products (conv2d, dense) has a grid of its own for each output channel:
      %b = conv2d(%y, %g) : f32[N,4,4,8]
      ->
      %g.rounded = fake_quantize_filter(%g) bits=4 : f32[3,3,8,8]
      %b = conv2d(%y.rounded, %g.rounded) : f32[N,4,4,8]

It is the walk of `quantize.py`, in f32: a value is bytes or a sum, and becomes bytes where a relu
stands or an op needs them. Training graphs have other nodes beside, which compute from parameters
and statistics; those stay. So the inference and the training form of a network round alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from addergraph.errors import GraphError, UnsupportedError
from addergraph.ir import Graph, Node, Op, Parameter, Value
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.movement.reshape import Flatten
from addergraph.ops.pointwise.batch_norm import BatchNorm, BatchNormStatistics
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.fake_quantize import (
    FakeQuantize,
    FakeQuantizeFilter,
    Rounding,
    stated,
)
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.max_pool2d import MaxPool2d
from addergraph.ops.reduction.softmax import Softmax

from ..rewrite import Draft

Grid = Callable[[Value], FakeQuantize]
"""Which integers stand for an activation (of the float network)."""
FilterGrid = Callable[[Value], FakeQuantizeFilter]
"""Which integers stand for a filter of products."""
Kind = TypeVar("Kind", FakeQuantize, FakeQuantizeFilter)


def quantization_aware(graph: Graph, rounded: Mapping[str, Rounding]) -> Graph:
    """`graph`, in inference or in training form, with the roundings that `rounded` gives by name.

    Roundings that it has are taken off first. Raises UnsupportedError, naming the node, for an op
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
    return _Walk(graph, grid, filter_grid).run()


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


class _Walk:
    """One walk. `forms` has the values that depend on the image, as they are in the draft: the op
    that rounded bytes, None for sums."""

    def __init__(self, graph: Graph, grid: Grid, filter_grid: FilterGrid) -> None:
        self.graph, self.grid, self.filter_grid = graph, grid, filter_grid
        self.draft = Draft(graph)
        self.forms: dict[Value, FakeQuantize | None] = {}

    def run(self) -> Graph:
        (image,) = self.graph.inputs
        self._round(image)
        for original in self.graph.nodes:
            node = self.draft.moved(original)
            if not self._concerns(node):
                self._keep(original, node)
            elif type(node.op) in _RULES:
                _RULES[type(node.op)](self, original)
            else:
                known = ", ".join(sorted(op.name for op in _RULES))
                raise UnsupportedError(
                    f"{node.label} cannot be trained for integers; quantization_aware knows {known}"
                )
        return self.draft.close()

    def _concerns(self, node: Node) -> bool:
        """Whether it computes from the image; a layer always should."""
        return isinstance(node.op, LAYERS) or any(v in self.forms for v in node.inputs)

    # -- rules -----------------------------------------------------------------------------------

    def adder(self, original: Node) -> None:
        """The filter is on the grid of the input."""
        self._require_layer(original)
        grid = self._bytes(original.inputs[0])
        op = FakeQuantize(grid.scale, grid.zero_point, grid.bits, saturate=False)
        self._layer(original, op)

    def product(self, original: Node) -> None:
        """The filter has a grid for each output channel."""
        self._require_layer(original)
        self._bytes(original.inputs[0])
        self._layer(original, self.filter_grid(original.inputs[1]))

    def sums(self, original: Node) -> None:
        """Affine in what they read, channel by channel."""
        self._sums(self._keep(original, self.draft.moved(original)))

    def statistics(self, original: Node) -> None:
        self._keep(original, self.draft.moved(original))

    def relu(self, original: Node) -> None:
        form = self.forms[self.draft.new[original.inputs[0]]]
        made = self._keep(original, self.draft.moved(original))
        if form is not None and not form.zero_point:
            self.forms[made] = form
        else:
            self._round(original.outputs[0])

    def moved(self, original: Node) -> None:
        """Bytes that are chosen or moved keep what they stand for."""
        form = self._bytes(original.inputs[0])
        self.forms[self._keep(original, self.draft.moved(original))] = form

    def average(self, original: Node) -> None:
        self._bytes(original.inputs[0])
        self._sums(self._keep(original, self.draft.moved(original)))

    def softmax(self, original: Node) -> None:
        if original.outputs[0] not in self.graph.outputs:
            raise UnsupportedError(
                f"{original.label} is not the network's answer: integers have no softmax inside"
            )
        self._keep(original, self.draft.moved(original))

    # -- the draft -------------------------------------------------------------------------------

    def _keep(self, original: Node, node: Node) -> Value:
        made = self.draft.keep(node)
        self.draft.stand_in(original, made)
        return made[0]

    def _require_layer(self, original: Node) -> None:
        """UnsupportedError unless it reads an activation, then parameters alone."""
        x, *rest = original.inputs
        if self.draft.new[x] not in self.forms or not all(isinstance(v, Parameter) for v in rest):
            raise UnsupportedError(
                f"{original.label} reads {', '.join(map(str, original.inputs))}: "
                "quantization_aware takes an activation, then parameters"
            )

    def _layer(self, original: Node, op: Rounding) -> None:
        """A layer whose filter `op` rounds; its results are sums."""
        node, name = self.draft.moved(original), original.inputs[1].name
        x, f, *bias = node.inputs
        (rounded,) = self.draft.add(op, [f], f"{name}.rounded")
        self._sums(self._keep(original, Node(node.op, (x, rounded, *bias), node.outputs)))

    def _sums(self, value: Value) -> None:
        self.forms[value] = None

    def _bytes(self, value: Value) -> FakeQuantize:
        """What the bytes of a value of the original are, from here on for all readers."""
        return self.forms[self.draft.new[value]] or self._round(value)

    def _round(self, value: Value) -> FakeQuantize:
        op = self.grid(value)
        name = f"{value.name}.rounded"
        (made,) = self.draft.add(op, [self.draft.new[value]], name)
        self.draft.new[value] = made
        self.forms[made] = op
        return op


LAYERS = (Adder2d, AdderDense, Conv2d, Dense)

_RULES: Mapping[type[Op], Callable[[_Walk, Node], None]] = {
    Adder2d: _Walk.adder,
    AdderDense: _Walk.adder,
    Add: _Walk.sums,
    AvgPool2d: _Walk.average,
    BatchNorm: _Walk.sums,
    BatchNormStatistics: _Walk.statistics,
    Conv2d: _Walk.product,
    Dense: _Walk.product,
    Flatten: _Walk.moved,
    GlobalAvgPool: _Walk.average,
    MaxPool2d: _Walk.moved,
    Relu: _Walk.relu,
    Softmax: _Walk.softmax,
}
