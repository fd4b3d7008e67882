"""Post-training quantization: meaning, bits, refusals, and the digits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler, layers, ops
from addergraph.data import digits
from addergraph.errors import DataError, GraphError, QuantizationWarning, UnsupportedError
from addergraph.ir import Array, Graph, Init
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor, new_parameter
from addergraph.ir.types import Shape, TensorType, f32, i32, u8
from addergraph.model.engines import Native
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.pointwise.requantize import RequantizeShift
from addergraph.passes.quantize import quantize as module
from addergraph.passes.quantize.calibrate import calibrate
from addergraph.quantization import Quantized
from tests.codegen.harness import HERE
from tests.passes.networks import settled

pytestmark = pytest.mark.thinned(2)

IMAGE: Shape = ("N", 6, 6, 3)


def traced(net: Callable[[Tensor], Tensor], image: Shape = IMAGE) -> Graph:
    return ag.trace(net, TensorType(f32, image), name="net")


def bn(x: Tensor) -> Tensor:
    return layers.BatchNorm()(x)


def adder(channels: int, size: int = 3, stride: int = 1, groups: int = 1) -> layers.Adder:
    return layers.Adder(channels, size, stride=stride, padding=size // 2, groups=groups)


def residual(x: Tensor) -> Tensor:
    """Strides, a shortcut with a layer and one without, pools, a sum behind no batch norm."""
    x = ops.relu(bn(adder(8)(x)))
    y = ops.relu(bn(adder(8)(x)))
    x = ops.relu(bn(adder(8, groups=2)(y)) + x)
    x = ops.relu(bn(adder(12, stride=2)(x)) + bn(adder(12, 1, stride=2)(x)))
    x = ops.avg_pool2d(x, 3, stride=1, padding=1)
    x = ops.global_avg_pool(x)
    return bn(layers.AdderDense(5)(x))


def signed(x: Tensor) -> Tensor:
    """Adders on values of both signs, so that zero points are not 0."""
    x = bn(adder(6)(x))
    x = ops.max_pool2d(x, 2)
    x = bn(adder(7)(x))
    return layers.AdderDense(5, bias=True)(ops.flatten(x))


def biased(x: Tensor) -> Tensor:
    """A relu on bytes, biases, a network that ends in bytes."""
    x = layers.Adder(4, 3, bias=True)(x)
    shift = new_parameter(x, "shift", TensorType(f32, (4,)), Init("normal", (30.0, 1.0)))
    x = ops.relu(ops.max_pool2d(bn(x + shift), 2))
    return ops.relu(ops.flatten(x))


NETWORKS = {"residual": residual, "signed": signed, "biased": biased}


def samples(count: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(count, 6, 6, 3)).astype(np.float32)


@functools.cache
def network(name: str) -> tuple[Graph, Mapping[str, Array]]:
    graph = traced(NETWORKS[name])
    return graph, settled(graph, samples(32))


@functools.cache
def quantized(name: str, **options: object) -> tuple[Quantized, Graph, Mapping[str, Array]]:
    (graph, weights), x = network(name), samples(64)
    return ag.quantize(graph, x, weights=weights, **options), graph, weights  # type: ignore[arg-type]


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_say_what_the_network_does(name: str) -> None:
    made, graph, weights = quantized(name, terms=3)
    x = samples(24, seed=2)
    expected = np.asarray(interpret(graph, x, weights=weights))
    program = ag.compile(made.graph, weights=made.weights)
    found = made.outputs(np.asarray(program(made.inputs(x))))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.985
    assert {v.type.dtype for v in made.graph.values()} <= {u8, i32}
    assert made.error == made.errors["shift3"] < 0.2


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("requantize", ["shift", "multiply"])
def test_native_has_the_bits_of_the_reference(name: str, requantize: str) -> None:
    made, _, _ = quantized(name, requantize=requantize)
    x = made.inputs(samples(5, seed=3))
    expected = np.asarray(interpret(made.graph, x, weights=made.weights))
    for number, target in enumerate(HERE[requantize == "multiply" :: 2]):
        program = ag.compile(
            made.graph, weights=made.weights, target=target, threads=1 + number % 2, cache=False
        )
        np.testing.assert_array_equal(program(x), expected, target)
        program.close()


def test_filters_clamp_without_loss() -> None:
    """Numbers that bytes hold exactly, and filters beyond the activations' range: the same sums."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (9, 5, 5, 3)).astype(np.float32) / 16
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 255 / 16, 0
    graph = traced(lambda v: ops.adder2d(v, new_parameter(
        v, "f", TensorType(f32, (3, 3, 3, 4)), Init()), padding=1), ("N", 5, 5, 3))  # fmt: skip
    f = (rng.integers(-300, 600, (3, 3, 3, 4)) / 16).astype(np.float32)
    made = ag.quantize(graph, x, weights={"f": f})
    (expected,) = Adder2d(padding=(1, 1, 1, 1)).reference(x, f)
    y = np.asarray(interpret(made.graph, made.inputs(x), weights=made.weights))
    np.testing.assert_allclose(made.outputs(y), expected, atol=1 / 32)  # the constant is rounded
    (filters,) = [w for name, w in made.weights.items() if w.dtype == np.uint8]
    assert filters.min() == 0 and filters.max() == 255


