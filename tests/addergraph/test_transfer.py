"""A trained network for another number of classes: the same weights, but for its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, layers, ops, zoo
from addergraph.data import Normalize, Preprocessing
from addergraph.errors import DataError, UnsupportedError
from addergraph.ir.trace import Tensor
from addergraph.ops.pointwise.fake_quantize import FakeQuantize, FakeQuantizeFilter
from tests.addergraph.models import X, Y, fit, small_model
from tests.addergraph.shell import Shell

SHAPE = (8, 8, 1)
GREY = Preprocessing(Normalize((0.5,), (0.5,), 1.0), "f32", "grey", tuple("0123456789"))


def with_norm(x: Tensor) -> Tensor:
    """A function whose answers are an adder's, behind a batch norm."""
    x = layers.BatchNorm(0.2)(layers.Conv(4, 3)(x))
    x = layers.Flatten()(layers.MaxPool(2)(layers.Activation("relu")(x)))
    return layers.Activation("softmax")(layers.BatchNorm(0.3)(layers.AdderDense(10)(x)))


MODELS = {
    "layers": lambda: small_model(input_shape=SHAPE),
    "adder": lambda: zoo.build("small-adder", SHAPE, 10, last="adder"),
    "resnet": lambda: zoo.build("resnet20", SHAPE, 10),
    "function": lambda: Model(with_norm, input_shape=SHAPE),
}
LATER = {
    "layers": ["dense1.f", "dense1.b"],
    "adder": ["adder_dense1.f", "bn5.gamma", "bn5.beta", "bn5.mean", "bn5.variance"],
    "resnet": ["last.f", "last_bn.gamma", "last_bn.beta", "last_bn.mean", "last_bn.variance"],
    "function": ["adder_dense1.f", "bn2.gamma", "bn2.beta", "bn2.mean", "bn2.variance"],
}


@pytest.mark.parametrize("file", [False, True], ids=["made", "loaded"])
@pytest.mark.parametrize("kind", MODELS)
def test_all_but_the_end_is_kept(kind: str, file: bool, tmp_path: Path) -> None:
    model = MODELS[kind]()
    for array in model.weights.values():
        array += np.float32(0.25)  # trained
    if file:
        model.save(tmp_path / "m.safetensors")
        model = Model.load(tmp_path / "m.safetensors")
    made = model.with_classes(3, seed=5)
    assert made.output_shape == (3,) and model.output_shape == (10,)
    assert list(made.weights) == list(model.weights)
    anew = [n for n in made.weights if not np.array_equal(made.weights[n], model.weights[n])]
    assert sorted(anew) == sorted(LATER[kind])
    head = LATER[kind][0]
    other = model.with_classes(3, seed=6)
    assert not np.array_equal(made.weights[head], other.weights[head])
    same = model.with_classes(3, seed=5)
    assert np.array_equal(made.weights[head], same.weights[head])


def test_a_transferred_function_trains_and_is_saved(tmp_path: Path) -> None:
    model = Model(with_norm, input_shape=SHAPE)
    made = model.with_classes(3)
    made.freeze("conv1", "bn1")
    before = {name: array.copy() for name, array in made.weights.items()}
    fit(made, X, Y % 3)
    changed = {n for n, a in made.weights.items() if not np.array_equal(a, before[n])}
    assert changed == set(LATER["function"])
    batch = made.graph(training=True, batch=4)
    steps = [n.op for n in batch.nodes if n.op.name == "full"]
    assert any(getattr(op, "value", 0) == 0.3 for op in steps)  # the momentum of bn2
    made.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    ours, theirs = (m.predict(X[:4], engine="reference") for m in (made, again))
    assert np.array_equal(ours, theirs)
    fit(again, X, Y % 3)


def test_the_end_learns_whatever_was_frozen() -> None:
    model = small_model(input_shape=SHAPE)
    model.freeze("*")
    assert model.with_classes(4).frozen == ["adder1.f", "bn1.gamma", "bn1.beta"]
    assert len(model.frozen) == 5


