"""Update rules against plain loops in float64, by the reference and natively."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from addergraph import compiler
from addergraph.errors import DataError, GraphError
from addergraph.ir import Array, Graph
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.state import State, initial_weights
from addergraph.ir.text import parse
from addergraph.passes.train_step import train_step
from addergraph.training.losses import MeanSquared
from addergraph.training.optimizers import SGD, Adam, Optimizer

pytestmark = pytest.mark.usefixtures("quick_objects")

NET = """graph net(%x: f32[6,3]) params(
    %w: f32[3,4] init=normal(0,1), %e: f32[4,2] init=normal(0,1) eta=0.2,
    %m: f32[4] init=zeros fixed) {
    %y = dense(%x, %w) : f32[6,4]
    %s.mean, %s.variance = batch_norm_statistics(%y) : f32[4], f32[4]
    %z = dense(%y, %e) : f32[6,2]
    update %m <- %s.mean
    return %z }"""
RATES = (0.1, 0.1, 0.05, 0.02, 0.02)
Weights = dict[str, Array]
Rule = Callable[[str, Array, Array, float, int, dict[str, Array]], Array]


def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(6, 3)).astype("f4"), rng.normal(size=(6, 2)).astype("f4")


def gradients(weights: Weights, x: Array, targets: Array) -> Weights:
    y = x @ weights["w"]
    dz = 2 * (y @ weights["e"] - targets) / targets.size
    return {"w": x.T @ (dz @ weights["e"].T), "e": y.T @ dz}


def adapted(g: Array) -> Array:
    return g * 0.2 * math.sqrt(g.size) / float(np.linalg.norm(g))


def sgd(momentum: float, decay: float, nesterov: bool = False) -> Rule:
    def rule(
        name: str, p: Array, g: Array, rate: float, step: int, state: dict[str, Array]
    ) -> Array:
        g = g + decay * p
        v = state[f"{name}.velocity"] = momentum * state.get(f"{name}.velocity", 0.0) + g
        return p - rate * (g + momentum * v if nesterov else v)

    return rule


def adam(decay: float, decoupled: bool) -> Rule:
    def rule(
        name: str, p: Array, g: Array, rate: float, step: int, state: dict[str, Array]
    ) -> Array:
        g = g if decoupled else g + decay * p
        m = state[f"{name}.moment1"] = 0.9 * state.get(f"{name}.moment1", 0.0) + 0.1 * g
        v = state[f"{name}.moment2"] = 0.99 * state.get(f"{name}.moment2", 0.0) + 0.01 * g**2
        update = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.99**step)) + 1e-3)
        return p - rate * (update + decay * p if decoupled else update)

    return rule


def oracle(rule: Rule, weights: Weights, clip: float, average: float) -> Weights:
    """Every parameter of the step after all of RATES, in float64."""
    x, targets = (a.astype("f8") for a in data())
    now = {name: weights[name].astype("f8") for name in ("w", "e")}
    state: dict[str, Array] = {}
    history: dict[str, list[Array]] = {"w": [], "e": [], "m": []}
    for step, rate in enumerate(RATES, 1):
        found = gradients(now, x, targets)
        history["m"].append((x @ now["w"]).mean(0))
        norm = float(np.linalg.norm(found["w"]))  # e has an eta
        found = {"w": found["w"] * min(1.0, clip / norm), "e": adapted(found["e"])}
        now = {name: rule(name, now[name], found[name], rate, step, state) for name in now}
        for name in now:
            history[name].append(now[name])
    if average:
        weight = [average ** (len(RATES) - k) for k in range(1, len(RATES) + 1)]
        for name, values in history.items():
            mean = sum(w * v for w, v in zip(weight, values, strict=True)) / sum(weight)
            state[f"{name}.average"] = np.asarray(mean)
    return now | state | {"m": history["m"][-1]}


def by_reference(step: Graph, weights: Weights) -> Weights:
    x, targets = data()
    for rate in RATES:
        _, updates = run_reference(step, (x, targets, rate), weights)
        weights = weights | updates
    return weights


def natively(step: Graph, weights: Weights) -> Weights:
    state = State(step.parameters)
    state.load(weights)
    program = compiler.compile(step, state=state)
    x, targets = data()
    for rate in RATES:
        program(x, targets, np.float32(rate))
    return dict(state.views)


ADAM: dict[str, Any] = {"beta2": 0.99, "epsilon": 1e-3}
CASES: dict[str, tuple[Optimizer, Rule]] = {
    "plain": (SGD(momentum=0.0, weight_decay=0.0), sgd(0.0, 0.0)),
    "momentum": (SGD(momentum=0.9, weight_decay=0.01), sgd(0.9, 0.01)),
    "nesterov": (SGD(momentum=0.8, weight_decay=0.01, nesterov=True), sgd(0.8, 0.01, True)),
    "clip": (SGD(momentum=0.9, weight_decay=0.01, clip_norm=0.05), sgd(0.9, 0.01)),
    "loose clip": (SGD(momentum=0.9, weight_decay=0.01, clip_norm=1e9), sgd(0.9, 0.01)),
    "average": (SGD(momentum=0.9, weight_decay=0.01, average=0.7), sgd(0.9, 0.01)),
    "adam": (Adam(**ADAM), adam(0.0, True)),
    "adam L2": (Adam(weight_decay=0.1, decoupled=False, **ADAM), adam(0.1, False)),
    "adamw": (Adam(weight_decay=0.1, clip_norm=0.05, average=0.9, **ADAM), adam(0.1, True)),
}


@pytest.mark.parametrize("run", [by_reference, natively])
@pytest.mark.parametrize("name", CASES)
def test_rules_against_loops(name: str, run: Callable[[Graph, Weights], Weights]) -> None:
    optimizer, rule = CASES[name]
    step = train_step(parse(NET), MeanSquared(), optimizer)
    check(step)
    weights = initial_weights(step, seed=1)
    expected = oracle(rule, weights, optimizer.clip_norm, optimizer.average)
    found = run(step, weights)
    corrections = {"adam.correction1", "adam.correction2", "average.correction"}
    assert expected.keys() | corrections >= found.keys() - {"w.velocity", "e.velocity"}
    for parameter, value in expected.items():
        if parameter in found:
            np.testing.assert_allclose(found[parameter], value, rtol=2e-4, atol=2e-6)
    assert {f"{p}.average" in found for p in "wem"} == {optimizer.average > 0}


def test_a_zero_gradient_is_clipped_and_adapted_to_zero() -> None:
    step = train_step(parse(NET), MeanSquared(), SGD(momentum=0.0, weight_decay=0.0, clip_norm=1.0))
    weights = initial_weights(step)
    _, updates = run_reference(step, (np.zeros((6, 3)), np.zeros((6, 2)), 0.1), weights)
    for name in ("w", "e"):
        np.testing.assert_array_equal(updates[name], weights[name])


def test_the_rate_is_an_input_of_one_program() -> None:
    step = train_step(parse(NET), MeanSquared(), SGD())
    assert [v.name for v in step.inputs] == ["x", "targets", "learning_rate"]
    assert step.inputs[2].type.shape == ()


def test_an_optimizer_of_ones_own_is_refused() -> None:
    with pytest.raises(GraphError, match="is no optimizer"):
        train_step(parse(NET), MeanSquared(), Optimizer())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SGD(clip_norm=0.0), "SGD: clip_norm=0.0 must be a number above 0"),
        (lambda: SGD(clip_norm=math.nan), "clip_norm=nan"),
        (lambda: SGD(average=1.0), "average=1.0 must be a number at least 0 and below 1"),
        (lambda: SGD(momentum=0.0, nesterov=True), "nesterov"),
        (lambda: Adam(beta1=1.0), "Adam: beta1"),
        (lambda: Adam(beta2=-0.1), "Adam: beta2"),
        (lambda: Adam(epsilon=0.0), "epsilon=0.0 must be a number above 0"),
        (lambda: Adam(weight_decay=math.inf), "weight_decay=inf"),
    ],
)
def test_descriptions_refuse_wrong_numbers(make: Callable[[], object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        make()
