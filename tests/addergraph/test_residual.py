"""Residual layers: meaning, names, sharing, files, training, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import layers
from addergraph.errors import GraphError, ShapeError, StorageError
from addergraph.files import storage
from addergraph.layers import (
    Activation,
    Adder,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Residual,
)
from addergraph.layers.descriptions import MAX_NESTING, describe, restore
from addergraph.model import Model
from tests.addergraph.models import X, Y, fit, same_weights
from tests.damage import within

pytestmark = pytest.mark.usefixtures("quick_objects")


def block(name: str | None = None, **shortcut: Any) -> Residual:
    body = [Adder(4, 3, padding=1), BatchNorm(), Activation("relu"), Conv(4, 1, name="out")]
    return Residual(body, name=name, **shortcut)


def residual_model(**options: Any) -> Model:
    """Two blocks, the first with a shortcut of its own, the second with X."""
    model = Model(**options)
    for layer in (
        block("stage1.block0", shortcut=[Conv(4, 1), BatchNorm()]), Activation("relu"),
        block(), MaxPool(4), Flatten(), Dense(10), Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    return model


def test_the_sum_of_its_branches() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 5, 2)).astype(np.float32)
    body, shortcut = Conv(4, 3, padding=1, name="a"), Conv(4, 1, bias=True, name="b")
    whole = Model(input_shape=(5, 5, 2))
    whole.add(Residual([body], [shortcut], name="r"))
    parts = [Model(input_shape=(5, 5, 2)) for _ in range(2)]
    for model, layer in zip(parts, (body, shortcut), strict=True):
        model.add(layer)
        model.weights = {name: whole.weights[f"r.{name}"] for name in model.weights}
    expected = sum(m.predict(x, engine="reference") for m in parts)
    np.testing.assert_allclose(whole.predict(x, engine="reference"), expected, atol=1e-6)


def test_an_empty_shortcut_is_the_input() -> None:
    model = Model(input_shape=(4,))
    model.add(Residual([Dense(4)]))
    model.weights = {k: np.zeros_like(v) for k, v in model.weights.items()}
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(model.predict(x, engine="reference"), x)


def test_names_extend_the_name_of_the_block() -> None:
    model = residual_model(input_shape=(8, 8, 1))
    assert [p.name for p in model.graph(training=False).parameters] == [
        "stage1.block0.adder1.f", "stage1.block0.bn1.gamma", "stage1.block0.bn1.beta",
        "stage1.block0.bn1.mean", "stage1.block0.bn1.variance", "stage1.block0.out.f",
        "stage1.block0.conv1.f", "stage1.block0.bn2.gamma", "stage1.block0.bn2.beta",
        "stage1.block0.bn2.mean", "stage1.block0.bn2.variance",
        "block1.adder1.f", "block1.bn1.gamma", "block1.bn1.beta", "block1.bn1.mean",
        "block1.bn1.variance", "block1.out.f", "dense1.f", "dense1.b",
    ]  # fmt: skip
    nodes = [node.name for node in model.graph(training=False).nodes]
    assert "stage1.block0.add" in nodes and "act1" in nodes


def test_it_trains_the_same_after_its_file(tmp_path: Path) -> None:
    model = residual_model(seed=2)
    history = fit(model, epochs=3).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert again.graph(training=False) == model.graph(training=False)
    assert fit(model).history["loss"] == fit(again).history["loss"] and same_weights(model, again)


def test_native_code_trains_it_alike() -> None:
    models = [residual_model(seed=3) for _ in range(2)]
    for model, engine in zip(models, ("reference", "native"), strict=True):
        model.fit(X, Y, batch_size=len(X), learning_rate=0.01, verbose=0, engine=engine)
    for name, expected in models[0].weights.items():
        error = np.linalg.norm(models[1].weights[name] - expected)
        assert error <= 1e-5 * np.linalg.norm(expected), name


def test_layers_shared_between_blocks_stay_shared(tmp_path: Path) -> None:
    shared = Conv(1, 3, padding=1, name="shared")
    first = Residual([shared, Residual([shared])])
    model = Model(input_shape=(4, 4, 1))
    for layer in (first, Residual([Activation("relu"), shared]), first):
        model.add(layer)
    assert list(model.weights) == ["block1.shared.f"]
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert again.layers[0] is again.layers[2]
    assert again.layers[0].body[0] is again.layers[1].body[1]  # type: ignore[attr-defined]
    assert same_weights(model, again)


def test_descriptions_are_numbered_from_the_outside_in() -> None:
    relu = Activation("relu")
    described = json.loads(json.dumps(describe([Residual([relu, Flatten()], [relu]), relu])))
    assert described[0]["shortcut"] == [{"repeat": 1}] and described[1] == {"repeat": 1}
    (block, again) = restore(described)
    assert isinstance(block, Residual) and block.shortcut == (again,) == (block.body[0],)


def _nested(depth: int) -> Any:
    inner: Any = {"kind": "Flatten"}
    for _ in range(depth):
        inner = {"kind": "Residual", "body": [inner], "shortcut": []}
    return [inner]


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({}, "a list of descriptions"),
        ([{"kind": "Residual", "body": 3, "shortcut": []}], "a list of descriptions"),
        ([{"kind": "Residual", "shortcut": []}], "a list of descriptions"),
        ([{"kind": "Residual", "body": [], "shortcut": []}], "body has no layers"),
        ([{"kind": "Residual", "body": [{"repeat": 0}], "shortcut": []}], "which does not exist"),
        ([{"kind": "Flatten"}, {"repeat": True}], "repeats True"),
        ([{"kind": "Flatten"}, {"repeat": 1}], "layer 1 repeats 1"),
        ([{"kind": "Residual", "body": ["x"], "shortcut": []}], "description of a layer"),
        (_nested(MAX_NESTING + 1), "more than 16 deep"),
    ],
)
def test_bad_descriptions_are_refused(described: object, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        restore(described)
    assert isinstance(restore(_nested(MAX_NESTING))[0], Residual)


def test_what_is_nested_too_deep_to_be_read_is_refused_before_it_is_written() -> None:
    """Seventeen residual blocks in each other were saved, and did not load."""
    layer: Layer = Flatten()
    for depth in range(MAX_NESTING + 2):
        if depth <= MAX_NESTING:
            assert restore(describe([layer])) is not None
        layer = Residual([layer])
    with pytest.raises(GraphError, match="more than 16 deep"):
        Model().add(layer)


def test_nesting_counts_through_layers_that_are_repeated() -> None:
    deep = describe([Flatten()])
    for repeated in range(0, 2 * MAX_NESTING, 2):
        deep += [{"kind": "Residual", "body": [{"repeat": max(repeated - 1, 0)}], "shortcut": []}]
    assert len(restore(deep)) == MAX_NESTING + 1
    last = {"kind": "Residual", "body": [{"repeat": 2 * MAX_NESTING - 1}], "shortcut": []}
    with pytest.raises(GraphError, match="more than 16 deep"):
        restore([*deep, last])
    layer: Layer = Flatten()
    for _ in range(MAX_NESTING):
        layer = Residual([layer])
    with pytest.raises(GraphError, match="more than 16 deep"):
        describe([layer, Residual([layer])])


def test_a_few_layers_that_repeat_each_other_do_not_stand_for_millions(tmp_path: Path) -> None:
    doubled = describe([Flatten()])
    for number in range(MAX_NESTING):
        twice = [{"repeat": max(3 * number - 2, 0)}] * 2
        doubled += [{"kind": "Residual", "name": None, "body": twice, "shortcut": []}]
    assert len(restore(doubled)) == MAX_NESTING + 1
    path = tmp_path / "m.safetensors"
    model = Model(input_shape=(4,), name="m")
    model.add(Flatten())
    model.save(path)
    tensors, metadata = storage.load(path)
    found = json.loads(metadata["model"]) | {"layers": doubled}
    storage.save(path, tensors, metadata | {"model": json.dumps(found)})
    with within(1 << 20, 5.0), pytest.raises(StorageError, match="262125 layers are called"):
        Model.load(path)


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(GraphError, match="body must be a list of layers, found 'relu'"):
        Residual("relu")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="body has no layers"):
        Residual([])
    with pytest.raises(GraphError, match="shortcut must be a list of layers"):
        Residual([Flatten()], Flatten())  # type: ignore[arg-type]
    for body in (Conv(1, 3), Conv(3, 3, padding=1)):  # another size; a size that would broadcast
        model = Model()
        model.add(Residual([body], name="b"))
        with pytest.raises(ShapeError, match=r'residual "b": its body gives f32\[N,.*stride'):
            model.build((4, 4, 1))
    model = Model()
    for layer in (Residual([Dense(4, name="a")], name="b"), Dense(4, name="b.a")):
        model.add(layer)
    with pytest.raises(GraphError, match='two layers are called "b.a"'):
        model.build((4,))
    assert layers.LAYERS["Residual"] is Residual
