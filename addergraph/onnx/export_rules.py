"""One rule an op: which standard operators compute it, or that it is a call of its function.

A standard operator is written where it says all that the op says, so that reading the file gives
the op again; numbers that an ONNX FLOAT would round are a reason for a call. Of two ops that one
operator would stand for, one is a call: relu6 and a clip to [0, 6] are both, as no Clip tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir import Node, Op, Value
from ..ir.types import DType, TensorType, bool_, f32, i32, u8
from ..ops.contraction.conv2d import Conv2d
from ..ops.contraction.dense import Dense, Matmul
from ..ops.movement.broadcast_to import BroadcastTo
from ..ops.movement.concat import Concat
from ..ops.movement.pad import Pad
from ..ops.movement.reshape import Flatten, Reshape
from ..ops.movement.resize_nearest import ResizeNearest
from ..ops.movement.slice import Slice
from ..ops.movement.transpose import Transpose
from ..ops.pointwise.batch_norm import BatchNorm
from ..ops.pointwise.binary import Add, Div, Maximum, Minimum, Mul, Sub
from ..ops.pointwise.cast import Cast
from ..ops.pointwise.clip import Clip
from ..ops.pointwise.full import Full
from ..ops.pointwise.greater import Greater
from ..ops.pointwise.relu import LeakyRelu, Relu
from ..ops.pointwise.select import Select
from ..ops.pointwise.unary import Abs, Exp, Log, Neg, Sigmoid, Sqrt, Tanh
from ..ops.reduction.argmax import Argmax
from ..ops.reduction.avg_pool2d import AvgPool2d
from ..ops.reduction.global_avg_pool import GlobalAvgPool
from ..ops.reduction.max_pool2d import MaxPool2d
from ..ops.reduction.reduce import ReduceMax, ReduceMean, ReduceSum
from ..ops.reduction.softmax import Softmax
from .attributes import same, short
from .export_body import element_type
from .export_writer import Writer
from .layouts import FROM_NHWC, INDEX, NCHW, NHWC, OIHW, POOL, TO_NHWC, between

Rule = Callable[[Writer, Node], None]
_RULES: dict[type[Op], Rule] = {}


def write_node(writer: Writer, node: Node) -> None:
    """Adds what computes `node`; UnsupportedError, naming it, where nothing in ONNX does."""
    _RULES.get(type(node.op), Writer.call)(writer, node)


def _exports(op: type[Op]) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES[op] = rule
        return rule

    return register


# --- elements -------------------------------------------------------------------------------------


def _elementwise(op_type: str) -> Rule:
    """In the layout that its operands have."""

    def rule(writer: Writer, node: Node) -> None:
        writer.simple(op_type, node, writer.layout(node.inputs))

    return rule


for _op, _op_type in (
    (Relu, "Relu"), (Neg, "Neg"), (Abs, "Abs"), (Exp, "Exp"), (Log, "Log"), (Sqrt, "Sqrt"),
    (Sigmoid, "Sigmoid"), (Tanh, "Tanh"), (Add, "Add"), (Sub, "Sub"), (Mul, "Mul"), (Div, "Div"),
    (Maximum, "Max"), (Minimum, "Min"), (Greater, "Greater"), (Select, "Where"),
):  # fmt: skip
    _exports(_op)(_elementwise(_op_type))


@_exports(LeakyRelu)
def _leaky_relu(writer: Writer, node: Node) -> None:
    slope = _of(node, LeakyRelu).slope
    if not short(slope):
        return writer.call(node)
    writer.simple("LeakyRelu", node, writer.layout(node.inputs), alpha=slope)


@_exports(Clip)
def _clip(writer: Writer, node: Node) -> None:
    op = _of(node, Clip)
    if not (short(op.lo) and short(op.hi)) or (op.lo, op.hi) == (0.0, 6.0):
        return writer.call(node)
    layout = writer.layout(node.inputs)
    low, high = (
        _number(writer, f"{node.name}.{what}", end, f32)
        for what, end in (("lo", op.lo), ("hi", op.hi))
    )
    result = writer.write(node.outputs[0], _held(node.outputs[0], layout))
    writer.emit("Clip", [_read(writer, node.inputs[0], layout), low, high], result)


@_exports(Cast)
def _cast(writer: Writer, node: Node) -> None:
    to = _of(node, Cast).dtype
    if node.inputs[0].type.dtype == f32 and to not in (f32, bool_):
        return writer.call(node)
    writer.simple("Cast", node, writer.layout(node.inputs), to=element_type(to))


@_exports(Full)
def _full(writer: Writer, node: Node) -> None:
    """A Constant where it is one number: a tensor where f32 holds it, a FLOAT where that is short.
    Of an open batch there is none."""
    from onnx import numpy_helper

    op = _of(node, Full)
    if "N" in op.shape:
        raise UnsupportedError(
            f'{node.label} of graph "{writer.graph.name}" has the open batch N, of which ONNX has '
            "no constant: give batch=, or let it broadcast from shape ()"
        )
    value = np.array(op.value, op.dtype.numpy)
    exact = same(float(value), op.value)
    if op.shape or not (exact or short(op.value)):
        return writer.call(node)
    said = {"value": numpy_helper.from_array(value)} if exact else {"value_float": op.value}
    writer.emit("Constant", [], writer.write(node.outputs[0]), **said)


# --- contractions and normalization ---------------------------------------------------------------


@_exports(Conv2d)
def _conv2d(writer: Writer, node: Node) -> None:
    op = _of(node, Conv2d)
    x, f, *bias = node.inputs
    if x.type.dtype == u8:
        return writer.call(node)
    writer.emit(
        "Conv", [writer.read(x, NCHW), writer.read(f, OIHW), *map(writer.read, bias)],
        writer.write(node.outputs[0], NCHW), kernel_shape=[int(d) for d in f.type.shape[:2]],
        strides=op.stride, pads=_pads(op.padding), dilations=op.dilation, group=op.groups,
    )  # fmt: skip


@_exports(Dense)
def _dense(writer: Writer, node: Node) -> None:
    if node.inputs[0].type.dtype == u8:
        return writer.call(node)
    writer.simple("Gemm", node)


@_exports(Matmul)
def _matmul(writer: Writer, node: Node) -> None:
    writer.simple("MatMul", node)


@_exports(BatchNorm)
def _batch_norm(writer: Writer, node: Node) -> None:
    """The operator where the channels are its second axis already, else the function in NHWC."""
    epsilon, (x, mean, variance, gamma, beta) = _of(node, BatchNorm).epsilon, node.inputs
    layout = writer.layout([x])
    if not short(epsilon) or not (x.type.rank == 2 or layout == NCHW):
        return writer.call(node)
    others = [writer.read(v) for v in (gamma, beta, mean, variance)]
    result = writer.write(node.outputs[0], layout)
    writer.emit("BatchNormalization", [writer.read(x, layout), *others], result, epsilon=epsilon)


# --- reductions -----------------------------------------------------------------------------------


@_exports(MaxPool2d)
def _max_pool2d(writer: Writer, node: Node) -> None:
    _pool(writer, node, "MaxPool")


@_exports(AvgPool2d)
def _avg_pool2d(writer: Writer, node: Node) -> None:
    op = _of(node, AvgPool2d)
    top, bottom, left, right = op.padding
    if max(top, bottom) >= op.window[0] or max(left, right) >= op.window[1]:
        return writer.call(node)  # runtimes refuse a window that lies in the padding
    _pool(writer, node, "AveragePool", count_include_pad=1)


def _pool(writer: Writer, node: Node, op_type: str, **attributes: Any) -> None:
    op: Any = node.op
    writer.simple(
        op_type, node, NCHW, kernel_shape=op.window, strides=op.stride, pads=_pads(op.padding),
        **attributes,
    )  # fmt: skip


@_exports(GlobalAvgPool)
def _global_avg_pool(writer: Writer, node: Node) -> None:
    inside = writer.fresh(between(node.name, POOL))
    writer.emit("GlobalAveragePool", [writer.read(node.inputs[0], NCHW)], inside)
    writer.emit("Flatten", [inside], writer.write(node.outputs[0]), axis=1)


@_exports(Argmax)
def _argmax(writer: Writer, node: Node) -> None:
    inside = writer.fresh(between(node.name, INDEX))
    axis = _of(node, Argmax).axis
    writer.emit("ArgMax", [writer.read(node.inputs[0])], inside, axis=axis, keepdims=0)
    writer.emit("Cast", [inside], writer.write(node.outputs[0]), to=element_type(i32))


@_exports(Softmax)
def _softmax(writer: Writer, node: Node) -> None:
    layout = writer.layout(node.inputs)
    last = node.inputs[0].type.rank - 1
    writer.simple("Softmax", node, layout, axis=_axis(last, layout))


def _reduction(op_type: str) -> Rule:
    def rule(writer: Writer, node: Node) -> None:
        op: Any = node.op
        layout = writer.layout(node.inputs) if op.keepdims else NHWC
        axes = sorted(_axis(axis, layout) for axis in op.axes)
        places = writer.ints(f"{node.name}.axes", axes)
        result = writer.write(node.outputs[0], _held(node.outputs[0], layout))
        inputs = [_read(writer, node.inputs[0], layout), places]
        # without axes there is nothing to reduce, where ONNX would reduce all
        writer.emit(op_type, inputs, result, keepdims=op.keepdims, noop_with_empty_axes=1)

    return rule


@_exports(ReduceSum)
def _reduce_sum(writer: Writer, node: Node) -> None:
    """A call of integers: what an operator's sum does that leaves i32 is open."""
    if node.inputs[0].type.dtype != f32:
        return writer.call(node)
    _reduction("ReduceSum")(writer, node)


