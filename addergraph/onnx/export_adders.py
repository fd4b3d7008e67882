"""Bodies of adder layers in standard operators, by taps and chunks.

    Y[n,h,w,t] = b[t] - sum_{i,j,k} |X[n, s*h + d*i - p, s*w + d*j - p, k] - F[i,j,k,t]|

ONNX has no operator for a sum of distances, and written with broadcasting it is a tensor of
Cout x K x P numbers, K = I J C terms of P positions. Here it is a Scan over the terms, which are
sorted so that a step has a tensor of

* positions, where an image has FEW of them or more: Cout x P numbers, one term a step;
* terms, elsewhere: Cout x P x k numbers, k terms a step, the largest divisor of K for which a
  sample has at most STEP of them.

So no tensor has more numbers a sample than the largest of STEP, Cout P, and the K P of the taps
side by side (one for 1x1 layers: the input itself). Bytes are computed in i32, where no sum of them
leaves the range.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import Op
from ..ir.types import TensorType, i32, u8
from ..ops._window import Window
from .export_body import Body

STEP = 1 << 19  # numbers of a sample that a step over terms may have
FEW = 128  # positions of an image from which steps have one term
_SHORTEST = 32  # terms that a step needs to be faster than one of one term


def largest_step(positions: int, made: int, terms: int) -> int:
    """Terms of a step over terms; 0 where steps have one term of all positions."""
    fits = [k for k in range(1, terms + 1) if terms % k == 0 and k * positions * made <= STEP]
    most = max(fits, default=0)
    return most if positions < FEW and most >= min(_SHORTEST, terms) else 0


def adder2d(body: Body, op: Op, types: Sequence[TensorType], x: str, f: str, *bias: str) -> str:
    """The body of `Adder2d`; operands as there."""
    image, filters = types[0], types[1]
    window: Window = op.window(filters)  # type: ignore[attr-defined]
    groups: int = op.groups  # type: ignore[attr-defined]
    rows, columns, each, made = (int(d) for d in filters.shape)
    out = window.output_size(image.shape[1], image.shape[2])
    terms = rows * columns * each
    x = _padded(body, x, window)
    step = largest_step(out[0] * out[1], made, terms) if groups == 1 else 0
    if step:
        taps = _taps(body, x, window, out, (1, 2))
        side_by_side = taps[0] if len(taps) == 1 else body("Concat", *taps, axis=3)
        y = _by_terms(body, image, side_by_side, f, bias, (terms, made), step)
        return body.reshape(y, -1, *out, made)
    split = body.reshape(x, 0, 0, 0, groups, each)
    taps = _taps(body, body.transpose(split, 4, 3, 0, 1, 2), window, out, (3, 4))
    side_by_side = taps[0] if len(taps) == 1 else body("Concat", *taps, axis=0)
    positions = body.reshape(side_by_side, terms, groups, 1, -1)
    y = _by_positions(body, image, positions, f, bias, (terms, groups, made // groups))
    return body.transpose(body.reshape(y, made, -1, *out), 1, 2, 3, 0)


def adder_dense(body: Body, op: Op, types: Sequence[TensorType], x: str, f: str, *bias: str) -> str:
    """The body of `AdderDense`; operands as there."""
    terms, made = (int(d) for d in types[1].shape)
    step = largest_step(1, made, terms)
    if step:
        return _by_terms(body, types[0], x, f, bias, (terms, made), step)
    positions = body.reshape(body.transpose(x, 1, 0), terms, 1, 1, -1)
    y = _by_positions(body, types[0], positions, f, bias, (terms, 1, made))
    return body.transpose(body.reshape(y, made, -1), 1, 0)


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


def _operands(body: Body, image: TensorType, x: str, f: str) -> tuple[str, str, TensorType]:
    """Both in the dtype that is computed in."""
    if image.dtype != u8:
        return x, f, TensorType(image.dtype, ())
    return body.cast(x, i32), body.cast(f, i32), TensorType(i32, ())


def _by_positions(
    body: Body, image: TensorType, x: str, f: str, bias: Sequence[str], sizes: tuple[int, int, int]
) -> str:
    """[G, T, P] of x [K, G, 1, P]: for each term, subtracts the distances of all positions."""
    terms, groups, made = sizes
    x, f, number = _operands(body, image, x, f)
    filters = body.reshape(f, terms, groups, made, 1)
    count = body("Shape", x, start=3)
    shape = body("Concat", body.ints(groups, made), count, axis=0)
    start = body.reshape(bias[0], groups, made, 1) if bias else body.scalar(0, number.dtype)

    def step(inner: Body, state: str, a: str, b: str) -> str:
        return inner("Sub", state, inner("Abs", inner("Sub", a, b)))

    return body.scan(body("Expand", start, shape), [x, filters], number.dtype, step)


def _by_terms(
    body: Body, image: TensorType, x: str, f: str, bias: Sequence[str], sizes: tuple[int, int],
    step: int,
) -> str:  # fmt: skip
    """[P, T] of x [..., K]: subtracts the distances of `step` terms at a time, summed."""
    terms, made = sizes
    x, f, number = _operands(body, image, x, f)
    rows = body.reshape(x, -1, terms // step, 1, step)
    columns = body.transpose(body.reshape(f, terms // step, step, made), 0, 2, 1)
    start = bias[0] if bias else body.scalar(0, number.dtype)

    def sums(inner: Body, state: str, a: str, b: str) -> str:
        distances = inner("Abs", inner("Sub", a, b))
        return inner("Sub", state, inner("ReduceSum", distances, inner.ints(-1), keepdims=0))

    if terms == step:
        return sums(body, start, body.reshape(rows, -1, 1, step), body.reshape(columns, made, step))
    count = body("Shape", rows, start=0, end=1)
    state = body("Expand", start, body("Concat", count, body.ints(made), axis=0))
    return body.scan(state, [body.transpose(rows, 1, 0, 2, 3), columns], number.dtype, sums)
