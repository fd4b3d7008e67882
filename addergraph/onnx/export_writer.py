"""A graph as it becomes an ONNX graph: names, layouts, constants, parameters, functions.

Every value has its own name in the file, in the layout that it is computed in; where it is wanted
in the other, a Transpose makes it, once, whose name `layouts.py` says. Inputs and outputs are NHWC,
as in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedError
from ..ir import CONTRACTION, Array, Graph, Node, Value
from ..ir.graph import free_name
from ..ir.types import TensorType, f32
from .attributes import DECLARED, DOMAIN, declared_text, encoded, function_name
from .export_body import element_type
from .export_functions import function_of
from .layouts import FROM_NHWC, NCHW, NHWC, OIHW, TO_NHWC, laid_out

if TYPE_CHECKING:
    import onnx

OPSET = 21
_TURNS = {(NHWC, to): axes for to, axes in FROM_NHWC.items()} | {
    (has, NHWC): axes for has, axes in TO_NHWC.items()
}


class Writer:
    """Collects the parts of an ONNX graph; the rules of `export_rules.py` call it node by node."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array]) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.functions: dict[str, dict[bytes, onnx.FunctionProto]] = {}
        self._types: list[onnx.ValueInfoProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names = {v.name for v in graph.values()}
        self._tensors: dict[Value, dict[str, str]] = {}
        for v in graph.inputs:
            self._tensors[v] = {NHWC: v.name}
        turned = _turned(graph)
        for p in graph.parameters:
            layout = OIHW if p in turned else NHWC
            self._tensors[p] = {layout: p.name}
            self._initializers.append(_initializer(p, weights[p.name], layout))

    # --- what rules ask and say ---------------------------------------------------------------

    def read(self, value: Value, layout: str = NHWC) -> str:
        """The tensor that holds `value` in a layout; values of other ranks than 4 have one."""
        known = self._tensors[value]
        if layout not in known:
            has, name = next(iter(known.items()))
            turned = self.fresh(laid_out(value.name, layout))
            self.emit("Transpose", [name], turned, perm=_TURNS[has, layout])
            known[layout] = turned
        return known[layout]

    def write(self, value: Value, layout: str = NHWC) -> str:
        """What the tensor is to be called that holds `value` in a layout."""
        outside = layout != NHWC and value in self.graph.outputs
        name = self.fresh(laid_out(value.name, layout)) if outside else value.name
        self._tensors[value] = {layout: name}
        self._describe(name, value.type, layout)
        return name

    def layout(self, values: Sequence[Value]) -> str:
        """The layout in which ops of elements, such as a sum, need the fewest Transposes.

        That of the first image in case of doubt; NHWC where a value of other axes broadcasts.
        """
        images = [v for v in values if v.type.rank == 4]
        if not images or any(v.type.rank in (1, 2, 3) or v.type.rank > 4 for v in values):
            return NHWC
        own = next(iter(self._tensors[images[0]]))
        layouts = (own, NCHW if own == NHWC else NHWC)
        return min(layouts, key=lambda one: sum(one not in self._tensors[v] for v in images))

    def emit(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """A node, called as its output."""
        from onnx import helper

        node = helper.make_node(op_type, inputs, [output], name=output, **attributes)
        self.nodes.append(node)

    def simple(self, op_type: str, node: Node, layout: str = NHWC, **attributes: Any) -> None:
        """One standard operator, all of whose images have this layout."""
        inputs = [self.read(v, layout if v.type.rank == 4 else NHWC) for v in node.inputs]
        (result,) = node.outputs
        made = layout if result.type.rank == 4 else NHWC
        self.emit(op_type, inputs, self.write(result, made), **attributes)

    def call(self, node: Node) -> None:
        """A call of the function that is the op's body; UnsupportedError where there is none."""
        from onnx import helper

        made = helper.make_node(
            self._function(node), [self.read(v) for v in node.inputs],
            [self.write(v) for v in node.outputs], name=node.name, domain=DOMAIN,
        )  # fmt: skip
        made.attribute.extend(encoded(node.op))
        self.nodes.append(made)

    def constant(self, hint: str, values: Array) -> str:
        """A constant of the graph; equal ones are kept once."""
        from onnx import numpy_helper

        key = (str(values.dtype), values.shape, values.tobytes())
        if key not in self._constants:
            name = self.fresh(hint)
            self._initializers.append(numpy_helper.from_array(values, name))
            self._constants[key] = name
        return self._constants[key]

    def ints(self, hint: str, values: Sequence[int]) -> str:
        """Sizes, positions or axes as a constant."""
        return self.constant(hint, np.array(list(values), np.int64))

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet."""
        name = free_name(hint, self._names)
        self._names.add(name)
        return name

    # --- the end ------------------------------------------------------------------------------

    def finish(self) -> onnx.GraphProto:
        """The graph; its outputs are called as in the graph, where a name is free for each."""
        from onnx import helper

        outputs = [self._output(v, n) for n, v in enumerate(self.graph.outputs)]
        inputs = [_described(v.name, v.type, NHWC) for v in self.graph.inputs]
        for info, v in zip(inputs, self.graph.inputs, strict=True):
            _declare(info, v)
        made = {info.name for info in outputs}
        return helper.make_graph(
            self.nodes, self.graph.name, inputs, outputs, self._initializers,
            value_info=[info for info in self._types if info.name not in made],
        )  # fmt: skip

    def _output(self, value: Value, number: int) -> onnx.ValueInfoProto:
        held, name = self._tensors[value], value.name
        computed = any(value in node.outputs for node in self.graph.nodes)
        if not computed or value in self.graph.outputs[:number]:
            name = self.fresh(f"{value.name}.output")
            self.emit("Identity", [self.read(value)], name)
        elif NHWC not in held:
            self.emit("Transpose", [held[NCHW]], name, perm=TO_NHWC[NCHW])
            held[NHWC] = name
        elif held[NHWC] != name:  # another node wanted it so before
            self.emit("Identity", [held[NHWC]], name)
        return _described(name, value.type, NHWC)

    def _describe(self, name: str, type: TensorType, layout: str) -> None:
        self._types.append(_described(name, type, layout))

    def _function(self, node: Node) -> str:
        """The name of the function of this op, these attributes and operand types."""
        from onnx import helper

        name, found = node.op.name, function_of(node.op, [v.type for v in node.inputs])
        if found is None:
            raise UnsupportedError(
                f'{node.label} of graph "{self.graph.name}" has no form in ONNX: {name} stands '
                "in training steps, or behind the passes; export the graph that predicts, as it is "
                "declared: a model has it by itself"
            )
        nodes, operands, result = found
        forms = self.functions.setdefault(name, {})
        key = b"".join(n.SerializeToString(deterministic=True) for n in nodes)
        key += f"{len(operands)} {result}".encode()
        if key not in forms:
            forms[key] = helper.make_function(
                DOMAIN, function_name(name, len(forms) + 1), operands, [result], nodes,
                [helper.make_opsetid("", OPSET)], [a.name for a in encoded(node.op)],
            )  # fmt: skip
        return str(forms[key].name)


def _turned(graph: Graph) -> set[Value]:
    """The parameters that are filters of convolutions alone: stored as an operator takes them."""
    filters: set[Value] = set()
    others: set[Value] = set(graph.outputs)
    for node in graph.nodes:
        for place, v in enumerate(node.inputs):
            product = node.op.kind == CONTRACTION and not node.op.measures_distance
            is_filter = product and place == 1 and v.type.rank == 4 and v.type.dtype == f32
            (filters if is_filter else others).add(v)
    return {p for p in graph.parameters if p in filters and p not in others}


def _initializer(parameter: Value, array: Array, layout: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    held = array.transpose(FROM_NHWC[OIHW]) if layout == OIHW else array
    tensor = numpy_helper.from_array(np.ascontiguousarray(held).reshape(held.shape), parameter.name)
    _declare(tensor, parameter)
    return tensor


def _declare(made: onnx.TensorProto | onnx.ValueInfoProto, value: Value) -> None:
    entry = made.metadata_props.add()
    entry.key, entry.value = DECLARED, declared_text(value)


def _described(name: str, type: TensorType, layout: str) -> onnx.ValueInfoProto:
    from onnx import helper

    shape = [type.shape[axis] for axis in FROM_NHWC[layout]] if layout != NHWC else type.shape
    return helper.make_tensor_value_info(name, element_type(type.dtype), list(shape))