_exports(ReduceMean)(_reduction("ReduceMean"))
_exports(ReduceMax)(_reduction("ReduceMax"))


# --- movement -------------------------------------------------------------------------------------


@_exports(Flatten)
def _flatten(writer: Writer, node: Node) -> None:
    writer.simple("Flatten", node, axis=1)


@_exports(Reshape)
def _reshape(writer: Writer, node: Node) -> None:
    """An open batch is kept (a size of 0)."""
    shape = _of(node, Reshape).shape
    sizes = writer.ints(f"{node.name}.shape", [0 if d == "N" else int(d) for d in shape])
    writer.emit("Reshape", [writer.read(node.inputs[0]), sizes], writer.write(node.outputs[0]))


@_exports(Transpose)
def _transpose(writer: Writer, node: Node) -> None:
    writer.simple("Transpose", node, perm=_of(node, Transpose).permutation)


@_exports(BroadcastTo)
def _broadcast_to(writer: Writer, node: Node) -> None:
    """Expand takes 1 for an axis that stays: so an open batch does."""
    op, x = _of(node, BroadcastTo), node.inputs[0]
    if "N" in op.shape and not x.type.is_open:
        raise UnsupportedError(
            f'{node.label} of graph "{writer.graph.name}" repeats {x} for each sample of the open '
            "batch N, which no constant shape says: give batch="
        )
    shape = writer.ints(f"{node.name}.shape", [1 if d == "N" else int(d) for d in op.shape])
    writer.emit("Expand", [writer.read(x), shape], writer.write(node.outputs[0]))


