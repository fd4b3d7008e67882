"""Networks that train with the rounding of their integers: arithmetic, training, refusals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.data import digits
from addergraph.diagnostics.diagnosis import diagnose
from addergraph.diagnostics.gradients import Recording
from addergraph.errors import DataError, GraphError, StorageError, UnsupportedError
from addergraph.ir import Array, Graph, Init
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor, new_parameter, trace
from addergraph.ir.types import TensorType, f32, u8
from addergraph.model.engines import Native
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.pointwise.fake_quantize import FakeQuantize, stated
from addergraph.ops.pointwise.requantize import RequantizeShift
from addergraph.passes.quantize.quantize import roundings
from addergraph.passes.quantize.rounded import quantization_aware, without_roundings
from addergraph.quantization import Quantized
from addergraph.report.lints import lint
from tests.passes.networks import settled
from tests.passes.test_quantize import NETWORKS, bn, network, samples, traced

pytestmark = [pytest.mark.usefixtures("quick_objects"), pytest.mark.thinned(2)]

DATA = digits.load()


@functools.cache
def aware(name: str, bits: int) -> Graph:
    graph, weights = network(name)
    found = roundings(graph, weights, samples(64), bits, 0.9997, Native(1))
    return quantization_aware(graph, found)


def values(graph: Graph, weights: object, x: Array) -> dict[str, Array]:
    """Every computed value of `graph`, by name."""
    computed = tuple(v for node in graph.nodes for v in node.outputs)
    whole = Graph(graph.name, graph.inputs, graph.parameters, graph.nodes, computed)
    found = interpret(whole, x, weights=weights)  # type: ignore[arg-type]
    return {v.name: np.asarray(a) for v, a in zip(computed, found, strict=True)}


# --- the same arithmetic --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_filters_are_those_of_the_integer_network(name: str) -> None:
    """To the byte; and the scales are the ones that training saw."""
    graph, (_, weights) = aware(name, 4), network(name)
    made = ag.quantize(graph, samples(16), weights=weights, requantize="multiply")
    filters = 0
    for node in graph.nodes:
        if isinstance(node.op, FakeQuantize) and not node.op.saturate:
            f = weights[node.inputs[0].name]
            expected = node.op.known.quantized(f, 0, node.op.top)
            np.testing.assert_array_equal(made.weights[f"{node.inputs[0].name}.bytes"], expected)
            filters += 1
    assert filters == sum(isinstance(n.op, Adder2d | AdderDense) for n in graph.nodes)
    by_name = {v.name: n.op for n in made.graph.nodes for v in n.outputs}
    for value, op in stated(graph).items():
        if f"{value}.bytes" in by_name:
            assert isinstance(op, FakeQuantize)
            assert by_name[f"{value}.bytes"].scale == op.scale  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "bits"), [("residual", 3), ("signed", 8), ("biased", 3)])
def test_layers_have_the_distances_of_bytes(name: str, bits: int) -> None:
    """Each adder layer: scale times the integer distance, and what clamping took off."""
    graph, (_, weights) = aware(name, bits), network(name)
    found = values(graph, weights, samples(3, seed=5)) | dict(weights)
    producers = {v.name: n for n in graph.nodes for v in n.outputs}
    checked = 0
    for node in graph.nodes:
        if not isinstance(node.op, Adder2d | AdderDense):
            continue
        grid = producers[node.inputs[1].name].op
        assert isinstance(grid, FakeQuantize)
        f = weights[producers[node.inputs[1].name].inputs[0].name].astype("f8")
        x, known = found[node.inputs[0].name], grid.known
        taps, steps = known.quantized(f, 0, grid.top), known.quantized(x, 0, grid.top)
        np.testing.assert_array_equal(known.values(steps).astype("f4"), x)
        centered = [(a - known.zero_point).astype("f4") for a in (steps, taps)]
        (sums,) = node.op.reference(*centered)  # of whole numbers: exact
        low, high = known.values(np.array([0, grid.top]))
        beyond = np.abs(f - np.clip(f, low, high)).sum(tuple(range(f.ndim - 1)))
        bias = found[node.inputs[2].name] if len(node.inputs) > 2 else 0.0
        expected = known.scale * sums - beyond + bias
        terms = int(np.prod(f.shape[:-1]))
        bound = 2.0**-23 * (np.abs(expected) + terms * (np.abs(f).max() + np.abs(x).max()))
        np.testing.assert_array_less(np.abs(found[node.name] - expected), bound)
        checked += 1
    assert checked >= 1


@pytest.mark.parametrize(("name", "bits"), [("residual", 3), ("signed", 8), ("biased", 4)])
def test_integers_are_what_training_saw(name: str, bits: int) -> None:
    """With exact products: a byte differs by one step at the most, where sums fall near a tie."""
    graph, (plain, weights) = aware(name, bits), network(name)
    made = ag.quantize(graph, samples(64), weights=weights, requantize="multiply")
    assert compared(graph, weights, made) >= 2
    other = ag.quantize(plain, samples(64), weights=weights, requantize="multiply", bits=bits)
    assert made.error < 0.5 * other.error  # against the network without roundings


def compared(graph: Graph, weights: Mapping[str, Array], made: Quantized, steps: int = 1) -> int:
    """How many values of an integer network are those of its f32 form, but for steps at ties."""
    x = samples(9, seed=2)
    seen = values(graph, weights, x)
    found = values(made.graph, made.weights, made.inputs(x))
    count = 0
    for value, op in stated(graph).items():
        integers = found.get(f"{value}.bytes", found.get(value))
        if integers is None or integers.dtype != np.uint8:
            continue  # the image, and means, which become bytes under the next layer's name
        assert isinstance(op, FakeQuantize)
        expected = op.known.quantized(seen[f"{value}.rounded"], 0, op.top)
        off = np.abs(integers.astype("i8") - expected)
        assert off.max() <= steps and (off > 0).mean() < 0.05, value
        count += 1
    return count


def test_both_forms_round_alike() -> None:
    def net(x: Tensor) -> Tensor:
        x = ops.relu(bn(layers.Adder(4, 3)(x)))
        y = ops.relu(bn(layers.Adder(4, 3, padding=1)(x)))
        return bn(layers.AdderDense(5)(ops.flatten(ops.avg_pool2d(y + x, 2))))

    graph = traced(net)
    weights = settled(graph, samples(16))
    found = roundings(graph, weights, samples(16), 5, 1.0, Native(1))
    training = trace(net, TensorType(f32, (8, 6, 6, 3)), name="net", training=True)
    forms = [quantization_aware(g, found) for g in (graph, training)]
    one, other = (
        [(n.op, [v.name for v in (*n.inputs, *n.outputs)]) for n in g.nodes
         if isinstance(n.op, FakeQuantize)] for g in forms
    )  # fmt: skip
    assert one == other
    assert len(one) == 3 + 5  # filters; the image, two relus, a sum that is pooled, its mean
    assert without_roundings(forms[1])[0] == training
    assert quantization_aware(forms[0], found) == forms[0]


def test_gradients_are_the_papers_at_rounded_numbers() -> None:
    def net(x: Tensor) -> Tensor:
        return layers.Adder(4, 3, padding=1)(x)

    graph, x = traced(net), samples(4)
    f = np.random.default_rng(0).normal(scale=2, size=(3, 3, 3, 4)).astype(np.float32)
    found = roundings(graph, {"adder1.f": f}, x, 3, 1.0, Native(1))
    rounded = quantization_aware(graph, found)
    x = 1.5 * samples(2, seed=9)
    g = np.random.default_rng(1).normal(size=(2, 6, 6, 4)).astype(np.float32)
    seen = values(rounded, {"adder1.f": f}, x)
    expected = interpret(
        ag.grad(graph, ["x", "adder1.f"]), seen["x.rounded"], g,
        weights={"adder1.f": seen["adder1.f.rounded"]},
    )  # fmt: skip
    made = interpret(ag.grad(rounded, ["x", "adder1.f"]), x, g, weights={"adder1.f": f})
    np.testing.assert_array_equal(made[1], expected[1])  # also of filters beyond the range
    op = found["x"]
    assert isinstance(op, FakeQuantize)
    low, high = (op.known.values(np.array([end]))[0] for end in (0, op.top))
    inside = (x >= np.float32(low)) & (x <= np.float32(high))
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(made[0], np.where(inside, expected[0], 0))


# --- training -------------------------------------------------------------------------------------


def tiny(seed: int = 0) -> Model:
    model = Model(input_shape=(8, 8, 1), name="tiny", seed=seed)
    for layer in (
        layers.Adder(8, 3, stride=2), layers.BatchNorm(), layers.Activation("relu"),
        layers.Flatten(), layers.AdderDense(10), layers.BatchNorm(), layers.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    return model


@pytest.fixture(scope="module")
def trained() -> Model:
    model = tiny()
    model.fit(DATA.x_train, DATA.y_train, epochs=6, batch_size=64, verbose=0)
    return model


def tuned(model: Model, threads: int = 1, epochs: int = 4, images: int = 1437) -> Model:
    made = ag.quantization_aware(model, DATA.x_train[:128], bits=2)
    made.fit(
        DATA.x_train[:images], DATA.y_train[:images], epochs=epochs, batch_size=64,
        learning_rate=0.02, verbose=0, threads=threads,
    )  # fmt: skip
    return made


@pytest.mark.slow
def test_training_recovers_what_two_bits_lose(trained: Model) -> None:
    before = {name: array.copy() for name, array in trained.weights.items()}
    after = tuned(trained)
    assert all(np.array_equal(before[n], a) for n, a in trained.weights.items())  # a copy
    images, labels = DATA.x_train, DATA.y_train  # losses are steadier than test accuracies
    found = {}
    for name, model in (("without", trained), ("with", after)):
        made = ag.quantize(model, images[:128], bits=2, requantize="multiply")
        y = made.outputs(np.asarray(ag.compile(made.graph, weights=made.weights)(
            made.inputs(images))))  # fmt: skip
        found[name] = float((y.argmax(1) == labels).mean())
    assert found["with"] > found["without"] + 0.02
    strict = ag.quantize(after, images[:128])
    steps = [n.op for n in strict.graph.nodes if isinstance(n.op, RequantizeShift)]
    assert {op.hi for op in steps if op.dtype == u8} == {3}
    ag.compile(strict.graph, weights=strict.weights, multiplication_free=True)


@pytest.mark.slow
def test_bits_do_not_depend_on_threads(trained: Model) -> None:
    one, *others = (tuned(trained, threads, epochs=1, images=192) for threads in (1, 2, 3))
    for other in others:
        assert all(np.array_equal(one.weights[n], a) for n, a in other.weights.items())


def test_files_keep_the_roundings(trained: Model, tmp_path: Path) -> None:
    made = tuned(trained, epochs=1, images=128)
    made.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.graph(training=False) == made.graph(training=False)
    assert again.graph(training=True, batch=8) == made.graph(training=True, batch=8)
    images = DATA.x_test[:20]
    np.testing.assert_array_equal(again.predict(images), made.predict(images))
    other = ag.quantization_aware(again, DATA.x_train[:64], bits=5)  # instead of the 2 bits
    assert {op.bits for name, op in stated(other.graph(training=False)).items()} == {5, 8}
    with pytest.raises(DataError, match="bits=4, but this network was trained for 2 bits"):
        ag.quantize(made, DATA.x_train[:64], bits=4)
    function = Model(lambda x: layers.AdderDense(10)(ops.flatten(x)), input_shape=(8, 8, 1))
    whole = ag.quantization_aware(function, DATA.x_train[:64], bits=3)
    whole.save(tmp_path / "f.safetensors")
    loaded = Model.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(loaded.predict(images), whole.predict(images))


def test_findings_are_those_of_the_network_without(trained: Model) -> None:
    made = ag.quantization_aware(trained, DATA.x_train[:64], bits=8)
    assert {*lint(made.graph(training=False))} <= {*lint(trained.graph(training=False))}
    once = Recording(steps=1, every=1, batch=32)
    found = diagnose(made, DATA.x_train[:64], DATA.y_train[:64], once)
    assert found.kinds["adder1.f"] == "adder2d"
    assert "adder_dense1.f" in found.text()


def test_a_file_that_rounds_elsewhere_is_refused(trained: Model, tmp_path: Path) -> None:
    from addergraph.files import storage
    from addergraph.model.file import metadata_of

    made = ag.quantization_aware(trained, DATA.x_train[:64])
    found = metadata_of(made)
    found["graph"] = found["graph"].replace("zero_point=0", "").replace("saturate=false", "")
    storage.save(tmp_path / "m.safetensors", made.weights, found)
    with pytest.raises(StorageError, match="do not build the stored graph"):
        Model.load(tmp_path / "m.safetensors")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_bits_out_of_range(trained: Model, bits: object) -> None:
    with pytest.raises(DataError, match=f"bits={bits} must be an integer from 2 to 8"):
        ag.quantization_aware(trained, DATA.x_train[:8], bits=bits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (DATA.x_train[:0], "are empty"),
        (np.zeros((4, 8, 8, 1)), "all zero"),
        (np.ones((4, 8, 7, 1)), r"expected samples of real numbers \[N,8,8,1\]"),
        (None, "real numbers"),
    ],
)
def test_calibration_data(trained: Model, x: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ag.quantization_aware(trained, x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: ops.exp(x),
         'exp "exp" cannot be trained for integers; quantization_aware knows add, adder2d,'),
        (lambda x: layers.AdderDense(3)(ops.softmax(ops.flatten(x))), "not the network's answer"),
        (lambda x: ops.adder_dense(ops.flatten(x), ops.abs(new_parameter(
            x, "f", TensorType(f32, (3, 2)), Init()))), "an activation, then parameters"),
        (lambda x: ops.dense(ops.flatten(x), new_parameter(x, "f", TensorType(f32, (3, 2)), Init()),
         ops.abs(new_parameter(x, "b", TensorType(f32, (2,)), Init()))),
         r'dense "dense" reads %flatten, %f, %abs: .* an activation, then parameters'),
        (lambda x: x + ops.conv2d(new_parameter(x, "c", TensorType(f32, (1, 1, 1, 3)), Init()),
         new_parameter(x, "f", TensorType(f32, (1, 1, 3, 3)), Init())), 'conv2d "conv2d" reads %c'),
    ],
)  # fmt: skip
def test_ops_that_cannot_round(net: Callable[[Tensor], Tensor], message: str) -> None:
    model = Model(net, input_shape=(1, 1, 3))
    with pytest.raises((UnsupportedError, GraphError), match=message):
        ag.quantization_aware(model, np.ones((3, 1, 1, 3)))


def test_what_is_no_model_or_another_one(trained: Model) -> None:
    with pytest.raises(GraphError, match="expected a model, found Graph"):
        ag.quantization_aware(trained.graph(training=False), DATA.x_train[:8])  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="nothing is known of the integers of %x"):
        quantization_aware(trained.graph(training=False), {})
    graph = ag.trace(
        lambda x: ops.fake_quantize(ops.relu(ops.fake_quantize(x, 0.1)), 0.1, bits=4),
        TensorType(f32, ("N", 3)),
    )
    with pytest.raises(GraphError, match="let ag.quantization_aware place them"):
        ag.quantize(graph, np.ones((3, 3)))
