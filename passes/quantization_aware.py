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

It is the walk of `quantize.py`, in f32: a value is bytes or a sum, and becomes bytes where a relu
stands or an op needs them. Training graphs have other nodes beside, which compute from parameters
and statistics; those stay. So the inference and the training form of a network round alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from addergraph.errors import GraphError, UnsupportedError
from addergraph.ir import Graph, Node, Op, Parameter, Value
from addergraph.ops.adder2d import Adder2d
from addergraph.ops.adder_dense import AdderDense
from addergraph.ops.avg_pool2d import AvgPool2d
from addergraph.ops.batch_norm import BatchNorm, BatchNormStatistics
from addergraph.ops.binary import Add
from addergraph.ops.fake_quantize import FakeQuantize, stated
from addergraph.ops.global_avg_pool import GlobalAvgPool
from addergraph.ops.max_pool2d import MaxPool2d
from addergraph.ops.relu import Relu
from addergraph.ops.reshape import Flatten
from addergraph.ops.softmax import Softmax

from .rewrite import Draft

Grid = Callable[[Value], FakeQuantize]
"""Which integers stand for a value (of the float network)."""


def quantization_aware(graph: Graph, rounded: Mapping[str, FakeQuantize]) -> Graph:
    """`graph`, in inference or in training form, with the roundings that `rounded` gives by name.

    Roundings that it has are taken off first. Raises UnsupportedError, naming the node, for an op
    that cannot be trained so; GraphError where `rounded` says nothing of a value that is rounded.
    """
    graph, _ = without_roundings(graph)

    def grid(value: Value) -> FakeQuantize:
        if value.name not in rounded:
            raise GraphError(
                f'"{graph.name}" is not the network that was calibrated: nothing is known of the '
                f"range of {value}; calibrate this one with ag.quantization_aware"
            )
        return rounded[value.name]

    return rounded_values(graph, grid)


def rounded_values(graph: Graph, grid: Grid) -> Graph:
    """`graph` with what `grid` answers behind every value that its integer network rounds."""
    return _Rounding(graph, grid).run()


def as_trained(graph: Graph) -> tuple[Graph, dict[str, FakeQuantize], dict[str, str]]:
    """A graph without its roundings, what they state, and names as `without_roundings` gives them.

    GraphError unless the roundings stand where those of the integer network will.
    """
    known = stated(graph)
    plain, names = without_roundings(graph)
    if names and quantization_aware(plain, known) != graph:
        raise GraphError(
            f'"{graph.name}" has fake_quantize nodes where its integer network does not round, or '
            "lacks some: let ag.quantization_aware place them"
        )
    return plain, known, names


def without_roundings(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """`graph` without its `fake_quantize` nodes; name of what each made -> of what it rounded."""
    draft, names = Draft(graph), {}
    for original in graph.nodes:
        node = draft.moved(original)
        if isinstance(node.op, FakeQuantize):
            names[node.outputs[0].name] = node.inputs[0].name
            draft.stand_in(original, node.inputs)
        else:
            draft.stand_in(node, draft.keep(node))
    return draft.close(), names


class _Rounding:
    """One walk. `forms` has the values that depend on the image, as they are in the draft: the op
    that rounded bytes, None for sums."""

    def __init__(self, graph: Graph, grid: Grid) -> None:
        self.graph, self.grid, self.draft = graph, grid, Draft(graph)
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
        """Whether it computes from the image; an adder layer always should."""
        read = any(v in self.forms for v in node.inputs)
        return read or isinstance(node.op, Adder2d | AdderDense)

    # -- rules -----------------------------------------------------------------------------------

    def adder(self, original: Node) -> None:
        x, f = self.draft.new[original.inputs[0]], original.inputs[1]
        if x not in self.forms or not isinstance(f, Parameter):
            raise UnsupportedError(
                f"{original.label} compares {original.inputs[0]} with {f}: quantization_aware "
                "takes an activation and a parameter"
            )
        grid = self._bytes(original.inputs[0])
        op = FakeQuantize(grid.scale, grid.zero_point, grid.bits, saturate=False)
        (rounded,) = self.draft.add(op, [self.draft.new[f]], f"{f.name}.rounded")
        node = self.draft.moved(original)
        operands = (node.inputs[0], rounded, *node.inputs[2:])
        self._sums(self._keep(original, Node(node.op, operands, node.outputs)))

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


_RULES: Mapping[type[Op], Callable[[_Rounding, Node], None]] = {
    Adder2d: _Rounding.adder,
    AdderDense: _Rounding.adder,
    Add: _Rounding.sums,
    AvgPool2d: _Rounding.average,
    BatchNorm: _Rounding.sums,
    BatchNormStatistics: _Rounding.statistics,
    Flatten: _Rounding.moved,
    GlobalAvgPool: _Rounding.average,
    MaxPool2d: _Rounding.moved,
    Relu: _Rounding.relu,
    Softmax: _Rounding.softmax,
}
