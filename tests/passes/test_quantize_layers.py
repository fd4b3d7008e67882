"""Quantization of what stands between layers: activations, borders, joins, dropout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Graph, Init, walk
from addergraph.ir.interpreter import interpret, run_reference
from addergraph.ir.trace import Tensor, new_parameter, trace
from addergraph.ir.types import TensorType, f32, i8, i32, u8
from addergraph.model.engines import Interpreted
from addergraph.passes.quantize import integers
from addergraph.passes.quantize.quantize import quantize, roundings
from addergraph.passes.quantize.rounded import quantization_aware
from addergraph.quantization import MULTIPLY, QuantizationSettings, Quantized
from tests.passes.networks import settled
from tests.passes.test_quantization_aware import compared
from tests.passes.test_quantize import adder, bn, samples, traced
from tests.test_random_integers import STRICT

pytestmark = pytest.mark.usefixtures("quick_objects")


def between(middle: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An adder layer with batch norm on either side."""
    return lambda x: bn(adder(4)(middle(bn(adder(8)(x)))))


def joined(x: Tensor) -> Tensor:
    """Sums, bytes of a relu, and the image, each of a grid of its own; then along rows."""
    y = layers.Concatenate()(x, bn(adder(8)(x)), ops.relu(bn(adder(3)(x))))
    z = layers.Concatenate(axis=1)(y, ops.relu(bn(adder(14)(y))))
    return bn(adder(4)(z))


def larger_of_two(x: Tensor) -> Tensor:
    return bn(adder(4)(ops.maximum(bn(adder(8)(x)), ops.relu(bn(adder(8)(x))))))


def upwards(x: Tensor) -> Tensor:
    """A border, of numbers on both sides of 0, and larger images."""
    y = layers.ZeroPadding((0, 1, 1, 0))(ops.max_pool2d(bn(adder(8)(x)), 2))
    y = layers.UpSampling((2, 1))(y)
    return bn(adder(4)(ops.minimum(y, 1.0) + 0.5))


def sequences(x: Tensor) -> Tensor:
    """Layers of sequences, whose sums are regrouped before their batch norm; a shortcut."""
    x = layers.Reshape([12, 9])(x)
    y = ops.relu(bn(layers.Adder1d(8, 3, padding=1)(x)))
    y = ops.relu(layers.Reshape([4, 3, 8])(bn(layers.Adder1d(8, 1)(y)) + y))
    return bn(layers.AdderDense(4)(layers.Reshape([96])(bn(adder(8)(y)))))


def center(channels: int, size: int = 3, bias: bool = False) -> layers.Adder:
    return layers.Adder(channels, size, padding=size // 2, bias=bias, center=True)


def centered(x: Tensor) -> Tensor:
    """A shortcut, a bias, and numbers of channels that are no powers of two."""
    y = ops.relu(bn(center(10)(x)))
    y = ops.relu(bn(center(10, bias=True)(y)) + y)
    return bn(adder(4)(ops.relu(bn(center(48)(y)))))


def centered_sequences(x: Tensor) -> Tensor:
    """Centered sums that are regrouped, and some that are the answer: no batch norm hides M."""
    y = layers.Adder1d(7, 3, padding=1, center=True)(layers.Reshape([12, 9])(x))
    return center(5)(ops.relu(bn(layers.Reshape([4, 3, 7])(y))))


NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "centered": centered,
    "centered sequences": centered_sequences,
    "relu6": between(lambda x: ops.relu6(4.0 + x)),
    "leaky": between(lambda x: ops.leaky_relu(x, 0.2)),
    "steep": between(lambda x: ops.leaky_relu(x, 2.0)),
    "clip": between(lambda x: ops.clip(x, -1.0, 0.5)),
    "above zero": between(lambda x: ops.clip(x, 0.25, 2.0)),
    "numbers": between(lambda x: ops.minimum(1.0, ops.maximum(x, -0.5))),
    "sigmoid": between(lambda x: ops.sigmoid(ops.clip(x, -1, 1))),
    "tanh": lambda x: ops.tanh(bn(layers.AdderDense(3)(ops.flatten(ops.tanh(bn(adder(8)(x))))))),
    "joined": joined,
    "larger of two": larger_of_two,
    "upwards": upwards,
    "sequences": sequences,
}


@functools.cache
def network(name: str) -> tuple[Graph, Mapping[str, Array]]:
    graph = traced(NETWORKS[name])
    return graph, settled(graph, samples(24))


