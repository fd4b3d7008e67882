"""Logs are read, pictures show what they shall, and the commands write them."""

from __future__ import annotations

import builtins
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from addergraph import Model
from addergraph.cli import main as cli
from addergraph.data import digits
from addergraph.diagnostics import Activation, GradientHistory, pictures, plots, read_log, shape_of
from addergraph.errors import DataError, StorageError, UnsupportedError
from addergraph.layers import AdderDense, Flatten
from addergraph.memory import Available
from tests.addergraph.models import small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

pytest.importorskip("matplotlib")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


# --- logs -----------------------------------------------------------------------------------------


def test_both_kinds_of_logs(tmp_path: Path) -> None:
    csv = read_log(write(tmp_path / "a.csv", "epoch,loss\n1.0,0.5\n2,\n"))
    lines = '{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "val_loss": NaN}\n'
    jsonl = read_log(write(tmp_path / "a.jsonl", lines))
    for found in (csv, jsonl):
        assert found["epoch"].tolist() == [1, 2]
        np.testing.assert_array_equal(found["loss"], [0.5, np.nan])
    assert np.isnan(jsonl["val_loss"]).all()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "epoch,loss\n1\n", r'a.csv", line 2: 1 numbers for the 2 columns epoch, loss'),
        ("a.csv", "epoch\n1\nx\n", r"line 3: epoch is 'x', expected a number"),
        ("a.csv", "", "has no rows yet"),
        ("a.csv", "\n\v", "has no rows yet"),
        ("a.jsonl", "{}", "has no rows yet"),
        ("a.jsonl", '{"epoch": 1}\n[1]\n', r"line 2: expected an object of numbers, found \[1\]"),
        ("a.jsonl", "{\n", "line 1: no JSON"),
        ("a.jsonl", '{"epoch": [1]}', r"line 1: epoch is \[1\], expected a number"),
        ("a.jsonl", '{"epoch": true}', "line 1: epoch is True, expected a number"),
    ],
)
def test_damaged_logs_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_log(write(tmp_path / name, text))


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"ends in \.csv or \.jsonl"):
        read_log(tmp_path / "log.txt")
    with pytest.raises(StorageError, match="cannot read"):
        read_log(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_bytes(b"epoch\n\xff")
    with pytest.raises(StorageError, match="is not text"):
        read_log(tmp_path / "log.csv")


# --- figures --------------------------------------------------------------------------------------


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text)]


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def legends(figure: Any) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def history() -> GradientHistory:
    made, random = GradientHistory(), np.random.default_rng(0)
    for step in (0, 5, 10):
        values = random.normal(0, 0.01, (3, 3, 2, 4))
        made.record(step, {"a.f": values, "b.f": values / 50, "gone.f": 0 * values})
    return made


def test_curves() -> None:
    columns = {"loss": [2.0, 1.0], "val_loss": [3.0, 2.5], "accuracy": [0.1, 0.4]}
    figure = plots.plot_curves({"adder": columns, "conv": {**columns, "learning_rate": [1, 0.5]}})
    loss, accuracy, rate = figure.axes[:3]
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("", "mean loss of a sample")
    assert accuracy.get_xlabel() == rate.get_xlabel() == "epoch"
    assert accuracy.get_ylabel() == "accuracy (share of samples)"
    assert list(lines(loss)) == [
        "adder, training", "adder, validation", "conv, training", "conv, validation",
    ]  # fmt: skip
    validation = lines(loss)["conv, validation"]
    assert validation.get_linestyle() == "--" and validation.get_ydata().tolist() == [3.0, 2.5]
    assert lines(loss)["conv, training"].get_color() == validation.get_color() == pictures.VERMILION
    assert list(lines(rate)) == ["conv"] and lines(rate)["conv"].get_xdata().tolist() == [1, 2]
    assert "Training\nadder, conv" in texts(figure)
    speed = plots.plot_curves({"a$b$": {"images_per_second": [100.0, 101.0]}})
    assert speed.axes[0].get_ylim()[0] == 0 and r"Training\na\$b\$".replace(r"\n", "\n") in texts(
        speed
    )
    assert speed.axes[0].get_ylim()[1] >= 1.04 * 101  # below the frame
    with pytest.raises(DataError, match="nothing to draw: expected some of the columns loss, val_"):
        plots.plot_curves({"a": {"seconds": [1.0]}})


