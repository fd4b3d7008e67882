"""Gemm and MatMul. A matrix of the file is a filter; a flattened image enters as it lies, the rows
of its filter in that order."""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ir import Array, Init
from ..ir.trace import Tensor
from ..ir.types import f32
from ..layers._parameters import he_normal
from .import_call import Call, Made, require_rank
from .import_pointwise import folded
from .import_values import Constant, Known, Laid, as_is, elements, shape_text

MOST_PRODUCTS = 1 << 24  # of a product of two computed tensors of several matrices, each a number


def gemm(call: Call) -> Made:
    """alpha A' B' + beta C."""
    alpha, beta = call.real("alpha", 1.0), call.real("beta", 1.0)
    turns = call.flag("transA"), call.flag("transB")
    a, b, c = call.value(0), call.value(1), call.given(2)
    for value in (a, b):
        require_rank(value, 2)
    if turns[0]:
        a = _turned(call, a)
    y = dense(call, a, b, turns[1], _vector(c, b, turns[1]) if alpha == beta == 1 else None)
    if alpha != 1:
        y = ops.mul(y, alpha, name=f"{call.name}.alpha")
    if c is None or (alpha == beta == 1 and _vector(c, b, turns[1]) is not None):
        return as_is(y)
    if beta != 1:
        c = _scaled(call, c, beta)
    return folded(call, ops.add, as_is(y), c, (f32,), None)


def _turned(call: Call, a: Known) -> Known:
    if isinstance(a, Constant):
        return Constant(a.array.T, a.name, a.trained)
    return call.making.transposed(a, (1, 0), f"{call.name}.transposed")


def _vector(c: Known | None, b: Known, turned: bool) -> Known | None:
    """C where it is one number for each output: the bias of a dense layer."""
    if c is None or len(c.shape) > 2 or (len(c.shape) == 2 and c.shape[0] != 1):
        return None
    if isinstance(c, Laid) and len(c.shape) == 2:
        return None
    channels = b.shape[0] if turned else b.shape[1]
    return c if c.shape[-1:] == (channels,) else None


def _scaled(call: Call, c: Known, beta: float) -> Known:
    if isinstance(c, Constant):
        return Constant(np.asarray(c.array * np.float32(beta)), c.name, c.trained)
    return Laid(ops.mul(c.tensor, beta, name=f"{call.name}.beta"), c.axes, c.reshaped, c.name)


def dense(call: Call, a: Known, b: Known, turned: bool, bias: Known | None) -> Tensor:
    """A matrix of samples times B, or its transpose."""
    making = call.making
    if isinstance(b, Laid):
        f = making.laid(b, (1, 0) if turned else (0, 1))
        return ops.dense(making.plain(a), f, _bias(call, bias), name=call.name)
    array = b.array.T if turned else b.array
    x, array, order = _as_it_lies(call, a, array)
    start = he_normal(array.shape[0])
    f = making.parameter(
        b, array, layout=("dense", turned, order), role=f"{call.name}.f", init=start
    )
    return ops.dense(x, f, _bias(call, bias), name=call.name)


def _bias(call: Call, bias: Known | None) -> Tensor | None:
    if bias is None or isinstance(bias, Laid):
        return None if bias is None else call.making.plain(bias)
    numbers = bias.array.reshape(-1)
    start, role = Init("zeros"), f"{call.name}.b"
    return call.making.parameter(bias, numbers, layout="bias", role=role, init=start)


