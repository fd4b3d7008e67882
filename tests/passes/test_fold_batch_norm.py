"""fold_batch_norm: the two forms, and their rounding against float64."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.ir.check import check
from addergraph.ir.interpreter import interpret, run_reference
from addergraph.ir.text import parse
from addergraph.passes.fold_batch_norm import fold_batch_norm
from addergraph.passes.hoist import hoist

INFERENCE = parse(
    """graph g(%x: f32[N,5,16]) params(
         %m: f32[16] init=zeros fixed, %v: f32[16] init=ones fixed,
         %gamma: f32[16] init=ones, %beta: f32[16] init=zeros) {
         %y = batch_norm(%x, %m, %v, %gamma, %beta) epsilon=0.5 : f32[N,5,16]
         return %y }"""
)
TRAINING = parse(
    """graph g(%x: f32[64,16]) params(%gamma: f32[16] init=ones, %beta: f32[16] init=zeros) {
         %s.mean, %s.variance = batch_norm_statistics(%x) : f32[16], f32[16]
         %y = batch_norm(%x, %s.mean, %s.variance, %gamma, %beta) : f32[64,16]
         return %y }"""
)


def test_inference_form() -> None:
    made = fold_batch_norm(INFERENCE)
    check(made)
    assert made.parameters == INFERENCE.parameters
    assert "\n".join(str(made).splitlines()[6:]) == (
        """\
  %y.const = full() value=0.5 : f32[]
  %y.add = add(%v, %y.const) : f32[16]
  %y.sqrt = sqrt(%y.add) : f32[16]
  %y.scale = div(%gamma, %y.sqrt) : f32[16]
  %y.mul = mul(%m, %y.scale) : f32[16]
  %y.shift = sub(%beta, %y.mul) : f32[16]
  %y.scaled = mul(%x, %y.scale) : f32[N,5,16]
  %y = add(%y.scaled, %y.shift) : f32[N,5,16]
  return %y
}"""
    )
    _, main = hoist(made)
    assert [node.op.name for node in main.nodes] == ["mul", "add"]


def test_training_form() -> None:
    made = fold_batch_norm(TRAINING)
    check(made)
    names = [node.op.name for node in made.nodes[-3:]]
    assert names == ["sub", "mul", "add"]
    assert made.nodes[-1].name == "y"


@pytest.mark.parametrize("mean", [0.0, -700.0])
def test_rounding_of_the_inference_form_grows_with_the_mean(mean: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(mean, 1.0, (3, 5, 16)).astype("f4")
    weights = {
        "m": rng.normal(mean, 1.0, 16).astype("f4"),
        "v": rng.uniform(0.5, 2.0, 16).astype("f4"),
        "gamma": rng.normal(size=16).astype("f4"),
        "beta": rng.normal(size=16).astype("f4"),
    }
    (exact,), _ = run_reference(INFERENCE, [x], weights)
    (folded,), _ = run_reference(fold_batch_norm(INFERENCE), [x], weights)
    scale = np.abs(weights["gamma"] / np.sqrt(weights["v"] + 0.5))
    size = (np.abs(x) + np.abs(weights["m"])) * scale + np.abs(weights["beta"])
    assert np.all(np.abs(folded - exact) <= 5 * 2.0**-24 * size)


def test_training_form_does_not_cancel() -> None:
    x = np.random.default_rng(2).normal(-700.0, 1.0, (64, 16)).astype("f4")
    weights = {"gamma": np.ones(16, "f4"), "beta": np.zeros(16, "f4")}
    exact = interpret(TRAINING, x, weights=weights)
    folded = interpret(fold_batch_norm(TRAINING), x, weights=weights)
    # The one subtraction of large numbers is exact; the mean is the same f32 in both.
    np.testing.assert_allclose(folded, exact, rtol=2.0**-21, atol=0)


def test_other_nodes_stay() -> None:
    graph = parse("graph g(%x: f32[N]) { %y = relu(%x) : f32[N] return %y }")
    assert fold_batch_norm(graph) == graph
