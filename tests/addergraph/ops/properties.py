"""What must hold for every op: gradients match differences, ranges hold, types are as inferred."""

from __future__ import annotations

from typing import Any

import numpy as np

from addergraph.ir import Array, Builder, Op
from addergraph.ir.interpreter import interpret
from addergraph.ir.intervals import Interval
from addergraph.ir.trace import Tensor, apply_all
from addergraph.ir.types import DTYPES, TensorType

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-45, 3e38, -3e38, np.inf, -np.inf, np.nan], "f4"
)


def type_of(array: Array) -> TensorType:
    (dtype,) = (d for d in DTYPES.values() if d.numpy == array.dtype)
    return TensorType(dtype, array.shape)


def run(op: Op, *arrays: Any) -> Array:
    """The one result of `op`, whose type must be the inferred one."""
    operands = [np.asarray(a, "f4") if isinstance(a, (list, float)) else a for a in arrays]
    (made,), (found,) = op.infer(*map(type_of, operands)), op.reference(*operands)
    assert isinstance(found, np.ndarray)
    assert type_of(found) == made
    return found


def bits(array: Any) -> list[int]:
    """Distinguishes -0.0 from 0.0; every NaN counts as the same."""
    found = np.array(array, "f4")
    found[np.isnan(found)] = np.nan
    return list(found.view("u4").tolist())


def check_interval(op: Op, *arrays: Array) -> Interval:
    """The range that `op` claims for operands as wide as `arrays`; the results lie in it."""
    ranges = [Interval(*_ends(a)) for a in arrays]
    (claimed,) = op.interval(ranges, [type_of(a) for a in arrays])
    lo, hi = _ends(run(op, *arrays))
    assert claimed.lo <= lo and hi <= claimed.hi, (op, claimed, lo, hi)
    return claimed


def _ends(array: Array) -> tuple[float, float]:
    numbers = array[~np.isnan(array)]
    return float(numbers.min()), float(numbers.max())


def check_gradient(op: Op, *arrays: Array, open_batch: bool = False) -> list[Array | None]:
    """Compares `op.grad` with central differences of `op.reference`; answers the gradients.

    `open_batch` builds the gradient graph while N is open and then binds it.
    """
    found = gradients(op, *arrays, open_batch=open_batch)
    g = _upstream(op, arrays)
    for number, gradient in enumerate(found):
        if gradient is not None:
            expected = _differences(op, arrays, number, g)
            np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=2e-3)
    return found


def gradients(op: Op, *arrays: Array, open_batch: bool = False) -> list[Array | None]:
    """The gradients of sum(g Y), g = 1, 1.5, 2, ..., for each operand; None where it has none."""
    builder = Builder("gradient")
    types = [type_of(a) for a in arrays]
    if open_batch:
        types = [TensorType(t.dtype, ("N", *t.shape[1:])) for t in types]
    xs = [Tensor(builder, builder.input(f"x{i}", t)) for i, t in enumerate(types)]
    ys = apply_all(op, *xs)
    g = Tensor(builder, builder.input("g", ys[0].type))
    found = op.grad(xs, ys, [g])
    assert len(found) == len(xs)
    for x, dx in zip(xs, found, strict=True):
        assert dx is None or dx.type == x.type
    graph = builder.finish([t.value for t in found if t is not None])
    bound = graph.bind(arrays[0].shape[0]) if open_batch else graph
    outputs = interpret(bound, *arrays, _upstream(op, arrays))
    results = iter(outputs if isinstance(outputs, tuple) else (outputs,))
    return [None if t is None else next(results) for t in found]


def _upstream(op: Op, arrays: tuple[Array, ...]) -> Array:
    (y,) = op.infer(*map(type_of, arrays))
    return (1 + 0.5 * np.arange(y.elements)).reshape(y.sizes).astype(y.dtype.numpy)


def _differences(op: Op, arrays: tuple[Array, ...], number: int, g: Array) -> Array:
    step = 2.0**-8
    expected = np.zeros(arrays[number].shape)
    for index in np.ndindex(*expected.shape):
        ends = []
        for sign in (1, -1):
            moved = [a.copy() for a in arrays]
            moved[number][index] += sign * step
            ends.append((op.reference(*moved)[0].astype("f8") * g).sum())
        expected[index] = (ends[0] - ends[1]) / (2 * step)
    return expected
