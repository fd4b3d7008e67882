"""The paper's gradients of adder layers, through the graphs that autodiff builds.

They are not the derivatives of the L1 distance. They are the derivatives of two potentials,
-1/2 (x - f)^2 for the filter (eq. 5) and -Huber(x - f) for the input (eq. 6 with HardTanh), which
plain loops in float64 differentiate here by finite differences, beside the closed forms. With
gradient=sign the potential of both is -|x - f| itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from addergraph.ir import Array, Builder, registry
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor, apply_all
from addergraph.ir.types import TensorType, f32
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.pointwise.fake_quantize import Rounding
from tests.addergraph.op_samples import SAMPLES, Sample, identify
from tests.addergraph.ops import naive

SURROGATE = [
    s.bound(2)
    for name, op in registry().items()
    if op.surrogate and not issubclass(op, Rounding)  # tests/addergraph/ops/test_fake_quantize.py
    for s in SAMPLES[name]
    if s.types[0].dtype == f32  # adders of integers have no gradient
]
every_surrogate = pytest.mark.parametrize("sample", SURROGATE, ids=identify)


def operands_and_upstream(sample: Sample) -> tuple[list[Array], Array]:
    """Operands up to 3 apart, so that the clip at 1 works on both sides."""
    rng = np.random.default_rng(5)
    operands = [rng.uniform(-1.5, 1.5, t.sizes).astype(np.float32) for t in sample.types]
    (y,) = sample.op.infer(*sample.types)
    return operands, rng.uniform(-1, 1, y.sizes).astype(np.float32)


def built_gradients(sample: Sample) -> list[Array]:
    """What `op.grad` builds, run by the interpreter."""
    operands, upstream = operands_and_upstream(sample)
    builder = Builder("gradients")
    xs = [Tensor(builder, builder.input(f"x{k}", t)) for k, t in enumerate(sample.types)]
    ys = apply_all(sample.op, *xs)
    g = Tensor(builder, builder.input("g", ys[0].type))
    made = [d for d in sample.op.grad(xs, ys, (g,)) if d is not None]
    assert [d.type for d in made] == list(sample.types)
    found = interpret(builder.finish([d.value for d in made]), *operands, upstream)
    assert isinstance(found, tuple)
    return list(found)


def as_image(sample: Sample, g: Array, x: Array, f: Array) -> tuple[Any, Array, Array, Array]:
    """The same as adder2d; adder_dense is its 1x1 case."""
    if sample.op.name == "adder2d":
        return sample.op, g, x, f
    assert sample.op.name == "adder_dense"
    return Adder2d(), g[:, None, None], x[:, None, None], f[None, None]


def is_sign(sample: Sample) -> bool:
    assert isinstance(sample.op, Adder2d | AdderDense)
    return sample.op.gradient == "sign"


def distance(x: float, f: float) -> float:
    return -abs(x - f)


def half_square(x: float, f: float) -> float:
    return -0.5 * (x - f) ** 2


def huber(x: float, f: float) -> float:
    distance = abs(x - f)
    return -(0.5 * distance**2 if distance <= 1 else distance - 0.5)


def slope(potential: Callable[[Array], float], at: Array) -> Array:
    """Central differences of `potential` by each element of `at`."""
    found, step = np.zeros(at.shape), 1e-4
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        found[index] = (potential(up) - potential(down)) / (2 * step)
    return found


@every_surrogate
def test_closed_forms(sample: Sample) -> None:
    (x, f, *bias), g = operands_and_upstream(sample)
    op, g4, x4, f4 = as_image(sample, g, x, f)
    by_x, by_f = lambda a, b: min(1.0, max(-1.0, b - a)), lambda a, b: a - b
    if is_sign(sample):
        by_x, by_f = lambda a, b: np.sign(b - a), lambda a, b: np.sign(a - b)
    dx, df = naive.gradients(op, g4, x4, f4, by_x=by_x, by_f=by_f)
    found = built_gradients(sample)
    np.testing.assert_allclose(found[0], dx.reshape(x.shape), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], df.reshape(f.shape), rtol=1e-6, atol=1e-6)
    if bias:
        np.testing.assert_allclose(found[2], g.astype("f8").sum(tuple(range(g.ndim - 1))), 1e-6)


@every_surrogate
def test_finite_differences_of_the_potentials(sample: Sample) -> None:
    (x, f, *_), g = operands_and_upstream(sample)
    op, g4, x4, f4 = as_image(sample, g, *(a.astype("f8") for a in (x, f)))
    of_x, of_f = (distance, distance) if is_sign(sample) else (huber, half_square)
    by_x = slope(lambda v: float(np.vdot(g4, naive.contraction(op, v, f4, of_x))), x4)
    by_f = slope(lambda v: float(np.vdot(g4, naive.contraction(op, x4, v, of_f))), f4)
    found = built_gradients(sample)
    np.testing.assert_allclose(found[0], by_x.reshape(x.shape), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], by_f.reshape(f.shape), rtol=1e-4, atol=1e-4)


def test_equal_numbers_have_the_sign_zero_and_distances_of_any_size_their_own() -> None:
    x = np.array([[0.5], [1e-9], [-3e18], [0.5]], np.float32)
    f = np.array([[0.5, 0.0, 1.0, 2.0]], np.float32)
    types = tuple(TensorType(f32, a.shape) for a in (x, f))
    builder = Builder("gradients")
    xs = [Tensor(builder, builder.input(n, t)) for n, t in zip("xf", types, strict=True)]
    (y,) = apply_all(AdderDense(gradient="sign"), *xs)
    g = Tensor(builder, builder.input("g", y.type))
    made = [d.value for d in AdderDense(gradient="sign").grad(xs, (y,), (g,)) if d is not None]
    dx, df = interpret(builder.finish(made), x, f, np.ones((4, 4)))
    signs = np.sign(f.astype("f8") - x)
    np.testing.assert_array_equal(dx, signs.sum(1, keepdims=True))
    np.testing.assert_array_equal(df, -signs.sum(0, keepdims=True))