def test_sums_at_the_output_are_whole_however_wide_the_layer() -> None:
    wide = 70_000  # 255 times as much is beyond 2^24
    graph = traced(lambda v: layers.AdderDense(2)(v), ("N", wide))
    f = np.full((wide, 2), 1.0, np.float32)
    f[: wide // 100, 1] = 0.0
    x = np.zeros((2, wide), np.float32)
    x[1] = 1.0
    made = ag.quantize(graph, x, weights={"adder_dense1.f": f})
    y = np.asarray(interpret(made.graph, made.inputs(x), weights=made.weights))
    expected = interpret(graph, x, weights={"adder_dense1.f": f})
    np.testing.assert_allclose(made.outputs(y), expected, rtol=1e-6)


def test_a_sample_counts_once_in_whichever_chunk_it_comes() -> None:
    """65 samples are a chunk of 64 and one of 1, an image unlike all others."""
    graph, weights = network("residual")
    x = samples(65)
    x[64] = -20.0

    def ranges(data: Array) -> Mapping[str, tuple[float, float]]:
        return calibrate(graph, weights, data, 0.9997, Native(1)).ranges

    before, after = ranges(x[:64]), ranges(x)
    for name, (least, most) in before.items():
        if name != "x":
            change = np.abs(np.subtract(after[name], (least, most))).max()
            assert change < most - least, name  # half of its ends would be 9 times that


@pytest.mark.parametrize("bits", [6, 2])
def test_bits(bits: int) -> None:
    made, _, _ = quantized("residual", bits=bits, terms=2)
    made_by = [n.op for n in made.graph.nodes if isinstance(n.op, RequantizeShift)]
    assert {op.hi for op in made_by if op.dtype == u8} == {2**bits - 1}
    others = [w for w in made.weights.values() if w.dtype == np.uint8][1:]  # behind the image
    assert max(w.max() for w in others) <= 2**bits - 1


@pytest.mark.parametrize("bits", [8, 2])
def test_terms_are_the_fewest_that_serve(bits: int) -> None:
    made, _, _ = quantized("residual", bits=bits)
    errors = {f"shift{k}": quantized("residual", bits=bits, terms=k)[0].error for k in (1, 2, 3)}
    assert errors["shift1"] > errors["shift3"]
    multiply = made.errors["multiply"]
    fits = [k for k, error in errors.items() if error <= 1.05 * multiply]
    assert made.chosen == min(fits, default="shift3")
    tried = {k: error for k, error in errors.items() if k <= made.chosen}
    assert made.errors == {**tried, "multiply": multiply}  # no more than were needed


def test_some_of_many_samples_choose_the_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    (graph, weights), x = network("residual"), samples(64)
    monkeypatch.setattr(module, "SEARCHED", 20)
    made = ag.quantize(graph, x, weights=weights)
    whole = ag.quantize(graph, x, weights=weights, terms=int(made.chosen[-1]))
    assert made.graph == whole.graph and made.error == whole.error
    assert all((made.weights[name] == w).all() for name, w in whole.weights.items())
    of_all = ag.quantize(graph, x, weights=weights, requantize="multiply").error
    assert made.errors["multiply"] == pytest.approx(of_all, rel=0.5)
    assert made.errors["multiply"] != of_all


def test_statistics_are_moved() -> None:
    kept, _, _ = quantized("residual", bits=4, terms=3, reestimate=False)
    moved, _, _ = quantized("residual", bits=4, terms=3)
    assert moved.error < kept.error


def test_means_and_deviations_stay() -> None:
    """On the calibration data, channel by channel, however few the bits."""
    graph, x = traced(lambda v: bn(adder(6)(ops.relu(bn(adder(8)(v)))))), samples(64)
    weights = settled(graph, x)
    made = ag.quantize(graph, x, weights=weights, bits=2, requantize="multiply")
    program = ag.compile(made.graph, weights=made.weights)
    found = made.outputs(np.asarray(program(made.inputs(x)))).reshape(-1, 6)
    expected = np.asarray(interpret(graph, x, weights=weights)).reshape(-1, 6)
    spread = expected.std(0)
    np.testing.assert_array_less(np.abs(found.mean(0) - expected.mean(0)), 0.01 * spread)
    np.testing.assert_array_less(np.abs(found.std(0) - spread), 0.02 * spread)


def test_a_softmax_at_the_end_is_left_out() -> None:
    def net(x: Tensor) -> Tensor:
        return ops.softmax(layers.AdderDense(5)(ops.flatten(x)))

    graph, x = traced(net), samples(8)
    made = ag.quantize(graph, x, weights=settled(graph, x))
    names = [n.op.name for n in made.graph.nodes if n.op.name != "full"]
    assert names == ["flatten", "adder_dense", "requantize_shift"]


def test_a_dead_layer_is_no_error() -> None:
    """relu of an adder without batch norm: all zero, on any scale."""
    graph, x = traced(lambda v: adder(4)(ops.relu(adder(4)(v)))), samples(8)
    made = ag.quantize(graph, x, weights=settled(graph, x))
    expected = np.asarray(interpret(graph, x, weights=settled(graph, x)))
    y = interpret(made.graph, made.inputs(x), weights=made.weights)
    np.testing.assert_allclose(made.outputs(np.asarray(y)), expected, rtol=0.05)


def test_a_number_of_the_network_is_no_dead_layer() -> None:
    def net(x: Tensor) -> Tensor:
        y = ops.maximum(layers.Adder(4, 3)(x), 0.0)  # a distance is below
        return layers.Dense(3)(layers.Flatten()(y))

    with pytest.warns(QuantizationWarning, match='maximum "maximum" is the first'):
        ag.quantize(Model(net, input_shape=(6, 6, 3)), samples(8))


@pytest.mark.parametrize("offset", [0.0, 1e-20])
def test_a_dead_network_is_told_where_it_died(offset: float) -> None:
    """Behind a constant of 1e-20 sums fit no i32, of which the width of the layer was blamed."""
    graph, x = traced(lambda v: adder(4)(ops.relu(adder(4)(v)) + offset)), samples(8)
    weights = settled(graph, x)
    died = 'outputs are the same for every calibration sample: relu "relu" is the first'
    warned = pytest.warns(QuantizationWarning, match=died)
    with pytest.raises(DataError, match=died) if offset else warned:
        ag.quantize(graph, x, weights=weights)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((8, 6, 6, 3)), "all zero"),
        (np.ones((0, 6, 6, 3)), "are empty"),
        (np.ones((8, 6, 5, 3)), r"shape \[8, 6, 5, 3\] of float64, expected .* \[N,6,6,3\]"),
        (np.ones(()), r"shape \[\]"),
        (np.full((8, 6, 6, 3), np.nan), "hold NaN"),
        ("images", "real numbers"),
        (None, "real numbers"),
        ([[1.0], [2.0, 3.0]], "real numbers"),
    ],
)
def test_calibration_data(data: object, message: str) -> None:
    graph = traced(signed)
    with pytest.raises(DataError, match=message):
        ag.quantize(graph, data, weights=settled(graph, samples(4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits=9 must be an integer from 2 to 8"),
        ({"bits": 1}, "bits=1"),
        ({"bits": 6.0}, "bits=6.0"),
        ({"bits": True}, "bits=True"),
        ({"requantize": "shifts"}, r"'shifts' \(did you mean \"shift\"\?\)"),
        ({"terms": 4}, "terms=4 must be an integer from 1 to 3"),
        ({"quantile": 0.3}, "quantile=0.3"),
        ({"quantile": float("nan")}, "quantile=nan"),
    ],
)
def test_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        quantized("signed", **options)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: ops.flatten(ops.softmax(x)), 'softmax "softmax" .* an argmax is left out'),
        (lambda x: ops.exp(x), r'exp "exp" cannot become integers; quantize knows add, '),
        (lambda x: x + ops.max_pool2d(x, 6), r'add "add" reads .* equal types'),
        (lambda x: ops.adder2d(x, ops.abs(new_parameter(
            x, "f", TensorType(f32, (1, 1, 3, 2)), Init()))), r'abs "abs"'),
    ],
)  # fmt: skip
def test_ops_without_an_integer_form(net: Callable[[Tensor], Tensor], message: str) -> None:
    graph, x = traced(net), samples(4)
    with pytest.raises(UnsupportedError, match=message):
        ag.quantize(graph, x, weights=settled(graph, x))


