"""The examples, with small settings: they run to their end and write what they promise."""

from __future__ import annotations

import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from addergraph import Model
from addergraph.diagnostics import read_log
from addergraph.errors import DataWarning
from tests.addergraph.authors import RESNET20, state
from tests.addergraph.data.published import cifar_files, write_folder

ROOT = Path(__file__).parent.parent


class Example:
    """Runs examples/<name>.py in this process; what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: object) -> str:
        path = ROOT / "examples" / f"{name}.py"
        self.monkeypatch.setattr("sys.argv", [str(path), *map(str, arguments)])
        self.capsys.readouterr()
        runpy.run_path(str(path), run_name="__main__")
        return self.capsys.readouterr().out


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    return Example(monkeypatch, capsys)


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "compare", "gradients", "own_images", "transfer"]
)
def test_it_is_short_and_says_what_to_look_at(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 100
    docstring = text.split('"""')[1]
    assert f"python examples/{name}.py" in docstring
    assert len(docstring.splitlines()) > 6


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


@pytest.mark.slow
def test_compare(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = example("compare", "--epochs", 5, "--output", tmp_path)
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["small-adder", "small-conv"]
    assert float(lines[1].split()[2]) > 0.95
    assert "small-adder, adder3.f: Laplace fits better" in out
    assert "small-conv, conv4.f: normal fits better" in out
    assert is_picture(tmp_path / "curves.png")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_objects")
def test_gradients(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = example("gradients", "--steps", 6, "--every", 3, "--output", tmp_path)
    healthy, dead = out.split("deck: wrote")
    assert "warning" not in healthy
    assert 'relu "act1" is always 0' in dead
    assert 'the gradient of "adder1.f" has vanished at step 3' in dead
    for name in ("healthy-values", "healthy-sizes", "dead-values", "dead-sizes"):
        assert is_picture(tmp_path / f"{name}.png")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_objects")
def test_cifar_resnet20(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = write_folder(tmp_path / "data", cifar_files(10, "bin", count=2))
    options = ("--epochs", 2, "--batch", 10, "--output", tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # fewer images than were published
        out = example("cifar_resnet20", f"cifar10:{folder}", *options)
    assert "epoch 2/2  loss" in out and "memory " in out
    log = read_log(tmp_path / "run" / "log.csv")
    assert log["epoch"].tolist() == [1, 2]
    assert np.isfinite(log["loss"]).all() and np.isfinite(log["val_loss"]).all()
    assert Model.load(tmp_path / "run" / "resnet20.safetensors").input_shape == (32, 32, 3)
    assert is_picture(tmp_path / "run" / "curves.png")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_objects")
def test_transfer(example: Example, tmp_path: Path) -> None:
    theirs = state(RESNET20._replace(classes=7))
    save_file({k: np.ascontiguousarray(a) for k, a in theirs.items()}, tmp_path / "a.safetensors")
    output = tmp_path / "b.safetensors"
    options = ("--images", 8, "--epochs", 1, "--output", output)
    out = example("transfer", tmp_path / "a.safetensors", *options)
    assert out.startswith("imported      0.")
    model = Model.load(output)
    assert model.output_shape == (10,)
    theirs_in_our_layout = theirs["layer3.1.conv2.adder"].transpose(2, 3, 1, 0)
    moved = np.abs(model.weights["stage3.block1.conv2.f"] - theirs_in_our_layout)
    assert 0 < moved.mean() < 0.05


def test_of_own_images_that_do_not_fit_the_command_says_why(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number in range(4):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.new("RGB", (8 + number, 8)).save(path)
    words = (ROOT / "examples" / "own_images.py", "--images", tmp_path, "--output", tmp_path / "o")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: images have different sizes")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.needs("cc", "make")
def test_own_images(example: Example, tmp_path: Path) -> None:
    """The C programs name the classes that the model does: the example itself asserts it."""
    pytest.importorskip("PIL")
    out = example("own_images", "--epochs", 4, "--output", tmp_path)
    accuracies = [float(line.split()[-1]) for line in out.splitlines() if "C program" in line]
    assert len(accuracies) == 2 and min(accuracies) > 0.5
