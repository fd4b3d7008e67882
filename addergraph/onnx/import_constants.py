"""Operators on numbers of the file: shapes, axes and weights that are moved about before they are
read. Nothing larger than its inputs is made, but for MOST_MADE elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ShapeError, StorageError
from ..ir import Array
from .import_call import Call, Made
from .import_movement import _parts, folded_shape, order_of, resolved, squeezed, unsqueezed
from .import_tensors import OURS, element_name
from .import_values import OPEN, Constant, Laid, elements, normal_axis, sizes_of

MOST_MADE = 1 << 20
Fold = Callable[[Call, list[Array]], Array]


def constant(call: Call) -> Made:
    """The one attribute that has a value."""
    array = call.array("value")
    if array is None and call.has("value_float"):
        array = np.array(call._attribute("value_float", "FLOAT").f, np.float32)
    if array is None and call.has("value_int"):
        array = np.array(call.integer("value_int", 0), np.int64)
    if array is None and call.has("value_ints"):
        array = np.array(call.integers("value_ints"), np.int64)
    if array is None and call.has("value_floats"):
        array = np.array(call.reals("value_floats"), np.float32)
    if array is None:
        call.refuse("its value is no tensor and no number")
    return Constant(array, call.name)


def shape(call: Call) -> Made:
    found = sizes_of(call.value(0).shape)
    first, last = call.integer("start", 0), call.integer("end", len(found))
    return Constant(found[first:last], call.name)


def size(call: Call) -> Made:
    x = call.value(0)
    if isinstance(x, Laid) and "N" in x.shape:
        call.refuse("it counts the elements of an open batch")
    return Constant(np.array(elements(x.shape), np.int64), call.name)


def constant_of_shape(call: Call) -> Made:
    """Only of MOST_MADE elements, and where it does not depend on the batch."""
    sizes = call.integers_of(0, "shape") or []
    if OPEN in sizes:
        call.refuse("its size depends on the open batch")
    if min(sizes, default=0) < 0 or math.prod(sizes) > MOST_MADE:
        raise ShapeError(f"its shape {sizes} must be sizes, of at most {MOST_MADE:,} elements")
    value = call.array("value")
    if value is not None and value.size != 1:
        raise ShapeError("its value must be one number")
    filler = np.zeros((), np.float32) if value is None else value.reshape(())
    return Constant(np.full(sizes, filler, filler.dtype), call.name)


def range_(call: Call) -> Made:
    start, limit, by = (call.scalar(place, what, 0.0) for place, what in
                        enumerate(("start", "limit", "delta")))  # fmt: skip
    array = call.constant(0, "start")
    if array is None or by == 0 or array.dtype.kind not in "if":
        raise ShapeError("it has no start, or a delta of 0")
    count = max(0, math.ceil((limit - start) / by)) if math.isfinite(limit - start) else MOST_MADE
    if count >= MOST_MADE:
        raise ShapeError(f"it would make {count:,} numbers, fewer than {MOST_MADE:,} are made")
    made: Array = start + by * np.arange(count)
    return Constant(made.astype(array.dtype), call.name)


# --- folds ----------------------------------------------------------------------------------------


def cast(call: Call, arrays: list[Array]) -> Array:
    number = call.integer("to", 0)
    call.ignore("saturate", "round_mode")
    (x,) = arrays
    if number == 7:
        if x.dtype.kind == "f" and not (np.abs(x) < 2.0**62).all():
            raise ShapeError("it casts a number that no INT64 holds")
        return x.astype(np.int64)
    if x.dtype == np.int64 and (x == OPEN).any():
        call.refuse("it computes with the size of the open batch")
    if number == 11:
        return x.astype(np.float64)
    if number not in OURS:
        call.refuse(f"it casts to {element_name(number)}, which there is not here")
    with np.errstate(all="ignore"):
        return np.asarray(x.astype(OURS[number].numpy))


def cast_like(call: Call, arrays: list[Array]) -> Array:
    x, like = arrays
    call.ignore("saturate", "round_mode")
    if like.dtype != x.dtype and (x == OPEN).any():
        call.refuse("it computes with the size of the open batch")
    if like.dtype.kind not in "fiub":
        call.refuse(f"it casts to {like.dtype}, which there is not here")
    with np.errstate(all="ignore"):
        return np.asarray(x.astype(like.dtype))


def reshape(call: Call, arrays: list[Array]) -> Array:
    x, target = arrays
    keeps_zero = call.flag("allowzero")
    return folded_shape(x, resolved(call, x.shape, [int(d) for d in np.ravel(target)], keeps_zero))


def flatten(call: Call, arrays: list[Array]) -> Array:
    (x,) = arrays
    at = normal_axis(call.integer("axis", 1), x.ndim + 1) if x.ndim else 0
    return x.reshape(math.prod(x.shape[:at]), -1) if x.size else x


def squeeze(call: Call, arrays: list[Array]) -> Array:
    return folded_shape(arrays[0], squeezed(call, arrays[0].shape))


def unsqueeze(call: Call, arrays: list[Array]) -> Array:
    return folded_shape(arrays[0], unsqueezed(call, arrays[0].shape))


def transpose(call: Call, arrays: list[Array]) -> Array:
    return arrays[0].transpose(order_of(call, arrays[0].ndim))


def concat(call: Call, arrays: list[Array]) -> Array:
    first = arrays[0]
    axis = normal_axis(call.integer("axis", 1), first.ndim)
    if any(a.dtype != first.dtype or a.ndim != first.ndim for a in arrays):
        raise ShapeError("its inputs are of several types or numbers of axes")
    rest = {a.shape[:axis] + a.shape[axis + 1 :] for a in arrays}
    if len(rest) > 1:
        raise ShapeError("its inputs differ in another axis than the one they are joined along")
    return np.concatenate(arrays, axis)


def slice_(call: Call, arrays: list[Array]) -> Array:
    made = arrays[0]
    for axis, part in _parts(call, made.shape).items():
        made = made.take(list(part), axis)
    return made


def gather(call: Call, arrays: list[Array]) -> Array:
    x, indices = arrays
    axis = normal_axis(call.integer("axis", 0), x.ndim)
    if indices.dtype.kind != "i" or indices.size * max(1, x.size) > MOST_MADE * 16:
        raise ShapeError("its indices must be whole numbers, and not so many")
    size = x.shape[axis]
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise ShapeError(f"its indices leave the axis of {size}")
    return np.asarray(x.take(indices, axis))


def expand(call: Call, arrays: list[Array]) -> Array:
    x, target = arrays
    sizes = [int(d) for d in np.ravel(target)]
    if min(sizes, default=0) < 0 or math.prod(max(1, d) for d in sizes) * x.size > MOST_MADE:
        raise ShapeError(f"its shape {sizes} must be sizes, of at most {MOST_MADE:,} elements")
    try:
        wide = np.broadcast_shapes(x.shape, tuple(sizes))
    except ValueError:
        raise ShapeError(f"{x.shape} does not broadcast to {sizes}") from None
    return np.broadcast_to(x, wide)


def identity(call: Call, arrays: list[Array]) -> Array:
    return arrays[0]


def arithmetic(compute: Callable[[Array, Array], Array]) -> Fold:
    """Of whole numbers that fit INT64, and of real ones; never of the open batch."""

    def fold(call: Call, arrays: list[Array]) -> Array:
        a, b = arrays
        if a.dtype != b.dtype or a.dtype.kind not in "if":
            raise ShapeError(f"its inputs are {a.dtype} and {b.dtype}; they must be of one type")
        if (a == OPEN).any() or (b == OPEN).any():
            call.refuse("it computes with the size of the open batch")
        try:
            wide = math.prod(np.broadcast_shapes(a.shape, b.shape))
        except ValueError:
            raise ShapeError(f"{a.shape} and {b.shape} do not broadcast") from None
        if wide > max(MOST_MADE, a.size, b.size):
            raise ShapeError(f"it would make {wide:,} numbers, at most {MOST_MADE:,} are made")
        with np.errstate(all="ignore"):
            return np.asarray(compute(a, b)).astype(a.dtype)

    return fold


def quotient(a: Array, b: Array) -> Array:
    """Of whole numbers rounded to 0."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all():
        raise ShapeError("it divides whole numbers by 0")
    sign = np.sign(a) * np.sign(b)
    return np.asarray(sign * (np.abs(a) // np.abs(b)))


def negative(call: Call, arrays: list[Array]) -> Array:
    (x,) = arrays
    if x.dtype.kind not in "if" or (x == OPEN).any():
        call.refuse("it computes with the size of the open batch, or no signed numbers")
    with np.errstate(over="ignore"):
        return np.negative(x)


def floor(call: Call) -> Made:
    """Of numbers of the file alone."""
    found = call.constant(0, "numbers")
    if found is None or found.dtype.kind != "f":
        raise StorageError("its input is missing, or of whole numbers")
    return Constant(np.floor(found), call.name)
