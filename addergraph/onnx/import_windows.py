"""Operators with a window: Conv, MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool.

Images have one or two axes beside batch and channels; those with one are images of one row here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ir import Array, Init
from ..ir.trace import Tensor
from ..ir.types import Dim, f32, u8
from ..layers._parameters import he_normal
from .import_call import Call, Made, require_rank
from .import_movement import MOST_TAKEN, take
from .import_values import Constant, Known, Laid, channels_last
from .layouts import OIHW, TO_NHWC

MOST_SIZE = 1 << 24  # of an image, a window, its steps and its padding
MOST_COUNTED = 1 << 24  # positions that are counted where padding does not count
MOST_TAPS = 64  # of a dilated maximum, which is one of slices
_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Extent:
    """One axis of a window over `size` elements."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int  # padding
    after: int
    out: int

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def behind(self) -> int:
        """Padding behind the last element for so many outputs: as stated where that gives them."""
        reached = (self.out - 1) * self.stride + self.span - self.size - self.before
        room = self.size + self.before + self.after - self.span
        stated = reached <= self.after and room // self.stride + 1 == self.out
        return self.after if stated else max(0, reached)

    def counted(self, padding: bool) -> Array:
        """For each output, how many positions of its window count: those in the input, with
        `padding` also the stated padding."""
        if self.out * self.kernel > MOST_COUNTED:
            raise ShapeError(f"{self.out:,} windows of {self.kernel:,} are more than are counted")
        starts = np.arange(self.out)[:, None] * self.stride - self.before
        at = starts + np.arange(self.kernel)[None] * self.dilation
        low, high = (-self.before, self.size + self.after) if padding else (0, self.size)
        return np.asarray(((at >= low) & (at < high)).sum(1))


def conv(call: Call) -> Made:
    x, f = call.value(0), call.value(1)
    require_rank(x, 3, 4)
    if len(f.shape) != len(x.shape):
        raise ShapeError(f"its filter has {len(f.shape)} dimensions, its input {len(x.shape)}")
    groups = call.integer("group", 1)
    rows, columns = extents(call, x, [int(d) for d in f.shape[2:]])
    made = ops.conv2d(
        image(call, x), filter_of(call, f), _bias(call),
        stride=(rows.stride, columns.stride), dilation=(rows.dilation, columns.dilation),
        padding=(rows.before, rows.after, columns.before, columns.after), groups=groups,
        name=call.name,
    )  # fmt: skip
    return from_image(call, made, len(x.shape))


def _bias(call: Call) -> Tensor | None:
    found = call.given(2)
    if isinstance(found, Constant):
        return call.making.parameter(found, role=f"{call.name}.b")
    return None if found is None else call.tensor(2)


def filter_of(call: Call, f: Known) -> Tensor:
    """OIHW as HWIO; of sequences OIW as 1WIO."""
    if isinstance(f, Laid):
        if len(f.shape) == 3:
            f = call.making.reshaped(f, (*f.shape[:2], 1, f.shape[2]), f"{call.name}.row")
        return call.making.laid(f, TO_NHWC[OIHW])
    array = f.array if f.array.ndim == 4 else f.array[:, :, None]
    array = array.transpose(TO_NHWC[OIHW])
    start = he_normal(math.prod(array.shape[:3]))
    return call.making.parameter(f, array, layout="HWIO", role=f"{call.name}.f", init=start)


def image(call: Call, x: Known) -> Tensor:
    """NHWC; of a sequence NCW one row."""
    y = call.making.laid(x, channels_last(len(x.shape)))
    if len(x.shape) == 4:
        return y
    samples, width, channels = y.shape
    return ops.reshape(y, (samples, 1, width, channels), name=f"{call.name}.row")


def from_image(call: Call, y: Tensor, rank: int) -> Laid:
    """What `image` made of a value of that rank, back."""
    if rank == 3:
        samples, _, width, channels = y.shape
        y = ops.reshape(y, (samples, width, channels), name=f"{call.name}.sequence")
    return Laid(y, channels_last(rank))


