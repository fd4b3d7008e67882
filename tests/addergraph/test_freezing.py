"""Frozen parameters: no gradient, the same bits, in every kind of model and after its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, layers, parse, quantization_aware
from addergraph.errors import DataError, GraphError, ShapeError
from addergraph.ir import Array
from addergraph.training import SGD, Adam
from tests.addergraph.models import X, Y, fit, residual, small_model
from tests.addergraph.shell import Shell

SHAPE = (8, 8, 1)


def functional() -> Model:
    return Model(residual, input_shape=SHAPE)


def loaded(make: Callable[[], Model]) -> Callable[[], Model]:
    def made() -> Model:
        make().save("before.safetensors")
        return Model.load("before.safetensors")

    return made


def of_layers() -> Model:
    return small_model(input_shape=SHAPE)


KINDS = {
    "layers": of_layers,
    "function": functional,
    "loaded layers": loaded(of_layers),
    "loaded function": loaded(functional),
}


@pytest.fixture(params=KINDS)
def model(request: Any, tmp_path: Path, monkeypatch: Any) -> Model:
    monkeypatch.chdir(tmp_path)
    made = KINDS[request.param]()
    made.weights["bn1.mean"][...] = -40.0  # what follows the adder is alive
    return made


def copies(model: Model) -> dict[str, Array]:
    return {name: array.copy() for name, array in model.weights.items()}


def changed(model: Model, before: dict[str, Array]) -> set[str]:
    return {name for name, a in model.weights.items() if not np.array_equal(a, before[name])}


@pytest.mark.parametrize("optimizer", [SGD(), Adam(average=0.9)], ids=["sgd", "adam"])
def test_frozen_parameters_keep_their_bits_and_the_others_learn(
    model: Model, optimizer: Any
) -> None:
    model.freeze("adder1", "bn*")
    before = copies(model)
    fit(model, epochs=2, optimizer=optimizer)
    held = {"adder1.f", "bn1.gamma", "bn1.beta", "bn1.mean", "bn1.variance"}
    assert changed(model, before) == model.weights.keys() - held
    assert model.frozen == [n for n in model.weights if n in held - {"bn1.mean", "bn1.variance"}]


def test_nothing_of_a_frozen_parameter_is_in_the_step() -> None:
    model = small_model(input_shape=SHAPE)
    whole = model.train_step(4, engine="reference").graph(4)
    assert any(n.op.name == "adder2d_grad_filter" for n in whole.nodes)
    model.freeze("adder1", "bn1")
    step = model.train_step(4, engine="reference").graph(4)
    assert not any("adder2d_grad" in n.op.name or "statistics" in n.op.name for n in step.nodes)
    assert {u.parameter.name for u in step.updates} == {
        "dense1.f", "dense1.b", "dense1.f.velocity", "dense1.b.velocity",
    }  # fmt: skip


def test_a_frozen_batch_norm_answers_in_training_as_in_inference() -> None:
    model = small_model(input_shape=SHAPE)
    model.weights["bn1.mean"][...] = -9.0
    model.freeze("bn1")
    step = model.train_step(16, engine="reference")
    expected = model.predict(X[:16], engine="reference")
    assert np.array_equal(step(X[:16], Y[:16], 0.0)[1], expected)
    model.unfreeze("bn1.beta")  # one of its parameters learns: the batch's statistics again
    assert not np.allclose(
        model.train_step(16, engine="reference")(X[:16], Y[:16], 0.0)[1], expected
    )


def test_before_weights_exist_and_by_patterns() -> None:
    model = small_model()
    model.freeze("adder?", "bn1.[bg]*")
    model.build(SHAPE)
    assert model.frozen == ["adder1.f", "bn1.gamma", "bn1.beta"]
    model.freeze("*")
    model.unfreeze("dense1")
    assert model.frozen == ["adder1.f", "bn1.gamma", "bn1.beta"]
    model.unfreeze("*")
    assert model.frozen == []
    model = small_model()
    model.freeze("ader1")
    with pytest.raises(GraphError, match='no layer or parameter "ader1".*did you mean "adder1"'):
        model.build(SHAPE)


def test_a_layer_says_it_itself_and_for_its_parts(tmp_path: Path) -> None:
    model = Model(input_shape=SHAPE)
    for layer in (
        layers.Conv(4, 3, padding=1, trainable=False),
        layers.Residual([layers.Adder(4, 3, padding=1), layers.BatchNorm()], trainable=False),
        layers.Flatten(), layers.Dense(10),
    ):  # fmt: skip
        model.add(layer)
    held = ["conv1.f", "block1.adder1.f", "block1.bn1.gamma", "block1.bn1.beta"]
    assert model.frozen == held
    assert "%conv1.f: f32[3,3,1,4] init=normal(0,0.4714045207910317) frozen" in str(
        model.graph(training=False)
    )
    model.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").frozen == held
    model.unfreeze("conv1")  # also what the layer said
    model.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").frozen == held[1:]
    with pytest.raises(ShapeError, match="trainable=1"):
        layers.Dense(3, trainable=1)  # type: ignore[arg-type]


def test_a_file_keeps_it_and_momenta_of_frozen_batch_norms(model: Model) -> None:
    model.freeze("bn1", "adder1")
    expected = model.frozen
    model.save("m.safetensors")
    again = Model.load("m.safetensors")
    assert again.frozen == expected
    assert again.graph(training=False) == model.graph(training=False)
    before = copies(again)
    fit(again)
    assert not {"bn1.mean", "adder1.f"} & changed(again, before)
    again.unfreeze("*")
    before = copies(again)
    fit(again)
    assert changed(again, before) == before.keys()  # the running statistics, too


def test_freezing_everything_is_refused_at_fit(model: Model) -> None:
    model.freeze("*")
    with pytest.raises(GraphError, match=r'parameters are all frozen; .*unfreeze\("dense1"\)'):
        fit(model)
    model.unfreeze("dense1")
    fit(model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("bn1.mean",), "name the batch norm"),
        (("dense1", "danse1"), 'no layer or parameter "danse1".*did you mean "dense1"'),
        ((), "takes names of layers and parameters.*found none"),
        ((3,), "takes names .*found 3"),
    ],
)
def test_what_is_no_name_changes_nothing(names: tuple[Any, ...], message: str) -> None:
    model = small_model(input_shape=SHAPE)
    model.freeze("adder1")
    for change in (model.freeze, model.unfreeze):
        with pytest.raises(GraphError, match=message):
            change(*names)
    assert model.frozen == ["adder1.f"]


def test_a_checkpoint_of_other_frozen_parameters_is_refused(tmp_path: Path) -> None:
    def run(*names: str, **options: Any) -> Model:
        model = small_model(input_shape=SHAPE)
        if names:
            model.freeze(*names)
        fit(model, checkpoint=tmp_path, resume=True, **options)
        return model

    run("adder1", epochs=1)
    resumed, whole = run("adder1", epochs=2), small_model(input_shape=SHAPE)
    whole.freeze("adder1")
    fit(whole, epochs=2)
    assert all(np.array_equal(a, whole.weights[n]) for n, a in resumed.weights.items())
    with pytest.raises(DataError, match=r"other frozen parameters \(there alone: adder1.f\)"):
        run(epochs=3)
    with pytest.raises(DataError, match=r"there alone: adder1.f; here alone: dense1.f, dense1.b"):
        run("dense1", epochs=3)


@pytest.mark.usefixtures("quick_objects")
def test_training_for_integers_keeps_it() -> None:
    model = functional()
    model.freeze("adder1", "bn1")
    aware = quantization_aware(model, X[:32])
    assert aware.frozen == model.frozen
    before = copies(aware)
    fit(aware)
    assert changed(aware, before) <= before.keys() - {"adder1.f", "bn1.gamma", "bn1.mean"}
    assert "dense1.f" in changed(aware, before)


def test_text_says_frozen_and_the_summary_marks_it() -> None:
    model = small_model(input_shape=SHAPE)
    model.freeze("adder1")
    graph = model.graph(training=False)
    assert parse(str(graph)) == graph
    assert next(iter(parse(str(graph)).parameters)).frozen
    text = model.summary_text()
    assert "adder1 *" in text and "bn1 *" not in text
    assert "658 trainable, 36 frozen (*) and 8 fixed parameters" in text


@pytest.mark.usefixtures("quick_objects")
def test_train_freezes_by_option(shell: Shell) -> None:
    quick = ("--epochs", 1, "--engine", "reference", "-o", "m.safetensors")
    np.savez("mine.npz", x=X, y=Y)
    out = shell.ok(
        "train", "--data", "mine.npz", "--model", "small-adder", "--freeze", "conv1", "--freeze",
        "adder[12]", *quick,
    )  # fmt: skip
    assert "23,184 of " in out and " numbers to train are frozen" in out
    assert Model.load("m.safetensors").frozen == ["conv1.f", "adder1.f", "adder2.f"]
    refused = shell.error("train", "--data", "mine.npz", "--freeze", "conv9", *quick)
    assert 'did you mean "conv1"' in refused
