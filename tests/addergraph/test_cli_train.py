"""`addergraph train` and `addergraph recipe`: what they print, write and refuse."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model
from addergraph.errors import StorageError
from addergraph.files import storage
from addergraph.training import recipes
from addergraph.training.step import TrainStep
from tests.addergraph.shell import Shell

pytestmark = pytest.mark.usefixtures("quick_objects")


@pytest.mark.slow
def test_train_on_the_digits(shell: Shell) -> None:
    out = shell.ok("train", "--model", "small-conv", "--epochs", 2, "-o", "m.safetensors")
    assert "small-conv on digits: 1437 samples of (8, 8, 1), 360 to validate" in out
    assert "epoch 2/2" in out
    accuracy = float(out.split("validation: ")[1].split("accuracy ")[1].split()[0])
    assert accuracy > 0.5
    assert "wrote m.safetensors" in out
    assert Model.load("m.safetensors").name == "small_conv"


def test_train_on_images_of_ones_own_and_go_on(shell: Shell) -> None:
    rng = np.random.default_rng(0)
    np.savez("mine.npz", x=rng.random((12, 9, 9)), y=np.arange(12) % 3)
    quick = ("--epochs", 1, "--batch", 6, "--threads", 1, "-o", "m.safetensors")
    out = shell.ok("train", "--data", "mine.npz", "--model", "small-conv", *quick)
    assert "12 samples of (9, 9, 1)\n" in out
    assert "validation" not in out
    assert Model.load("m.safetensors").output_shape == (3,)
    out = shell.ok(
        "train", "--data", "mine.npz", "--validation", "mine.npz", "--model", "m.safetensors",
        "--engine", "reference", *quick,
    )  # fmt: skip
    assert "12 to validate" in out
    assert "validation: loss" in out


def _three_parts() -> None:
    """Bright images of class 1, dark ones of class 0, as archives; class 0 lacks one brightness."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = rng.random((40, 8, 8, 1)).astype(np.float32) / 4 + y[:, None, None, None] / 2
    test: dict[str, Any] = {"x_test": x[:6], "y_test": y[:6]}
    np.savez("two.npz", x_train=x, y_train=y, **test)
    np.savez("three.npz", x_train=x, y_train=y, x_val=x[:8], y_val=y[:8], **test)
    np.savez("bytes.npz", x=(x * 255).astype(np.uint8), y=y)
    for name, classes in (("named", ["no", "yes"]), ("renamed", ["yes", "no"])):
        np.savez(f"{name}.npz", x=x, y=y, classes=classes)


_QUICK = (
    "--model", "small-conv", "--engine", "reference", "--epochs", 1, "--batch", 20,
    "-o", "m.safetensors",
)  # fmt: skip


def test_a_split_or_a_validation_part_chooses_and_the_test_part_is_told_last(shell: Shell) -> None:
    _three_parts()
    out = shell.ok("train", "--data", "two.npz", "--validation-split", 0.1, "--keep-best", *_QUICK)
    assert "two.npz: 36 samples of (8, 8, 1), 4 to validate, 6 to test\n" in out
    assert out.index("validation: loss ") < out.index("test: loss ")
    out = shell.ok("train", "--data", "three.npz", "--patience", 1, *_QUICK)
    assert "40 samples of (8, 8, 1), 8 to validate, 6 to test\n" in out
    out = shell.ok("train", "--data", "two.npz", *_QUICK)
    assert "6 to validate: the test part, by which nothing is chosen\n" in out
    assert "validation: loss " in out and "test: loss" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("two", "--keep-best"), '"two.npz" has a test part alone, and that chooses nothing'),
        (("two", "--patience", 2), "give --validation-split 0.1, or other images by --validation"),
        (("three", "--validation-split", 0.1), "has 8 images to validate on already"),
        (
            ("two", "--validation-split", 0.1, "--validation", "three.npz"),
            "--validation and --validation-split both say",
        ),
        (("two", "--validation", "bytes.npz"), "the scale 0.003921568627450"),
        (
            ("named", "--validation", "renamed.npz"),
            "has the classes ('yes', 'no'), --data \"named.npz\" ('no', 'yes')",
        ),
    ],
)
def test_train_refuses_to_choose_by_the_test_part(
    shell: Shell, options: tuple[object, ...], message: str
) -> None:
    _three_parts()
    name, *others = options
    assert message in shell.error("train", "--data", f"{name}.npz", *others, *_QUICK)