def extents(call: Call, x: Known, kernel: list[int]) -> tuple[Extent, Extent]:
    """Rows and columns; the attributes of a window are read here."""
    sizes = [_size(d) for d in x.shape[2:]]
    count = len(sizes)
    said = call.integers("kernel_shape")
    if said is not None and said != kernel:
        raise ShapeError(f"its kernel_shape is {said}, its filter has {kernel}")
    strides = _listed(call, "strides", count, 1)
    dilations = _listed(call, "dilations", count, 1)
    rule = call.text("auto_pad", "NOTSET", *_PADS)
    pads = call.integers("pads") or [0] * (2 * count)
    if len(pads) != 2 * count or min(pads) < 0:
        raise ShapeError(f"its pads={pads} must be {2 * count} numbers of 0 or more")
    if rule != "NOTSET" and any(pads):
        raise ShapeError(f"it has pads={pads} and auto_pad={rule}; one of them is meant")
    ceil = call.flag("ceil_mode")
    sides = zip(pads[:count], pads[count:], strict=True)
    found = [
        _extent(size, k, stride, dilation, both, rule, ceil)
        for size, k, stride, dilation, both in zip(
            sizes, kernel, strides, dilations, sides, strict=True
        )
    ]
    return (found[0], found[1]) if count == 2 else (Extent(1, 1, 1, 1, 0, 0, 1), found[0])


def _size(d: Dim) -> int:
    if d == "N":
        raise ShapeError("the open batch is one of the axes of its images")
    return d


def _listed(call: Call, name: str, count: int, least: int) -> list[int]:
    found = call.integers(name) or [least] * count
    if len(found) != count or min(found) < least:
        raise ShapeError(f"its {name}={found} must be {count} numbers of {least} or more")
    return found