@functools.cache
def quantized(name: str, bits: int = 8, requantize: str = "shift") -> Quantized:
    (graph, weights), terms = network(name), None if requantize == MULTIPLY else 3
    settings = QuantizationSettings(bits=bits, requantize=requantize, terms=terms)
    return quantize(graph, weights, samples(24), settings, Interpreted())


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_say_what_the_network_does(name: str) -> None:
    (graph, weights), made = network(name), quantized(name)
    x = samples(12, seed=2)
    expected = np.asarray(interpret(graph, x, weights=weights))
    found = made.outputs(np.asarray(interpret(made.graph, made.inputs(x), weights=made.weights)))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert made.error < 0.05
    assert {v.type.dtype for v in made.graph.values()} <= {u8, i8, i32}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", NETWORKS)
def test_native_has_the_bits_of_the_reference_and_no_multiplication(name: str) -> None:
    """Levels take turns here; random networks of all of them run on every one."""
    number = list(NETWORKS).index(name)
    made = quantized(name, (8, 5)[number % 2])
    x = made.inputs(samples(5, seed=3))
    expected = np.asarray(interpret(made.graph, x, weights=made.weights))
    program = ag.compile(
        made.graph, weights=made.weights, target=STRICT[number % len(STRICT)],
        threads=1 + number % 2, cache=False, multiplication_free=True,
    )  # fmt: skip
    np.testing.assert_array_equal(program(x), expected)
    program.close()


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_what_training_saw(name: str) -> None:
    """With exact products: a byte differs by one step at the most, where sums fall near a tie."""
    (graph, weights), x = network(name), samples(24)
    found = roundings(graph, weights, x, 5, 0.9997, Interpreted())
    rounded = quantization_aware(graph, found)
    made = quantize(rounded, weights, x, QuantizationSettings(requantize=MULTIPLY), Interpreted())
    steps = 3 if name == "tanh" else 1  # of a byte before it that is off by one
    assert compared(rounded, weights, made, steps) >= 1
    training = trace(NETWORKS[name], TensorType(f32, (8, 6, 6, 3)), name="net", training=True)
    one, other = (
        [(str(n.op), [v.name for v in (*n.inputs, *n.outputs)]) for n in g.nodes
         if n.op.name.startswith("fake_quantize")]
        for g in (rounded, quantization_aware(training, found))
    )  # fmt: skip
    assert one == other


# --- centered layers ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the float outputs are the same")  # of one channel: 0
@pytest.mark.parametrize("requantize", ["shift", MULTIPLY])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 10, 48, 64])
def test_a_mean_is_within_one_of_the_channels(channels: int, requantize: str) -> None:
    """Beside M, a number for all samples; of a power of two to the bit, rounded to nearest. Of 3
    bits there are 6 bits more for it, of 8 some 4."""
    for bits in (3, 8):
        check_mean(channels, QuantizationSettings(bits=bits, requantize=requantize, terms=1))


