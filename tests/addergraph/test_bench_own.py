"""`bench --layers --weights MODEL`: which layers of a model are timed, with which filters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import layers
from addergraph.cli.bench import layers as bench_layers
from addergraph.cli.bench.graphs import BOUNDED, OWN, layers_graph, weights_of
from addergraph.cli.bench.own import operands, own_filters
from addergraph.cli.bench.timing import Layer
from addergraph.errors import DataError
from addergraph.ir.trace import Tensor

pytestmark = pytest.mark.usefixtures("quick_objects")

WIDE, TAIL = (Layer("m.safetensors", 4, 8, size, 3) for size in (4, 8))


def net(x: Tensor, activation: str = "relu") -> Tensor:
    for i, outputs in enumerate((4, 4, 4, 8)):
        x = layers.Adder(outputs, kernel_size=3, padding=1, name=f"adder{i}")(x)
        x = layers.Activation(activation)(layers.BatchNorm()(x))
    x = layers.Adder(4, kernel_size=3, padding=0, name="valid")(x)
    return layers.Dense(3)(layers.Flatten()(layers.BatchNorm()(x)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ag.Model, Path]:
    """A model whose filters have a quarter of their taps above zero."""
    model = ag.Model(net, input_shape=(8, 8, 4))
    weights = dict(model.weights)
    for name, array in weights.items():
        if array.ndim == 4:
            quarter = np.arange(array.size).reshape(array.shape) % 4 == 0
            weights[name] = np.where(quarter, np.abs(array), -np.abs(array))
    model.weights = weights
    file = tmp_path_factory.mktemp("own") / "m.safetensors"
    model.save(file)
    return model, file


def test_layers_of_one_shape_share_a_row(trained: tuple[ag.Model, Path]) -> None:
    """The first layer's input may be negative, and `valid` has no padding: both are named."""
    model, file = trained
    own = own_filters(str(file))
    assert (own.name, own.dtype, list(own.filters)) == ("m.safetensors", "f32", [WIDE, TAIL])
    assert [len(found) for found in own.filters.values()] == [2, 1]
    assert np.array_equal(own.filters[TAIL][0], model.weights["adder3.f"])
    assert own.left_out == ["adder0", "valid"] and not own.bounded and list(own.kinds) == [OWN]
    assert own.notes() == ["Not timed, as they have another form: adder0, valid."]


def test_a_model_of_several_ends(trained: tuple[ag.Model, Path], tmp_path: Path) -> None:
    """Timing needs no images, so it takes any inputs and outputs."""

    def several(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"one": net(x), "two": layers.Dense(2)(layers.Flatten()(y))}

    model = ag.Model(several, input_shape={"x": (8, 8, 4), "y": (3,)})
    model.weights = {n: np.abs(a) if n.endswith(".f") else a for n, a in model.weights.items()}
    model.save(tmp_path / "several.safetensors")
    own = own_filters(str(tmp_path / "several.safetensors"))
    assert list(own.filters) == [
        dataclasses.replace(layer, network="several.safetensors") for layer in (WIDE, TAIL)
    ]


def test_filters_take_turns(trained: tuple[ag.Model, Path]) -> None:
    model, file = trained
    beside = Layer("m.safetensors", 4, 8, 4, 3, beside=True)
    weights = weights_of(beside, OWN, own_filters(str(file)).filters[WIDE])
    for i, name in enumerate(("adder1.f", "adder2.f", "adder1.f", "adder2.f")):
        assert np.array_equal(weights[f"adder{i}.f"], model.weights[name])


def test_rows_count_the_taps_of_the_model(trained: tuple[ag.Model, Path]) -> None:
    dtype, own = operands(None, str(trained[1]))
    options = bench_layers.LayerBench("host", dtype, 1, 0.0, "", None, None, own)
    subject = bench_layers._Subject(TAIL, 1, OWN, options)
    executed = bench_layers.executed_terms(True, TAIL, TAIL.terms(1), [subject.weights["adder0.f"]])
    assert executed == TAIL.terms(1) // 4
    (weights,) = {array.shape for array in subject.weights.values() if array.ndim == 4}
    assert weights == (3, 3, 4, 8)


def test_bounded_activations_keep_the_kinds_of_taps(tmp_path: Path) -> None:
    """With any bound a filter is timed as one of the bound 1."""
    model = ag.Model(lambda x: net(x, "relu6"), input_shape=(8, 8, 4))
    model.weights = {n: 6 * a if a.ndim == 4 else a for n, a in model.weights.items()}
    model.save(tmp_path / "six.safetensors")
    own = own_filters(str(tmp_path / "six.safetensors"))
    assert own.bounded and list(own.kinds) == [BOUNDED]
    wide = Layer("six.safetensors", 4, 8, 4, 3)
    for found, name in zip(own.filters[wide], ("adder1.f", "adder2.f"), strict=True):
        assert np.array_equal(found >= 1, model.weights[name] >= 6)
        assert 0.05 < np.mean(found >= 1) < 0.3
    named = [node.op.name for node in layers_graph(wide, 2, BOUNDED).nodes]
    assert named.count("clip") == 3 and "relu" not in named


def test_what_has_no_such_layers(trained: tuple[ag.Model, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"are of f32: leave out --dtype u8"):
        operands("u8", str(trained[1]))
    with pytest.raises(DataError, match="starts with random weights"):
        own_filters("resnet20")
    plain = ag.Model(lambda x: layers.Dense(3)(layers.Flatten()(x)), input_shape=(4, 4, 2))
    plain.weights = {name: array + 1 for name, array in plain.weights.items()}
    plain.save(tmp_path / "plain.safetensors")
    with pytest.raises(DataError, match=r"has no such layer: expected adder layers of one dtype"):
        own_filters(str(tmp_path / "plain.safetensors"))
    assert operands(None, None) == ("f32", None)
