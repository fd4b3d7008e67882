"""Joins, padding by rule, layers that move elements, and the habits of other libraries."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.errors import AdderGraphError, GraphError, ShapeError, UnknownNameError
from addergraph.ir import Array
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor, trace
from addergraph.ir.types import Dim, tensor
from addergraph.layers._padding import _same
from addergraph.layers.descriptions import describe, restore


def result(net: Callable[[Tensor], Tensor], *shape: Dim) -> tuple[Dim, ...]:
    return trace(net, tensor("f32", shape)).outputs[0].type.shape


def run(net: Callable[[Tensor], Tensor], x: Array) -> Array:
    y = interpret(trace(net, tensor("f32", x.shape)), x)
    assert isinstance(y, np.ndarray)
    return y


def numbered(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


# --- joins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [lambda j, xs: j(*xs), lambda j, xs: j(xs), lambda j, xs: j([*xs])]
)
def test_joins(call: Callable[[Any, Sequence[Tensor]], Tensor]) -> None:
    x = numbered(2, 3, 4)
    added = run(lambda t: call(layers.Add(), (t, t * 2.0, t * 4.0)), x)
    np.testing.assert_array_equal(added, 7 * x)
    for axis in (-1, 1, 2):
        joined = run(lambda t, a=axis: call(layers.Concatenate(a), (t, t * 2.0)), x)  # type: ignore[misc]
        np.testing.assert_array_equal(joined, np.concatenate([x, 2 * x], axis))


def test_joins_name_their_nodes() -> None:
    def net(x: Tensor) -> Tensor:
        y = layers.Add(name="both")(x, x)
        return layers.Add()(x, y, y)

    assert [n.name for n in trace(net, tensor("f32", ("N", 3))).nodes] == [
        "both", "add1.sum2", "add1",
    ]  # fmt: skip


def other_graph() -> Tensor:
    kept: list[Tensor] = []
    trace(lambda x: kept.append(x) or x, tensor("f32", ("N", 3)))  # type: ignore[func-returns-value]
    return kept[0]


@pytest.mark.parametrize(
    ("net", "kind", "message"),
    [
        (lambda x: layers.Add()(x), GraphError, r"joins two symbolic tensors .* in a function"),
        (lambda x: layers.Add()([x]), GraphError, r"joins two.*y = layers.Add\(\)\(x, layer"),
        (lambda x: layers.Concatenate()([x]), GraphError, r"y = layers.Concatenate\(\)\(x, layer"),
        (lambda x: layers.Add()(x, cast(Any, 1.0)), GraphError, "joins two"),
        (lambda x: layers.Concatenate()(x, other_graph()), GraphError, "different graphs"),
        (lambda x: layers.Add()(x, layers.Dense(2)(x)), ShapeError, r'add "add1".*f32\[N,2\]'),
        (lambda x: layers.Concatenate(0)(x, x), ShapeError, "the batch's"),
        (lambda x: layers.Concatenate(-2)(x, x), ShapeError, "the batch's"),
        (lambda x: layers.Concatenate(2)(x, x), ShapeError, "axis"),
        (lambda x: layers.Concatenate(cast(Any, "a"))(x, x), ShapeError, "axis"),
    ],
)
def test_joins_refuse(net: Callable[[Tensor], Tensor], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        trace(net, tensor("f32", ("N", 3)))


def test_a_join_in_a_list_of_layers_says_where_it_belongs() -> None:
    model = Model(input_shape=(3,))
    model.add(layers.Add())
    with pytest.raises(GraphError, match="call it in a function"):
        model.graph(training=False)


# --- padding by rule ------------------------------------------------------------------------------


@pytest.mark.parametrize("extent", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_is_the_least_padding(extent: int, kernel: int, stride: int, dilation: int) -> None:
    before, after = _same(extent, kernel, stride, dilation)
    span, wanted = (kernel - 1) * dilation + 1, -(-extent // stride)

    def made(total: int) -> int:
        return (extent + total - span) // stride + 1 if extent + total >= span else 0

    total = before + after
    assert 0 <= after - before <= 1, "the odd zero is at the end"
    assert made(total) == wanted
    assert total == 0 or made(total - 1) < wanted


def test_same_of_uneven_padding_is_tensorflows() -> None:
    """H = 4, kernel 3, stride 2: one zero in all, below and to the right."""
    x = numbered(1, 4, 4, 1)
    y = run(layers.MaxPool(3, 2, "same"), x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[10, 11], [14, 15]])
    mean = run(layers.AvgPool(3, 2, "same"), np.ones_like(x))
    np.testing.assert_allclose(mean[0, :, :, 0], np.array([[9, 6], [6, 4]]) / 9)


@pytest.mark.parametrize("kind", [layers.Conv, layers.Adder])
def test_rules_of_images(kind: Any) -> None:
    same = kind(2, (3, 4), stride=(2, 1), padding="same", dilation=(1, 2))
    assert result(same, "N", 7, 9, 3) == ("N", 4, 9, 2)
    (node,) = trace(same, tensor("f32", ("N", 7, 9, 3))).nodes
    assert node.op.padding == (1, 1, 3, 3)  # type: ignore[attr-defined]
    assert result(kind(2, 3, padding="valid"), "N", 7, 9, 3) == ("N", 5, 7, 2)


@pytest.mark.parametrize("kind", [layers.Conv1d, layers.Adder1d])
def test_rules_of_sequences(kind: Any) -> None:
    assert result(kind(2, 4, stride=2, padding="same"), "N", 9, 3) == ("N", 5, 2)
    assert result(kind(2, 4, padding="valid"), "N", 9, 3) == ("N", 6, 2)


def test_the_rule_is_in_the_description() -> None:
    made = [layers.Conv(2, 3, padding="same"), layers.MaxPool(2, padding="valid")]
    assert describe(restore(describe(made))) == describe(made)
    assert [d["padding"] for d in describe(made)] == ["same", "valid"]


@pytest.mark.parametrize(
    "make", [lambda p: layers.Conv(1, 3, padding=p), lambda p: layers.AvgPool(2, padding=p)]
)
def test_another_word_for_a_padding(make: Callable[[str], object]) -> None:
    with pytest.raises(ShapeError, match=r'padding="smae" \(did you mean "same"'):
        make("smae")
    with pytest.raises(ShapeError, match=r'"same" or "valid"'):
        make("reflect")


# --- layers that move elements, activations -------------------------------------------------------


def test_movements() -> None:
    x = numbered(2, 2, 3, 2)
    up = run(layers.UpSampling((2, 1)), x)
    np.testing.assert_array_equal(up, x.repeat(2, 1))
    assert result(layers.UpSampling(), "N", 2, 3, 1) == ("N", 4, 6, 1)
    around = run(layers.ZeroPadding((0, 1, 2, 0)), x)
    np.testing.assert_array_equal(around, np.pad(x, ((0, 0), (0, 1), (2, 0), (0, 0))))
    np.testing.assert_array_equal(run(layers.Reshape((3, -1)), x), x.reshape(2, 3, 4))
    assert result(layers.Reshape([12]), "N", 2, 3, 2) == ("N", 12)
    np.testing.assert_array_equal(run(layers.Softmax(), x), run(layers.Activation("softmax"), x))


@pytest.mark.parametrize(("kind", "shape"), [("Adder", (2, 5, 5, 3)), ("Adder1d", (2, 5, 3))])
def test_a_centered_adder(kind: str, shape: tuple[int, ...]) -> None:
    """Channels keep their differences; a batch norm does not see what all have in common."""
    x = np.random.default_rng(0).random(shape, np.float32)
    made = getattr(layers, kind)
    plain, centered = made(4, 3, padding=1), made(4, 3, padding=1, center=True)
    graphs = [trace(net, tensor("f32", shape)) for net in (plain, centered)]
    weights = {"adder1.f": np.random.default_rng(1).normal(size=graphs[0].parameters[0].type.sizes)}
    weights = {name: array.astype("f4") for name, array in weights.items()}
    y, z = (interpret(graph, x, weights=weights) for graph in graphs)
    np.testing.assert_allclose(z, y - np.mean(y, axis=-1, keepdims=True), atol=1e-5)
    (again,) = restore(describe([centered]))
    assert again.center is True  # type: ignore[attr-defined]
    with pytest.raises(ShapeError, match="center='yes' must be True or False"):
        made(4, 3, center="yes")


def test_a_slope_of_leaky_relu() -> None:
    x = np.array([[-2.0, 4.0]], np.float32)
    np.testing.assert_array_equal(run(layers.Activation("leaky_relu", 0.5), x), [[-1, 4]])
    np.testing.assert_allclose(run(layers.Activation("leaky_relu"), x), [[-0.02, 4]])
    for name in ("relu6", "sigmoid", "tanh"):
        assert run(layers.Activation(name), x).shape == (1, 2)
    with pytest.raises(GraphError, match="slope is for leaky_relu"):
        layers.Activation("relu", 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Reshape((2, 0)), "at least 1"),
        (lambda: layers.Reshape((-1, -1)), "one -1"),
        (lambda: layers.Reshape(cast(Any, "ab")), "list of sizes"),
        (lambda: result(layers.Reshape((5, -1)), "N", 2, 3), "6 elements"),
        (lambda: result(layers.Reshape((4,)), "N", 2, 3), "6 elements"),
        (lambda: layers.UpSampling(0), "size=0"),
        (lambda: result(layers.UpSampling(), "N", 3), "NHWC"),
        (lambda: result(layers.ZeroPadding(1), "N", 3), "NHWC"),
        (lambda: layers.ZeroPadding("same"), "must be numbers of zeros: "),  # type: ignore[arg-type]
        (lambda: layers.ZeroPadding(((1, 2), (3, 4))), r"or \(top, bottom, left, right\)"),  # type: ignore[arg-type]
        (lambda: layers.Conv(3, 3, padding="SAME"), 'did you mean "same"'),
        (lambda: result(layers.Conv(1, 3, padding="same"), "N", 3), "NHWC"),
        (lambda: layers.Activation("leaky_relu", -1.0), "slope"),
        (lambda: layers.Activation("leaky_relu", 1e39), "slope"),
    ],
)
def test_what_they_refuse(make: Callable[[], object], message: str) -> None:
    with pytest.raises(AdderGraphError, match=message):
        make()


def test_all_of_them_are_in_model_files() -> None:
    made = [
        layers.Dropout(0.25, 3), layers.UpSampling(3), layers.ZeroPadding(2), layers.Softmax(),
        layers.Reshape((2, -1)), layers.Activation("leaky_relu", 0.25), layers.Add(),
        layers.Concatenate(1), layers.Conv(1, 1, padding="same", name="last"),
    ]  # fmt: skip
    assert describe(restore(describe(made))) == describe(made)


# --- habits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Conv(filters=3, kernel_size=3), 'here it is "output_channels"'),  # type: ignore[call-arg]
        (lambda: layers.Adder(3, 3, strides=2), 'here it is "stride"'),  # type: ignore[call-arg]
        (lambda: layers.Dense(units=3), 'here it is "output_channels"'),  # type: ignore[call-arg]
        (lambda: layers.Conv(3, 3, use_bias=True), 'here it is "bias"'),  # type: ignore[call-arg]
        (lambda: layers.Conv(3, 3, dilation_rate=2), 'here it is "dilation"'),  # type: ignore[call-arg]
        (lambda: layers.BatchNorm(eps=1e-3), 'here it is "epsilon"'),  # type: ignore[call-arg]
        (lambda: layers.Dropout(p=0.5), 'here it is "rate"'),  # type: ignore[call-arg]
        (lambda: layers.Conv(3, kernelsize=3), 'did you mean "kernel_size"'),  # type: ignore[call-arg]
        (lambda: layers.Conv(3, 3, activation="relu"), r'"activation" \(put layers.Activation\('),  # type: ignore[call-arg]
        (lambda: layers.Adder(3, 3, kernel_initializer="zeros"), "assign model.weights"),  # type: ignore[call-arg]
        (lambda: layers.Conv(3, 3, in_channels=4), "leave it out"),  # type: ignore[call-arg]
        (lambda: layers.Dropout(), r"Dropout: rate is missing; expected Dropout\(rate, seed=0\)"),  # type: ignore[call-arg]
        (lambda: layers.SeparableAdder(8), "kernel_size is missing"),  # type: ignore[call-arg]
        (lambda: layers.Conv(), "output_channels is missing, kernel_size is missing"),  # type: ignore[call-arg]
        (lambda: layers.Conv(3, 3, kernel_size=3), "kernel_size is given twice"),  # type: ignore[misc]
        (lambda: layers.Dropout(0.5, 0, True), "takes 2 attributes without a name, found 3: rate"),  # type: ignore[call-arg, arg-type]
    ],
)
def test_names_of_other_libraries(make: Callable[[], object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make()


def test_a_copy_of_a_layer_is_no_call_of_its_class() -> None:
    layer = layers.Residual([layers.Conv(3, 1)], name="block")
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert describe([made]) == describe([layer])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Conv2D", "Conv"), ("MaxPooling2D", "MaxPool"), ("BatchNormalization", "BatchNorm"),
        ("UpSampling2D", "UpSampling"), ("ReLU", 'Activation("relu")'),
        ("LeakyReLU", 'Activation("leaky_relu")'), ("DepthwiseConv2D", "DepthwiseConv"),
        ("Linear", "Dense"), ("GlobalAveragePooling2D", "GlobalAvgPool"),
    ],
)  # fmt: skip
def test_layers_of_other_libraries(theirs: str, ours: str) -> None:
    with pytest.raises(UnknownNameError) as found:
        getattr(layers, theirs)
    assert ours in str(found.value).partition("known:")[0]
