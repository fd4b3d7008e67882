"""A graph of ONNX as a graph of ours: names, order, inputs, outputs; the nodes by the table.

Nodes that no output needs are left out before anything of them is looked at.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .. import border
from ..errors import (
    AdderGraphError,
    DataError,
    GraphError,
    ShapeError,
    StorageError,
    UnsupportedError,
    nearest,
    some,
)
from ..ir import Array, Builder, Graph, Value
from ..ir.check import check, check_value
from ..ir.graph import WORD
from ..ir.trace import Tensor
from ..ir.types import Dim, TensorType
from ..ir.walk import renamed, upstream
from .attributes import DOMAIN
from .import_call import Call, Settings
from .import_file import STANDARD, require_inputs
from .import_own import (
    OWN,
    declared,
    declared_parameter,
    is_declared,
    is_filter,
    own_op,
    own_parameter,
)
from .import_table import INSTEAD, OPERATORS
from .import_tensors import array_of, dtype_of
from .import_values import Constant, Known, Laid, Making, as_is, channels_last, word

if TYPE_CHECKING:
    import onnx

MOST_NODES = 1 << 16  # of the graph that is made
IMAGE = 4  # axes of an image


@dataclass(frozen=True)
class Wanted:
    """How a graph is to be read.

    open_batch  a fixed batch that all inputs have becomes N
    images      inputs and outputs of images are NHWC, whatever the file has
    dimensions  sizes of the file's open dimensions, by their names
    """

    open_batch: bool = False
    images: bool = True
    dimensions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A graph, the numbers of its parameters, and what training needs beside it: the momentum of
    batch norms, and of dropouts what they leave out of, rate and seed, by their names."""

    graph: Graph
    weights: dict[str, Array]
    momentum: dict[str, float]
    dropouts: dict[str, tuple[str, float, int]]


def imported(
    path: str | os.PathLike[str], model: onnx.ModelProto, opset: int, wanted: Wanted
) -> Imported:
    """The network in a model that was read from `path`. Raises errors that name the node."""
    source = model.graph
    if source.sparse_initializer:
        raise UnsupportedError(f'"{path}": sparse initializers are not read')
    try:
        reading = _Reading(path, source, opset, wanted)
        reading.settings.functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
        return reading.run()
    except RecursionError:
        raise StorageError(f'"{path}" is nested too deep') from None