def _extent(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], rule: str,
    ceil: bool,
) -> Extent:  # fmt: skip
    (before, after), span = pads, (kernel - 1) * dilation + 1
    if kernel < 1 or max(size, kernel, stride, dilation, before, after) > MOST_SIZE:
        raise ShapeError(
            f"its window of {kernel} with stride {stride}, dilation {dilation} and padding {pads} "
            f"over {size} is none: sizes are from 1 to {MOST_SIZE:,}"
        )
    if rule.startswith("SAME"):
        out = -(-size // stride)
        total = max(0, (out - 1) * stride + span - size)
        less = total // 2
        before, after = (less, total - less) if rule == "SAME_UPPER" else (total - less, less)
        return Extent(size, kernel, stride, dilation, before, after, out)
    room = size + before + after - span
    if room < 0:
        raise ShapeError(
            f"its window spans {span}, its input has {size} and {before + after} of padding"
        )
    out = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (out - 1) * stride >= size + before:
        out -= 1  # a window that would begin behind the input
    return Extent(size, kernel, stride, dilation, before, after, out)


# --- pools ----------------------------------------------------------------------------------------


def max_pool(call: Call) -> Made:
    x, rows, columns = _pooled(call)
    call.require_one_output("the indices")
    call.ignore("storage_order")  # of the indices
    size, stride = (rows.kernel, columns.kernel), (rows.stride, columns.stride)
    around = (rows.before, rows.behind, columns.before, columns.behind)
    y = image(call, x)
    if y.dtype not in (f32, u8):
        call.refuse(f"its input is of {y.dtype}, here it is f32 or u8")
    if rows.dilation == columns.dilation == 1:
        made = ops.max_pool2d(y, size, stride=stride, padding=around, name=call.name)
    else:
        made = _dilated(call, y, rows, columns, around)
    return from_image(call, made, len(x.shape))


def _dilated(
    call: Call, x: Tensor, rows: Extent, columns: Extent, around: tuple[int, int, int, int]
) -> Tensor:
    """The maximum of what each tap of the window sees."""
    if x.dtype != f32 or rows.kernel * columns.kernel > MOST_TAPS or max(
        rows.out, columns.out
    ) > MOST_TAKEN:  # fmt: skip
        call.refuse(f"a window with dilations is here of f32 and at most {MOST_TAPS} taps")
    top, bottom, left, right = around
    if any(around):
        sides = ((0, top, left, 0), (0, bottom, right, 0))
        x = ops.pad(x, *sides, -math.inf, name=f"{call.name}.padded")
    made: Tensor | None = None
    for i in range(rows.kernel):
        for j in range(columns.kernel):
            down = [i * rows.dilation + h * rows.stride for h in range(rows.out)]
            right_ = [j * columns.dilation + w * columns.stride for w in range(columns.out)]
            tap = take(take(x, 1, down, f"{call.name}.tap"), 2, right_, f"{call.name}.tap")
            made = tap if made is None else ops.maximum(made, tap, name=call.name)
    assert made is not None
    return made


def average_pool(call: Call) -> Made:
    """Windows that have other numbers of elements than positions are multiplied by their ratio."""
    x, rows, columns = _pooled(call)
    padding = call.flag("count_include_pad")
    size, stride = (rows.kernel, columns.kernel), (rows.stride, columns.stride)
    around = (rows.before, rows.behind, columns.before, columns.behind)
    y = image(call, x)
    if rows.dilation == columns.dilation == 1:
        made = ops.avg_pool2d(y, size, stride=stride, padding=around, name=call.name)
    else:
        made = _dilated_mean(call, y, rows, columns, around)
    counts = np.outer(rows.counted(padding), columns.counted(padding))
    if counts.min() == 0:
        raise ShapeError("one of its windows is wholly in the padding and has no mean")
    ratio = (rows.kernel * columns.kernel / counts).astype(np.float32)[:, :, None]
    if (ratio != 1).any():
        numbers = call.making.parameter(Constant(ratio, f"{call.name}.ratio"))
        made = ops.mul(made, numbers, name=call.name)
    return from_image(call, made, len(x.shape))


def _dilated_mean(
    call: Call, x: Tensor, rows: Extent, columns: Extent, around: tuple[int, int, int, int]
) -> Tensor:
    """A convolution of each channel by ones, divided by their number."""
    channels = int(x.shape[3])
    if rows.kernel * columns.kernel * channels > MOST_COUNTED:
        raise ShapeError(f"a dilated window of {rows.kernel} x {columns.kernel} is too large")
    ones = np.ones((rows.kernel, columns.kernel, 1, channels), np.float32)
    f = call.making.parameter(Constant(ones, f"{call.name}.ones"), init=Init("ones"))
    total = ops.conv2d(
        x, f, stride=(rows.stride, columns.stride), padding=around, groups=channels,
        dilation=(rows.dilation, columns.dilation), name=f"{call.name}.sum",
    )  # fmt: skip
    return ops.div(total, float(rows.kernel * columns.kernel), name=call.name)


def _pooled(call: Call) -> tuple[Laid, Extent, Extent]:
    x = call.computed(0)
    require_rank(x, 3, 4)
    kernel = call.integers("kernel_shape")
    if kernel is None or len(kernel) != len(x.shape) - 2:
        raise ShapeError(f"its kernel_shape={kernel} must be {len(x.shape) - 2} numbers")
    return x, *extents(call, x, kernel)


def global_average_pool(call: Call) -> Made:
    x = call.computed(0)
    require_rank(x, 3, 4)
    made = ops.global_avg_pool(image(call, x), name=call.name)
    return Laid(made, (0, 1), (*x.shape[:2], *[1] * (len(x.shape) - 2)), f"{call.name}.image")


def global_max_pool(call: Call) -> Made:
    x = call.of_dtype(0, f32)
    require_rank(x, 3, 4)
    made = ops.reduce_max(image(call, x), (1, 2), name=call.name)
    return Laid(made, (0, 1), (*x.shape[:2], *[1] * (len(x.shape) - 2)), f"{call.name}.image")