def test_the_preprocessing_is_kept_with_other_names() -> None:
    model = small_model(input_shape=SHAPE, preprocessing=GREY)
    made = model.with_classes(2, names=["even", "odd"])
    assert made.preprocessing is not None and model.preprocessing == GREY
    assert made.preprocessing.classes == ("even", "odd")
    assert made.preprocessing.normalize == GREY.normalize
    nameless = model.with_classes(2).preprocessing
    assert nameless is not None and nameless.classes is None
    with pytest.raises(DataError, match="'a' is the name of 2 classes; names must differ"):
        model.with_classes(3, names=["a", "a", "b"])
    with pytest.raises(DataError, match="3 of 2 classes"):
        model.with_classes(2, names=["a", "b", "c"])
    with pytest.raises(DataError, match="this model has none"):
        small_model(input_shape=SHAPE).with_classes(2, names=["a", "b"])


def _written_down(x: Tensor) -> Tensor:
    y = layers.Dense(10)(layers.Flatten()(x))
    return ops.reshape(ops.reshape(y, (y.shape[0], 5, 2)), y.shape)


def _followed(x: Tensor) -> Tensor:
    y = layers.Dense(10)(layers.Flatten()(x))
    return ops.concat([y, y], axis=1)


def _one_layer_twice() -> Model:
    dense, model = layers.Dense(64), Model(input_shape=SHAPE)
    for layer in (layers.Flatten(), dense, layers.Activation("relu"), dense):
        model.add(layer)
    return model


def _within() -> Model:
    model = Model(input_shape=SHAPE)
    for layer in (layers.Flatten(), layers.Dense(8), layers.Residual([layers.Dense(8)])):
        model.add(layer)
    return model


def _convolutions() -> Model:
    model = Model(input_shape=SHAPE)
    for layer in (layers.Conv(10, 3), layers.GlobalAvgPool()):
        model.add(layer)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_one_layer_twice, "stands in several places"),
        (_within, "cannot have 2 classes: residual .block1.: its body"),
        (lambda: Model(_written_down, input_shape=SHAPE), "2 classes: reshape"),
        (lambda: Model(_followed, input_shape=SHAPE), r"its answer f32\[N,4\] does not follow"),
        (_convolutions, "no dense layer"),
    ],
)
def test_what_cannot_be_transferred_is_refused(make: Any, message: str) -> None:
    model = make()
    with pytest.raises(UnsupportedError, match=message):
        model.with_classes(2)


def test_a_model_that_rounds_is_refused() -> None:
    model = Model(lambda x: layers.Dense(10)(layers.Flatten()(x)), input_shape=SHAPE)
    model = model.rounded({"x": FakeQuantize(0.1), "dense1.f": FakeQuantizeFilter()})
    with pytest.raises(UnsupportedError, match="calibrated for its classes"):
        model.with_classes(2)


def test_train_on_data_of_other_classes(shell: Shell) -> None:
    quick = ("--epochs", 1, "--engine", "reference", "--allow-chance", "-o", "m.safetensors")
    named = small_model(input_shape=SHAPE, preprocessing=GREY)
    named.weights["dense1.b"][...] = 1.0
    named.save("ten.safetensors")
    np.savez("three.npz", x=X, y=Y % 3, classes=np.array(["a", "b", "c"]))
    np.savez("twelve.npz", x=X, y=Y + 2)
    train = ("train", "--model", "ten.safetensors")
    refused = shell(*train, "--data", "three.npz", *quick)
    assert refused.status == 2 and "--transfer" in refused.err
    assert "warning" not in refused.err and "compiling" not in refused.out, "the error alone"
    assert "tells 10 classes" in shell(*train, "--data", "twelve.npz", *quick).err
    out = shell.ok(
        *train, "--data", "three.npz", "--transfer", "--freeze", "adder1", "--freeze", "bn1", *quick
    )
    assert "44 of 239 numbers to train are frozen" in out
    all_frozen = shell(*train, "--data", "three.npz", "--transfer", "--freeze", "*", *quick[:2])
    assert "nothing to train" in all_frozen.err and "compiling" not in all_frozen.out
    made = Model.load("m.safetensors")
    assert made.preprocessing is not None and made.preprocessing.classes == ("a", "b", "c")
    assert np.array_equal(made.weights["adder1.f"], named.weights["adder1.f"])
    for options in (
        ("--model", "small-adder"),
        ("--model", "ten.safetensors", "--quantize-bits", 8),
    ):
        assert shell.error("train", "--transfer", *options, *quick).startswith("--transfer ")
