"""Post-training quantization of networks that multiply, first and last or throughout; the zoo's
networks; what becomes of an argmax."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops, zoo
from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, i8, i32, u8
from addergraph.model.engines import Interpreted
from addergraph.passes.quantize.quantize import quantize
from addergraph.quantization import QuantizationSettings, Quantized
from addergraph.zoo.form import Form
from addergraph.zoo.resnet import ResNet
from tests.codegen.harness import HERE
from tests.passes.networks import settled
from tests.passes.test_quantize import adder, bn, samples, traced


def resnet(body: str, first: str = "conv", last: str = "conv") -> Graph:
    """The authors' topology: strided shortcuts, sums, a global mean, a batch norm on the logits."""
    model = Model(input_shape=(6, 6, 3), name="resnet", seed=0)
    for layer in ResNet((1, 1), 8)(Form(5, body, first, last)):
        model.add(layer)
    return model.graph(training=False)


def signed(x: Tensor) -> Tensor:
    """Products of bytes whose zero point is not 0, grouped, strided, with biases."""
    x = bn(layers.Conv(6, 3, padding=1, groups=3, bias=True)(x))
    x = bn(layers.Conv(8, 3, stride=2, padding=(1, 0, 1, 0))(x))
    x = bn(ops.avg_pool2d(x, 2, stride=1, padding=1))
    return layers.Dense(5, bias=True)(ops.flatten(x))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "authors": lambda: resnet("adder"),
    "signed": lambda: traced(signed),
}


@functools.cache
def network(name: str) -> tuple[Graph, Mapping[str, Array]]:
    graph = NETWORKS[name]()
    return graph, settled(graph, samples(32))


@functools.cache
def quantized(name: str, **options: object) -> Quantized:
    graph, weights = network(name)
    return ag.quantize(graph, samples(64), weights=weights, **options)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_say_what_the_network_does(name: str) -> None:
    """With the same bits natively."""
    made, (graph, weights) = quantized(name, terms=3), network(name)
    assert {v.type.dtype for v in made.graph.values()} == {u8, i8, i32}
    x = samples(24, seed=2)
    expected = np.asarray(interpret(graph, x, weights=weights))
    integers = np.asarray(interpret(made.graph, made.inputs(x), weights=made.weights))
    found = made.outputs(integers)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.985
    for target in HERE if name == "signed" else HERE[:1]:
        program = ag.compile(made.graph, weights=made.weights, target=target, cache=False)
        np.testing.assert_array_equal(program(made.inputs(x)), integers, target)
        program.close()


@pytest.mark.parametrize(("bits", "end"), [(8, 127), (4, 7), (2, 1)])
def test_filters_are_symmetric_in_each_channel(bits: int, end: int) -> None:
    graph = traced(lambda x: layers.Conv(5, 3, name="one")(x))
    weights = {"one.f": np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float32)}
    weights["one.f"] *= np.array([1, 10, 0, 1e-6, 3], np.float32)
    made = ag.quantize(graph, samples(16), weights=weights, bits=bits, terms=3)
    (f,) = [w for w in made.weights.values() if w.dtype == np.int8]
    assert np.abs(f).max((0, 1, 2)).tolist() == [end, end, 0, end, end]
    steps = np.abs(weights["one.f"]).max((0, 1, 2)) / end
    np.testing.assert_allclose(steps * f, weights["one.f"], atol=0.501 * steps.max())


@pytest.mark.slow
def test_strict_mode_names_what_multiplies() -> None:
    made = quantized("authors", terms=3)
    with pytest.raises(UnsupportedError) as error:
        ag.compile(made.graph, weights=made.weights, multiplication_free=True)
    hint = (
        'an adder layer in its place (zoo.build(name, first="adder", last="adder"), or in '
        "`addergraph train` --first adder --last adder)"
    )
    lines = str(error.value).splitlines()
    assert lines[1:] == [f'  conv2d "first": {hint}', f'  dense "last": {hint}']


@pytest.mark.slow
def test_an_argmax_is_one_of_integers() -> None:
    """In place of a softmax, and without a product."""

    def logits(x: Tensor) -> Tensor:
        x = ops.avg_pool2d(ops.relu(bn(adder(6)(x))), 3, stride=1)
        return bn(layers.AdderDense(5)(ops.flatten(x)))

    answers = traced(lambda x: ops.argmax(ops.softmax(logits(x))))
    weights, x = settled(answers, samples(32)), samples(64)
    made = ag.quantize(answers, x, weights=weights, terms=2)
    plain = ag.quantize(traced(logits), x, weights=weights, terms=2)
    assert made.graph.outputs[0].type == TensorType(i32, ("N",))
    program = ag.compile(made.graph, weights=made.weights, multiplication_free=True)
    found = np.asarray(program(made.inputs(x)))
    largest = np.asarray(interpret(plain.graph, plain.inputs(x), weights=plain.weights)).argmax(1)
    np.testing.assert_array_equal(found, largest)
    np.testing.assert_array_equal(made.outputs(found), largest)


def test_an_argmax_of_bytes() -> None:
    graph, x = traced(lambda x: ops.argmax(ops.flatten(ops.relu(bn(adder(4)(x)))))), samples(16)
    weights = settled(graph, x)
    made = ag.quantize(graph, x, weights=weights, terms=3)
    found = np.asarray(interpret(made.graph, made.inputs(x), weights=made.weights))
    assert "argmax" in str(made.graph) and len(np.unique(found)) > 3


def test_an_argmax_ends_the_network() -> None:
    def net(x: Tensor) -> Tensor:
        return ops.cast(ops.argmax(ops.flatten(adder(4)(x))), "f32") + 1.0

    with pytest.raises(UnsupportedError, match='cast "cast" cannot become integers'):
        ag.quantize(traced(net), samples(4), weights=settled(traced(net), samples(4)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small-adder", {}),
        ("all-adder", {"first": "conv"}),
        ("all-adder", {}),
        ("small-conv", {}),
        ("deck", {}),
        ("lenet5_bn", {"last": "adder"}),
        ("lenet5_bn-conv", {}),
        ("resnet20", {}),
        ("resnet20-conv", {}),
    ],
)
def test_networks_of_the_zoo(name: str, options: dict[str, str]) -> None:
    """The others are made of the same layers. Calibrated by the interpreter: nothing to compile."""
    shape = None if "lenet" in name else (8, 8, 1)
    model = zoo.build(name, shape, **options)  # type: ignore[arg-type]
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape)).astype(np.float32)

    graph = model.graph(training=False)
    made = quantize(
        graph, model.weights, x, QuantizationSettings(requantize="multiply"), Interpreted()
    )
    assert {v.type.dtype for v in made.graph.values()} <= {u8, i8, i32}
    y = interpret(made.graph, made.inputs(x), weights=made.weights)
    assert np.asarray(y).shape == (2, 10)