def test_what_is_no_network() -> None:
    with pytest.raises(UnsupportedError, match="has 2 inputs, %a, %b: quantize takes one"):
        ag.quantize(ag.trace(lambda a, b: a + b, *[TensorType(f32, IMAGE)] * 2), samples(2))
    with pytest.raises(GraphError, match=r"f32 samples with an open batch"):
        ag.quantize(traced(signed).bind(2), samples(2), weights=settled(traced(signed), samples(2)))
    with pytest.raises(GraphError, match=r"input %x is f32\[N\]: .* and channels"):
        ag.quantize(traced(ops.relu, ("N",)), np.ones(3))
    with pytest.raises(DataError, match="pass their numbers"):
        ag.quantize(traced(signed), samples(2))


# --- the digits -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "points"),
    [
        ({}, 0.6),
        ({"requantize": "multiply"}, 0.3),
        pytest.param({"bits": 6}, 0.9, marks=pytest.mark.fuzz),
        ({"bits": 4}, 2.0),
    ],
)
def test_digits_keep_their_accuracy(
    digits_of_adders: Model, options: dict[str, object], points: float
) -> None:
    data = digits.load()
    made = ag.quantize(digits_of_adders, data.x_train[:128], **options)  # type: ignore[arg-type]
    strict = "requantize" not in options
    program = ag.compile(made.graph, weights=made.weights, multiplication_free=strict)
    x = made.inputs(data.x_test)
    found = float((np.asarray(program(x)).argmax(1) == data.y_test).mean())
    expected = digits_of_adders.evaluate(data.x_test, data.y_test)["accuracy"]
    assert expected > 0.95
    assert 100 * (expected - found) <= points
    few = interpret(made.graph, x[:3], weights=made.weights)
    np.testing.assert_array_equal(program(x[:3]), few)
    assert compiler.census(made.graph).multiplication_free == strict
