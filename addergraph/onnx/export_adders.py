"""Bodies of adder layers in standard operators, by taps and chunks.

    Y[n,h,w,t] = b[t] - sum_{i,j,k} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]|

ONNX has no operator for a sum of distances, and written with broadcasting it is a tensor of
Cout x K x P numbers, K = I J C terms of P positions. Here it is a Scan over the terms, in one of
three forms, by the positions of one image:

* terms, of few positions: k terms a step, k P Cout numbers, k the largest divisor of K for which
  that is at most STEP. The runs of a broadcasted subtraction are k long.
* channels, of fewer positions than channels: one term a step, P Cout numbers in runs of Cout.
* positions: one term and some channels a step, a divisor of Cout for which that is at most CHUNK
  numbers, or 1, in runs of P; another Scan takes these groups of channels one by one.

So no tensor has more numbers a sample than the largest of STEP, Cout P, the padded input, and the
K P of the taps side by side (of one tap: none). Sums of up to EXACT distances of bytes are
computed in f32, which has every one of them exactly and which runtimes are faster with, others in
i32, whose range none leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import Op
from ..ir.types import DType, TensorType, f32, i32, u8
from ..ops._window import Window
from .export_body import Body, numpy_type

STEP = 1 << 19  # numbers of a sample that a step over terms may have
CHUNK = 1 << 15  # of one over positions: about what a core's L2 cache has room for, thrice
EXACT = (1 << 24) // 255  # distances of bytes, whose sum f32 holds
FEW = 128  # positions of an image from which steps have one term
_SHORTEST = 32  # terms that a step needs to be faster than one of one term


def largest_step(positions: int, made: int, terms: int) -> int:
    """Terms of a step over terms; 0 where steps have one term."""
    most = _divisor(terms, STEP // (positions * made))
    return most if positions < FEW and most >= min(_SHORTEST, terms) else 0


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`, at least 1; 0 for a limit of 0."""
    return max((k for k in range(1, min(number, limit) + 1) if number % k == 0), default=0)