def _as_it_lies(call: Call, a: Known, array: Array) -> tuple[Tensor, Array, tuple[int, ...]]:
    """The samples as rows, and the filter with its rows in the order of their elements."""
    flattened = (
        isinstance(a, Laid)
        and a.reshaped is not None
        and len(a.reshaped) == 2
        and a.axes[:1] == (0,)
        and a.tensor.shape[0] == a.reshaped[0]
    )
    if not flattened or a.shape[1] != array.shape[0]:
        return call.making.plain(a), array, ()
    assert isinstance(a, Laid)
    sizes = [int(d) for d in a.inner[1:]]
    order = tuple(axis - 1 for axis in a.axes[1:])
    moved = array.reshape(*sizes, -1).transpose(*order, len(sizes)).reshape(array.shape)
    rows = call.making.reshaped(as_is(a.tensor), a.shape, a.name)
    straight = order == tuple(range(len(order)))
    return call.making.plain(rows), array if straight else moved, () if straight else order


# --- matmul ---------------------------------------------------------------------------------------


def matmul(call: Call) -> Made:
    """Of matrices, a dense layer; of a matrix of the file behind more axes, a convolution of one
    pixel; else products and their sums."""
    a, b = call.value(0), call.value(1)
    for place in (0, 1):
        if not call.value(place).shape:
            raise ShapeError("its inputs must have an axis")
    if len(a.shape) == len(b.shape) == 2:
        return as_is(dense(call, a, b, False, None))
    if isinstance(b, Constant) and len(b.shape) == 2 and len(a.shape) > 2:
        return _of_each_row(call, a, b)
    return _of_many(call, a, b)


def _of_each_row(call: Call, a: Known, b: Constant) -> Made:
    """A[..., k] B[k, t] as a convolution of 1 x 1."""
    x = call.making.plain(a)
    if a.shape[-1] != b.shape[0]:
        raise ShapeError(f"{shape_text(a.shape)} times {shape_text(b.shape)}")
    rows = elements(a.shape[1:-1])
    row = ops.reshape(x, (a.shape[0], 1, rows, a.shape[-1]), name=f"{call.name}.row")
    f = call.making.parameter(
        b, b.array[None, None], layout="pixel", role=f"{call.name}.f",
        init=he_normal(int(b.shape[0])),
    )  # fmt: skip
    y = ops.conv2d(row, f, name=call.name)
    return as_is(ops.reshape(y, (*a.shape[:-1], b.shape[1]), name=f"{call.name}.rows"))


def _of_many(call: Call, a: Known, b: Known) -> Made:
    """sum_k A[..., m, k, 1] B[..., 1, k, t]; a vector is a row, or a column, that goes again."""
    x, y = call.making.plain(a), call.making.plain(b)
    row, column = len(a.shape) == 1, len(b.shape) == 1
    x = ops.reshape(x, (1, *x.shape)) if row else x
    y = ops.reshape(y, (*y.shape, 1)) if column else y
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"{shape_text(a.shape)} times {shape_text(b.shape)}")
    x = ops.reshape(x, (*x.shape, 1), name=f"{call.name}.left")
    y = ops.reshape(y, (*y.shape[:-2], 1, *y.shape[-2:]), name=f"{call.name}.right")
    count = math.prod(int(max(1, *sizes)) for sizes in _paired(x, y))
    if count > MOST_PRODUCTS:
        call.refuse(
            f"it is {count:,} products of two computed tensors, at most {MOST_PRODUCTS:,} are made "
            "of several matrices; keep one of them in the file, or multiply single matrices"
        )
    products = ops.mul(x, y, name=f"{call.name}.products")
    made = ops.reduce_sum(products, (len(products.shape) - 2,), name=call.name)
    gone = [place for place, is_gone in ((-2, row), (-1, column)) if is_gone]
    shape = [d for n, d in enumerate(made.shape) if n - len(made.shape) not in gone]
    return as_is(made if not gone else ops.reshape(made, shape, name=f"{call.name}.shape"))


def _paired(x: Tensor, y: Tensor) -> list[tuple[int, int]]:
    """The sizes of both along each axis, from behind; of the batch 1."""
    wide = max(len(x.shape), len(y.shape))
    sizes = [
        [1] * (wide - len(t.shape)) + [1 if d == "N" else int(d) for d in t.shape] for t in (x, y)
    ]
    return list(zip(*sizes, strict=True))