def test_train_stops_and_resumes(shell: Shell) -> None:
    """The same recipe from a file, in one piece and in two; their models have the same bytes."""
    Path("my.toml").write_text(shell.ok("recipe", "quick").replace("epochs = 5", "epochs = 2"))
    x = np.random.default_rng(0).random((24, 8, 8, 1))
    np.savez("few.npz", x=x.astype(np.float32), y=np.arange(24) % 10)
    data = ("--data", "few.npz", "--validation", "few.npz", "--batch", 8, "--threads", 1)
    given = (*data, "--model", "small-conv", "--recipe", "my.toml", "--engine", "reference")
    shell.ok("train", *given, "-o", "whole.safetensors")
    run = (*given, "--checkpoint", "run", "--checkpoint-steps", 1, "--resume")
    shell.ok("train", *run, "-o", "one.safetensors")
    again = shell.ok("train", *run, "-o", "two.safetensors")
    assert 'from "run/checkpoint.safetensors": the run is complete, 2 of 2 epochs' in again
    assert "epoch" not in again.replace("epochs", "") and "validation: loss" in again
    whole, *others = (Path(f"{name}.safetensors").read_bytes() for name in ("whole", "one", "two"))
    assert others == [whole, whole]
    assert len(Path("run/log.csv").read_text().splitlines()) == 3
    said = shell.error("train", *given, "--checkpoint", "run")
    assert "is there already: resume that run" in said
    assert "made with learning_rate=" in shell.error("train", *run, "--learning-rate", 0.2)
    assert "is of another network: small_conv" in shell.error("train", *run, "--model", "all-adder")


def test_recipes_are_listed_and_printed(shell: Shell) -> None:
    listed = shell.ok("recipe")
    known = ["cvpr2020", "digits", "integers", "quick"]
    assert [line.split()[0] for line in listed.splitlines()] == known
    assert shell.ok("recipe", "digits").startswith("# digits: the embedded digits")
    assert 'unknown recipe "digit" (did you mean "digits"?)' in shell.error("recipe", "digit")


def test_train_warns_of_the_decks_dead_layer_in_one_line(shell: Shell) -> None:
    np.savez("mine.npz", x=np.eye(8)[None, ..., None].repeat(4, 0), y=np.arange(4))
    done = shell("train", "--data", "mine.npz", "--model", "deck", "--epochs", 1)
    assert done.status == 0
    (line,) = done.err.splitlines()
    assert line.startswith('warning: relu "act1" is always 0')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "m.pt"), '--output "m.pt": the name of a model file ends in .safetensors'),
        (("--output", "no/m.safetensors"), 'cannot write "no/m.safetensors": there is no folder'),
        (("--model", "smal-adder"), 'unknown network "smal-adder" (did you mean "small-adder"?)'),
        (("--data", "mnist"), 'data "mnist": expected digits, mnist:PATH'),
        (("--data", "no.npz"), 'cannot read "no.npz": No such file'),
        (("--data", "x.npz"), '"x.npz" has no array "y": it holds x'),
        (("--data", "flat.npz"), '"flat.npz": x is float64 (4, 3); expected numbers [N,H,W]'),
        (("--data", "real.npz"), '"real.npz": y'),
        (("--learning-rate", "-1"), "Cosine: base=-1.0 must be a number above 0"),
        (("--learning-rate", "0"), "Cosine: base=0.0 must be a number above 0"),
        (("--recipe", "cvpr2021"), 'unknown recipe "cvpr2021" (did you mean "cvpr2020"?)'),
        (("--recipe", "my.toml"), 'cannot read "my.toml"'),
    ],
)
def test_train_refuses_before_it_works(
    shell: Shell, arguments: tuple[str, ...], message: str
) -> None:
    np.savez("x.npz", x=np.zeros(3))
    np.savez("flat.npz", x=np.zeros((4, 3)), y=np.zeros(4, int))
    np.savez("real.npz", x=np.zeros((4, 8, 8)), y=np.zeros(4))
    assert message in shell.error("train", *arguments)
    assert not list(Path().glob("*.safetensors"))


