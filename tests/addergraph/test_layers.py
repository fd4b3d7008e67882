"""Layers: what they build, how they are named and shared, and what they refuse."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from addergraph import layers
from addergraph.errors import AdderGraphError, GraphError, ShapeError
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import interpret, run_reference
from addergraph.ir.state import initial_weights
from addergraph.ir.trace import Tensor, trace
from addergraph.ir.types import Dim, tensor
from addergraph.layers import (
    Activation,
    Adder,
    AdderDense,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Residual,
)
from addergraph.layers.descriptions import describe, restore


def graph_of(
    net: Callable[[Tensor], Tensor], *shape: Dim, training: bool = False, dtype: str = "f32"
) -> Graph:
    return trace(net, tensor(dtype, shape), name="net", training=training)


def f32(values: object) -> Array:
    return np.asarray(values, np.float32)


def small(x: Tensor) -> Tensor:
    for layer in (
        Adder(4, 3, padding=1), BatchNorm(), Activation("relu"), Conv(2, 3, bias=True),
        BatchNorm(), Flatten(), Dense(3),
    ):  # fmt: skip
        x = layer(x)
    return x


# --- names and sharing --------------------------------------------------------------------------


def test_layers_are_numbered_by_kind_and_parameters_extend_their_names() -> None:
    graph = graph_of(small, "N", 6, 6, 1)
    assert [n.name for n in graph.nodes] == [
        "adder1", "bn1", "act1", "conv1", "bn2", "flatten1", "dense1",
    ]  # fmt: skip
    assert [p.name for p in graph.parameters] == [
        "adder1.f", "bn1.gamma", "bn1.beta", "bn1.mean", "bn1.variance", "conv1.f", "conv1.b",
        "bn2.gamma", "bn2.beta", "bn2.mean", "bn2.variance", "dense1.f", "dense1.b",
    ]  # fmt: skip


def test_training_and_inference_have_the_same_parameters_and_layer_names() -> None:
    inference = graph_of(small, "N", 6, 6, 1)
    training = graph_of(small, 5, 6, 6, 1, training=True)
    described = [[(p.name, p.type, p.init, p.trainable, p.eta) for p in g.parameters]
                 for g in (inference, training)]  # fmt: skip
    assert described[0] == described[1]
    assert {n.name for n in inference.nodes} <= {n.name for n in training.nodes}


def test_a_layer_called_twice_shares_its_parameters() -> None:
    shared = Adder(1, 3, padding=1)
    graph = graph_of(lambda x: shared(shared(x)), "N", 4, 4, 1)
    assert [p.name for p in graph.parameters] == ["adder1.f"]
    assert [n.name for n in graph.nodes] == ["adder1", "adder1_1"]
    assert graph.nodes[0].inputs[1] is graph.nodes[1].inputs[1]


def test_a_shared_layer_on_another_shape_is_refused() -> None:
    shared = Adder(2, 3, padding=1)
    with pytest.raises(ShapeError, match='adder2d "adder1.*2 channels but the filter expects 1'):
        graph_of(lambda x: shared(shared(x)), "N", 4, 4, 1)


def test_equal_but_distinct_layers_do_not_share() -> None:
    graph = graph_of(lambda x: Dense(3)(Dense(3)(x)), "N", 3)
    assert [p.name for p in graph.parameters] == ["dense1.f", "dense1.b", "dense2.f", "dense2.b"]


def test_one_layer_object_serves_several_traces() -> None:
    layer = Dense(2, bias=False)
    one, two = graph_of(layer, "N", 3), graph_of(lambda x: layer(x), "N", 4)
    assert str(one.parameters[0].type) == "f32[3,2]" and str(two.parameters[0].type) == "f32[4,2]"


def test_what_a_trace_made_goes_with_its_graph() -> None:
    made = []

    def net(x: Tensor) -> Tensor:
        made.append(weakref.ref(x.builder))
        return Dense(2)(x)

    graph_of(net, "N", 3)
    gc.collect()
    assert made[0]() is None


def test_given_names_are_used_and_numbers_step_around_them() -> None:
    graph = graph_of(lambda x: Dense(2)(Dense(2, name="head")(Dense(2, name="dense1")(x))), "N", 2)
    assert [n.name for n in graph.nodes] == ["dense1", "head", "dense2"]


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(GraphError, match='two layers are called "a"'):
        graph_of(lambda x: Dense(2, name="a")(Dense(2, name="a")(x)), "N", 2)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a%", "é-"])
def test_names_that_text_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(GraphError, match="cannot stand in a graph"):
        Dense(2, name=name)


def test_layers_take_symbolic_tensors_only() -> None:
    with pytest.raises(GraphError, match=r"Dense was called on ndarray.*model\.predict"):
        Dense(2)(np.zeros((1, 2)))  # type: ignore[arg-type]


# --- what is built ------------------------------------------------------------------------------


def test_adder_passes_every_attribute_on() -> None:
    layer = Adder(
        6, (3, 1), (2, 1), padding=(1, 0, 2, 3), dilation=(1, 2), groups=2, bias=True, eta=None
    )
    graph = graph_of(layer, "N", 7, 7, 4)
    (node,) = graph.nodes
    assert "stride=(2,1) padding=(1,0,2,3) dilation=(1,2) groups=2" in str(graph)
    f, b = graph.parameters
    assert str(f.type) == "f32[3,1,2,6]" and f.eta is None and f.init.args == (0.0, 1.0)
    assert (b.name, str(b.type), b.init.kind) == ("adder1.b", "f32[6]", "zeros")
    assert node.op.name == "adder2d"


@pytest.mark.parametrize("kind", [layers.Adder1d, layers.Conv1d])
@pytest.mark.parametrize(
    ("width", "stride", "pads", "dilation", "groups"),
    [(9, 1, 0, 1, 1), (9, 2, 1, 1, 2), (10, 3, 4, 2, 4), (5, 1, 2, 2, 1)],
)
def test_layers_of_sequences_are_sums_over_their_windows(
    kind: type[layers.Adder1d | layers.Conv1d],
    width: int, stride: int, pads: int, dilation: int, groups: int,
) -> None:  # fmt: skip
    layer = kind(8, 3, stride, pads, dilation, groups, bias=True)
    graph = graph_of(layer, "N", width, 4)
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(2, width, 4)), rng.normal(size=(1, 3, 4 // groups, 8))
    b, name = rng.normal(size=8), "adder1" if kind is layers.Adder1d else "conv1"
    weights = {f"{name}.f": f.astype("f4"), f"{name}.b": b.astype("f4")}
    (y,), _ = run_reference(graph, [x.astype("f4")], weights)
    padded = np.pad(x, ((0, 0), (pads, pads), (0, 0)))
    made = (width + 2 * pads - 2 * dilation - 1) // stride + 1
    assert y.shape == (2, made, 8) and str(graph.outputs[0].type) == f"f32[N,{made},8]"
    for w in range(made):
        for t in range(8):
            first = t // (8 // groups) * (4 // groups)
            span = slice(w * stride, w * stride + 2 * dilation + 1, dilation)
            taps, filter = padded[:, span, first : first + 4 // groups], f[0, :, :, t]
            terms = -np.abs(taps - filter) if kind is layers.Adder1d else taps * filter
            assert np.allclose(y[:, w, t], terms.sum((1, 2)) + b[t], atol=1e-4)


def test_initial_weights_have_the_stated_distributions() -> None:
    graph = graph_of(lambda x: Dense(400)(Flatten()(Conv(64, 3)(Adder(32, 3)(x)))), "N", 8, 8, 16)
    weights = initial_weights(graph, 0)
    for name, deviation in (
        ("adder1.f", 1.0), ("conv1.f", (2 / (9 * 32)) ** 0.5), ("dense1.f", (2 / 1024) ** 0.5),
    ):  # fmt: skip
        array = weights[name]
        assert array.std() == pytest.approx(deviation, rel=0.05)
        assert abs(array.mean()) < 4 * deviation / array.size**0.5
    assert not weights["dense1.b"].any()
    assert [p.eta for p in graph.parameters] == [0.2, None, None, None]


def test_adder_dense_is_the_negative_distance() -> None:
    graph = graph_of(AdderDense(2, bias=True), "N", 3)
    x, f = f32([[1, 2, 3]]), f32([[0, 1], [2, 4], [4, 0]])
    weights = {"adder_dense1.f": f, "adder_dense1.b": f32([10, 20])}
    y = interpret(graph, x, weights=weights)
    assert np.array_equal(np.asarray(y), [[-2 + 10, -5 + 20]])


@pytest.mark.parametrize(
    ("layer", "op", "shape"),
    [
        (layers.MaxPool(2), "max_pool2d", "f32[N,4,3,5]"),
        (layers.MaxPool((3, 2), stride=1, padding=1), "max_pool2d", "f32[N,8,7,5]"),
        (layers.AvgPool(2, stride=(1, 2)), "avg_pool2d", "f32[N,7,3,5]"),
        (layers.GlobalAvgPool(), "global_avg_pool", "f32[N,5]"),
        (layers.Flatten(), "flatten", "f32[N,240]"),
        *((layers.Activation(name), name, "f32[N,8,6,5]") for name in layers.ACTIVATIONS),
    ],
)
def test_layers_without_weights(layer: layers.Layer, op: str, shape: str) -> None:
    graph = graph_of(layer, "N", 8, 6, 5)
    (node,) = graph.nodes
    assert str(node.outputs[0].type) == shape and not graph.parameters
    assert node.op.name == op


# --- batch norm ---------------------------------------------------------------------------------


def _trained_once(layer: BatchNorm, x: Array) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    graph = graph_of(layer, *x.shape, training=True)
    weights = initial_weights(graph, 0)
    weights["bn1.mean"] = np.arange(x.shape[-1], dtype=np.float32)
    (y,), new = run_reference(graph, [x], weights)
    return y, new, weights


@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 5, 3)])
def test_batch_norm_normalizes_and_moves_the_running_statistics(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    y, new, weights = _trained_once(BatchNorm(momentum=0.25), x)
    flat = x.reshape(-1, 3).astype("f8")
    expected = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        new["bn1.mean"], 0.75 * weights["bn1.mean"] + 0.25 * flat.mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(new["bn1.variance"], 0.75 + 0.25 * flat.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_of_a_single_value_leaves_the_running_variance() -> None:
    y, new, _ = _trained_once(BatchNorm(), f32([[5, -5]]))
    assert new.keys() == {"bn1.mean"}
    assert np.array_equal(y, [[0, 0]])


def test_batch_norm_at_inference_uses_the_running_statistics() -> None:
    graph = graph_of(BatchNorm(epsilon=0.5), "N", 2)
    weights = {
        "bn1.gamma": f32([2, 1]), "bn1.beta": f32([1, 0]),
        "bn1.mean": f32([3, 0]), "bn1.variance": f32([3.5, 0.5]),
    }  # fmt: skip
    y = interpret(graph, f32([[5, 4]]), weights=weights)
    assert np.array_equal(np.asarray(y), [[2 * 2 / 2 + 1, 4]])
    assert [p.trainable for p in graph.parameters] == [True, True, False, False]
    assert not graph.updates


def test_batch_norm_needs_a_bound_batch_to_train() -> None:
    with pytest.raises(ShapeError, match=r'"bn1": training needs a bound batch'):
        graph_of(BatchNorm(), "N", 3, training=True)


def test_batch_norm_twice_in_one_training_graph_is_refused() -> None:
    shared = BatchNorm()
    with pytest.raises(GraphError, match='"bn1" is called twice'):
        graph_of(lambda x: shared(shared(x)), 4, 3, training=True)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Adder(8, 3, stride=0), "Adder: stride=0 must be an integer of at least 1"),
        (lambda: Adder(8, 3, stride=-1), "stride=-1"),
        (lambda: Adder(8, 3, stride=1.5), "stride=1.5"),  # type: ignore[arg-type]
        (lambda: Adder(0, 3, name="a"), 'Adder "a": output_channels=0'),
        (lambda: Adder(8, 0), "kernel_size=0"),
        (lambda: Adder(8, (3, 3, 3)), "pair"),  # type: ignore[arg-type]
        (lambda: Adder(8, "33"), "kernel_size='33'"),  # type: ignore[arg-type]
        (lambda: Conv(8, 3, padding=-1), "Conv: padding=-1 must be an integer of at least 0"),
        (lambda: Conv(8, 3, padding=(1, 2, 3)), r"padding=\(1, 2, 3\)"),  # type: ignore[arg-type]
        (lambda: Conv(8, 3, dilation=0), "dilation=0"),
        (lambda: Conv(8, 3, groups=3), "does not divide into groups=3"),
        (lambda: Conv(8, 3, bias=1), "bias=1 must be True or False"),  # type: ignore[arg-type]
        (lambda: Adder(8, 3, eta=-0.1), "eta=-0.1"),
        (lambda: Adder(8, 3, eta=float("nan")), "eta=nan"),
        (lambda: Dense(True), "output_channels=True"),
        (lambda: BatchNorm(momentum=1.5), "momentum=1.5 .* at most 1"),
        (lambda: BatchNorm(epsilon=0), "epsilon=0"),
        (lambda: layers.MaxPool(0), "MaxPool: pool_size=0"),
        (lambda: layers.AvgPool(2, stride=0), "AvgPool: stride=0"),
    ],
)
def test_impossible_attributes_name_the_layer(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        make()


@pytest.mark.parametrize(
    ("net", "shape", "said"),
    [
        (Adder(8, 3), ("N", 8, 8), r'adder2d "adder1": input must be NHWC .* found f32\[N,8,8\]'),
        (Conv(8, 3, groups=2), ("N", 8, 8, 3), 'conv2d "conv1": the 3 channels .* groups=2'),
        (Adder(8, 9), ("N", 8, 8, 1), 'adder2d "adder1": the window spans 9'),
        (Dense(4), ("N", 8, 8, 1), 'dense "dense1": input must be .* flatten first'),
        (AdderDense(4), ("N", 8, 8, 1), 'adder_dense "adder_dense1": .* flatten first'),
        (layers.Adder1d(4, 3), ("N", 8, 8, 1), r'Adder1d "adder1": .* f32\[N,W,C\] \(rank 3\)'),
        (layers.Conv1d(4, 9), ("N", 8, 1), 'conv2d "conv1": the window spans 9'),
        (BatchNorm(), ("N",), 'batch_norm "bn1": .* rank 2'),
        (layers.MaxPool(2), ("N", 8), 'max_pool2d "pool1"'),
    ],
)
def test_inputs_that_do_not_fit_name_the_layer(
    net: layers.Layer, shape: tuple[Dim, ...], said: str
) -> None:
    with pytest.raises(ShapeError, match=said):
        graph_of(net, *shape)


def test_unknown_activations_suggest_the_nearest() -> None:
    with pytest.raises(GraphError, match=r'"rely" \(did you mean "relu"\?\); known: leaky_relu'):
        Activation("rely")


def test_unknown_layers_suggest_the_nearest() -> None:
    with pytest.raises(AdderGraphError, match=r'"Addr" \(did you mean "Adder"\?\)'):
        layers.Addr  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(layers, "Convolution3d")


# --- second names and descriptions --------------------------------------------------------------


def test_the_names_of_the_deck() -> None:
    adder = layers.adder_layer(
        output_channels=8, kernel_size=3, stride=1, padding=1, adaptive_eta=0.1
    )
    assert type(adder) is Adder and adder.eta == 0.1 and adder.padding == (1, 1, 1, 1)
    assert layers.batch_norm_layer is BatchNorm and layers.FullyConnected is Dense


@pytest.mark.parametrize(
    "layer",
    [
        Adder(np.int64(8), [3, 1], padding=(1, 2), eta=None, name="a"),  # type: ignore[arg-type]
        Conv(4, 3, groups=2, bias=True),
        layers.Adder1d(8, np.int64(3), padding=1, eta=None, name="a"),  # type: ignore[arg-type]
        layers.Conv1d(4, 3, stride=2, groups=2, bias=True),
        Dense(5, bias=False),
        AdderDense(3, eta=0.5),
        BatchNorm(0.2),
        Flatten(),
        layers.MaxPool(2),
        layers.AvgPool(2, stride=1),
        layers.GlobalAvgPool(),
        Activation("softmax"),
        Residual([Adder(4, 3, padding=1, name="conv1"), Residual([BatchNorm()])], [Conv(4, 1)]),
    ],
)
def test_a_layer_survives_its_description(layer: layers.Layer) -> None:
    described = json.loads(json.dumps(describe([layer])))
    (again,) = restore(described)
    assert type(again) is type(layer) and repr(again) == repr(layer)


def test_every_layer_is_in_the_table_of_descriptions() -> None:
    def concrete(kind: type[layers.Layer]) -> set[type[layers.Layer]]:
        below = {k for sub in kind.__subclasses__() for k in concrete(sub)}
        public = not kind.__name__.startswith("_") and kind is not layers.Layer
        return below | ({kind} if public and kind.__module__.startswith(layers.__name__) else set())

    assert set(layers.LAYERS.values()) == concrete(layers.Layer)


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({"kind": "Lambda"}, 'unknown layer "Lambda"'),
        ({"kind": "Layer"}, 'unknown layer "Layer"'),
        ({}, "unknown layer"),
        ({"kind": "Dense"}, "Dense: .*output_channels"),
        ({"kind": "Dense", "output_channels": 2, "validate": 1}, 'unknown key "validate" in Dense'),
        ({"kind": "Dense", "output_channels": {}}, "output_channels="),
        ({"kind": "Dense", "output_channels": 2, "name": [1]}, "name="),
        ({"kind": "Activation", "function": ["relu"]}, "unknown activation"),
    ],
)
def test_bad_descriptions_are_refused(description: dict[str, object], said: str) -> None:
    with pytest.raises(AdderGraphError, match=said):
        restore([description])


def test_a_layer_class_of_your_own_cannot_be_described() -> None:
    class Mine(Flatten):
        pass

    with pytest.raises(GraphError, match=r"Mine is not a layer of this library.*Model\(net\)"):
        describe([Mine()])
