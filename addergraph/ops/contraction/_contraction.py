"""What the contractions share: attributes and shape rules of the windowed ones, range rules of all.

adder2d and conv2d differ in how one term is combined, |x - f| or x * f, and in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import GraphError, ShapeError
from ...ir import CONTRACTION, Array, Halo, Op
from ...ir.attributes import Padding, Pair, integer, pair
from ...ir.attributes import padding as sides
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization, common
from ...ir.trace import Tensor, apply
from ...ir.types import DType, TensorType, f32, i8, i32, u8
from .._elementwise import held, stored
from .._window import Window, label, require_gradient, require_image, require_of

Forms = Mapping[DType, tuple[DType, DType]]
"""For each dtype of the input that a contraction knows: that of the filter, and of the result."""

ONLY_F32: Forms = {f32: (f32, f32)}
DISTANCES: Forms = {f32: (f32, f32), u8: (u8, i32)}
PRODUCTS: Forms = {f32: (f32, f32), u8: (i8, i32)}
U8_TERMS = (2**31 - 1) // 255  # a sum of so many distances of bytes fits i32
I8_TERMS = (2**31 - 1) // (255 * 128)  # a sum of so many products u8 i8 fits i32


@dataclass(frozen=True)
class Windowed(Op):
    """The attributes of a contraction over the windows of an NHWC tensor, with an HWIO filter.

    `forms` has the dtypes of the operands; a bias has that of the result.
    """

    kind: ClassVar[str] = CONTRACTION
    forms: ClassVar[Forms] = ONLY_F32
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def window(self, f: TensorType) -> Window:
        """The geometry for a filter of type `f`; ShapeError unless that is bound and HWIO."""
        if f.rank != 4:
            raise ShapeError(f"filter must be HWIO (rank 4), found {f}")
        require_of("filter", f, tuple(taken for taken, _ in self.forms.values()))
        if f.is_open:
            raise ShapeError(f"filter {f} has an open batch; N may only lead an input")
        return self.window_of((int(f.shape[0]), int(f.shape[1])))

    def window_of(self, size: Pair) -> Window:
        return Window(size, self.stride, self.padding, self.dilation)

    def output(self, x: TensorType, f: TensorType, *bias: TensorType) -> TensorType:
        """Result type of the forward layer; ShapeError if the operands do not fit."""
        require_image("input", x, tuple(self.forms))
        window = self.window(f)
        made_dtype = form_of(self.forms, x, f)
        channels, taken, made = x.shape[3], int(f.shape[2]), int(f.shape[3])
        if self.groups < 1:
            raise ShapeError(f"groups={self.groups} must be at least 1")
        if made % self.groups:
            raise ShapeError(
                f"the filter's {made} output channels do not divide into {self.groups} groups "
                f"(f: {f})"
            )
        if taken * self.groups != channels:
            of = f" in each of {self.groups} groups" if self.groups > 1 else ""
            raise ShapeError(
                f"input has {channels} channels but the filter expects {taken}{of} (x: {x}, f: {f})"
            )
        require_bias(made, bias, made_dtype)
        height, width = window.output_size(x.shape[1], x.shape[2])
        return TensorType(made_dtype, (x.shape[0], height, width, made))

    def require_gradient(self, g: TensorType, x: TensorType, f: TensorType) -> None:
        """ShapeError unless `g` has the type of the forward layer's result."""
        require_gradient(g, self.output(x, f))

    def terms(self, x: TensorType, f: TensorType) -> int:
        """Number of (x, f) pairs that the forward layer combines."""
        return self.output(x, f).elements * reduction_length(f)

    def input_halo(self, x: TensorType, f: TensorType) -> Halo:
        """The zeros around `x` that the forward windows reach."""
        return self.window(f).halo(int(x.shape[1]), int(x.shape[2]))

    def gradient_halo(self, x: TensorType, f: TensorType) -> Halo:
        """The zeros around the output gradient that gathering the gradient of `x` reaches."""
        return self.window(f).grad_halo(int(x.shape[1]), int(x.shape[2]))


def windowed(
    op: type[Windowed],
    x: Tensor,
    f: Tensor,
    bias: Tensor | None,
    stride: int | Pair,
    padding: int | Sequence[int],
    dilation: int | Pair,
    groups: int,
    name: str | None,
) -> Tensor:
    """`op` with what users write."""
    where = label(op.name, name)
    made = op(
        pair(where, "stride", stride),
        sides(where, padding),
        pair(where, "dilation", dilation),
        integer(where, "groups", groups, 1),
    )
    return with_bias(made, x, f, bias, name)


def with_bias(op: Op, x: Tensor, f: Tensor, bias: Tensor | None, name: str | None) -> Tensor:
    """`op` of x, f and, where there is one, a bias."""
    return apply(op, x, f, *([] if bias is None else [bias]), name=name)


def require_bias(made: int, bias: Sequence[TensorType], dtype: DType = f32) -> None:
    """ShapeError unless every type is that of a bias of `made` output channels."""
    expected = TensorType(dtype, (made,))
    for b in bias:
        if b != expected:
            raise ShapeError(f"bias must be {expected}, found {b}")


def require_matrices(
    x: TensorType,
    f: TensorType,
    left: str = "input",
    right: str = "filter",
    forms: Forms = ONLY_F32,
) -> TensorType:
    """The [N,T] that [N,K] `x` and [K,T] `f` give; ShapeError if they do not fit."""
    filters = tuple(taken for taken, _ in forms.values())
    for what, type, allowed in ((left, x, tuple(forms)), (right, f, filters)):
        if type.rank != 2:
            raise ShapeError(f"{what} must have rank 2, found {type}; flatten it first")
        require_of(what, type, allowed)
    made = form_of(forms, x, f, left, right)
    if f.is_open:
        raise ShapeError(f"{right} {f} has an open batch; N may only lead the {left}")
    if x.shape[1] != f.shape[0]:
        raise ShapeError(
            f"{left} has {x.shape[1]} columns but the {right} has {f.shape[0]} rows "
            f"(found {x} and {f})"
        )
    return TensorType(made, (x.shape[0], f.shape[1]))


