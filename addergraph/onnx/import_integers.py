"""Integer networks: QuantizeLinear, DequantizeLinear, QLinearConv, QLinearMatMul.

    QuantizeLinear    q = clip(round(x / scale) + zero, low, high), ties to even
    DequantizeLinear  x = (q - zero) scale
    QLinearConv       round(sum (x - x_zero) (w - w_zero) x_scale w_scale / y_scale) + y_zero

Rounding is exact in f32: x + 1.5 2^23 - 1.5 2^23 has no digits behind the point where |x| < 2^22,
and clipping before it keeps x there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..errors import ShapeError, StorageError
from ..ir import Array
from ..ir.trace import Tensor
from ..ir.types import DType, f32, i8, i32, u8
from ..ops._elementwise import INTEGER_BOUNDS
from .import_call import Call, Made, require_rank
from .import_tensors import OURS, dtype_of_array, element_name
from .import_values import Constant, Laid, as_is, normal_axis
from .import_windows import extents, from_image, image

ROUNDER = 1.5 * 2.0**23


@dataclass(frozen=True)
class Scale:
    """Scale and zero point, one of each or one for each element along `axis`."""

    scale: Array
    zero: Array
    axis: int
    dtype: DType

    def along(self, array: Array, axes: Sequence[int]) -> Array:
        """One of the two, so that it broadcasts over a tensor of that layout."""
        if array.size == 1:
            return array.reshape(())
        sizes = [array.size if axis == self.axis else 1 for axis in axes]
        made = array.reshape(sizes)
        while made.ndim and made.shape[0] == 1:
            made = made[0]
        return made


def _scale(call: Call, rank: int, sizes: Sequence[object], default: DType) -> Scale:
    """Of inputs 1 and 2 and the attribute axis."""
    axis = call.integer("axis", 1)
    if call.integer("block_size", 0):
        call.refuse("block_size, scales of blocks of elements")
    scale, zero = call.constant(1, "scale"), call.constant(2, "zero points")
    if scale is None or scale.dtype != np.float32 or scale.ndim > 1 or not scale.size:
        call.refuse("its scale is here one f32 number, or a list of them")
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise ShapeError("its scale must be positive and finite")
    dtype = default if zero is None else dtype_of_array(zero)
    if dtype is None or (zero is not None and zero.size not in (1, scale.size)):
        call.refuse("its zero points are here u8, i8 or i32, one for each scale")
    if scale.size > 1:
        axis = normal_axis(axis, rank)
        if sizes[axis] != scale.size:
            raise ShapeError(f"it has {scale.size} scales for an axis of {sizes[axis]}")
    whole = np.zeros(scale.size, np.int32) if zero is None else zero.astype(np.int32).reshape(-1)
    return Scale(scale.reshape(-1), np.broadcast_to(whole, (scale.size,)), axis, dtype)


def quantize_linear(call: Call) -> Made:
    x = call.of_dtype(0, f32)
    x = x if x.reshaped is None else as_is(call.making.plain(x))
    number = call.integer("output_dtype", 0)
    call.integer("saturate", 1)  # of types of 8 bits that are not read
    if number and number not in OURS:
        call.refuse(f"its result is {element_name(number)}, which there is not here")
    known = _scale(call, x.rank, x.shape, OURS.get(number, u8))
    if call.integer("precision", 1) != 1:
        call.refuse("its attribute precision is here that of f32")
    scaled = ops.div(x.tensor, _numbers(call, known.scale, known, x.axes, "scale"),
                     name=f"{call.name}.scaled")  # fmt: skip
    return Laid(_rounded(call, scaled, known, x.axes), x.axes)


def _numbers(call: Call, array: Array, known: Scale, axes: Sequence[int], what: str) -> Tensor:
    made = known.along(array, axes)
    dtype = dtype_of_array(made)
    if made.ndim == 0 and dtype in (f32, i32):
        return call.making.number(made.item(), dtype)
    return call.making.parameter(Constant(made, f"{call.name}.{what}"))


def _rounded(call: Call, x: Tensor, known: Scale, axes: Sequence[int]) -> Tensor:
    """Real numbers of integers, of zero point 0, as integers of `known`."""
    low, high = INTEGER_BOUNDS[known.dtype]
    if known.dtype not in (u8, i8):
        call.refuse(f"its result is {known.dtype}, here it is u8 or i8")
    if known.zero.size == 1 or (known.zero == known.zero[0]).all():
        zero = int(known.zero[0])
        kept = ops.clip(x, low - zero, high - zero, name=f"{call.name}.kept")
    else:
        zeros = known.zero.astype(np.float32)
        least = _numbers(call, low - zeros, known, axes, "least")
        most = _numbers(call, high - zeros, known, axes, "most")
        kept = ops.minimum(ops.maximum(x, least), most, name=f"{call.name}.kept")
    whole = ops.sub(kept + ROUNDER, ROUNDER, name=f"{call.name}.whole")
    made = ops.cast(whole, i32, name=f"{call.name}.integers")
    if known.zero.any():
        made = ops.add(made, _numbers(call, known.zero, known, axes, "zero"),
                       name=f"{call.name}.moved")  # fmt: skip
    return ops.cast(made, known.dtype, name=call.name)


def dequantize_linear(call: Call) -> Made:
    x = call.of_dtype(0, u8, i8, i32)
    x = x if x.reshaped is None else as_is(call.making.plain(x))
    known = _scale(call, x.rank, x.shape, x.dtype)
    if known.dtype != x.dtype:
        raise ShapeError(f"its zero points are {known.dtype}, its input is {x.dtype}")
    if call.integer("output_dtype", 0) not in (0, 1):
        call.refuse("its result is no FLOAT")
    whole = x.tensor if x.dtype == i32 else ops.cast(x.tensor, i32, name=f"{call.name}.integers")
    if known.zero.any():
        zero = _numbers(call, known.zero, known, x.axes, "zero")
        whole = ops.sub(whole, zero, name=f"{call.name}.moved")
    real = ops.cast(whole, f32, name=f"{call.name}.real")
    scale = _numbers(call, known.scale, known, x.axes, "scale")
    return Laid(ops.mul(real, scale, name=call.name), x.axes)


def dequantized(call: Call, arrays: list[Array]) -> Array:
    """As `dequantize_linear`, of numbers of the file, in the same steps of f32."""
    x = arrays[0]
    if dtype_of_array(x) not in (u8, i8, i32):
        call.refuse(f"it dequantizes {x.dtype}, here it is u8, i8 or i32")
    known = _scale(call, x.ndim, x.shape, i32)
    if call.integer("output_dtype", 0) not in (0, 1):
        call.refuse("its result is no FLOAT")
    axes = range(x.ndim)
    whole = x.astype(np.int32) - known.along(known.zero, axes)
    return np.asarray(whole.astype(np.float32) * known.along(known.scale, axes), np.float32)


# --- layers of integers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """What a layer of integers says beside its operands."""

    x_scale: np.float32
    x_zero: int
    w: Array  # without its zero point
    w_scale: Array
    y: Scale


def q_linear_conv(call: Call) -> Made:
    x = call.of_dtype(0, u8, i8)
    said = _layer(call, 8, 0)
    sums, offset = _conv_sums(call, x, said.w, said.x_zero)
    made = _requantized(call, _with_offset(call, sums, offset, _whole_bias(call, 8)), said)
    return from_image(call, made, len(x.shape))


def conv_integer(call: Call) -> Made:
    x = call.of_dtype(0, u8, i8)
    w = _filter(call, call.constant(1, "filter"), call.constant(3, "filter's zero point"), 0)
    sums, offset = _conv_sums(call, x, w, _zero(call))
    return from_image(call, _with_offset(call, sums, offset, None), len(x.shape))


def _conv_sums(call: Call, x: Laid, w: Array, x_zero: int) -> tuple[Tensor, Array]:
    """Sums of products of bytes, and what the zero point of the input adds to each channel."""
    require_rank(x, 3, 4)
    groups = call.integer("group", 1)
    if w.ndim != len(x.shape):
        raise ShapeError(f"its filter has {w.ndim} dimensions, its input {len(x.shape)}")
    rows, columns = extents(call, x, list(w.shape[2:]))
    pixels, zero = _bytes(call, image(call, x), x_zero)
    sides = (rows.before, rows.behind, columns.before, columns.behind)
    if any(sides) and zero:  # what is padded stands for 0.0
        before, after = (0, sides[0], sides[2], 0), (0, sides[1], sides[3], 0)
        pixels, sides = ops.pad(pixels, before, after, zero, name=f"{call.name}.padded"), (0,) * 4
    filters = w if w.ndim == 4 else w[:, :, None]
    sums = None
    for number, part in enumerate(_as_bytes(filters.transpose(2, 3, 1, 0))):
        f = call.making.parameter(Constant(part, f"{call.name}.f{number or ''}"))
        made = ops.conv2d(
            pixels, f, stride=(rows.stride, columns.stride), padding=sides, groups=groups,
            dilation=(rows.dilation, columns.dilation), name=f"{call.name}.sum",
        )  # fmt: skip
        sums = made if sums is None else ops.add(sums, made)
    assert sums is not None
    return sums, -zero * w.astype(np.int64).sum(tuple(range(1, w.ndim)))


def q_linear_matmul(call: Call) -> Made:
    x = call.of_dtype(0, u8, i8)
    said = _layer(call, 8, 1)
    sums, offset = _dense_sums(call, x, said.w, said.x_zero)
    return as_is(_requantized(call, _with_offset(call, sums, offset, None), said))


def matmul_integer(call: Call) -> Made:
    x = call.of_dtype(0, u8, i8)
    w = _filter(call, call.constant(1, "filter"), call.constant(3, "filter's zero point"), 1)
    sums, offset = _dense_sums(call, x, w, _zero(call))
    return as_is(_with_offset(call, sums, offset, None))


def _dense_sums(call: Call, x: Laid, w: Array, x_zero: int) -> tuple[Tensor, Array]:
    """As `_conv_sums`."""
    require_rank(x, 2)
    if w.ndim != 2:
        call.refuse(f"its second input has {w.ndim} dimensions, here it has 2")
    rows, zero = _bytes(call, call.making.plain(x), x_zero)
    sums = None
    for number, part in enumerate(_as_bytes(w)):
        f = call.making.parameter(Constant(part, f"{call.name}.f{number or ''}"))
        made = ops.dense(rows, f, name=f"{call.name}.sum")
        sums = made if sums is None else ops.add(sums, made)
    assert sums is not None
    return sums, -zero * w.astype(np.int64).sum(0)


def _zero(call: Call) -> int:
    """The zero point of the input of a layer of integers, its input 2."""
    found = call.constant(2, "zero point")
    if found is None:
        return 0
    if found.size != 1 or dtype_of_array(found) not in (u8, i8):
        call.refuse("its input has here one zero point")
    return int(found.reshape(()).item())


def _filter(call: Call, w: Array | None, zero: Array | None, channels: int) -> Array:
    """A filter of bytes without its zero points, one or one for each of `channels`, an axis."""
    if w is None:
        raise StorageError("it has no filter")
    if dtype_of_array(w) not in (u8, i8) or not w.size:
        call.refuse(f"its filter is {w.dtype}, here it is u8 or i8")
    if zero is None:
        return w.astype(np.int32)
    out = w.shape[channels] if w.ndim > channels else 0
    if zero.size not in (1, out) or zero.dtype != w.dtype:
        call.refuse("its filter has here one zero point, or one for each output")
    wide = [1] * w.ndim
    wide[channels] = zero.size
    return np.asarray(w.astype(np.int32) - zero.astype(np.int32).reshape(wide))


def _layer(call: Call, count: int, channels: int) -> _Layer:
    """Inputs 1 to 7; `channels` is the axis of the filter that has one scale each."""
    names = ("input", "scale", "zero point", "filter", "filter's scale", "filter's zero point",
             "result's scale", "result's zero point")  # fmt: skip
    found = [call.constant(place, names[place]) for place in range(1, count)]
    if any(array is None for array in found):
        raise StorageError(f"it has {len(call.inputs)} inputs, expected {count}")
    x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (a for a in found if a is not None)
    if {array.dtype for array in (x_scale, w_scale, y_scale)} != {np.dtype(np.float32)}:
        call.refuse("its scales are here numbers of FLOAT")
    for array in (x_scale, w_scale, y_scale):
        if not np.isfinite(array).all() or (array <= 0).any():
            raise ShapeError("its scales must be positive and finite numbers of f32")
    out = w.shape[channels] if w.ndim > channels else 0
    single = {a.size for a in (x_scale, x_zero, y_scale, y_zero)} == {1}
    if not single or w_scale.size not in (1, out):
        call.refuse("its input and its result have here one scale and one zero point each")
    y_dtype = dtype_of_array(y_zero)
    if y_dtype not in (u8, i8):
        call.refuse(f"its result is {y_zero.dtype}, here it is u8 or i8")
    whole = _filter(call, w, w_zero, channels)
    y = Scale(y_scale.reshape(-1), y_zero.astype(np.int32).reshape(-1), 0, y_dtype)
    factor = np.float32(x_scale.reshape(()).item())
    return _Layer(factor, int(x_zero.reshape(()).item()), whole, w_scale.reshape(-1), y)


def _bytes(call: Call, x: Tensor, zero: int) -> tuple[Tensor, int]:
    """Unsigned bytes, which the layers take, and their zero point."""
    if x.dtype == u8:
        return x, zero
    moved = ops.add(ops.cast(x, i32), 128, name=f"{call.name}.moved")
    return ops.cast(moved, u8, name=f"{call.name}.bytes"), zero + 128


def _as_bytes(w: Array) -> list[Array]:
    """Integers from -255 to 255 as sums of signed bytes."""
    parts: list[Array] = []
    left = w
    while not parts or left.any():
        part = np.clip(left, -128, 127)
        parts.append(np.ascontiguousarray(part.astype(np.int8)))
        left = left - part
    return parts


def _whole_bias(call: Call, place: int) -> Array | None:
    bias = call.constant(place, "bias")
    if bias is not None and bias.dtype != np.int32:
        call.refuse(f"its bias is {bias.dtype}, here it is i32")
    return bias


def _with_offset(call: Call, sums: Tensor, offset: Array, bias: Array | None) -> Tensor:
    total = offset if bias is None else offset + bias.astype(np.int64)
    if np.abs(total).max(initial=0) >= 1 << 31:
        call.refuse("its bias leaves i32")
    if total.any():
        numbers = call.making.parameter(Constant(total.astype(np.int32), f"{call.name}.offset"))
        sums = ops.add(sums, numbers, name=f"{call.name}.total")
    return sums


def _requantized(call: Call, sums: Tensor, said: _Layer) -> Tensor:
    """Sums of products as bytes of the result's scale."""
    factor = (said.x_scale * said.w_scale / said.y.scale[0]).astype(np.float32)
    real = ops.cast(sums, f32, name=f"{call.name}.real")
    scale = (
        call.making.number(factor.item())
        if factor.size == 1
        else call.making.parameter(Constant(factor, f"{call.name}.factor"))
    )
    scaled = ops.mul(real, scale, name=f"{call.name}.scaled")
    return _rounded(call, scaled, said.y, ())
