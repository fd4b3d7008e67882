"""Bodies of the other ops that have no exact standard operator: integers, roundings, tables.

Integer bodies compute in i64 and narrow with Cast, whose rule for integers is ONNX's own (the low
bits stay), so that they are exact where a runtime's i32 sums would be left open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ir import Op
from ..ir.types import TensorType, f32, i32, u8
from ..ops._elementwise import INTEGER_BOUNDS
from ..ops._window import Window
from ..ops.contraction.adder2d import Adder2d
from ..ops.contraction.adder_dense import AdderDense
from ..ops.contraction.conv2d import Conv2d
from ..ops.contraction.dense import Dense
from ..ops.movement.lookup import BYTES, Lookup
from ..ops.movement.pad import Pad
from ..ops.pointwise.batch_norm import BatchNorm
from ..ops.pointwise.cast import Cast
from ..ops.pointwise.clip import Clip
from ..ops.pointwise.fake_quantize import FakeQuantize, FakeQuantizeFilter
from ..ops.pointwise.full import Full
from ..ops.pointwise.relu import LeakyRelu, Relu6
from ..ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from ..ops.reduction.avg_pool2d import AvgPool2d
from ..ops.reduction.reduce import ReduceSum
from ..ops.reduction.sum_pool2d import SumPool2d
from .export_adders import adder2d, adder_dense
from .export_body import Body, f64, i64

if TYPE_CHECKING:
    import onnx

Writes = Callable[..., str]
"""`(body, op, operand types, *operand names)` -> the name of the result."""

BODIES: dict[type[Op], Writes] = {}


def body_of(op: type[Op]) -> Callable[[Writes], Writes]:
    """Registers what writes the body of an op."""

    def register(writes: Writes) -> Writes:
        BODIES[op] = writes
        return writes

    return register


def function_of(
    op: Op, types: Sequence[TensorType]
) -> tuple[list[onnx.NodeProto], list[str], str] | None:
    """The nodes of the function of this op on operands of these types, its inputs, its output;
    None for an op without one."""
    writes = BODIES.get(type(op))
    if writes is None:
        return None
    body, operands = Body(), [f"/x{n}" for n in range(len(types))]
    result = writes(body, op, types, *operands)
    return body.nodes, operands, result


body_of(Adder2d)(adder2d)
body_of(AdderDense)(adder_dense)


@body_of(BatchNorm)
def batch_norm(
    body: Body, op: BatchNorm, types: Sequence[TensorType], x: str, mean: str, variance: str,
    gamma: str, beta: str,
) -> str:  # fmt: skip
    """x scale + (beta - mean scale); a runtime folds what no image enters."""
    deviation = body("Sqrt", body("Add", variance, body.scalar(op.epsilon, f32)))
    scale = body("Div", gamma, deviation)
    offset = body("Sub", beta, body("Mul", mean, scale))
    return body("Add", body("Mul", x, scale), offset)


# --- integers -------------------------------------------------------------------------------------


@body_of(RequantizeShift)
def requantize_shift(
    body: Body, op: RequantizeShift, types: Sequence[TensorType], x: str, center: str, offset: str,
    shift: str, *terms: str,
) -> str:  # fmt: skip
    """The sum of the signed powers of two is one factor, modulo 2^32."""
    factor = ""
    for term in terms:
        wide = body.cast(term, i64)
        power = _power(body, body("Sub", body("Abs", wide), body.scalar(1, i64)))
        signed = body("Mul", body("Sign", wide), power)
        factor = body("Add", factor, signed) if factor else signed
    return _requantized(body, op, x, center, offset, shift, _wrapped(body, factor))


@body_of(RequantizeMultiply)
def requantize_multiply(
    body: Body, op: RequantizeMultiply, types: Sequence[TensorType], x: str, center: str,
    offset: str, shift: str, multiplier: str,
) -> str:  # fmt: skip
    return _requantized(body, op, x, center, offset, shift, body.cast(multiplier, i64))


def _requantized(
    body: Body, op: RequantizeShift | RequantizeMultiply, x: str, center: str, offset: str,
    shift: str, factor: str,
) -> str:  # fmt: skip
    """clip(wrap(wrap(x + center) factor + offset) >> shift), of i32 operands and an i64 factor.

    floor(a / 2^s) = (a + 2^31) div 2^s - 2^31 div 2^s, whose dividends are not negative, so that a
    division that rounds toward zero rounds down.
    """
    centered = _wrapped(body, body("Add", body.cast(x, i64), body.cast(center, i64)))
    scaled = _wrapped(body, body("Mul", centered, factor))
    total = _wrapped(body, body("Add", scaled, body.cast(offset, i64)))
    divisor, half = _power(body, body.cast(shift, i64)), body.scalar(1 << 31, i64)
    above = body("Div", body("Add", total, half), divisor)
    shifted = body("Sub", above, body("Div", half, divisor))
    held = body("Clip", shifted, body.scalar(op.lo, i64), body.scalar(op.hi, i64))
    return body.cast(held, op.dtype)


def _wrapped(body: Body, x: str) -> str:
    """The low 32 bits of an i64, with their sign, as i64."""
    return body.cast(body.cast(x, i32), i64)


def _power(body: Body, exponent: str) -> str:
    """2^(exponent mod 32), i64: of -1, 2^31."""
    return body("Pow", body.scalar(2, i64), body("Mod", exponent, body.scalar(32, i64)))


@body_of(ReduceSum)
def reduce_sum(body: Body, op: ReduceSum, types: Sequence[TensorType], x: str) -> str:
    """Of i32, which wraps."""
    total = body(
        "ReduceSum", body.cast(x, i64), body.ints(*op.axes),
        keepdims=int(op.keepdims), noop_with_empty_axes=1,
    )  # fmt: skip
    return body.cast(total, i32)


@body_of(SumPool2d)
def sum_pool2d(body: Body, op: SumPool2d, types: Sequence[TensorType], x: str) -> str:
    """Sums of columns of sums of rows."""
    _, height, width, _ = types[0].shape
    wide = body.cast(x, i32)
    if op.window == (height, width) and not any(op.padding):
        return body("ReduceSum", wide, body.ints(1, 2), keepdims=1)
    top, bottom, left, right = op.padding
    if any(op.padding):
        wide = body("Pad", wide, body.ints(0, top, left, 0, 0, bottom, right, 0))
    out = op.geometry.output_size(height, width)
    for axis in (0, 1):
        wide = _sums_along(body, wide, axis, op.geometry, out[axis])
    return wide


def _sums_along(body: Body, x: str, axis: int, window: Window, count: int) -> str:
    total, step = "", window.stride[axis]
    for first in range(window.size[axis]):
        last = first + (count - 1) * step + 1
        part = body.slice(x, [axis + 1], [first], [last], [step])
        total = body("Add", total, part) if total else part
    return total


@body_of(Lookup)
def lookup(body: Body, op: Lookup, types: Sequence[TensorType], x: str, table: str) -> str:
    """One table, of all channels one behind the other: byte b of channel c is entry 256 c + b."""
    index, (tables, _) = body.cast(x, i32), types[1].shape
    if tables != 1:
        starts = BYTES * np.arange(int(tables), dtype=np.int32)
        index = body("Add", index, body.constant(starts))
    return body("Gather", body.reshape(table, -1), index, axis=0)


@body_of(Conv2d)
def conv2d(body: Body, op: Conv2d, types: Sequence[TensorType], x: str, f: str, *bias: str) -> str:
    """Of bytes; all others are a Conv."""
    top, bottom, left, right = op.padding
    filters, zeros = _unsigned(body, body.transpose(f, 3, 2, 0, 1))
    y = body(
        "ConvInteger", body.transpose(x, 0, 3, 1, 2), filters, *zeros,
        strides=op.stride, pads=(top, left, bottom, right), dilations=op.dilation, group=op.groups,
    )  # fmt: skip
    y = body.transpose(y, 0, 2, 3, 1)
    return body("Add", y, bias[0]) if bias else y


@body_of(Dense)
def dense(body: Body, op: Dense, types: Sequence[TensorType], x: str, f: str, *bias: str) -> str:
    """Of bytes; all others are a Gemm."""
    filters, zeros = _unsigned(body, f)
    y = body("MatMulInteger", x, filters, *zeros)
    return body("Add", y, bias[0]) if bias else y


def _unsigned(body: Body, f: str) -> tuple[str, tuple[str, str]]:
    """i8 filters as u8 with a zero point of 128, and the zero points of both operands.

    ONNX Runtime adds products of u8 and i8 with saturation on CPUs that have no instruction for
    them (AVX2 without VNNI), and its older versions have no ConvInteger of them; of u8 and u8 both
    are as the standard says.
    """
    shifted = body("Add", body.cast(f, i32), body.scalar(128, i32))
    return body.cast(shifted, u8), (body.scalar(0, u8), body.scalar(128, u8))


# --- numbers of 64 bits, and roundings ------------------------------------------------------------


@body_of(Cast)
def cast(body: Body, op: Cast, types: Sequence[TensorType], x: str) -> str:
    """From f32 to integers, with saturation; NaN gives 0. ONNX leaves both open."""
    wide = body.cast(x, f64)
    known = body("Where", body("IsNaN", wide), body.scalar(0, f64), wide)
    low, high = (body.scalar(end, f64) for end in INTEGER_BOUNDS[op.dtype])
    return body.cast(body("Clip", known, low, high), op.dtype)


@body_of(FakeQuantize)
def fake_quantize(body: Body, op: FakeQuantize, types: Sequence[TensorType], x: str) -> str:
    low, high = (body.scalar(end - op.zero_point, f64) for end in (0, op.top))
    scale = body.scalar(op.scale, f64)
    steps = body("Div", body.cast(x, f64), scale)
    y = body.cast(body("Mul", body("Round", body("Clip", steps, low, high)), scale), f32)
    if op.saturate:
        return y
    outside = body("Or", body("Less", steps, low), body("Greater", steps, high))
    return body("Where", outside, x, y)


@body_of(FakeQuantizeFilter)
def fake_quantize_filter(
    body: Body, op: FakeQuantizeFilter, types: Sequence[TensorType], f: str
) -> str:
    axes, wide = body.ints(*range(types[0].rank - 1)), body.cast(f, f64)
    largest = body("ReduceMax", body("Abs", wide), axes, keepdims=1)
    zero, one = body.scalar(0, f64), body.scalar(1, f64)
    some = body("Where", body("Equal", largest, zero), one, largest)
    scale = body("Div", some, body.scalar(op.end, f64))
    return body.cast(body("Mul", body("Round", body("Div", wide, scale)), scale), f32)


@body_of(Clip)
def clip(body: Body, op: Clip, types: Sequence[TensorType], x: str) -> str:
    return body("Clip", x, body.scalar(op.lo, f32), body.scalar(op.hi, f32))


@body_of(Relu6)
def relu6(body: Body, op: Relu6, types: Sequence[TensorType], x: str) -> str:
    return body("Clip", x, body.scalar(0, f32), body.scalar(6, f32))


@body_of(LeakyRelu)
def leaky_relu(body: Body, op: LeakyRelu, types: Sequence[TensorType], x: str) -> str:
    positive = body("Greater", x, body.scalar(0, f32))
    return body("Where", positive, x, body("Mul", x, body.scalar(op.slope, f32)))


@body_of(Full)
def full(body: Body, op: Full, types: Sequence[TensorType]) -> str:
    """Of a shape, or of a number that no FLOAT holds."""
    value = body.scalar(op.value, op.dtype)
    return body("Expand", value, body.ints(*(int(d) for d in op.shape)))


@body_of(Pad)
def pad(body: Body, op: Pad, types: Sequence[TensorType], x: str) -> str:
    """Of a number that no FLOAT holds."""
    return body("Pad", x, body.ints(*op.before, *op.after), body.scalar(op.value, types[0].dtype))


@body_of(AvgPool2d)
def avg_pool2d(body: Body, op: AvgPool2d, types: Sequence[TensorType], x: str) -> str:
    """Of windows that lie in the padding altogether, which AveragePool refuses."""
    top, bottom, left, right = op.padding
    padded = body("Pad", x, body.ints(0, top, left, 0, 0, bottom, right, 0))
    y = body(
        "AveragePool", body.transpose(padded, 0, 3, 1, 2), kernel_shape=op.window, strides=op.stride
    )
    return body.transpose(y, 0, 2, 3, 1)