@pytest.mark.slow
def test_train_with_other_first_and_last_layers(shell: Shell) -> None:
    quick = ("--epochs", 1, "--batch", 479, "--threads", 1)
    shell.ok("train", "--first", "adder", "--last", "adder", *quick, "-o", "m.safetensors")
    graph = Model.load("m.safetensors").graph(training=False)
    assert not {node.op.name for node in graph.nodes} & {"conv2d", "dense"}
    message = shell.error("train", "--model", "m.safetensors", "--first", "conv", *quick)
    assert message.startswith("--first and --last go with the name of a built-in network")


@pytest.mark.thinned(2)
@pytest.mark.parametrize("option", [("--resume",), ("--checkpoint-steps", 2)])
def test_checkpoints_stand_beside_the_output(shell: Shell, option: tuple[object, ...]) -> None:
    run = ("train", "--model", "small-conv", "--epochs", 1, "--batch", 479, "--threads", 1)
    out = shell.ok(*run, *option, "-o", "mine.safetensors")
    assert 'checkpoints and logs in "mine.run"\n' in out
    assert Path("mine.run", "checkpoint.safetensors").exists()
    assert "the run is complete" in shell.ok(*run, "--resume", "-o", "mine.safetensors")


def test_a_warning_of_the_data_is_one_line(shell: Shell) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3073), np.uint8)
    images[:, 0] %= 10
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        images.tofile(name)
    done = shell(
        "train", "--data", "cifar10:.", "--model", "small-conv", "--epochs", 1, "--threads", 1
    )
    assert done.status == 0
    assert done.err == (
        "warning: cifar10: 20 images to train on and 4 to test on; published are 50000 and 10000\n"
    )


@pytest.mark.slow
def test_a_model_that_cannot_be_written_any_more_is_not_lost(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, write = tmp_path / "elsewhere", storage.save
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))

    def full(path: str | Path, *content: object) -> None:
        if not full_everywhere and elsewhere in Path(path).parents:
            return write(path, *content)  # type: ignore[arg-type]
        raise StorageError(f'cannot write "{path}": No space left on device')

    monkeypatch.setattr(storage, "save", full)
    quick = ("--model", "small-conv", "--epochs", 1, "--batch", 479, "--threads", 1)
    full_everywhere = False
    message = shell.error("train", *quick, "-o", "m.safetensors")
    assert message.startswith('cannot write "m.safetensors": No space left on device. The trained')
    (rescued,) = elsewhere.glob("*/model.safetensors")
    assert str(rescued) in message and not Path("m.safetensors").exists()
    assert Model.load(rescued).name == "small_conv"
    full_everywhere = True
    message = shell.error("train", *quick, "-o", "m.safetensors")
    assert 'cannot write "m.safetensors"' in message and "could not be kept elsewhere" in message


@pytest.mark.parametrize("name", recipes.BUILT_IN)
def test_a_printed_recipe_is_read_back(shell: Shell, name: str) -> None:
    printed = shell.ok("recipe", name)
    assert printed.startswith(f"# {name}: ") and "# optimizers: sgd, adam; schedules: " in printed
    Path("my.toml").write_text(printed)
    assert recipes.find("my.toml") == recipes.find(name)