def adder2d(body: Body, op: Op, types: Sequence[TensorType], x: str, f: str, *bias: str) -> str:
    """The body of `Adder2d`; operands as there."""
    image, filters = types[0], types[1]
    window: Window = op.window(filters)  # type: ignore[attr-defined]
    groups: int = op.groups  # type: ignore[attr-defined]
    height, width, each, made = (int(d) for d in filters.shape)
    out = window.output_size(image.shape[1], image.shape[2])
    terms = height * width * each
    x = _padded(body, x, window)
    positions = out[0] * out[1]
    step = largest_step(positions, made, terms)
    if groups == 1 and (step or positions < made):
        taps = _taps(body, x, window, out, (1, 2))
        rows = taps[0] if len(taps) == 1 else body("Concat", *taps, axis=3)
        x, f, dtype = _operands(body, image, terms, rows, f)
        matrix = body.reshape(f, terms, made)
        y = _by_terms(body, dtype, x, matrix, _start(image, bias), (terms, made), step or 1)
        return _result(body, image, body.reshape(y, -1, *out, made), bias)
    split = body.reshape(x, 0, 0, 0, groups, each)
    taps = _taps(body, body.transpose(split, 4, 3, 0, 1, 2), window, out, (3, 4))
    columns = taps[0] if len(taps) == 1 else body("Concat", *taps, axis=0)
    x, f, dtype = _operands(body, image, terms, columns, f)
    x = body.reshape(x, terms, groups, 1, -1)
    chunk = max(_divisor(made, CHUNK // positions), 1) if groups == 1 else made // groups
    sizes = terms, groups, made // groups, chunk
    y = _by_positions(body, dtype, x, f, _start(image, bias), sizes)
    return _result(body, image, body.transpose(body.reshape(y, made, -1, *out), 1, 2, 3, 0), bias)


def adder_dense(body: Body, op: Op, types: Sequence[TensorType], x: str, f: str, *bias: str) -> str:
    """The body of `AdderDense`; operands as there."""
    terms, made = (int(d) for d in types[1].shape)
    x, f, dtype = _operands(body, types[0], terms, x, f)
    step = largest_step(1, made, terms)
    y = _by_terms(body, dtype, x, f, _start(types[0], bias), (terms, made), step or 1)
    return _result(body, types[0], y, bias)


def _padded(body: Body, x: str, window: Window) -> str:
    top, bottom, left, right = window.padding
    if not any(window.padding):
        return x
    return body("Pad", x, body.ints(0, top, left, 0, 0, bottom, right, 0))


def _taps(
    body: Body, x: str, window: Window, out: tuple[int, int], axes: tuple[int, int]
) -> list[str]:
    """What each tap reads of a padded input, in the order (i, j)."""
    found = []
    for i in range(window.size[0]):
        for j in range(window.size[1]):
            starts = i * window.dilation[0], j * window.dilation[1]
            stops = [
                first + (count - 1) * step + 1
                for first, count, step in zip(starts, out, window.stride, strict=True)
            ]
            found.append(body.slice(x, axes, starts, stops, window.stride))
    return found


def _operands(body: Body, image: TensorType, terms: int, x: str, f: str) -> tuple[str, str, DType]:
    """Both in the dtype that is computed in, and that."""
    if image.dtype != u8:
        return x, f, image.dtype
    dtype = f32 if terms <= EXACT else i32
    return body.cast(x, dtype), body.cast(f, dtype), dtype


def _start(image: TensorType, bias: Sequence[str]) -> Sequence[str]:
    """What sums start with: a bias, but of bytes, whose bias may be beyond what f32 tells apart."""
    return () if image.dtype == u8 else bias


def _result(body: Body, image: TensorType, y: str, bias: Sequence[str]) -> str:
    """The sums as the op gives them."""
    if image.dtype != u8:
        return y
    whole = body.cast(y, i32)
    return body("Add", whole, bias[0]) if bias else whole


def _subtracted(body: Body, state: str, x: str, f: str) -> str:
    """state - |x - f|"""
    return body("Sub", state, body("Abs", body("Sub", x, f)))


def _by_positions(
    body: Body, dtype: DType, x: str, f: str, bias: Sequence[str], sizes: tuple[int, int, int, int]
) -> str:
    """[G, T, P] of x [K, G, 1, P] and f of K G T: for each term, subtracts the distances of all
    positions from `chunk` channels of each group."""
    terms, groups, made, chunk = sizes
    start = bias[0] if bias else body.constant(np.zeros(groups * made, numpy_type(dtype)))
    count, chunks = body("Shape", x, start=3), made // chunk
    filters = body.reshape(f, terms, groups, chunks, chunk, 1)
    starts = body.reshape(start, groups, chunks, chunk, 1)

    def all_terms(inner: Body, first: str, taps: str) -> str:
        shape = inner("Concat", inner.ints(groups, chunk), count, axis=0)
        return inner.scan(inner("Expand", first, shape), [x, taps], dtype, _subtracted)

    if chunks == 1:
        whole = body.reshape(filters, terms, groups, chunk, 1)
        return all_terms(body, body.reshape(starts, groups, chunk, 1), whole)
    order = body.transpose(filters, 2, 0, 1, 3, 4), body.transpose(starts, 1, 0, 2, 3)
    made_by_chunk = body.map([order[1], order[0]], dtype, all_terms)
    return body.transpose(made_by_chunk, 1, 0, 2, 3)


def _by_terms(
    body: Body, dtype: DType, x: str, f: str, bias: Sequence[str], sizes: tuple[int, int], step: int
) -> str:
    """[P, T] of x [..., K] and f [K, T]: subtracts the distances of `step` terms at a time."""
    terms, made = sizes
    start = bias[0] if bias else body.scalar(0, dtype)

    def sums(inner: Body, state: str, a: str, b: str) -> str:
        distances = inner("Abs", inner("Sub", a, b))
        return inner("Sub", state, inner("ReduceSum", distances, inner.ints(-1), keepdims=0))

    if terms == step:
        return sums(body, start, body.reshape(x, -1, 1, terms), body.transpose(f, 1, 0))
    rows = body.transpose(body.reshape(x, -1, terms // step, step), 1, 0, 2)
    count = body("Shape", rows, start=1, end=2)
    state = body("Expand", start, body("Concat", count, body.ints(made), axis=0))
    if step == 1:
        columns = body.reshape(f, terms, 1, made)
        return body.scan(state, [rows, columns], dtype, _subtracted)
    columns = body.transpose(body.reshape(f, terms // step, step, made), 0, 2, 1)
    rows = body("Unsqueeze", rows, body.ints(2))
    return body.scan(state, [rows, columns], dtype, sums)
