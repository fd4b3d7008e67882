"""Every Python block of docs/ runs, and every command there has options that exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import addergraph as ag
from addergraph import Model
from addergraph.cli.main import commands
from tests.addergraph.data.published import cifar_files, write_folder
from tests.addergraph.models import DATA, adders_only, small_model
from tests.documents import ROOT, python_blocks, shell_commands

pytestmark = pytest.mark.usefixtures("quick_objects")

Names = dict[str, Any]
DOCUMENTS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
WHOLE = ("docs/tutorial.md",)  # run from its beginning to its end by test_tutorial.py
BLOCKS = [(f, i) for f in DOCUMENTS if f not in WHOLE for i in range(len(python_blocks(f)))]
SHELL = [words for file in DOCUMENTS for words in shell_commands(file)]
COMMANDS = [words for words in SHELL if words[0] == "addergraph"]
BENCHMARKS = [words for words in SHELL if words[:2] == ["python", "-m"]]
OTHERS = [
    words
    for file in DOCUMENTS
    if file not in WHOLE
    for words in shell_commands(file)
    if words[0] != "addergraph" and words[:2] != ["python", "-m"]
]
# Of the paper's run, what would take hours, and what is as fast.
FASTER = {
    "epochs=400": "epochs=1",
    "Cosine(0.1, 400)": "Cosine(0.1, 1)",
    'zoo.build("resnet20")': 'zoo.build("small-conv", (32, 32, 3))',
}


def nothing() -> Names:
    return {}


def model_and_batches() -> Names:
    rows = [slice(start, start + 64) for start in (0, 64)]
    model = small_model(input_shape=(8, 8, 1))
    return {"model": model, "batches": [(DATA.x_train[r], DATA.y_train[r]) for r in rows]}


def model_and_images() -> Names:
    return {
        "model": small_model(input_shape=(8, 8, 1)),
        "x": DATA.x_test[:40],
        "y": DATA.y_test[:40],
    }


def a_foreign_network() -> Names:
    foreign = pytest.importorskip("tests.addergraph.onnx.foreign")
    nodes = [foreign.node("Conv", ["x", "v"], ["a"]), foreign.node("Conv", ["a", "w"], ["y"])]
    numbers = dict.fromkeys("vw", np.ones((3, 3, 1, 1), np.float32))
    foreign.written(Path(), foreign.model_of(nodes, numbers, ["y"], x=["n", 3, 4, 4]))
    return {"ag": ag}


def model_and_images_by_name() -> Names:
    return {"ag": ag, "model": small_model(input_shape=(8, 8, 1)), "images": DATA.x_test[:40]}


def two_of_each() -> Names:
    images, classes = DATA.x_test[:40], DATA.y_test[:40]
    return {"x": images, "meta": images[:, 0, :, 0], "y": classes, "size": images.mean((1, 2))}


def model_and_pictures() -> Names:
    from addergraph.diagnostics import pictures, plots

    model = small_model(input_shape=(8, 8, 1))
    model.build((8, 8, 1))
    return {"ag": ag, "model": model, "pictures": pictures, "plots": plots}


def integers() -> Names:
    x = np.random.default_rng(0).normal(size=(40, 5, 5, 2)).astype(np.float32)
    return {"ag": ag, "model": adders_only(), "x_calibration": x, "x": x[:3]}


def integers_to_train() -> Names:
    from addergraph.training.schedules import Cosine

    x, y = DATA.x_train[:64], DATA.y_train[:64]
    model = adders_only((8, 8, 1), 10)
    return {"ag": ag, "model": model, "x_calibration": x, "x": x, "y": y, "Cosine": Cosine}


def a_folder() -> Names:
    Path("build").mkdir()
    return {}


def a_photo() -> Names:
    return {"photo": np.zeros((48, 64, 3), np.uint8)}


def a_network() -> Names:
    """What the block before it made."""
    names: Names = {}
    exec(python_blocks("docs/torch.md")[0], names)
    return names


def a_model_and_images() -> Names:
    names = a_network()
    exec(python_blocks("docs/torch.md")[2], names)
    return names


def right_answers() -> Names:
    """As the board writes them: ten logits and its ticks for each image."""
    answers = np.eye(11, dtype=np.int32)[DATA.y_test]
    Path("build").mkdir()
    answers.tofile("build/logits.bin")
    return {"data": DATA}


# What a block takes from the text around it, and what has to come of it.
RUNS: dict[tuple[str, int], tuple[Callable[[], Names], Callable[[Names], bool]]] = {
    ("docs/onnx.md", 0): (
        model_and_images_by_name,
        lambda made: made["scores"].shape == (40, 10) and Path("m.onnx").exists(),
    ),
    ("docs/onnx.md", 1): (
        a_foreign_network,
        lambda made: "adder2d" in str(made["adders"].inference_graph()) and made["weights"],
    ),
    ("docs/boards.md", 0): (
        a_folder,
        lambda made: Path("build/images.bin").stat().st_size == DATA.x_test.size,
    ),
    ("docs/boards.md", 1): (right_answers, lambda made: made["answers"].shape == (360, 11)),
    ("docs/data.md", 0): (nothing, lambda made: np.shape(made["x"])[1:] == (32, 32, 3)),
    ("docs/device_training.md", 0): (
        nothing,
        lambda made: "last.f.velocity" in made["exported"].header.read_text(),
    ),
    ("docs/diagnostics.md", 0): (model_and_batches, lambda made: Path("gradients.png").exists()),
    ("docs/preprocessing.md", 0): (a_photo, lambda made: made["scores"].shape == (1, 2)),
    ("docs/new_op.md", 0): (nothing, lambda made: made["report"].ok and made["y"].shape == (3, 8)),
    ("docs/predict.md", 0): (
        model_and_images,
        lambda made: made["found"].counts.sum() == 40 and len(made["worst"]) == 24,
    ),
    ("docs/scaling.md", 0): (nothing, lambda made: made["model"].weights["conv1.f"].any()),
    ("docs/verify.md", 0): (model_and_pictures, lambda made: bool(made["report"].ok)),
    ("docs/networks.md", 0): (
        nothing,
        lambda made: {"block0.adder1.f", "block0.bn1.gamma"} < made["model"].weights.keys(),
    ),
    ("docs/networks.md", 1): (
        nothing,
        lambda made: {"conv1.f", "adder1.f", "dense1.b"} < made["model"].weights.keys(),
    ),
    ("docs/quantization.md", 0): (integers, lambda made: np.dtype("f4") == made["logits"].dtype),
    ("docs/quantization.md", 1): (integers_to_train, lambda made: made["q"].error < 0.5),
    ("docs/quantization.md", 2): (
        integers,
        lambda made: "clip(" in str(Model.load("clipped.safetensors").graph(False)),
    ),
    ("docs/training.md", 0): (
        nothing,
        lambda made: isinstance(made["model"], Model) and Path("run", "log.csv").exists(),
    ),
    ("docs/training.md", 2): (
        model_and_images,
        lambda made: made["model"].evaluate(made["x"], made["y"])["accuracy"] > 0.1,
    ),
    ("docs/training.md", 3): (
        model_and_images,
        lambda made: made["model"].evaluate(made["x"], made["y"])["accuracy"] > 0.1,
    ),
    ("docs/training.md", 1): (model_and_images, lambda made: made["model"].loss is made["focal"]),
    ("docs/torch.md", 0): (nothing, lambda made: made["network"][3].adder.grad is not None),
    ("docs/torch.md", 1): (a_network, lambda made: not made["network"].training),
    ("docs/torch.md", 2): (a_network, lambda made: made["answers"].shape == (4, 10)),
    ("docs/torch.md", 3): (
        a_model_and_images,
        lambda made: made["scores"].shape == (4, 10) and made["module"].training,
    ),
    ("docs/training.md", 4): (
        two_of_each,
        lambda made: len(made["accuracies"]) == 2 and made["sizes"].shape == (40, 1),
    ),
}


@pytest.mark.thinned(3)
@pytest.mark.filterwarnings("ignore::addergraph.errors.DataWarning")
@pytest.mark.parametrize(("file", "number"), BLOCKS)
def test_a_block_runs(
    file: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file in ("docs/diagnostics.md", "docs/verify.md"):
        pytest.importorskip("matplotlib")
    if file == "docs/torch.md":
        pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    if file == "docs/onnx.md":
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "data", cifar_files(10, "bin"))
    code = python_blocks(file)[number]
    if (file, number) == ("docs/training.md", 0):
        for slow, fast in FASTER.items():
            assert slow in code
            code = code.replace(slow, fast)
    given, holds = RUNS[file, number]
    names = given()
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, file, "exec"), names)
    assert holds(names)


def test_no_run_is_of_a_block_that_is_gone() -> None:
    assert RUNS.keys() == set(BLOCKS)


def test_pip_installs_from_a_clone_extras_that_exist() -> None:
    """The project is on no index."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for file in ("README.md", *DOCUMENTS):
        for said in re.findall("pip install ([^`#\n]*)", (ROOT / file).read_text()):
            named = re.fullmatch(r"-e '\.\[([a-z,]+)\]' *", said)
            assert named is not None and set(named[1].split(",")) <= extras.keys(), (file, said)


@pytest.mark.parametrize("words", COMMANDS, ids=shlex.join)
def test_a_command_has_options_that_exist(words: list[str]) -> None:
    arguments = words[2 : words.index(">") if ">" in words else None]
    parent = click.Context(commands, **commands.context_settings)  # click keeps what it is given
    commands.commands[words[1]].make_context(words[1], arguments, parent=parent)


@pytest.mark.parametrize("module", sorted({words[2] for words in BENCHMARKS}))
def test_a_benchmark_has_options_that_exist(module: str) -> None:
    help = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    given = {w for words in BENCHMARKS if words[2] == module for w in words if w.startswith("--")}
    assert given and [option for option in sorted(given) if f"{option} " not in help] == []


def test_other_programs_are_few() -> None:
    """Those of docs/boards.md are run by tests/codegen/test_boards.py; python runs benchmarks."""
    assert {words[0] for words in OTHERS} <= {
        "apt-get",
        "cd",
        "make",
        "mpirun",
        "pip",
        "python",
        "qemu-system-arm",
        "sudo",
    }


def test_each_claim_of_security_names_tests_that_exist() -> None:
    named = re.findall(r"`([\w/]*\.py)?::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    file = ""
    for found, test in named:
        file = found or file
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (file, test)