def check_mean(channels: int, settings: QuantizationSettings) -> None:
    graph, x = traced(lambda x: center(channels)(ops.relu(x))), samples(24)
    f = np.random.default_rng(0).normal(size=(3, 3, 3, channels)).astype(np.float32)
    made = quantize(graph, {"adder1.f": f}, x, settings, Interpreted())
    names = ("adder1", "adder1.fine", "adder1_mean")
    shown = [n.outputs[0] for n in made.graph.nodes if n.name in names]
    images = made.inputs(samples(64, seed=3) * 1.5)
    (q, fine, m), _ = run_reference(walk.returning(made.graph, shown), [images], made.weights)
    steps = 64 if settings.bits == 3 else 32
    np.testing.assert_array_equal(fine, steps * q)
    off = fine.mean(-1, keepdims=True) - m
    middle = round(float(off.mean()) / steps) * steps
    assert middle < -steps and np.ptp(m) > 10 * steps
    assert (np.abs(off - middle) <= 1 + np.abs(m) / 2**12).all()
    if channels & (channels - 1) == 0:
        whole = (fine - middle).sum(-1, keepdims=True)
        np.testing.assert_array_equal(m, (whole + channels // 2) // channels)


def test_a_center_is_of_sums_whatever_others_read() -> None:
    """A layer, and its mean, that become bytes on the way."""

    def net(x: Tensor) -> Tensor:
        y = adder(6)(x)
        mean = ops.reduce_mean(y, (3,), keepdims=True)
        others = bn(adder(6)(y)) + bn(adder(6)(mean))
        return bn(adder(4)(ops.relu(bn(y - mean) + others)))

    graph, x = traced(net), samples(24)
    weights = settled(graph, x)
    found = roundings(graph, weights, x, 8, 0.9997, Interpreted())
    assert {"adder1", "reduce_mean"} <= found.keys()
    for one in (graph, quantization_aware(graph, found)):
        made = quantize(one, weights, x, QuantizationSettings(terms=3), Interpreted())
        assert made.error < 0.03


@pytest.mark.filterwarnings("ignore:the float outputs are the same")
def test_channels_beyond_i32_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ends that the bytes of the filter prove, before anything wraps: of an i32 that holds
    less than 48 channels of 27 taps can sum up to."""
    graph, x = traced(center(48)), samples(4)
    f = np.full((3, 3, 3, 48), 9, np.float32)  # the largest byte everywhere
    monkeypatch.setattr(integers, "LIMIT", 2 * 48 * 27 * 255 - 1)
    settings = QuantizationSettings(terms=1)
    message = r'"adder1_mean": the sum of the 48 channels, from -330480 to 0, may leave i32; take'
    with pytest.raises(UnsupportedError, match=message):
        quantize(graph, {"adder1.f": f}, x, settings, Interpreted())
    monkeypatch.setattr(integers, "LIMIT", 2 * 48 * 27 * 255)
    quantize(graph, {"adder1.f": f}, x, settings, Interpreted())


@pytest.mark.parametrize("ask", [ag.quantize, ag.quantization_aware])
@pytest.mark.parametrize(
    "net",
    [
        lambda x: x - ops.reduce_mean(x, (0,), keepdims=True),
        lambda x: x - ops.reduce_mean(x, (3,), keepdims=True),
        lambda x: (y := adder(4)(x)) - ops.reduce_mean(y, (1, 2), keepdims=True),
        lambda x: (y := adder(4)(x)) - ops.reduce_mean(adder(4)(x), (3,), keepdims=True) + y,
        lambda x: (y := layers.Conv(4, 3)(x)) - ops.reduce_mean(y, (3,), keepdims=True),
        lambda x: adder(4)(x) - adder(4)(x),
        lambda x: adder(4)(x) - 1.0,
    ],
)
def test_other_means_and_differences_are_refused(
    ask: Callable[..., object], net: Callable[[Tensor], Tensor]
) -> None:
    model = Model(lambda x: layers.Dense(3)(ops.flatten(net(x))), input_shape=(6, 6, 3))
    with pytest.raises(
        UnsupportedError, match=r"integers know reduce_mean and sub where .* as layers"
    ):
        ask(model, samples(4))


# --- one op at a time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "least", "most"),
    [
        (lambda x: ops.leaky_relu(x, 0.25), -0.5, 2.0),
        (lambda x: ops.leaky_relu(x, 0.0), 0.0, 2.0),
        (lambda x: ops.clip(x, 0.5, 1.5), 0.5, 1.5),
        (lambda x: ops.clip(x, -9.0, -0.5), -2.0, -0.5),
        (lambda x: ops.minimum(x, -0.5), -2.0, -0.5),
        (lambda x: ops.relu6(3.0 + x), 1.0, 5.0),
        (ops.sigmoid, 0.119, 0.881),
        (ops.tanh, -0.964, 0.964),
    ],
)
def test_each_byte_is_the_nearest_to_its_number(
    function: Callable[[Tensor], Tensor], least: float, most: float
) -> None:
    """Of the bytes of the image, all of which occur: one step off at the most, and seldom."""
    x = np.linspace(-2, 2, 256).astype(np.float32).reshape(1, 16, 16, 1)
    graph = traced(function, ("N", 16, 16, 1))
    whole = QuantizationSettings(requantize=MULTIPLY, quantile=1)
    made = quantize(graph, {}, x, whole, Interpreted())
    integers = made.inputs(x)
    (y,), _ = run_reference(made.graph, [integers], made.weights)
    real = made.outputs(np.asarray(y))
    known = made.graph.inputs[0].type.quantization
    assert known is not None and y.dtype == np.uint8
    (expected,), _ = run_reference(graph, [known.values(integers).astype(np.float32)], {})
    step = (max(most, 0.0) - min(least, 0.0)) / 255
    assert np.abs(real - np.clip(expected, least, most)).max() <= 0.51 * step
    np.testing.assert_allclose([real.min(), real.max()], [least, most], atol=step)


def test_bytes_that_are_within_the_limits_stay() -> None:
    def net(x: Tensor) -> Tensor:
        y = ops.relu6(bn(adder(4)(x)) + 3.0)
        return ops.relu(ops.clip(ops.minimum(ops.maximum(ops.max_pool2d(y, 2), 0.0), 6.0), 0, 7))

    graph = traced(net)
    weights = settled(graph, samples(24))
    made = quantize(graph, weights, samples(24), QuantizationSettings(terms=1), Interpreted())
    assert [n.op.name for n in made.graph.nodes][-2:] == ["requantize_shift", "max_pool2d"]


def test_one_grid_is_joined_as_it_is() -> None:
    def net(x: Tensor) -> Tensor:
        y = ops.sigmoid(bn(adder(4)(x)))
        return layers.Concatenate()(y, ops.max_pool2d(y, 1))

    graph, x = traced(net), samples(24)
    weights = settled(graph, x)
    whole = QuantizationSettings(terms=1, quantile=1)
    made = quantize(graph, weights, x, whole, Interpreted())
    assert [n.op.name for n in made.graph.nodes][-3:] == ["lookup", "max_pool2d", "concat"]


# --- dropout --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behind", "rounded_before"),
    [
        (ops.sigmoid, True),
        (lambda y: layers.Concatenate()(y, y), False),
        (ops.leaky_relu, False),
        (layers.Reshape([6, 3, 16]), True),
        (layers.Reshape([3, 12, 8]), False),
    ],
)
def test_a_dropout_rounds_before_it_where_bytes_are_read(
    behind: Callable[[Tensor], Tensor], rounded_before: bool
) -> None:
    """So in both forms, which have the same roundings."""

    def net(x: Tensor) -> Tensor:
        return bn(adder(4)(behind(layers.Dropout(0.5)(bn(adder(8)(x))))))

    graph, x = traced(net), samples(16)
    weights = settled(graph, x)
    found = roundings(graph, weights, x, 4, 1.0, Interpreted())
    training = trace(net, TensorType(f32, (4, 6, 6, 3)), name="net", training=True)
    made = quantization_aware(training, found)
    assert ("bn1" in found) == rounded_before
    before = {n.inputs[0].name for n in made.nodes if n.op.name == "dropout"}
    assert before == {"bn1.rounded" if rounded_before else "bn1"}


# --- refusals -------------------------------------------------------------------------------------


def parameter(x: Tensor, *shape: int) -> Tensor:
    return new_parameter(x, "p", TensorType(f32, shape), Init())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: ops.pad(x, (0, 1, 1, 0), (0, 1, 1, 0), 0.5), 'pad "pad" pads with 0.5, which'),
        (lambda x: ops.maximum(x, parameter(x, 3)), "maximum .* reads %p, a parameter or constant"),
        (lambda x: ops.maximum(x, ops.max_pool2d(x, 6)), r"reads .*\[N,1,1,3\]; .* equal types"),
        (lambda x: ops.full(x, 1.0) + x * 2.0, 'mul "mul" cannot be'),
        (lambda x: ops.reshape(layers.AdderDense(1)(ops.flatten(x)), ("N",)), "has no channels"),
        (lambda x: x + ops.relu(ops.full(x, 1.0)), "relu .* reads %const, a parameter or constant"),
    ],
)
def test_what_bytes_cannot_say(net: Callable[[Tensor], Tensor], message: str) -> None:
    graph, x = traced(net), samples(4)
    with pytest.raises(UnsupportedError, match=message):
        quantize(graph, settled(graph, x), x, QuantizationSettings(), Interpreted())


def test_a_constant_is_no_output() -> None:
    graph = trace(lambda x: (x, ops.full(x, 1.0)), TensorType(f32, ("N", 3)))
    with pytest.raises(UnsupportedError, match="output %const does not depend on the image"):
        quantize(graph, {}, np.ones((2, 3)), QuantizationSettings(), Interpreted())


def test_quantization_aware_refuses_what_quantize_does() -> None:
    model = Model(lambda x: ops.maximum(x, ops.abs(parameter(x, 6, 6, 3))), input_shape=(6, 6, 3))
    with pytest.raises(UnsupportedError, match="maximum .* equal types"):
        ag.quantization_aware(model, samples(4))