def test_gradient_bands_and_the_vanished_layer() -> None:
    made = history()
    figure = plots.plot_gradients(made)
    a, _, gone = figure.axes[:3]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a.f", "b.f", "gone.f"]
    np.testing.assert_allclose(
        lines(a)["median"].get_ydata(), [q[3] for q in made.quantiles["a.f"]]
    )
    of = "m.safetensors on digits"
    for drawn in (plots.plot_gradients(made, of), plots.plot_gradient_norms(made, of)):
        assert any(text.endswith(f"\n{of}") for text in texts(drawn))
    assert legends(figure) == ["1 to 99 %", "10 to 90 %", "25 to 75 %", "median"]
    outer = a.collections[0].get_paths()[0].vertices[:, 1]
    assert outer.max() == max(q[6] for q in made.quantiles["a.f"])
    assert "0 at every recorded step" in [text.get_text() for text in gone.texts]
    assert gone.get_xlabel() == "training step" and a.get_ylabel() == "loss / unit of weight"
    with pytest.raises(DataError, match="no gradients are recorded"):
        plots.plot_gradients(GradientHistory())


def test_gradient_sizes() -> None:
    figure = plots.plot_gradient_norms(history())
    (axes,) = figure.axes
    assert list(lines(axes)) == ["a.f", "b.f"] and axes.get_yscale() == "log"
    assert "0 at every recorded step: gone.f" in texts(figure)
    dead = GradientHistory()
    dead.record(0, {"f": np.zeros((2, 2))})
    assert "no layer has a gradient" in texts(plots.plot_gradient_norms(dead))


def test_filters_name_the_better_density() -> None:
    random = np.random.default_rng(1)
    shapes = {
        "adder.f": shape_of(random.laplace(size=5000)),
        "conv.f": shape_of(random.normal(size=5000)),
        "zero.f": shape_of(np.zeros(9)),
    }
    figure = plots.plot_filters(
        shapes, {"adder.f": "adder2d", "conv.f": "conv2d", "zero.f": "dense"}
    )
    adder, conv, zero = (axes.get_title() for axes in figure.axes[:3])
    assert adder.startswith("adder.f (adder2d)\nLaplace fits better by 0.0")
    assert conv.startswith("conv.f (conv2d)\nnormal fits better by 0.0")
    assert zero == "zero.f (dense)\nall the same"
    assert legends(figure) == ["weights", "normal", "Laplace"]


def relu(node: str, zeros: float, dead: float | None) -> Activation:
    values = np.linspace(0.0, 1.0, 100)
    values[: int(100 * zeros)] = 0.0
    return Activation(node, "relu" if dead is not None else "conv2d", shape_of(values), dead)


