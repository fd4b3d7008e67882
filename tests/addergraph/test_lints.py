"""Lints: each finding names its layer and the fix, and no network of the zoo has a false one."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops, zoo
from addergraph.errors import QuantizationWarning
from addergraph.ir import Graph, Init
from addergraph.ir.trace import Tensor, new_parameter
from addergraph.ir.types import TensorType, f32
from addergraph.report.findings import Finding
from addergraph.report.lints import lint


def found(*parts: layers.Layer) -> list[Finding]:
    """The findings of these layers behind a relu, so that inputs are not negative."""
    model = Model(input_shape=(6, 6, 2))
    for layer in (layers.Activation("relu"), *parts):
        model.add(layer)
    return list(lint(model.graph(training=False)))


@pytest.mark.parametrize("name", [n for n in zoo.NETWORKS if n not in ("deck", "all-adder")])
def test_networks_that_train_have_no_finding(name: str) -> None:
    assert lint(zoo.build(name).graph(training=False)) == ()


def test_the_decks_listing() -> None:
    dead, slow = lint(zoo.build("deck").graph(training=False))
    assert dead.node == "act1" and dead.hint.startswith("add a batch norm between adder2d")
    assert slow.node == "adder1" and "loses the fast kernel" in slow.message


@pytest.mark.parametrize(
    ("after", "where"),
    [
        ([layers.Flatten(), layers.Dense(3)], 'dense "dense1"'),
        ([layers.MaxPool(2), layers.Flatten(), layers.Dense(3)], 'dense "dense1"'),
        ([layers.Flatten()], "the output"),
        ([layers.Flatten(), layers.Activation("softmax")], 'softmax "act2"'),
    ],
)
def test_an_adder_without_batch_norm(after: list[layers.Layer], where: str) -> None:
    (finding,) = found(layers.Adder(4, 3), *after)
    assert finding.node == "adder1"
    assert finding.message.startswith(f'adder2d "adder1" reaches {where} without a batch norm')
    assert finding.hint == f'put layers.BatchNorm() between adder2d "adder1" and {where}'


def test_a_bias_lets_a_relu_live_but_is_no_batch_norm() -> None:
    (finding,) = found(layers.Adder(4, 3, bias=True), layers.Activation("relu"), layers.Flatten())
    assert 'reaches relu "act2"' in finding.message
    (finding,) = found(layers.Adder(4, 3), layers.Activation("relu"), layers.Flatten())
    assert "is always 0" in finding.message  # one finding, not two


def test_a_batch_norm_behind_a_pool_or_a_sum_is_seen() -> None:
    body = [layers.Adder(2, 3, padding=1)]
    assert not found(layers.Adder(4, 3), layers.MaxPool(2), layers.BatchNorm(), layers.Flatten())
    assert not found(layers.Residual(body), layers.BatchNorm(), layers.Flatten())
    (finding,) = found(layers.Residual(body), layers.Flatten(), layers.Dense(2))
    assert finding.node == "block1.adder1"


def test_a_dense_adder_is_an_adder() -> None:
    (finding,) = found(layers.Flatten(), layers.AdderDense(3))
    assert finding.node == "adder_dense1" and "the output" in finding.hint
    assert not found(layers.Flatten(), layers.AdderDense(3), layers.BatchNorm())


def test_a_folded_batch_norm_counts() -> None:
    graph = ag.parse(
        "graph g(%x: f32[N,4,4,1], %f: f32[3,3,1,2], %s: f32[2], %t: f32[2]) {\n"
        "  %r = relu(%x) : f32[N,4,4,1]\n  %y = adder2d(%r, %f) : f32[N,2,2,2]\n"
        "  %m = mul(%y, %s) : f32[N,2,2,2]\n  %a = add(%m, %t) : f32[N,2,2,2]\n  return %a\n}"
    )
    assert lint(graph) == ()


def test_an_input_that_may_be_negative() -> None:
    norm = layers.BatchNorm()
    slow, *others = found(norm, layers.Adder(4, 3), layers.BatchNorm(), layers.Flatten())
    assert not others and slow.node == "adder1"
    assert 'its input "bn1" may be negative' in slow.message
    assert slow.hint == (
        'put layers.Activation(\'relu\') between batch_norm "bn1" and adder2d "adder1"'
    )
    (first,) = lint(zoo.build("all-adder").graph(training=False))
    assert 'between the input "x" and' in first.hint and "pixels in 0..1" in first.hint


def with_eta(function: str) -> Graph:
    def net(x: Tensor) -> Tensor:
        type = TensorType(f32, (1, 1, 2, 3))
        f = new_parameter(x, "f", type, Init("normal", (0.0, 1.0)), eta=0.2)
        y = getattr(ops, function)(ops.relu(x), f)
        return layers.BatchNorm()(y)

    return ag.trace(net, ag.tensor("f32", ("N", 4, 4, 2)))


def test_eta_without_an_adaptive_layer() -> None:
    assert lint(with_eta("adder2d")) == ()
    (finding,) = lint(with_eta("conv2d"))
    assert finding.node == "f"
    assert 'parameter "f" has eta=0.2 but is no filter of an adder layer' in finding.message
    assert 'conv2d "conv2d" reads it' in finding.message
    assert "leave eta out" in finding.hint


def test_an_adder_without_eta() -> None:
    relu, norm = layers.Activation("relu"), layers.BatchNorm()
    (plain,) = found(relu, layers.Adder(4, 3, eta=None), norm, layers.Flatten())
    assert plain.node == "adder1.f"
    assert plain.message.startswith(
        'parameter "adder1.f" is the filter of an adder layer (adder2d "adder1" reads it) and has '
        "no eta"
    )
    assert "leave eta at 0.2" in plain.hint
    flat = (relu, layers.Flatten(), layers.AdderDense(3, eta=None), norm)
    (dense,) = found(*flat)
    assert dense.node == "adder_dense1.f"
    for name in zoo.NETWORKS:
        findings = lint(zoo.build(name).graph(training=False))
        assert not [f for f in findings if "has no eta" in f.message], name


def test_a_finding_prints_as_one_sentence() -> None:
    finding = Finding("a", "this is wrong", "do that")
    assert str(finding) == "this is wrong; do that"
    assert dataclasses.astuple(finding)[0] == "a"


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ["small-adder", "all-adder", "deck", "lenet5_bn"])
def test_integers_need_no_batch_norm(name: str) -> None:
    model = zoo.build(name)
    images = np.random.default_rng(0).random((8, *model.input_shape), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)  # the weights are random
        made = ag.quantize(model, images, terms=1)
    assert lint(made.graph) == ()