@_exports(Concat)
def _concat(writer: Writer, node: Node) -> None:
    layout = writer.layout(node.inputs)
    writer.simple("Concat", node, layout, axis=_axis(_of(node, Concat).axis, layout))


@_exports(Slice)
def _slice(writer: Writer, node: Node) -> None:
    """Of the axes that it cuts."""
    op, x = _of(node, Slice), node.inputs[0]
    cut = [n for n, d in enumerate(x.type.shape) if (op.start[n], op.stop[n]) != (0, d)]
    layout = writer.layout(node.inputs)
    starts, stops = [op.start[n] for n in cut], [int(op.stop[n]) for n in cut]
    numbers = (starts, stops, [_axis(n, layout) for n in cut])
    constants = [
        writer.ints(f"{node.name}.{what}", values)
        for what, values in zip(("starts", "ends", "axes"), numbers, strict=True)
    ]
    result = writer.write(node.outputs[0], _held(node.outputs[0], layout))
    writer.emit("Slice", [_read(writer, x, layout), *constants], result)


@_exports(Pad)
def _pad(writer: Writer, node: Node) -> None:
    op, x = _of(node, Pad), node.inputs[0]
    if x.type.dtype == f32 and not short(op.value):
        return writer.call(node)
    layout = writer.layout(node.inputs)
    sides = [[side[n] for n in _order(x.type, layout)] for side in (op.before, op.after)]
    pads = writer.ints(f"{node.name}.pads", [*sides[0], *sides[1]])
    value = _number(writer, f"{node.name}.value", op.value, x.type.dtype)
    result = writer.write(node.outputs[0], _held(node.outputs[0], layout))
    writer.emit("Pad", [_read(writer, x, layout), pads, value], result)


@_exports(ResizeNearest)
def _resize_nearest(writer: Writer, node: Node) -> None:
    rows, columns = _of(node, ResizeNearest).factors
    scales = np.array([1, 1, rows, columns], np.float32)
    inputs = [writer.read(node.inputs[0], NCHW), "", writer.constant(f"{node.name}.scales", scales)]
    writer.emit(
        "Resize", inputs, writer.write(node.outputs[0], NCHW), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


# --- parts ----------------------------------------------------------------------------------------


def _of(node: Node, kind: type[Any]) -> Any:
    """The op of a node, as the class that the rule is registered for."""
    assert isinstance(node.op, kind)
    return node.op


def _pads(padding: Sequence[int]) -> tuple[int, int, int, int]:
    """ONNX has both begins before both ends."""
    top, bottom, left, right = padding
    return top, left, bottom, right


def _order(type: TensorType, layout: str) -> Sequence[int]:
    """The axes of the graph in the order of the layout."""
    return FROM_NHWC[NCHW] if layout == NCHW else range(type.rank)


def _axis(axis: int, layout: str) -> int:
    """Where an axis of the graph stands in the layout."""
    return TO_NHWC[NCHW][axis] if layout == NCHW else axis


def _held(value: Value, layout: str) -> str:
    return layout if value.type.rank == 4 else NHWC


def _read(writer: Writer, value: Value, layout: str) -> str:
    return writer.read(value, _held(value, layout))


def _number(writer: Writer, hint: str, value: float, dtype: DType) -> str:
    return writer.constant(hint, np.array(value, dtype.numpy))
