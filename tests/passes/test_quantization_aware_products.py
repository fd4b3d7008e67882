"""Networks that multiply, trained with the rounding of their integers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.data import digits
from addergraph.errors import DataError, GraphError
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import interpret
from addergraph.ir.text import parse
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32, i8
from addergraph.model.engines import Native
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.pointwise.fake_quantize import (
    FakeQuantize,
    FakeQuantizeFilter,
    stated,
    trained_bits,
)
from addergraph.passes.quantize.quantize import roundings
from addergraph.passes.quantize.rounded import quantization_aware
from addergraph.quantization import Quantized
from addergraph.training.schedules import cosine
from tests.passes.networks import settled
from tests.passes.test_quantization_aware import compared, values
from tests.passes.test_quantize import bn, samples, traced
from tests.passes.test_quantize_products import NETWORKS, network

pytestmark = [pytest.mark.usefixtures("quick_objects"), pytest.mark.thinned(2)]

DATA = digits.load()


@functools.cache
def aware(name: str, bits: int) -> Graph:
    graph, weights = network(name)
    found = roundings(graph, weights, samples(64), bits, 0.9997, Native(1))
    return quantization_aware(graph, found)


# --- the same arithmetic --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [8, 3])
def test_filters_are_those_of_the_integer_network(name: str, bits: int) -> None:
    """To the byte, also where nobody says the bits again."""
    graph, (_, weights) = aware(name, bits), network(name)
    made = ag.quantize(graph, samples(16), weights=weights, requantize="multiply")
    found, checked = values(graph, weights, samples(1)), 0
    for node in graph.nodes:
        if not isinstance(node.op, FakeQuantizeFilter):
            continue
        f, integers = node.inputs[0].name, made.weights[f"{node.inputs[0].name}.bytes"]
        axes = tuple(range(integers.ndim - 1))
        assert np.abs(integers).max(axes).tolist() == [2 ** (bits - 1) - 1] * integers.shape[-1]
        scale = np.abs(weights[f]).max(axes).astype("f8") / node.op.end
        np.testing.assert_array_equal(found[node.name], (scale * integers).astype(np.float32))
        checked += 1
    assert checked == sum(w.dtype == i8.numpy for w in made.weights.values())
    assert checked == sum(isinstance(n.op, Conv2d | Dense) for n in graph.nodes)


@pytest.mark.parametrize("bits", [8, 3])
def test_layers_have_the_products_of_bytes(bits: int) -> None:
    """Each layer: both scales times the integer sum, whatever the zero point and the padding."""
    graph, (_, weights) = aware("signed", bits), network("signed")
    found = values(graph, weights, samples(3, seed=5)) | dict(weights)
    producers = {v.name: n for n in graph.nodes for v in n.outputs}
    grids: dict[str, FakeQuantize] = {}  # of the result of each node that has one
    checked = 0
    for node in graph.nodes:
        if isinstance(node.op, FakeQuantize):
            grids[node.name] = node.op
        elif not isinstance(node.op, Conv2d | Dense) and node.inputs[0].name in grids:
            grids[node.name] = grids[node.inputs[0].name]  # flatten
        if not isinstance(node.op, Conv2d | Dense):
            continue
        grid, filters = grids[node.inputs[0].name], producers[node.inputs[1].name]
        assert isinstance(filters.op, FakeQuantizeFilter)
        f, x = weights[filters.inputs[0].name], found[node.inputs[0].name]
        scale = np.abs(f).max(tuple(range(f.ndim - 1))).astype("f8") / filters.op.end
        steps = grid.known.quantized(x, 0, grid.top) - grid.zero_point
        (sums,) = node.op.reference(steps.astype("f4"), np.rint(f / scale).astype("f4"))
        bias = found[node.inputs[2].name] if len(node.inputs) > 2 else 0.0
        (most,) = node.op.reference(np.abs(x), np.abs(found[filters.name]))
        bound = 2.0**-23 * (np.abs(bias) + f[..., 0].size * most)
        off = np.abs(found[node.name] - (grid.scale * scale * sums + bias))
        np.testing.assert_array_less(off, bound + 1e-30)
        checked += 1
    assert checked == 3


@pytest.mark.parametrize(("name", "bits"), [("authors", 3), ("signed", 4), ("signed", 3)])
def test_integers_are_what_training_saw(name: str, bits: int) -> None:
    """With exact products: a byte differs by one step at the most, where sums fall near a tie."""
    graph, (plain, weights) = aware(name, bits), network(name)
    made = ag.quantize(graph, samples(64), weights=weights, requantize="multiply")
    assert compared(graph, weights, made) >= 2
    other = ag.quantize(plain, samples(64), weights=weights, requantize="multiply", bits=bits)
    assert made.error < 0.5 * other.error  # against the network without roundings


def test_both_forms_round_alike() -> None:
    def net(x: Tensor) -> Tensor:
        x = ops.relu(bn(layers.Conv(4, 3)(x)))
        return layers.Dense(5)(ops.global_avg_pool(ops.relu(bn(layers.Adder(4, 3)(x)))))

    graph = traced(net)
    weights = settled(graph, samples(16))
    found = roundings(graph, weights, samples(16), 5, 1.0, Native(1))
    training = ag.trace(net, TensorType(f32, (8, 6, 6, 3)), name="net", training=True)
    forms = [quantization_aware(g, found) for g in (graph, training)]
    one, other = (
        [(n.op, [v.name for v in (*n.inputs, *n.outputs)]) for n in g.nodes
         if isinstance(n.op, FakeQuantize | FakeQuantizeFilter)] for g in forms
    )  # fmt: skip
    assert one == other
    assert len(one) == 3 + 4  # filters; the image, two relus, a mean
    assert stated(forms[1]) == found
    assert quantization_aware(forms[0], found) == forms[0] == parse(str(forms[0]))


def test_gradients_are_those_of_the_product_at_rounded_numbers() -> None:
    graph, x = traced(lambda x: layers.Conv(4, 3, padding=1)(x)), samples(4)
    f = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    found = roundings(graph, {"conv1.f": f}, x, 3, 1.0, Native(1))
    rounded = quantization_aware(graph, found)
    x = 1.5 * samples(2, seed=9)
    g = np.random.default_rng(1).normal(size=(2, 6, 6, 4)).astype(np.float32)
    seen = values(rounded, {"conv1.f": f}, x)
    expected = interpret(
        ag.grad(graph, ["x", "conv1.f"]), seen["x.rounded"], g,
        weights={"conv1.f": seen["conv1.f.rounded"]},
    )  # fmt: skip
    made = interpret(ag.grad(rounded, ["x", "conv1.f"]), x, g, weights={"conv1.f": f})
    np.testing.assert_array_equal(made[1], expected[1])
    image = found["x"]
    assert isinstance(image, FakeQuantize)
    low, high = (image.known.values(np.array([end]))[0] for end in (0, image.top))
    inside = (x >= np.float32(low)) & (x <= np.float32(high))
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(made[0], np.where(inside, expected[0], 0))


# --- training -------------------------------------------------------------------------------------


def accuracy(made: Quantized) -> float:
    """On the training images: steadier than the few for testing."""
    program = ag.compile(made.graph, weights=made.weights)
    y: Array = np.asarray(program(made.inputs(DATA.x_train)))
    program.close()
    return float((y.argmax(1) == DATA.y_train).mean())


def stem() -> Model:
    """A convolution first, an adder layer, a dense layer last."""
    model = Model(input_shape=(8, 8, 1), name="stem", seed=0)
    for layer in (
        layers.Conv(8, 3, stride=2, padding=1), layers.BatchNorm(), layers.Activation("relu"),
        layers.Adder(8, 3), layers.BatchNorm(), layers.Activation("relu"),
        layers.Flatten(), layers.Dense(10), layers.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    return model


def fit(model: Model, epochs: int, rate: float) -> Model:
    model.fit(
        DATA.x_train, DATA.y_train, epochs=epochs, batch_size=64, verbose=0,
        learning_rate=cosine(rate, epochs),
    )  # fmt: skip
    return model


@pytest.fixture(scope="module")
def trained() -> Model:
    return fit(stem(), 8, 0.1)


@pytest.fixture(scope="module")
def longer(trained: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """As many epochs as those with the rounding."""
    path = tmp_path_factory.mktemp("stem") / "m.safetensors"
    trained.save(path)
    return fit(Model.load(path), 4, 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "gain"), [(4, 0.0), (2, 0.1)])
def test_training_with_the_rounding_is_no_worse_than_without(
    trained: Model, longer: Model, bits: int, gain: float
) -> None:
    images = DATA.x_train[:128]
    tuned = fit(ag.quantization_aware(trained, images, bits=bits), 4, 0.02)
    with_it = accuracy(ag.quantize(tuned, images, requantize="multiply"))
    without = [
        accuracy(ag.quantize(model, images, bits=bits, requantize="multiply"))
        for model in (trained, longer)
    ]
    assert with_it >= max(without) + gain


# --- files and refusals ---------------------------------------------------------------------------


@pytest.mark.slow
def test_files_keep_the_roundings(trained: Model, tmp_path: Path) -> None:
    made = ag.quantization_aware(trained, DATA.x_train[:64], bits=3)
    made.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.graph(training=True, batch=8) == made.graph(training=True, batch=8)
    np.testing.assert_array_equal(again.predict(DATA.x_test), made.predict(DATA.x_test))
    with pytest.raises(DataError, match="bits=4, but this network was trained for 3 bits"):
        ag.quantize(again, DATA.x_train[:64], bits=4)


def test_one_layer_is_known_by_its_filter() -> None:
    """Its image has 8 bits and its results are no bytes."""
    model = Model(lambda x: layers.Dense(10)(ops.flatten(x)), input_shape=(8, 8, 1))
    made = ag.quantization_aware(model, DATA.x_train[:64], bits=3)
    assert trained_bits(made.graph(training=False)) == (3,)
    integers = ag.quantize(made, DATA.x_train[:64])
    assert [w.max() for w in integers.weights.values() if w.dtype == np.int8] == [3]


def test_a_filter_on_the_grid_of_values_is_refused(trained: Model) -> None:
    model = ag.quantization_aware(trained, DATA.x_train[:64], bits=3)
    text = str(model.graph(training=False))
    graph = parse(
        text.replace("_filter(%conv1.f) bits=3", "(%conv1.f) scale=0.1 zero_point=3 bits=3")
    )
    assert str(graph) != text
    with pytest.raises(GraphError, match="nothing is known of the integers of %conv1.f"):
        ag.quantize(graph, DATA.x_train[:64], weights=model.weights)