class _Reading:
    def __init__(
        self, path: str | os.PathLike[str], source: onnx.GraphProto, opset: int, wanted: Wanted
    ) -> None:
        self.path, self.source, self.wanted = path, source, wanted
        self.making = Making(Builder(_graph_name(source.name)))
        self.settings = Settings(path, opset)
        self.known: dict[str, Known] = {}
        self.nodes = self._needed()
        self.initializers = {t.name: t for t in source.initializer}
        outputs = [v.name for v in source.output]
        self.readers = Counter([*(n for node in self.nodes for n in node.input), *outputs])
        self.last = set(outputs)

    def run(self) -> Imported:
        self._read_inputs()
        self._read_initializers()
        for place, node in enumerate(self.nodes):
            self._read_node(place, node)
        made = self._finish()
        weights = {p.name: self.making.weights[p.name] for p in made.parameters}
        return Imported(made, weights, self.settings.momentum, self.settings.dropouts)

    # --- order ------------------------------------------------------------------------------------

    def _needed(self) -> list[onnx.NodeProto]:
        """The nodes that outputs are computed from, in order."""
        made: dict[str, int] = {}
        for place, node in enumerate(self.source.node):
            for name in filter(None, node.output):
                if name in made:
                    raise GraphError(f'"{self.path}": {_label(node)} makes "{name}" again')
                made[name] = place
        wanted, left = set[int](), [made[v.name] for v in self.source.output if v.name in made]
        while left:
            place = left.pop()
            if place in wanted:
                continue
            wanted.add(place)
            left += [made[name] for name in self.source.node[place].input if name in made]
        self.makers = made
        if any(map(is_declared, self.source.input)):  # our own: the graph as it was
            wanted = set(range(len(self.source.node)))
        return [self.source.node[place] for place in sorted(wanted)]

    # --- what enters ------------------------------------------------------------------------------

    def _read_initializers(self) -> None:
        if len(self.initializers) < len(self.source.initializer):
            raise GraphError(f'"{self.path}" has two initializers of one name')
        for name, tensor in self.initializers.items():
            if not name:
                raise StorageError(f'"{self.path}" is damaged: an initializer has no name')
            if name in self.makers:
                raise GraphError(f'"{self.path}": "{name}" is an initializer, and a node makes it')
            array = array_of(self.path, tensor, name)
            if self.settings.own and (said := declared_parameter(name, tensor)) is not None:
                turned = is_filter(name, self.source.node)
                self.known[name] = own_parameter(self.making, said, array, turned)
            elif self.readers[name]:
                self.known[name] = Constant(array, name, array.dtype == "f4")

    def _read_inputs(self) -> None:
        entering = [v for v in self.source.input if v.name not in self.initializers]
        if not entering:
            raise GraphError(f'"{self.path}" has no input: all its answers are constant')
        if len({v.name for v in entering}) < len(entering) or not all(v.name for v in entering):
            raise GraphError(f'"{self.path}" has two inputs of one name, or one without')
        self.settings.own = all(is_declared(v) for v in entering)
        self._require_open_dimensions(entering)
        shapes = [self._shape(v) for v in entering]
        leading = {shape[0] for shape in shapes if shape}
        if self.wanted.open_batch and len(leading) == 1 and "N" not in leading:
            (size,) = leading
            self.settings.batch = int(size)
            shapes = [("N", *shape[1:]) if shape else shape for shape in shapes]
        for value, shape in zip(entering, shapes, strict=True):
            self.known[value.name] = self._input(value, shape)

    def _require_open_dimensions(self, entering: Sequence[onnx.ValueInfoProto]) -> None:
        """DataError for a size of a dimension that no input has."""
        known = {
            dim.dim_param: None
            for value in entering
            for dim in value.type.tensor_type.shape.dim
            if dim.dim_param
        }
        for name in self.wanted.dimensions:
            if name not in known:
                raise DataError(
                    f'"{self.path}": no input has an open dimension "{name:.80}"'
                    f"{nearest(name, known)}; there are {some([*known]) or 'none'}"
                )

    def _input(self, value: onnx.ValueInfoProto, shape: tuple[Dim, ...]) -> Laid:
        name = word(value.name)
        where = f'"{self.path}": the input "{value.name:.200}"'
        if self.settings.own:
            said = declared(value.name, value, parameter=False)
            made = self.making.builder.input(said.name, said.type)
            return as_is(Tensor(self.making.builder, made))
        dtype = dtype_of(where, value.type.tensor_type.elem_type)
        axes = tuple(range(len(shape)))
        if self.wanted.images and len(shape) == IMAGE and not self._is_turned(value.name):
            axes = channels_last(len(shape))
        try:
            laid = TensorType(dtype, tuple(shape[axis] for axis in axes))
            made = self.making.builder.input(name, laid)
            check_value(made)
        except AdderGraphError as error:
            raise type(error)(f"{where}: {error}") from None
        return Laid(Tensor(self.making.builder, made), axes)

    def _is_turned(self, name: str) -> bool:
        """Whether a Transpose reads it first: then the file has it in another layout itself."""
        return any(n.op_type == "Transpose" and name in n.input for n in self.nodes)

    def _shape(self, value: onnx.ValueInfoProto) -> tuple[Dim, ...]:
        """Of an input; an open dimension has to be the first, or to have a size."""
        where = f'"{self.path}": the input "{value.name:.200}"'
        if not value.type.HasField("tensor_type"):
            raise UnsupportedError(f"{where} is no tensor")
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            raise ShapeError(f"{where} says no shape: export it with one")
        made: list[Dim] = []
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                made.append(int(dim.dim_value))
            elif dim.HasField("dim_value"):
                raise ShapeError(f"{where} has the size {dim.dim_value}; sizes are 0 or more")
            elif dim.dim_param in self.wanted.dimensions:
                made.append(self.wanted.dimensions[dim.dim_param])
            elif axis == 0:
                made.append("N")
            else:
                raise ShapeError(
                    f'{where}: its axis {axis} is open ("{dim.dim_param:.80}"), and here the batch '
                    f'alone is: give its size, as dimensions={{"{dim.dim_param:.80}": 224}}'
                )
        return tuple(made)

    # --- nodes ------------------------------------------------------------------------------------

    def _read_node(self, place: int, node: onnx.NodeProto) -> None:
        where = f'"{self.path}": {_label(node)}, node {place + 1} of {len(self.nodes)}'
        inputs = [self._operand(where, name) for name in node.input]
        call = Call(node, inputs, self.making, self.settings, self._name(node),
                    self.readers.__getitem__)  # fmt: skip
        try:
            made = self._made(call)
            call.require_all_read()
        except AdderGraphError as error:
            raise type(error)(f"{where}: {error}") from None
        if len(self.making.builder.nodes) > MOST_NODES:
            raise UnsupportedError(f"{where}: so far it is more than {MOST_NODES:,} nodes here")
        if call.name in self.settings.dropouts and not self._alone(call.inputs[0]):
            del self.settings.dropouts[call.name]  # it would leave out for other readers, too
        results = [made] if isinstance(made, Constant | Laid) else list(made)
        for name, value in zip(node.output, results, strict=False):
            self.known[name] = value
        for name in node.output[len(results) :]:
            if name and self.readers[name]:
                raise UnsupportedError(f'{where}: its output "{name:.200}" is not computed here')

    def _alone(self, value: Known | None) -> bool:
        """Whether one node reads the tensor behind a value, whatever it is called so far."""
        if not isinstance(value, Laid):
            return False
        same = value.tensor.value
        held = [n for n, v in self.known.items() if isinstance(v, Laid) and v.tensor.value is same]
        return all(self.readers[name] == 1 for name in held)

    def _operand(self, where: str, name: str) -> Known | None:
        if not name:
            return None
        if name in self.known:
            return self.known[name]
        if name in self.makers:
            raise GraphError(
                f'{where} reads "{name:.200}" before it is made: nodes stand in order, without '
                "cycle"
            )
        raise GraphError(
            f'{where} reads "{name:.200}", which no node makes and no input or initializer is'
            f"{nearest(name, self.known)}"
        )

    def _name(self, node: onnx.NodeProto) -> str:
        """Outputs of the network are called as in the file, other values as their nodes."""
        first = next(filter(None, node.output), "")
        numbered = node.name == f"node_{first}"  # PyTorch's name for a node without one
        return word(first if first in self.last or numbered or not node.name else node.name)

    def _made(self, call: Call) -> Known | Sequence[Known]:
        node = call.node
        if node.domain == DOMAIN:
            return own_op(call)
        if self.settings.own and not node.domain and node.op_type in OWN:
            return OWN[node.op_type](call)
        operator = OPERATORS.get(node.op_type)
        if node.domain not in STANDARD or operator is None:
            raise UnsupportedError(_refusal(node))
        require_inputs(node, self.settings.opset)
        constants = [v for v in call.inputs if isinstance(v, Constant)]
        if operator.fold is not None and len(constants) == len(call.inputs) > 0:
            array = operator.fold(call, [c.array for c in constants])
            moved = array.size == constants[0].array.size and constants[0].trained
            return Constant(array, constants[0].name if moved else call.name, moved)
        return operator.make(call)

    # --- what leaves ------------------------------------------------------------------------------

    def _finish(self) -> Graph:
        outputs, builder = [], self.making.builder
        for value in self.source.output:
            found = self.known.get(value.name)
            if found is None:
                raise GraphError(f'"{self.path}": nothing makes the output "{value.name:.200}"')
            outputs.append((word(value.name), self._output(value.name, found)))
        if not outputs:
            raise GraphError(f'"{self.path}" has no outputs')
        made = builder.finish([v for _, v in outputs])
        nodes = made.nodes if self.settings.own else tuple(upstream(made.nodes, made.outputs))
        read = {*made.outputs, *(v for n in nodes for v in n.inputs)}
        parameters = [p for p in made.parameters if p in read or self.settings.own]
        made = replace(made, nodes=nodes, parameters=tuple(parameters))
        made = _called(made, [name for name, _ in outputs])
        try:
            check(made)
        except AdderGraphError as error:
            raise type(error)(f'"{self.path}": {error}') from None
        return made

    def _output(self, name: str, found: Known) -> Value:
        image = isinstance(found, Laid) and found.axes == channels_last(len(found.axes))
        try:
            if self.wanted.images and image and len(found.shape) == IMAGE:
                return self.making.laid(found, channels_last(IMAGE)).value
            return self.making.plain(_narrow(found), word(name)).value
        except AdderGraphError as error:
            raise type(error)(f'"{self.path}": the output "{name:.200}": {error}') from None


