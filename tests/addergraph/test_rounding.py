"""The closed-form bounds hold for f32 sums in any order, and every op that rounds has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import GraphError
from addergraph.ir import CONTRACTION, REDUCTION, Array, Bound, Op, registry
from addergraph.ops._rounding import U, gamma
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.pointwise.binary import Add
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.reduction.reduce import ReduceSum
from addergraph.ops.reduction.softmax import Softmax
from addergraph.ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy
from tests.addergraph.op_samples import ALL, Sample, identify


def rounding_bounds(
    op: Op, operands: Sequence[Array], results: Sequence[Array]
) -> tuple[Bound, ...]:
    with np.errstate(all="ignore"):
        return tuple(op.rounding(operands, results))


@pytest.mark.parametrize("kind", [CONTRACTION, REDUCTION])
def test_an_op_that_sums_without_a_bound_is_refused(kind: str) -> None:
    rules = {"name": "sums", "kind": kind, "not_differentiable": True}
    rules |= {"infer": Softmax.infer, "reference": Softmax.reference}
    with pytest.raises(GraphError, match=r'op "sums" \(Sums\) lacks: rounding'):
        type("Sums", (Op,), rules)
    assert "sums" not in registry()


@pytest.mark.parametrize("sample", ALL, ids=identify)
def test_bounds_are_nonnegative_and_of_the_results_shape(sample: Sample) -> None:
    bound = sample.bound()
    operands = bound.data(np.random.default_rng(0))
    results = bound.op.reference(*operands)
    bounds = rounding_bounds(bound.op, operands, results)
    assert len(bounds) == len(results)
    for found, result in zip(bounds, results, strict=True):
        assert np.broadcast_shapes(np.shape(found), result.shape) == result.shape
        assert np.all(np.asarray(found) >= 0)


@pytest.mark.parametrize("op", [Relu(), Add()])
def test_ieee_operations_have_no_room(op: Relu | Add) -> None:
    operands = [np.ones(3, np.float32)] * (2 if isinstance(op, Add) else 1)
    assert rounding_bounds(op, operands, op.reference(*operands)) == (0.0,)


def test_gamma() -> None:
    assert gamma(1) == pytest.approx(U)
    assert gamma(100) > 100 * U
    assert gamma(1 << 24) == np.inf


# --- f32 evaluations in some order stay within the bound ------------------------------------------


def data(seed: int, *shape: int, scale: float = 1.0, positive: bool = False) -> Array:
    """Numbers of very different magnitudes, which is where order matters."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=shape) * np.exp(scale * rng.normal(size=shape))
    return (np.abs(drawn) if positive else drawn).astype(np.float32)


def ordered_sum(terms: Array, order: Array) -> Array:
    """Sequential f32 sums over axis 0."""
    total = np.zeros(terms.shape[1:], np.float32)
    for k in order:
        total = total + terms[k]
    return total


Evaluation = Callable[[Array, Array, Array], Array]  # x[K], f[K,T], order -> y[T]


def direct(x: Array, f: Array, order: Array) -> Array:
    return -ordered_sum(np.abs(x[:, None] - f), order)


def minimum(x: Array, f: Array, order: Array) -> Array:
    least = ordered_sum(np.minimum(x[:, None], np.maximum(f, 0)), order)
    return (least + least) - ordered_sum(x[:, None], order) - ordered_sum(np.abs(f), order)


def product(x: Array, f: Array, order: Array) -> Array:
    return ordered_sum(x[:, None] * f, order)


@given(
    form=st.sampled_from([direct, minimum, product]),
    terms=st.integers(1, 600),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_contractions(form: Evaluation, terms: int, seed: int, scale: float) -> None:
    x = data(seed, terms, scale=scale, positive=form is minimum)
    f = data(seed + 1, terms, 5, scale=scale)
    order = np.random.default_rng(seed).permutation(terms)
    op = Dense() if form is product else Adder2d()
    operands = [x[None], f] if form is product else [x[None, None, None], f[None, None]]
    (exact,) = op.reference(*operands)
    (bound,) = rounding_bounds(op, operands, [exact])
    error = np.abs(form(x, f, order).astype("f8") - exact)
    assert np.all(error <= bound)


@given(seed=st.integers(0, 10**6), terms=st.integers(1, 400))
def test_sums_and_statistics(seed: int, terms: int) -> None:
    x = data(seed, terms, 3) + np.float32(100)
    order = np.random.default_rng(seed).permutation(terms)
    op = ReduceSum((0,))
    (exact,) = op.reference(x)
    total = ordered_sum(x, order)
    assert np.all(np.abs(total.astype("f8") - exact) <= rounding_bounds(op, [x], [exact])[0])
    statistics = BatchNormStatistics()
    results = statistics.reference(x)
    bounds = rounding_bounds(statistics, [x], results)
    mean = total / np.float32(terms)
    variance = ordered_sum((x - mean) ** 2, order) / np.float32(terms)
    for found, result, bound in zip((mean, variance), results, bounds, strict=True):
        assert np.all(np.abs(found.astype("f8") - result) <= bound)


@given(seed=st.integers(0, 10**6), classes=st.integers(1, 40), spread=st.sampled_from([1, 10, 60]))
def test_softmax_and_cross_entropy(seed: int, classes: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=(4, classes)) * spread).astype(np.float32)
    p = rng.dirichlet(np.ones(classes), 4).astype(np.float32)
    top = z.max(-1, keepdims=True)
    powers = np.exp(z - top)  # f32, within an ulp
    total = ordered_sum(powers.T, rng.permutation(classes))
    softmax = powers / total[:, None]
    (exact,) = Softmax().reference(z)
    (bound,) = rounding_bounds(Softmax(), [z], [exact])
    assert np.all(np.abs(softmax.astype("f8") - exact) <= bound)
    loss = ordered_sum(p.T, np.arange(classes)) * (top[:, 0] + np.log(total))
    loss = loss - ordered_sum((p * z).T, np.arange(classes))
    (exact,) = SoftmaxCrossEntropy().reference(z, p)
    (bound,) = rounding_bounds(SoftmaxCrossEntropy(), [z, p], [exact])
    assert np.all(np.abs(loss.astype("f8") - exact) <= bound)


# --- but not much more than rounding fits in -----------------------------------------------------


def test_bounds_of_an_adder_are_tight() -> None:
    """27 terms of size about 1: no honest error is far from a few ulps of their sum."""
    x, f = data(0, 2, 6, 6, 3), data(1, 3, 3, 3, 4)
    (exact,) = Adder2d().reference(x, f)
    (bound,) = rounding_bounds(Adder2d(), [x, f], [exact])
    assert np.all(bound <= 31 * U * np.abs(exact))


def test_a_bias_that_cancels_the_sum_does_not_hide_its_rounding() -> None:
    x, f = data(0, 1, 1, 1, 500), data(1, 1, 1, 500, 1)
    (plain,) = Adder2d().reference(x, f)
    operands = [x, f, -plain[0, 0, 0]]
    (cancelled,) = Adder2d().reference(*operands)
    (bound,) = rounding_bounds(Adder2d(), operands, [cancelled])
    assert np.abs(cancelled).max() < 1e-3
    assert np.all(bound >= 500 * U * np.abs(plain))


def test_infinities_and_nan_leave_other_elements_alone() -> None:
    z = np.array([[np.inf, 1.0], [np.nan, 1.0], [-np.inf, 1.0], [2.0, 1.0]], np.float32)
    (y,) = Softmax().reference(z)
    (bound,) = rounding_bounds(Softmax(), [z], [y])
    assert np.isfinite(np.asarray(bound)[2:]).all()