def form_of(
    forms: Forms, x: TensorType, f: TensorType, left: str = "input", right: str = "filter"
) -> DType:
    """The dtype of the result; ShapeError where the filter's is not that of the input's form."""
    expected, made = forms[x.dtype]
    if f.dtype != expected:
        raise ShapeError(f"{right} must be {expected}, as the {left} is {x}, found {f}")
    return made


def reduction_length(f: TensorType) -> int:
    """How many terms one output sums: the filter's size without its output channels."""
    return math.prod(f.sizes[:-1])


def require_byte_distances(input_nonnegative: bool, f: TensorType) -> None:
    """ShapeError unless the integer form of an adder may take a filter of type `f`."""
    if input_nonnegative:
        raise ShapeError("input_nonnegative=true is for f32 operands; bytes have one form")
    terms = reduction_length(f)
    if terms > U8_TERMS:
        raise ShapeError(
            f"each output sums {terms:,} distances of up to 255, at most {255 * terms:,}, "
            f"which i32 cannot hold; {U8_TERMS:,} terms fit (f: {f})"
        )


def byte_distance_range(
    ranges: Sequence[Interval], types: Sequence[TensorType], *, padded: bool = False
) -> Interval:
    """The range of - sum |x - f| (+ b) of bytes; `padded` windows also read zeros."""
    x, f = (held(r, u8) for r in ranges[:2])
    x = x.hull(Interval(0.0, 0.0)) if padded else x
    terms = reduction_length(types[1])
    least, most = max(0.0, x.lo - f.hi, f.lo - x.hi), max(x.hi - f.lo, f.hi - x.lo)
    return plus_bias(Interval(-terms * most, -terms * least + 0.0), ranges, i32)


def distance_quantization(known: Known) -> Quantization | None:
    """Of the sums that an adder makes: the scale of x and f, in which the zero point cancels.

    ShapeError where x and f differ, or where the bias has another scale or a zero point.
    """
    of_operands = common("the input and the filter of an adder", known[:2])
    if of_operands is None:
        return None
    made = Quantization(of_operands.scale)
    common("the sums of an adder and its bias", [made, *known[2:]])
    return made


def require_byte_products(f: TensorType) -> None:
    """ShapeError unless i32 holds every sum of products of bytes with a filter of type `f`."""
    terms = reduction_length(f)
    if terms > I8_TERMS:
        raise ShapeError(
            f"each output sums {terms:,} products of up to 255 * 128, at most "
            f"{255 * 128 * terms:,}, which i32 cannot hold; {I8_TERMS:,} terms fit (f: {f})"
        )


def product_range(
    ranges: Sequence[Interval], types: Sequence[TensorType], *, padded: bool = False
) -> Interval:
    """The range of sum x * f (+ b); `padded` windows also read zeros."""
    x, f = (held(r, t.dtype) for r, t in zip(ranges[:2], types[:2], strict=True))
    x = x.hull(Interval(0.0, 0.0)) if padded else x
    term, terms = x * f, reduction_length(types[1])
    if types[0].dtype == u8:  # exact
        return plus_bias(Interval(term.lo * terms + 0.0, term.hi * terms + 0.0), ranges, i32)
    return plus_bias(term.total(terms), ranges)


def product_quantization(known: Known) -> Quantization | None:
    """Of sums of products: both scales multiplied. None where one is not known, or where a zero
    point leaves constants of the filter in the sums."""
    x, f = known[:2]
    if x is None or f is None or x.zero_point or f.zero_point:
        return None
    made = Quantization(x.scale * f.scale)
    common("the sums of products and their bias", [made, *known[2:]])
    return made


def product_result(x: Array, y: Array, bias: Sequence[Array]) -> Array:
    """Exact sums of products in f64, plus a bias, as the result's dtype."""
    if x.dtype == np.uint8:
        sums = y.astype("i8")
        return np.asarray((sums + bias[0] if bias else sums).astype(np.int32))
    return np.asarray((y + bias[0] if bias else y).astype(np.float32))


def require_trainable(op: str, x: Tensor) -> None:
    """GraphError for the gradient of an op of integers."""
    if x.dtype != f32:
        raise GraphError(
            f"{op} of {x.type} has no gradient: train in f32, integers are for inference"
        )


def require_zero_padding(padding: Padding, known: Quantization | None) -> None:
    """ShapeError where a layer pads bytes whose zero point is not 0."""
    if known is not None and known.zero_point and any(padding):
        raise ShapeError(
            f"padding={padding} pads with byte 0, whose value is not 0.0 here "
            f"({known}); pad with the zero point by ops.pad before the layer"
        )


def plus_bias(y: Interval, ranges: Sequence[Interval], dtype: DType = f32) -> Interval:
    """`y` plus the third operand, where there is one, as `dtype` holds it."""
    return stored(y + held(ranges[2], dtype), dtype) if len(ranges) > 2 else y


def grouped(groups: int, *arrays: Array) -> list[tuple[Array, ...]]:
    """Views of each array's share of every group, by its last axis.

    Activations split their channels, filters their output channels: both are the last axis.
    """
    return list(zip(*(np.split(a, groups, axis=-1) for a in arrays), strict=True))
