"""Operators that make one element of many: sums, means, Softmax, ArgMax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ir import Array
from ..ir.trace import Tensor
from ..ir.types import Dim, DType, bool_, f32, i8, i32, u8
from .import_call import Call, Handler, Made
from .import_values import Constant, Laid, as_is, channels_last, elements, normal_axis, shape_text

MOST_INDEX = 1 << 24  # that f32 holds exactly


def reduction(op: Callable[..., Tensor], *dtypes: DType) -> Handler:
    """An op over axes: an attribute or, in later opsets, an input; none of them means all."""

    def make(call: Call) -> Made:
        x = _whole(call, call.of_dtype(0, *dtypes))
        given = call.integers("axes") if call.has("axes") else call.integers_of(1, "axes")
        keeps = call.flag("keepdims", True)
        none = call.flag("noop_with_empty_axes") and not given
        if none and not call.settings.own:
            return x
        all_axes = () if none else range(x.rank)
        chosen = sorted({normal_axis(a, x.rank) for a in given or all_axes})
        _require_apart(call, [x.shape[a] for a in chosen])
        places = sorted(x.axes.index(a) for a in chosen)
        made = op(x.tensor, places, keeps, name=call.name)
        if keeps:
            return Laid(made, x.axes)
        left = [a for a in x.axes if a not in chosen]
        return Laid(made, tuple(sorted(left).index(a) for a in left))

    return make


def _require_apart(call: Call, sizes: Sequence[Dim]) -> None:
    """UnsupportedError where samples would be mixed that a fixed batch of the file keeps apart."""
    if "N" in sizes and call.settings.batch:
        call.refuse("it reduces the batch, so that its answer for one sample depends on the others")


def reduce_max(call: Call) -> Made:
    """Of bytes and truth values by way of f32, which holds them."""
    x = call.of_dtype(0, f32, u8, i8, bool_)
    if 0 in x.shape:
        call.refuse(f"its input {shape_text(x.shape)} is empty: it has no largest element")
    if x.dtype == f32:
        return reduction(ops.reduce_max, f32)(call)
    wide = Laid(ops.cast(x.tensor, f32, name=f"{call.name}.wide"), x.axes, x.reshaped, x.name)
    made = reduction(ops.reduce_max, f32)(replace(call, inputs=[wide, *call.inputs[1:]]))
    assert isinstance(made, Laid)
    return Laid(ops.cast(made.tensor, x.dtype, name=call.name), made.axes, made.reshaped)


def _whole(call: Call, x: Laid) -> Laid:
    return x if x.reshaped is None else as_is(call.making.plain(x))


def softmax(call: Call) -> Made:
    """Over one axis; before opset 13 over all from `axis` on."""
    x = call.of_dtype(0, f32)
    old = call.opset < 13
    axis = normal_axis(call.integer("axis", 1 if old else -1), len(x.shape))
    if old and axis != len(x.shape) - 1:
        return _over_the_rest(call, x, axis)
    x = _whole(call, x)
    y = x.tensor
    axes = x.axes
    if axes[-1] != axis:
        images = channels_last(x.rank)
        axes = images if images[-1] == axis else (*[a for a in axes if a != axis], axis)
        y = call.making.laid(x, axes)
    return Laid(ops.softmax(y, name=call.name), axes)


def _over_the_rest(call: Call, x: Laid, axis: int) -> Laid:
    front, rest = x.shape[:axis], x.shape[axis:]
    if "N" in rest or ("N" in front and elements(front) > 1):
        call.refuse("it joins the open batch with another axis")
    first = front[0] if "N" in front else elements(front)
    rows = call.making.reshaped(x, (first, elements(rest)), f"{call.name}.rows")
    y = ops.softmax(call.making.plain(rows), name=call.name)
    return call.making.reshaped(as_is(y), x.shape, f"{call.name}.shape")


def argmax(call: Call) -> Made:
    """As i32, for ONNX's INT64."""
    x = _whole(call, call.of_dtype(0, f32, i32, u8))
    axis = normal_axis(call.integer("axis", 0), x.rank)
    keeps, last = call.flag("keepdims", True), call.flag("select_last_index")
    _require_apart(call, [x.shape[axis]])
    place = x.axes.index(axis)
    found = _last_of(call, x.tensor, place) if last else ops.argmax(x.tensor, place, name=call.name)
    left = [a for a in x.axes if a != axis]
    made = Laid(found, tuple(sorted(left).index(a) for a in left))
    if not keeps:
        return made
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return call.making.reshaped(made, shape, f"{call.name}.kept")


def _last_of(call: Call, x: Tensor, place: int) -> Tensor:
    """The largest index among those of the largest elements."""
    size = x.shape[place]
    if x.dtype != f32 or size == "N" or size > MOST_INDEX:
        call.refuse(f"select_last_index=1 is here of f32, of at most {MOST_INDEX:,} elements")
    if not size:
        raise ShapeError("its axis is empty: it has no largest element")
    top = ops.reduce_max(x, (place,), True, name=f"{call.name}.top")
    numbers: Array = np.arange(size, dtype=np.float32)
    numbers = numbers.reshape([-1] + [1] * (len(x.shape) - 1 - place))
    index = call.making.parameter(Constant(numbers, f"{call.name}.index"))
    lower = ops.greater(top, x, name=f"{call.name}.lower")
    minus = call.making.number(-1.0)
    found = ops.select(lower, minus, index, name=f"{call.name}.found")
    return ops.cast(ops.reduce_max(found, (place,), name=f"{call.name}.last"), i32, name=call.name)
