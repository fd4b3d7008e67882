"""Resize and Upsample, nearest: which element each one of the result is."""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import ops
from ..errors import ShapeError
from ..ir.types import Dim
from .import_call import Call, Made
from .import_movement import take
from .import_values import OPEN, Laid, as_is, normal_axis

MOST_SIZE = 1 << 16  # of an axis of the result
_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
)  # fmt: skip
_NEAREST: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def resize(call: Call) -> Made:
    """Of opset 10 with asymmetric coordinates, rounded down."""
    call.text("mode", "nearest", "nearest")
    call.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value", "antialias")
    old = call.opset < 11
    coordinates = "asymmetric" if old else call.text(
        "coordinate_transformation_mode", "half_pixel", *_COORDINATES
    )  # fmt: skip
    nearest = "floor" if old else call.text("nearest_mode", "round_prefer_floor", *_NEAREST)
    x = _whole(call)
    given = call.integers("axes")
    axes = list(range(x.rank)) if given is None else [normal_axis(a, x.rank) for a in given]
    scales = _numbers(call, 1 if old else 2)
    sizes = None if old else call.integers_of(3, "sizes")
    policy = call.text(
        "keep_aspect_ratio_policy", "stretch", "stretch", "not_larger", "not_smaller"
    )
    if sizes:
        wanted = _by_sizes(x, axes, sizes, policy, call.settings.batch)
    elif scales:
        if len(scales) != len(axes):
            raise ShapeError(f"its scales {scales} are not one for each of {len(axes)} axes")
        wanted = {axis: (scale, None) for axis, scale in zip(axes, scales, strict=True)}
    else:
        raise ShapeError("it has neither scales nor sizes")
    return _resized(call, x, wanted, coordinates, _NEAREST[nearest])


def upsample(call: Call) -> Made:
    """Of opsets 7 to 9."""
    call.text("mode", "nearest", "nearest")
    scales = call.reals("scales") if call.has("scales") else _numbers(call, 1)
    x = _whole(call)
    if scales is None or len(scales) != x.rank:
        raise ShapeError(f"its scales {scales} are not one for each of {x.rank} axes")
    wanted: dict[int, tuple[float, int | None]] = {n: (s, None) for n, s in enumerate(scales)}
    return _resized(call, x, wanted, "asymmetric", math.floor)


def _whole(call: Call) -> Laid:
    x = call.computed(0)
    return x if x.reshaped is None else as_is(call.making.plain(x))


def _numbers(call: Call, place: int) -> list[float] | None:
    found = call.constant(place, "scales")
    if found is None or not found.size:
        return None
    if found.ndim != 1 or found.dtype.kind != "f" or found.size > 32:
        raise ShapeError("its scales must be a list of numbers")
    return [float(v) for v in found]


def _by_sizes(
    x: Laid, axes: list[int], sizes: list[int], policy: str, batch: int
) -> dict[int, tuple[float, int | None]]:
    """Scale and size of each axis; the batch stays as it is."""
    if len(sizes) != len(axes):
        raise ShapeError(f"its sizes {sizes} are not one for each of {len(axes)} axes")
    found: dict[int, tuple[float, int | None]] = {}
    for axis, size in zip(axes, sizes, strict=True):
        before = x.shape[axis]
        if before == "N":
            if size not in (OPEN, batch or OPEN):
                raise ShapeError(f"it makes the open batch {size}")
        elif not before or not 0 < size <= MOST_SIZE:
            raise ShapeError(f"it makes {before} elements {size}")
        else:
            found[axis] = (size / before, size)
    if policy == "stretch" or not found:
        return found
    scale = (min if policy == "not_larger" else max)(s for s, _ in found.values())
    return {axis: (scale, math.floor(scale * _known(x.shape[axis]) + 0.5)) for axis in found}


def _known(size: Dim) -> int:
    if size == "N":
        raise ShapeError("it resizes the open batch")
    return size


def _resized(
    call: Call,
    x: Laid,
    wanted: dict[int, tuple[float, int | None]],
    coordinates: str,
    nearest: Callable[[float], int],
) -> Laid:
    found: dict[int, list[int]] = {}  # what each axis of the tensor becomes
    for axis, (scale, size) in wanted.items():
        if size is None and scale == 1 and coordinates != "align_corners":
            continue
        before = _known(x.shape[axis])
        if not 0 < scale < MOST_SIZE or not before:
            raise ShapeError(f"it scales an axis of {before} by {scale}")
        after = math.floor(before * scale) if size is None else size
        if not 0 < after <= MOST_SIZE:
            raise ShapeError(f"it makes {before} elements {after}, at most {MOST_SIZE} are made")
        indices = [
            min(before - 1, max(0, nearest(_origin(coordinates, n, scale, before, after))))
            for n in range(after)
        ]
        found[x.axes.index(axis)] = indices
    y = x.tensor
    times = [_times(y.shape[place], found[place]) for place in (1, 2) if place in found]
    if found.keys() == {1, 2} and y.type.rank == 4 and all(times):
        return Laid(ops.resize_nearest(y, (times[0], times[1]), name=call.name), x.axes)
    for place, indices in found.items():
        y = take(y, place, indices, call.name)
    return Laid(y, x.axes)


def _times(size: Dim, indices: list[int]) -> int:
    """How often each element stands one behind the other; 0 where that is not all."""
    times = len(indices) // _known(size)
    return times if indices == [n // max(1, times) for n in range(len(indices))] else 0


def _origin(coordinates: str, at: int, scale: float, before: int, after: int) -> float:
    """Where element `at` of the result lies among those there were; the definitions of ONNX."""
    if coordinates == "asymmetric":
        return at / scale
    if coordinates == "align_corners":
        return at * (before - 1) / (after - 1) if after > 1 else 0.0
    if coordinates == "pytorch_half_pixel" and after == 1:
        return 0.0
    centred = (at + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        return before / 2 * (1 - after / (scale * before)) + centred
    return centred
