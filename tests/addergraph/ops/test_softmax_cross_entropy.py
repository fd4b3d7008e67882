"""softmax_cross_entropy."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.types import tensor
from addergraph.ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import gradients, run

OP = SoftmaxCrossEntropy()
Z = normal(1, 4, 3) * 3
ONE_HOT = np.eye(3, dtype="f4")[[2, 0, 1, 1]]
WEIGHTS = np.abs(normal(2, 4, 3))


@pytest.mark.parametrize("targets", [ONE_HOT, WEIGHTS])
def test_values(targets) -> None:
    z = Z.astype("f8")
    expected = -(targets * np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))).sum(1)
    np.testing.assert_allclose(run(OP, Z, targets), expected, rtol=1e-5)


def test_large_logits_do_not_overflow() -> None:
    assert run(OP, [[1000.0, 0.0]], [[0.0, 1.0]]).tolist() == [1000.0]
    assert run(OP, [[-1000.0, -1000.0]], [[1.0, 0.0]])[0] == pytest.approx(np.log(2.0))


def test_special_values() -> None:
    inf, nan = np.inf, np.nan
    z = [[nan, 0.0], [inf, 0.0], [-inf, -inf], [-inf, 0.0]]
    assert np.isnan(run(OP, z, [[0.0, 1.0]] * 4)).all()


def test_empty_batch() -> None:
    assert run(OP, np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4")).shape == (0,)


@pytest.mark.parametrize("targets", [ONE_HOT, WEIGHTS])
@pytest.mark.parametrize("open_batch", [False, True])
def test_gradient(targets, open_batch) -> None:
    step, expected = 2.0**-8, np.zeros(Z.shape)
    for index in np.ndindex(*Z.shape):
        up, down = Z.copy(), Z.copy()
        up[index] += step
        down[index] -= step
        change = OP.reference(up, targets)[0] - OP.reference(down, targets)[0]
        expected[index] = change @ (1 + 0.5 * np.arange(4)) / (2 * step)
    logits, none = gradients(OP, Z, targets, open_batch=open_batch)
    assert none is None
    assert logits is not None
    np.testing.assert_allclose(logits, expected, atol=2e-3)


def test_cost() -> None:
    assert OP.cost([tensor("f32", (2, 3))] * 2) == Cost(28, 8, 8)


def test_errors() -> None:
    z = tensor("f32", ("N", 3))
    assert OP.infer(z, z) == (tensor("f32", ("N",)),)
    with pytest.raises(ShapeError, match=r"targets must be f32\[N,3\] as the logits, found i32"):
        OP.infer(z, tensor("i32", ("N",)))
    for shape in ((3,), (2, 3, 4), (2, 0)):
        with pytest.raises(ShapeError, match=r"logits must be f32\[N,T\] with T at least 1"):
            OP.infer(tensor("f32", shape), tensor("f32", shape))
