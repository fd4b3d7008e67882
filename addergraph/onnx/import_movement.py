"""Operators that move elements: Reshape, Transpose, Concat, Slice, Pad, Resize and their like."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ir import Array
from ..ir.trace import Tensor
from ..ir.types import Dim, Shape, bool_, f32, u8
from .import_call import MOST_ITEMS, Call, Made
from .import_values import (
    OPEN,
    Laid,
    as_is,
    channels_last,
    elements,
    normal_axis,
    shape_text,
)

MOST_TAKEN = 1 << 16  # elements of an axis that are looked at one by one
MOST_PIECES = 512  # of a tensor that is put together anew along an axis


# --- shapes ---------------------------------------------------------------------------------------


def reshape(call: Call) -> Made:
    target = call.integers_of(1, "shape")
    if target is None:
        call.refuse("it has no shape")
    keeps_zero = call.flag("allowzero")
    x = call.computed(0)
    return call.making.reshaped(x, resolved(call, x.shape, target, keeps_zero), call.name)


def resolved(call: Call, shape: Shape, target: Sequence[int], keeps_zero: bool) -> Shape:
    """What the numbers of a Reshape mean: 0 is the size there was, -1 the rest; an open batch
    leads both shapes."""
    if min(target, default=0) < -1 and OPEN not in target:
        raise ShapeError(f"its shape {list(target)} has a size below -1")
    sizes: list[Dim | None] = []
    for axis, size in enumerate(target):
        if size == 0 and not keeps_zero:
            if axis >= len(shape):
                raise ShapeError(f"its shape {list(target)} keeps axis {axis}, which there is not")
            sizes.append(shape[axis])
        else:
            sizes.append("N" if size == OPEN else None if size == -1 else size)
    if sizes.count(None) > 1 or "N" in sizes[1:]:
        raise ShapeError(f"its shape {list(target)} leaves more than one size open")
    count = elements(shape)
    rest = elements([d for d in sizes if d is not None])
    if shape and shape[0] == "N":
        return _with_batch(call, shape, sizes, count, rest)
    if None in sizes:
        if not rest or count % rest:
            raise ShapeError(f"{shape_text(shape)} does not fit into its shape {list(target)}")
        sizes[sizes.index(None)] = count // rest
    elif rest != count:
        raise ShapeError(f"{shape_text(shape)} does not fit into its shape {list(target)}")
    return tuple(d for d in sizes if d is not None)


def _with_batch(call: Call, shape: Shape, sizes: list[Dim | None], count: int, rest: int) -> Shape:
    """As `resolved`, of a tensor whose batch is open: -1 in front of what a sample has is N."""
    if sizes and sizes[0] == "N" and None in sizes and rest and count % rest == 0:
        sizes[sizes.index(None)] = count // rest
    elif sizes and sizes[0] is None and rest == count:
        sizes[0] = "N"
    elif sizes and sizes[0] == call.settings.batch != 0 and None not in sizes:
        sizes[0] = "N" if elements(sizes[1:]) == count else sizes[0]  # type: ignore[arg-type]
    elif sizes and sizes[0] == call.settings.batch != 0 and None in sizes:
        others = elements([d for d in sizes[1:] if d is not None])
        if others and count % others == 0:
            sizes[sizes.index(None)], sizes[0] = count // others, "N"
    if None in sizes or not sizes or sizes[0] != "N":
        raise ShapeError(
            f"{shape_text(shape)} becomes another shape in which the batch N does not stay in "
            "front: export the network with a fixed batch, or keep the batch apart"
        )
    return tuple(d for d in sizes if d is not None)


def flatten(call: Call) -> Made:
    x, at = call.computed(0), call.integer("axis", 1)
    if not -len(x.shape) <= at <= len(x.shape):
        raise ShapeError(f"axis={at} is not one of its input {shape_text(x.shape)}")
    at = at + len(x.shape) if at < 0 else at
    front, rest = x.shape[:at], x.shape[at:]
    if (front[:1] == ("N",) and elements(front) > 1) or rest[:1] == ("N",):
        call.refuse(f"axis={at} joins the open batch with another axis")
    first: Dim = "N" if front[:1] == ("N",) else elements(front)
    return call.making.reshaped(x, (first, elements(rest)), call.name)


def _axes(call: Call, rank: int) -> list[int] | None:
    """Of an attribute before opset 13, of an input from then on; in order, each once."""
    given = call.integers("axes") if call.has("axes") else call.integers_of(1, "axes")
    if given is None:
        return None
    found = sorted(normal_axis(axis, rank) for axis in given)
    if len(set(found)) < len(found):
        raise ShapeError(f"its axes {given} name one twice")
    return found


def squeezed(call: Call, shape: Shape) -> Shape:
    axes = _axes(call, len(shape))
    if axes is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    wide = [axis for axis in axes if shape[axis] not in (1, "N" if call.settings.batch == 1 else 1)]
    if wide:
        raise ShapeError(f"axis {wide[0]} of {shape_text(shape)} has not one element")
    if any(shape[axis] == "N" for axis in axes):
        call.refuse("it removes the axis of the batch")
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def squeeze(call: Call) -> Made:
    x = call.computed(0)
    return call.making.reshaped(x, squeezed(call, x.shape), call.name)


def unsqueezed(call: Call, shape: Shape) -> Shape:
    given = call.integers("axes") if call.has("axes") else call.integers_of(1, "axes")
    if given is None:
        raise ShapeError("it has no axes")
    rank = len(shape) + len(given)
    axes = {normal_axis(axis, rank) for axis in given}
    if len(axes) < len(given):
        raise ShapeError(f"its axes {given} name one twice")
    left = iter(shape)
    made = tuple(1 if axis in axes else next(left) for axis in range(rank))
    if "N" in made[1:]:
        call.refuse("it puts an axis in front of the open batch")
    return made


def unsqueeze(call: Call) -> Made:
    x = call.computed(0)
    return call.making.reshaped(x, unsqueezed(call, x.shape), call.name)


def transpose(call: Call) -> Made:
    x = call.computed(0)
    return call.making.transposed(x, order_of(call, len(x.shape)), call.name)


def order_of(call: Call, rank: int) -> tuple[int, ...]:
    found = call.integers("perm")
    order = tuple(reversed(range(rank))) if found is None else tuple(found)
    if sorted(order) != list(range(rank)):
        raise ShapeError(f"its perm={list(order)} must name each of {rank} axes once")
    return order


def expand(call: Call) -> Made:
    target = call.integers_of(1, "shape")
    x = call.computed(0)
    if target is None or (min(target, default=0) < 0 and OPEN not in target):
        raise ShapeError(f"its shape {target} must be sizes of 0 or more")
    wide = max(len(target), len(x.shape))
    shape = (*[1] * (wide - len(x.shape)), *x.shape)
    asked: list[Dim] = ["N" if d == OPEN else d for d in [1] * (wide - len(target)) + target]
    if asked[:1] == [call.settings.batch] and shape[:1] == ("N",):
        asked[0] = "N"
    made = tuple(d if a == 1 else a for d, a in zip(shape, asked, strict=True))
    y = call.making.plain(x)
    kept = y.shape == made and not call.settings.own
    return as_is(y if kept else ops.broadcast_to(y, made, name=call.name))


# --- parts ----------------------------------------------------------------------------------------


def concat(call: Call) -> Made:
    values = [call.value(place) for place in range(len(call.inputs))]
    if not values:
        raise ShapeError("it has no inputs")
    rank = len(values[0].shape)
    at = normal_axis(call.integer("axis", 1), rank)
    if any(len(v.shape) != rank for v in values):
        raise ShapeError(f"its inputs are {', '.join(shape_text(v.shape) for v in values)}")
    if len(values) == 1:
        return values[0]
    straight = tuple(range(rank))
    axes = next((v.axes for v in values if isinstance(v, Laid) and _image(v)), straight)
    tensors = [call.making.laid(v, axes) for v in values]
    return Laid(ops.concat(tensors, axes.index(at), name=call.name), axes)


def _image(value: Laid) -> bool:
    """Whether its channels are last."""
    return value.reshaped is None and value.axes == channels_last(len(value.axes))


def split(call: Call) -> Made:
    x = call.computed(0)
    at = normal_axis(call.integer("axis", 0), len(x.shape))
    size, count = x.shape[at], len(call.node.output)
    sizes = call.integers("split") if call.has("split") else call.integers_of(1, "split")
    if size == "N":
        call.refuse("it splits the open batch")
    if sizes is None:
        if call.integer("num_outputs", count) != count:
            raise ShapeError(f"it has {count} outputs, num_outputs says otherwise")
        if call.opset < 18 and size % count:
            raise ShapeError(f"{size} are not {count} equal parts, as this opset wants them")
        each = -(-size // count)
        sizes = [max(0, min(each, size - n * each)) for n in range(count)]
    if sum(sizes) != size or len(sizes) != count or min(sizes) < 0:
        raise ShapeError(f"its parts {sizes} are not {count} that make up {size}")
    x = _straightened(call, x)
    ends = np.cumsum([0, *sizes])
    place = x.axes.index(at)
    made = []
    for number in range(count):
        part = range(int(ends[number]), int(ends[number + 1]))
        made.append(Laid(take(x.tensor, place, part, call.name), x.axes))
    return made


def _straightened(call: Call, x: Laid) -> Laid:
    """The value as a tensor with all its axes."""
    return x if x.reshaped is None else as_is(call.making.plain(x))


def slice_(call: Call) -> Made:
    x = _straightened(call, call.computed(0))
    parts = _parts(call, x.shape)
    if all(part.step == 1 for part in parts.values()):
        start: list[int] = [0] * x.rank
        stop: list[Dim] = list(x.tensor.shape)
        for axis, part in parts.items():
            place = x.axes.index(axis)
            start[place], stop[place] = part.start, max(part.start, part.stop)
        return Laid(ops.slice(x.tensor, start, stop, name=call.name), x.axes)
    for axis, part in parts.items():
        x = Laid(take(x.tensor, x.axes.index(axis), part, call.name), x.axes)
    return x


def _parts(call: Call, shape: Shape) -> dict[int, range]:
    """What a Slice takes of each axis; the open batch may be taken whole only."""
    named = call.has("starts")
    said = [
        call.integers(name) if named else call.integers_of(place, name)
        for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    ]
    starts, ends, axes, steps = said
    if starts is None or ends is None:
        raise ShapeError("it has no starts or no ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ShapeError(f"its starts {starts}, ends {ends}, axes {axes} and steps {steps} differ")
    found: dict[int, range] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normal_axis(axis, len(shape))
        size = shape[axis]
        if size == "N":
            if (start, step) != (0, 1) or (end != OPEN and end < (1 << 31) - 1):
                call.refuse("it takes a part of the open batch")
            continue
        if OPEN in (start, end):
            call.refuse("its starts or ends depend on the open batch")
        if axis in found:
            raise ShapeError(f"its axes {axes} name one twice")
        first, last, by = slice(start, end, step).indices(size)
        found[axis] = range(first, last, by)
    return found


def gather(call: Call) -> Made:
    x = _straightened(call, call.computed(0))
    at = normal_axis(call.integer("axis", 0), len(x.shape))
    indices = call.constant(1, "indices")
    size = x.shape[at]
    if indices is None or indices.dtype.kind != "i" or indices.size > MOST_ITEMS:
        call.refuse("its indices are here whole numbers, and not so many")
    if size == "N":
        call.refuse("it takes a part of the open batch")
    wanted = [int(i) for i in np.ravel(indices)]
    if any(not -size <= i < size for i in wanted):
        raise ShapeError(f"its indices {wanted[:8]} leave the axis of {size}")
    y = Laid(take(x.tensor, x.axes.index(at), [i % size for i in wanted], call.name), x.axes)
    shape = (*y.shape[:at], *indices.shape, *y.shape[at + 1 :])
    return call.making.reshaped(y, shape, f"{call.name}.shape")


def take(x: Tensor, axis: int, indices: Sequence[int], name: str) -> Tensor:
    """Elements `indices` of an axis, in that order, by as few ops as say it.

    ShapeError where that would be more than MOST_PIECES slices.
    """
    size, count = x.shape[axis], len(indices)
    if size == "N":
        raise ShapeError("the open batch cannot be taken apart")
    if isinstance(indices, range) and indices.step == 1:  # of any length
        return _sliced(x, axis, indices.start, max(indices.start, indices.stop), name)
    if count > MOST_TAKEN:
        raise ShapeError(f"it takes {count:,} elements one by one, at most {MOST_TAKEN:,} are")
    indices = list(indices)
    if count == size and indices == list(range(count)):
        return x
    times = count // size if size and count % size == 0 else 0
    if times > 1 and indices == [n // times for n in range(count)]:
        return _repeated(x, axis, times, name)
    step = indices[1] - indices[0] if count > 1 else 1
    strided = step > 1 and indices == list(range(indices[0], indices[-1] + 1, step))
    if strided and len(x.shape) == 4 and axis in (1, 2) and x.dtype in (f32, u8):
        x = _sliced(x, axis, indices[0], indices[-1] + 1, f"{name}.part")
        by = (step, 1) if axis == 1 else (1, step)
        return ops.max_pool2d(x, 1, stride=by, name=name)
    runs: list[list[int]] = []
    for i in indices:
        if runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        else:
            runs.append([i, i + 1])
    if len(runs) > MOST_PIECES:
        raise ShapeError(f"it would be {len(runs)} slices, at most {MOST_PIECES} are made")
    if len(runs) < 2:
        first, last = runs[0] if runs else (0, 0)
        return _sliced(x, axis, first, last, name)
    parts = [_sliced(x, axis, first, last, f"{name}.part") for first, last in runs]
    return ops.concat(parts, axis, name=name)


def _sliced(x: Tensor, axis: int, first: int, last: int, name: str) -> Tensor:
    start: list[int] = [0] * len(x.shape)
    stop: list[Dim] = list(x.shape)
    start[axis], stop[axis] = first, last
    return x if tuple(stop) == x.shape and not first else ops.slice(x, start, stop, name=name)


def _repeated(x: Tensor, axis: int, times: int, name: str) -> Tensor:
    """Each element `times` times."""
    if len(x.shape) == 4 and axis in (1, 2):
        factors = (times, 1) if axis == 1 else (1, times)
        return ops.resize_nearest(x, factors, name=name)
    one = (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :])
    many = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
    whole = (*x.shape[:axis], int(x.shape[axis]) * times, *x.shape[axis + 1 :])
    apart = ops.reshape(x, one, name=f"{name}.apart")
    return ops.reshape(ops.broadcast_to(apart, many, name=f"{name}.many"), whole, name=name)


# --- around and between ---------------------------------------------------------------------------


def pad(call: Call) -> Made:
    x = _straightened(call, call.computed(0))
    mode = call.text("mode", "constant", "constant", "edge", "reflect", "wrap")
    named = call.has("pads")
    pads = call.integers("pads") if named else call.integers_of(1, "pads")
    value = call.real("value", 0.0) if named else call.scalar(2, "value", 0.0)
    given = None if named else call.integers_of(3, "axes")
    rank = len(x.shape)
    axes = list(range(rank)) if given is None else [normal_axis(a, rank) for a in given]
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) < len(axes):
        raise ShapeError(f"its pads {pads} must be two numbers for each of {len(axes)} axes")
    if max(map(abs, pads), default=0) > 1 << 31:
        raise ShapeError(f"its pads {pads} are larger than any tensor")
    sides = {axis: (pads[n], pads[n + len(axes)]) for n, axis in enumerate(axes)}
    if any(x.shape[axis] == "N" and any(both) for axis, both in sides.items()):
        call.refuse("it pads the open batch")
    if mode != "constant":
        return _mirrored(call, x, sides, mode)
    for axis, (before, after) in sides.items():  # fewer than none: cut off
        size, place = x.shape[axis], x.axes.index(axis)
        if size != "N" and min(before, after) < 0:
            kept = range(max(0, -before), max(0, size + min(0, after)))
            x = Laid(take(x.tensor, place, kept, f"{call.name}.part"), x.axes)
    counts = [tuple(max(0, n) for n in sides.get(axis, (0, 0))) for axis in x.axes]
    if not any(map(any, counts)):
        return x
    begin, end = ([both[n] for both in counts] for n in (0, 1))
    return Laid(ops.pad(x.tensor, begin, end, value, name=call.name), x.axes)


def _mirrored(call: Call, x: Laid, sides: dict[int, tuple[int, int]], mode: str) -> Laid:
    """A border of the tensor's own elements."""
    for axis, (before, after) in sides.items():
        size = x.shape[axis]
        if size == "N" or not (before or after):
            continue
        if min(before, after) < 0 or not 0 < size + before + after <= MOST_TAKEN or not size:
            call.refuse(f'pads of {before} and {after} with mode "{mode}"')
        indices = np.pad(np.arange(size), (before, after), mode)  # type: ignore[call-overload]
        place = x.axes.index(axis)
        x = Laid(take(x.tensor, place, indices.tolist(), call.name), x.axes)
    return x


def identity(call: Call) -> Made:
    return call.value(0)


def where(call: Call) -> Made:
    tensors, reading = call.making.alike(call.of_dtype(0, bool_), call.value(1), call.value(2))
    return reading(ops.select(*tensors, name=call.name))


def folded_shape(x: Array, shape: Shape) -> Array:
    """An array in another shape, of as many elements."""
    if "N" in shape:
        raise ShapeError("numbers of the file have no open batch")
    if math.prod(int(d) for d in shape) != x.size:
        raise ShapeError(f"{shape_text(x.shape)} does not fit into {shape_text(shape)}")
    return x.reshape([int(d) for d in shape])