@pytest.mark.parametrize(
    ("options", "epochs", "said"),
    [
        ((), 0, "nothing was written: runs with --resume have checkpoints to go on from"),
        (("--resume",), 0, 'interrupted before the first checkpoint in "m.run"'),
        (("--resume",), 1, 'is in "m.run": the same command goes on from it'),
        (("--checkpoint", "m.run"), 1, 'is in "m.run": the same command with --resume goes on'),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    epochs: int,
    said: str,
) -> None:
    """Ctrl-C after so many epochs."""
    before = TrainStep.run

    def run(step: TrainStep, *arguments: Any) -> Any:
        if len(steps) == 2 * epochs:
            raise KeyboardInterrupt
        steps.append(1)
        return before(step, *arguments)

    steps: list[int] = []
    monkeypatch.setattr(TrainStep, "run", run)
    x = np.random.default_rng(0).random((40, 8, 8, 1))
    np.savez("few.npz", x=x.astype(np.float32), y=np.arange(40) % 10)
    base = ("train", "--data", "few.npz", "--epochs", 3, "--batch", 20, "--engine", "reference")
    done = shell(*base, "--model", "small-conv", "-o", "m.safetensors", *options)
    assert done.status == 130 and done.err.split() == ["interrupted"]
    assert said in done.out.splitlines()[-1]
    assert not Path("m.safetensors").exists()


@pytest.mark.thinned(2)
@pytest.mark.skipif(os.name != "posix", reason="terminals and signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_on_a_terminal_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM gives the cursor back; at SIGHUP the terminal is gone. Both keep a checkpoint."""
    master, slave = os.openpty()
    command = ["train", "--model", "small-conv", "--engine", "reference", "--epochs", "9999"]
    command += ["--resume", "-o", str(tmp_path / "m.safetensors")]
    with subprocess.Popen(
        [sys.executable, "-m", "addergraph", *command],
        cwd=Path(__file__).parents[2], env={**os.environ, "TERM": "xterm"},
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # which may be ignored here
    ) as process:  # fmt: skip
        os.close(slave)
        seen = b""
        while b"epoch 1/" not in seen:  # a step is done
            seen += os.read(master, 4096)
        if number == signal.SIGHUP:
            os.close(master)
        process.send_signal(number)
        if number == signal.SIGTERM:
            with contextlib.suppress(OSError):  # the end of a terminal
                while made := os.read(master, 4096):
                    seen += made
            os.close(master)
        assert process.wait(timeout=60) == 128 + number
    assert (tmp_path / "m.run" / "checkpoint.safetensors").exists()
    if number == signal.SIGTERM:
        assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1  # cursor off, cursor on
        assert b"goes on from it" in seen and seen.endswith(b"interrupted\r\n")
        assert b"Traceback" not in seen


def test_a_model_file_is_not_replaced_unless_it_was_named(shell: Shell) -> None:
    np.savez("x.npz", x=np.zeros((6, 4, 4, 1), np.uint8), y=np.arange(6) % 2)
    Path("model.safetensors").write_text("hours of work")
    error = shell.error("train", "--data", "x.npz")
    assert '"model.safetensors" exists: name it (-o model.safetensors)' in error
    assert Path("model.safetensors").read_text() == "hours of work"


@pytest.mark.parametrize("command", ["train", "diagnose"])
def test_what_cannot_be_trained_is_refused_before_data_are_read(shell: Shell, command: str) -> None:
    Path("net.ag").write_text("graph")
    for network, said in (
        ("resnet21", 'unknown network "resnet21" (did you mean "resnet20"?)'),
        ("no.safetensors", "cannot read"),
        ("net.ag", "is the text of a graph, which says nothing of training"),
    ):
        given = ("--model", network) if command == "train" else (network,)
        assert said in shell.error(command, *given, "--data", "nowhere.npz")
