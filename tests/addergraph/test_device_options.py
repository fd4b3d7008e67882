"""Libraries that learn: targets, options, networks that cannot learn, and the command."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers
from addergraph.codegen import llvm
from addergraph.data import Normalize, Preprocessing
from addergraph.errors import (
    AdderGraphError,
    DataError,
    GraphError,
    ShapeError,
    UnsupportedError,
)
from addergraph.model.device import DeviceTraining
from addergraph.training import SGD
from addergraph.training.recipes import find
from tests.addergraph.shell import Shell
from tests.addergraph.test_device import SETTINGS, images
from tests.codegen.learners import small_model

pytestmark = pytest.mark.needs("cc")


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["aarch64-linux-gnu", "armv7-linux-gnueabihf", "riscv64-linux-gnu", "thumbv8m-mve"]
)
def test_other_targets(target: str, tmp_path: Path) -> None:
    """Whole; `tests/codegen/test_learning.py` runs some."""
    made = ag.export(small_model(), tmp_path, train=SETTINGS, target=target)
    facts = json.loads(made.metadata.read_text())
    assert facts["golden"]["exact"] is False and facts["training"]["batch"] == 4


@pytest.mark.slow
def test_a_board_takes_its_target_with_floats(tmp_path: Path) -> None:
    made = ag.export(small_model(), tmp_path, train=SETTINGS, board="stm32f767")
    assert json.loads(made.metadata.read_text())["target"]["name"] == "thumbv7em-f32"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "thumbv6m"}, "training multiplies .*code for thumbv6m may not"),
        ({"target": "riscv32i"}, "training multiplies"),
        ({"target": "thumbv7em"}, "no float instructions: take .*thumbv7em-f32"),
        ({"multiplication_free": True}, "multiplication_free does not go with training"),
        ({"package": "cmake"}, "package does not go with training"),
        ({"batch": 3}, r"batch does not go with training: DeviceTraining\(batch=...\)"),
        ({"weights": {"last.b": np.zeros(4)}}, "weights does not go with training: a model"),
        ({"train": 16}, "train= takes a description, such as .* found int"),
    ],
)
def test_options_that_do_not_go_with_training(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    given = {"train": SETTINGS, **options}
    with pytest.raises(UnsupportedError, match=says):
        ag.export(small_model(), tmp_path / "made", **given)
    assert not (tmp_path / "made").exists()


def test_no_room_is_said_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(llvm, "compile_both", never)
    settings = SETTINGS
    with pytest.raises(UnsupportedError, match=r"RAM at least .* of 4,096 bytes \(arena .*, state"):
        ag.export(small_model(), tmp_path, train=settings, target="thumbv7em-f32", ram=4096)
    with pytest.raises(UnsupportedError, match=r"flash at least .* \(constants .*self-test"):
        ag.export(small_model(), tmp_path, train=settings, target="thumbv7em-f32", flash=512)
    with pytest.raises(UnsupportedError, match="training multiplies"):
        ag.export(small_model(), tmp_path, train=settings, board="microbit")


def quantized() -> Any:
    model = small_model()
    model.weights["bn.beta"][...] = 9.0  # alive without training
    return ag.quantize(model, images(np.random.default_rng(0), 16), engine="reference")


def test_what_is_no_model_cannot_learn(tmp_path: Path) -> None:
    for given, what in ((quantized(), "Quantized"), (small_model().inference_graph(), "Graph")):
        with pytest.raises(UnsupportedError, match=f"a {what} cannot learn: an integer network"):
            ag.export(given, tmp_path, train=SETTINGS)


@pytest.mark.parametrize("batch", [0, -1, 1.5, "4", None])
def test_impossible_batches(batch: Any) -> None:
    with pytest.raises(DataError, match="batch="):
        DeviceTraining(batch=batch)


def test_networks_that_cannot_be_trained(tmp_path: Path) -> None:
    frozen, single = small_model(), Model(input_shape=(4,))
    frozen.freeze("*")
    for layer in (layers.Dense(3), layers.BatchNorm()):
        single.add(layer)
    cases: list[tuple[Model, int, type[AdderGraphError], str]] = [
        (frozen, 4, GraphError, "frozen|nothing"),
        (single, 1, ShapeError, "batches of at least 2 samples"),
    ]
    for model, batch, error, says in cases:
        with pytest.raises(error, match=says):
            ag.export(model, tmp_path, train=DeviceTraining(batch=batch))


def test_names_that_coincide_in_c(tmp_path: Path) -> None:
    def net(labels: Any) -> Any:
        return layers.Dense(3, name="d")(labels)

    says = '%labels would be called "labels" in C, which clashes with what training is told'
    with pytest.raises(UnsupportedError, match=says):
        ag.export(Model(net, input_shape=(4,)), tmp_path, train=SETTINGS)


def test_recipes() -> None:
    made = DeviceTraining.of_recipe(find("quick"))
    assert made.batch == 128 and made.optimizer == SGD(nesterov=True)
    assert DeviceTraining.of_recipe(find("quick"), 4).batch == 4
    with pytest.raises(UnsupportedError, match=r"sparsity=0\.5"):
        DeviceTraining.of_recipe(dataclasses.replace(find("quick"), sparsity=0.5))


# -- command ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command(shell: Shell, tmp_path: Path) -> None:
    model = small_model(preprocessing=Preprocessing(Normalize((0.0,), (1.0,), 1 / 255)))
    model.build((6, 6, 1))
    model.save(tmp_path / "m.safetensors")
    out = shell.ok(
        "compile", tmp_path / "m.safetensors", "--train", "-o", tmp_path / "c", "--batch", "4",
        "--freeze", "adder", "--freeze", "bn", "--recipe", "quick",
    )  # fmt: skip
    assert re.search(r"arena of [\d,]+ bytes and a state of [\d,]+, .*a step takes 4 samples", out)
    facts = json.loads((tmp_path / "c" / "metadata.json").read_text())
    assert [one["name"] for one in facts["training"]["state"]][:2] == ["last.f", "last.b"]
    assert facts["inputs"][0]["dtype"] == "u8"
    assert "state" in shell.ok("size", tmp_path / "c")


def test_options_of_the_command_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    quantized().save(tmp_path / "q.safetensors")
    (tmp_path / "g.ag").write_text(str(small_model().inference_graph()))
    train = ("--train", "-o", tmp_path / "c")
    compile = ("compile", "small-adder")
    assert "0 is not in the range x>=1" in shell(*compile, *train, "--batch", 0).err
    error = shell.error(*compile, "-o", tmp_path / "c", "--freeze", "a")
    assert "--freeze says how a library learns: give --train, too" in error
    error = shell.error("compile", tmp_path / "q.safetensors", *train)
    assert "cannot learn: an integer network has no gradients" in error
    error = shell.error("compile", tmp_path / "g.ag", *train)
    assert "the text of a graph says nothing of its loss" in error
    error = shell.error(*compile, *train, "--freeze", "convv")
    assert 'no layer or parameter "convv"' in error
    assert not (tmp_path / "c").exists()