def test_activations_and_dead_channels() -> None:
    found = [relu("conv1", 0.01, None), relu("act1", 0.4, 0.25), relu("act2", 0.6, 0.0)]
    figure = plots.plot_activations(found)
    assert figure.axes[1].get_title() == "act1 (relu)\n40% zeros, 25% of channels dead"
    (axes,) = plots.plot_dead(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["act1", "act2"]
    assert [text.get_text() for text in axes.texts] == ["40 %", "60 %", "25 %", "0 %"]
    assert axes.get_xlabel() == "share (%)"
    with pytest.raises(DataError, match="the network has no relu"):
        plots.plot_dead(found[:1])


def test_many_panels_stay_readable() -> None:
    figure, axes = pictures.panels(20, "t", "x", "y")
    assert len(axes) == 20 and figure.get_size_inches()[0] == 4 * pictures.PANEL[0]
    assert sum(bool(axis.get_ylabel()) for axis in axes) == 5
    assert sum(bool(axis.get_xlabel()) for axis in axes) == 4


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_files_are_what_their_names_say(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    pictures.save(pictures.new_figure(2, 1), path)
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_names_that_are_no_pictures(tmp_path: Path) -> None:
    for refuse in (pictures.require_picture, lambda p: pictures.save(None, p)):
        with pytest.raises(StorageError, match=r"ends in \.png, \.svg, \.pdf"):
            refuse(tmp_path / "a.jpg")
    with pytest.raises(StorageError, match="there is no folder"):
        pictures.require_picture(tmp_path / "no" / "a.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedError, match=r"pip install 'addergraph\[plot\]'"):
        pictures.require_picture(tmp_path / "a.png")


# --- commands -------------------------------------------------------------------------------------


def run(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[object], status: int = 0
) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    printed = capsys.readouterr()
    assert end.value.code == status, printed
    return printed.out, printed.err


def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "one" / "log.csv", "epoch,loss\n1,0.5\n2,0.4\n")
    second = write(tmp_path / "two" / "log.jsonl", '{"epoch": 1, "loss": 0.7}\n')
    output = tmp_path / "curves.svg"
    run(capsys, ("plot", first, second, "-o", output))
    drawn = output.read_text()
    assert "<!-- one, training -->" in drawn and "<!-- two, training -->" in drawn
    other = write(tmp_path / "one.csv", "epoch,loss\n1,0.6\n")  # its name is that of the folder
    run(capsys, ("plot", first, other, "-o", output))
    assert all(f"<!-- {log}, training -->" in output.read_text() for log in (first, other))
    _, error = run(capsys, ("plot", first, "-o", tmp_path / "a.bmp"), status=2)
    assert "the name of a picture ends in" in error


def test_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    available = "addergraph.cli.commands.diagnose.available_memory"
    monkeypatch.setattr(available, lambda: None)  # a system that does not tell
    out, _ = run(capsys, ("check", "small-adder", "--batch", 8))
    assert "small-adder: no findings\ntraining with batches of 8 needs " in out
    assert "arena " in out and "available" not in out
    out, _ = run(capsys, ("check", "deck"), status=1)
    assert out.startswith('act1: relu "act1" is always 0') and "deck: 2 findings" in out
    monkeypatch.setattr(available, lambda: Available(99, "a test"))
    out, error = run(capsys, ("check", "small-adder", "--batch", 8), status=2)
    assert out.endswith("available: 99 B (a test)\n")
    assert error.startswith("error: the training needs") and "available are 99 B (a test)" in error


def test_check_needs_a_network_to_say_what_training_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = small_model(input_shape=(8, 8, 1), name="tiny").graph(training=False)
    path = write(tmp_path / "net.ag", str(graph))
    _, error = run(capsys, ("check", path, "--batch", 8), status=2)
    assert f'"{path}" is the text of a graph; a model file or a network can be trained' in error


QUICK = ("--steps", 4, "--every", 2, "--batch", 16, "--threads", 1, "--normalize", "brightness")


@pytest.mark.parametrize("drawn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_diagnose(
    drawn: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not drawn:  # PNG files take most of the time
        monkeypatch.setattr(pictures, "save", lambda figure, path: Path(path).touch())
    small_model(input_shape=(8, 8, 1), name="tiny").save(tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    folder = tmp_path / "pictures"
    out, _ = run(capsys, ("diagnose", tmp_path / "m.safetensors", *QUICK, "-o", folder))
    assert "adder1.f" in out and out.count("\nwrote ") == 6
    assert max(map(len, out.splitlines()[:10])) <= 80
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == [
        "activations.png", "diagnosis.json", "filters.png", "gradient-sizes.png", "gradients.png",
        "relus.png",
    ]  # fmt: skip
    numbers = json.loads((folder / "diagnosis.json").read_text())
    assert numbers["network"] == "tiny" and numbers["gradients"]["steps"] == [0, 2]


def test_a_network_without_relus_has_no_picture_of_dead_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "save", lambda figure, path: Path(path).touch())
    model = Model(input_shape=(8, 8, 1), name="tiny")
    model.add(Flatten())
    model.add(AdderDense(10))
    model.save(tmp_path / "m.safetensors")
    folder = tmp_path / "pictures"
    out, _ = run(capsys, ("diagnose", tmp_path / "m.safetensors", *QUICK, "-o", folder))
    assert out.count("\nwrote ") == 5 and not (folder / "relus.png").exists()


def test_a_network_of_the_zoo_is_new_and_takes_what_the_option_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def examine(*given: Any) -> Any:
        asked.extend(given)
        return SimpleNamespace(text=lambda: "found")

    monkeypatch.setattr("addergraph.cli.commands.diagnose.examine", examine)
    command = ("diagnose", "all-adder", "--normalize", "statistics", "--seed", 3)
    assert run(capsys, command)[0] == "found\n"
    model, images, _, settings = asked
    data = digits.dataset()
    assert model.seed == settings.seed == 3 and np.array_equal(images, data.x_train)
    assert model.preprocessing == data.preprocessing(data.normalize())


def test_diagnose_refuses_before_it_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = write(tmp_path / "file", "")
    _, error = run(capsys, ("diagnose", "small-adder", "-o", blocked), status=2)
    assert f'cannot make the folder "{blocked}"' in error
    _, error = run(capsys, ("diagnose", "smal-adder"), status=2)
    assert 'did you mean "small-adder"' in error