def _narrow(found: Known) -> Known:
    """INT64 numbers as i32, where that holds them."""
    if not isinstance(found, Constant) or found.array.dtype != "i8" or found.has_batch:
        return found
    if np.abs(found.array).max(initial=0) >= 1 << 31:
        return found
    return replace(found, array=found.array.astype("i4"))


def _called(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph whose outputs have these names, as far as nodes compute them and they are free."""
    computed, taken = graph.producers(), {v.name for v in graph.values()}
    called: dict[Value, str] = {}
    for value, name in zip(graph.outputs, names, strict=True):
        if value.name == name:
            called[value] = name
        elif value in computed and value not in called and name not in taken:
            taken.add(name)
            called[value] = name
    return renamed(graph, called)


def _graph_name(name: str) -> str:
    made = word(name)
    return made if WORD.fullmatch(made) else f"graph_{made}"


def _label(node: onnx.NodeProto) -> str:
    """`Conv "conv1"`."""
    name = node.name or next(filter(None, node.output), "")
    return f"{node.op_type[:80]} {border.shown(name)}"


def _refusal(node: onnx.NodeProto) -> str:
    if node.domain not in STANDARD:
        return (
            f'operators of the domain "{node.domain:.80}" are not read here: export the network '
            "with standard operators"
        )
    if node.op_type in INSTEAD:
        return f"{node.op_type} is not read here; what would do: {INSTEAD[node.op_type]}"
    return (
        f"{node.op_type[:80]} is not read here{nearest(node.op_type, OPERATORS)}; docs/onnx.md "
        "lists the operators that are"
    )
