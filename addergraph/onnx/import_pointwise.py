"""Elementwise operators: activations, arithmetic, comparisons, BatchNormalization, Dropout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ir import Array, Init
from ..ir.trace import MOST_POWER, Tensor
from ..ir.types import DType, f32, i8, i32, u8
from .attributes import from_float
from .import_call import Call, Handler, Made, require_rank
from .import_tensors import OURS, element_name
from .import_values import Constant, Known, Laid, channels_last

OneToOne = Callable[..., Tensor]
ONES, ZEROS = Init("ones"), Init("zeros")


def with_(value: Laid, tensor: Tensor) -> Laid:
    """The value read as `value` is, of another tensor of its shape."""
    return Laid(tensor, value.axes, value.reshaped, value.name)


def unary(op: OneToOne, *dtypes: DType) -> Handler:
    """An op of one operand of one of these dtypes."""

    def make(call: Call) -> Made:
        x = call.of_dtype(0, *(dtypes or (f32,)))
        return with_(x, op(x.tensor, name=call.name))

    return make


def leaky_relu(call: Call) -> Made:
    x, slope = call.of_dtype(0, f32), call.real("alpha", 0.01)
    if slope >= 0:
        return with_(x, ops.leaky_relu(x.tensor, slope, name=call.name))
    falling = ops.mul(x.tensor, slope, name=f"{call.name}.falling")
    return with_(x, ops.select(x.tensor > 0.0, x.tensor, falling, name=call.name))


def hard_sigmoid(call: Call) -> Made:
    x = call.of_dtype(0, f32)
    return with_(x, _hard_sigmoid(call, x, call.real("alpha", 0.2), call.real("beta", 0.5)))


def hard_swish(call: Call) -> Made:
    """x clip(x / 6 + 1 / 2, 0, 1), as ONNX defines it."""
    x = call.of_dtype(0, f32)
    gate = _hard_sigmoid(call, x, 1 / 6, 0.5, ".gate")
    return with_(x, ops.mul(x.tensor, gate, name=call.name))


def _hard_sigmoid(call: Call, x: Laid, alpha: float, beta: float, part: str = "") -> Tensor:
    line = ops.add(x.tensor * alpha, beta, name=f"{call.name}.line")
    return ops.clip(line, 0.0, 1.0, name=f"{call.name}{part}")


def swish(call: Call) -> Made:
    x, alpha = call.of_dtype(0, f32), call.real("alpha", 1.0)
    inside = x.tensor if alpha == 1 else x.tensor * alpha
    gate = ops.sigmoid(inside, name=f"{call.name}.gate")
    return with_(x, ops.mul(x.tensor, gate, name=call.name))


def reciprocal(call: Call) -> Made:
    x = call.of_dtype(0, f32)
    return with_(x, ops.div(1.0, x.tensor, name=call.name))


def clip(call: Call) -> Made:
    """Of opsets before 11 by attributes. [0, inf] is relu, [0, 6] relu6."""
    x = call.of_dtype(0, f32, i32, u8, i8)
    named = call.opset < 11
    ends = [
        Constant(np.array(call.real(name, default), np.float32), name)
        if named
        else call.given(place)
        for place, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1)
    ]
    known = all(end is None or isinstance(end, Constant) for end in ends)
    if x.dtype == f32 and known:
        lo, hi = (_bound(end, d) for end, d in zip(ends, (-math.inf, math.inf), strict=True))
        if lo <= hi:
            return with_(x, _clipped(call, x.tensor, lo, hi))
    y = _wide(x.tensor)
    for end, limit in zip(ends, (ops.maximum, ops.minimum), strict=True):
        if end is not None:
            y = limit(y, _wide(call.making.plain(end)), name=call.name)
    return with_(x, y if y.dtype == x.dtype else ops.cast(y, x.dtype, name=call.name))


def _bound(end: Known | None, default: float) -> float:
    if end is None:
        return default
    assert isinstance(end, Constant)
    if end.array.size != 1 or end.array.dtype != np.float32:
        raise ShapeError("its ends must be one number each, of the type of its input")
    return from_float(end.array.reshape(()).item())


def _clipped(call: Call, x: Tensor, lo: float, hi: float) -> Tensor:
    if call.settings.own:
        return ops.clip(x, lo, hi, name=call.name)
    if (lo, hi) == (-math.inf, math.inf):
        return x
    if (lo, hi) == (0.0, math.inf):
        return ops.relu(x, name=call.name)
    return (
        ops.relu6(x, name=call.name) if (lo, hi) == (0.0, 6.0) else
        ops.clip(x, lo, hi, name=call.name)
    )  # fmt: skip


def _wide(x: Tensor, to: DType = i32) -> Tensor:
    """Bytes as what holds every one of them."""
    return ops.cast(x, to) if x.dtype in (u8, i8) else x


# --- arithmetic -----------------------------------------------------------------------------------


def binary(op: OneToOne, *dtypes: DType, bytes_as: DType | None = None) -> Handler:
    """An op of two operands that broadcast. Bytes become `bytes_as` before it, where that gives
    their own results; the result is cast back, which keeps the low bits of an integer."""

    def make(call: Call) -> Made:
        return folded(call, op, call.value(0), call.value(1), dtypes, bytes_as)

    return make


def several(op: OneToOne, *dtypes: DType) -> Handler:
    """An op of two operands for any number of them, from left to right."""

    def make(call: Call) -> Made:
        made = call.value(0)
        for place in range(1, len(call.inputs)):
            made = folded(call, op, made, call.value(place), dtypes, i32)
        return made

    return make


def folded(
    call: Call, op: OneToOne, a: Known, b: Known, dtypes: tuple[DType, ...], bytes_as: DType | None
) -> Laid:
    """`op` of two values in the layout of one of them."""
    (x, y), reading = call.making.alike(a, b)
    if x.dtype != y.dtype:
        raise ShapeError(f"its inputs are of {x.dtype} and {y.dtype}; they must be of one type")
    if x.dtype in (u8, i8) and bytes_as is not None:
        made = op(_wide(x, bytes_as), _wide(y, bytes_as), name=f"{call.name}.wide")
        made = ops.cast(made, x.dtype, name=call.name) if made.dtype == bytes_as else made
    elif x.dtype in dtypes:
        made = op(x, y, name=call.name)
    else:
        call.refuse(f"its inputs are of {x.dtype}, here they are {' or '.join(map(str, dtypes))}")
    return reading(made)


def less(call: Call) -> Made:
    """a < b is b > a."""
    return folded(call, ops.greater, call.value(1), call.value(0), (f32, i32), i32)


def prelu(call: Call) -> Made:
    """x where it is positive, slope x elsewhere; the slope broadcasts to x."""
    x = call.value(0)
    falling = folded(call, ops.mul, x, call.value(1), (f32,), None)
    positive = folded(call, ops.greater, x, call.making.zero(), (f32,), None)
    if falling.shape != x.shape:
        raise ShapeError("its slope is larger than its input")
    tensors, reading = call.making.alike(positive, x, falling)
    return reading(ops.select(*tensors, name=call.name))


def cast(call: Call) -> Made:
    number = call.integer("to", 0)
    call.ignore("saturate", "round_mode")  # of types that are not read
    if number not in OURS:
        call.refuse(f"it casts to {element_name(number)}, which there is not here")
    x, to = call.computed(0), OURS[number]
    return x if x.dtype == to else with_(x, ops.cast(x.tensor, to, name=call.name))


def cast_like(call: Call) -> Made:
    """To the type of its second input, whatever that is."""
    source, to = call.value(0), call.value(1).dtype
    call.ignore("saturate", "round_mode")
    if to is None:
        call.refuse("it casts to a type that there is not here")
    if isinstance(source, Constant) and to == f32 and not source.has_batch:
        return Constant(source.array.astype(np.float32), source.name)
    x = call.computed(0)
    return x if x.dtype == to else with_(x, ops.cast(x.tensor, to, name=call.name))


def power(call: Call) -> Made:
    """Whole powers from 1 to 8 as products, and the square root."""
    x = call.of_dtype(0, f32)
    exponent = call.constant(1, "exponent")
    if exponent is None or exponent.size != 1 or exponent.dtype.kind not in "fi":
        call.refuse("its exponent is here one number")
    number = float(exponent.reshape(()).item())
    if number != 0.5 and number not in range(1, MOST_POWER + 1):
        call.refuse(f"its exponent is {number}, here it is 0.5 or from 1 to {MOST_POWER}")
    return with_(x, x.tensor**number)


# --- layers ---------------------------------------------------------------------------------------


def batch_normalization(call: Call) -> Made:
    x = call.of_dtype(0, f32)
    if len(x.shape) < 2:
        require_rank(x, 2, 3, 4)
    if call.flag("training_mode"):
        call.refuse(
            "training_mode=1, so that its answer for one sample depends on the others: export the "
            "network for inference (model.eval()); here batch norms train by Model.fit"
        )
    if not call.flag("spatial", True):
        call.refuse("spatial=0, a normalization of each element")
    call.require_one_output("statistics of the batch")
    momentum = call.real("momentum", 0.9)
    if not 0 <= momentum <= 1:
        raise ShapeError(f"its momentum={momentum} must be a number of 0..1")
    axes = channels_last(len(x.shape))
    gamma, beta, mean, variance = (
        _channels(call, place, init, trained)
        for place, init, trained in ((1, ONES, True), (2, ZEROS, True), (3, ZEROS, False),
                                     (4, ONES, False))
    )  # fmt: skip
    made = ops.batch_norm(
        call.making.laid(x, axes), mean, variance, gamma, beta,
        epsilon=call.real("epsilon", 1e-5), name=call.name,
    )  # fmt: skip
    call.settings.momentum[made.name] = float(np.round(1 - momentum, 9))
    return Laid(made, axes)


def _channels(call: Call, place: int, init: Init, trained: bool) -> Tensor:
    found = call.value(place)
    if isinstance(found, Laid):
        return call.making.plain(found)
    return call.making.parameter(found, init=init, trained=trained)


def dropout(call: Call) -> Made:
    """In inference what enters; training forms leave elements out."""
    ratio = call.real("ratio", 0.5) if call.opset < 12 else call.scalar(1, "ratio", 0.5)
    seed = call.integer("seed", 0)
    if call.scalar(2, "training_mode", 0.0) and ratio:
        call.refuse("training_mode is true, so that its answers are random: export for inference")
    x = call.value(0)
    if isinstance(x, Laid) and 0 < ratio < 1 and call.readers(call.node.input[0]) == 1:
        found = (x.tensor.name, float(ratio), abs(seed) % (1 << 31))
        call.settings.dropouts[call.name] = found
    if not call.wants(1):
        return x
    x = call.computed(0)
    everything: Array = np.ones((), bool)
    mask = call.making.operand(Constant(everything, f"{call.name}.mask"), ())
    shape = x.tensor.shape
    return x, with_(x, ops.broadcast_to(mask, shape, name=f"{call.name}.mask"))
