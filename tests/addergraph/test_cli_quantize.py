"""`addergraph quantize`, and what the other commands do with the file that it writes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model
from addergraph.data import Normalize, Preprocessing, load
from addergraph.errors import QuantizationWarning
from addergraph.ir import Array
from addergraph.quantization import load_quantized
from tests.addergraph.models import adders_only, small_model
from tests.addergraph.shell import Shell

pytestmark = pytest.mark.usefixtures("quick_objects")


@pytest.fixture
def network(shell: Shell) -> Model:
    """Adders alone in m.safetensors, and samples in x.npz."""
    model = adders_only()
    model.save("m.safetensors")
    np.savez("x.npz", x=np.random.default_rng(0).normal(size=(40, 5, 5, 2)).astype(np.float32))
    return model


def test_quantize_and_what_follows(shell: Shell, network: Model) -> None:
    out = shell.ok(
        "quantize", "m.safetensors", "--data", "x.npz", "--bits", 6, "-o", "q.safetensors"
    )
    assert "6 bits, calibrated on 40 samples" in out
    assert "(chosen)" in out and "requantize by integer multiplications" in out
    assert "wrote q.safetensors" in out
    rows = [line for line in out.splitlines() if line.startswith("  requantize by ")]
    assert len(rows) == 4 and len({row.index("relative RMS error") for row in rows}) == 1
    assert "requantize_shift" in shell.ok("inspect", "q.safetensors")
    assert "passed" in shell.ok("verify", "q.safetensors", "--samples", 5)
    out = shell.ok("compile", "q.safetensors", "-o", "build", "--multiplication-free")
    assert "no instruction multiplies or divides, addresses included" in out
    out = shell.ok("compile", "q.safetensors", "-o", "board", "--target", "thumbv6m")
    assert "no instruction multiplies or divides, addresses included" in out
    assert "no shared library: the target has no operating system" in out
    assert "thumb code" in shell.ok("certify", "board/libtiny.a")
    error = shell.error("compile", "m.safetensors", "-o", "board", "--target", "riscv32i")
    assert "is not multiplication-free, as riscv32i needs it" in error
    image = np.random.default_rng(1).integers(0, 256, (2, 5, 5, 2), np.uint8)
    np.savez("bytes.npz", x=image)
    shell.ok("run", "q.safetensors", "--input", "bytes.npz", "--output", "y.npz")
    (answers,) = np.load("y.npz").values()
    assert answers.dtype == np.int32 and answers.shape == (2, 3)


def test_options(shell: Shell, network: Model) -> None:
    base = ("quantize", "m.safetensors", "--data", "x.npz", "-o", "q.safetensors", "--samples", 8)
    out = shell.ok(*base, "--requantize", "multiply", "--quantile", 1.0, "--no-reestimate")
    assert "by integer multiplications" in out and "power" not in out
    assert "8 samples" in out
    error = shell.error(*base, "--terms", 1)
    assert "are off by" in error and "Nothing was written; --force writes it all the same" in error
    forced = shell(*base, "--terms", 1, "--force")
    assert forced.status == 0 and "by 1 power of two" in forced.out
    assert forced.err.startswith("warning: the outputs in integers are off by")
    error = shell.error("compile", "m.safetensors", "-o", "build", "--multiplication-free")
    assert 'batch_norm "bn1": ag.quantize' in error


def test_inputs_far_from_zero_are_refused(shell: Shell, network: Model) -> None:
    """Their outputs share a large number, beside which an error of all that differs is small."""
    x = np.random.default_rng(0).normal(size=(40, 5, 5, 2)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ag.quantize(network, x)  # a good one says nothing
    with pytest.warns(QuantizationWarning, match="the same for every calibration sample"):
        ag.quantize(network, x + 1000)  # no sum is above the batch norm's mean
    network.weights["bn1.mean"][...] -= 18_000.0
    network.save("m.safetensors")
    with pytest.warns(QuantizationWarning, match="of how much the float outputs differ") as caught:
        made = ag.quantize(network, x + 1000)
    assert made.error < 0.5
    assert caught[0].filename == __file__
    np.savez("far.npz", x=x + 1000)
    base = ("quantize", "m.safetensors", "--data", "far.npz", "-o", "far.safetensors")
    assert "inputs with a large offset" in shell.error(*base)
    assert not Path("far.safetensors").exists()
    assert "wrote far.safetensors" in shell.ok(*base, "--force")


def test_errors(shell: Shell, network: Model) -> None:
    error = shell.error("quantize", "m.safetensors", "--data", "x.csv", "-o", "q.safetensors")
    assert error.startswith('data "x.csv": expected digits, mnist:PATH')
    error = shell.error("quantize", "m.safetensors", "--data", "digits", "-o", "q.safetensors")
    assert 'takes samples of shape (5, 5, 2), those of "digits" have' in error
    assert "ends in .safetensors" in shell.error(
        "quantize", "m.safetensors", "--data", "x.npz", "-o", "q.npz"
    )
    assert shell("quantize", "m.safetensors", "--data", "x.npz", "--bits", 9, "-o", "q").status == 2
    assert not Path("q.safetensors").exists()


def test_training_with_the_rounding(shell: Shell, network: Model) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 5, 5, 2)).astype(np.float32), rng.integers(0, 3, 40)
    np.savez("data.npz", x_train=x, y_train=y)
    base = ("train", "--data", "data.npz", "--epochs", 2, "--quantize-bits", 4, "--recipe")
    out = shell.ok(*base, "integers", "--model", "m.safetensors", "-o", "aware.safetensors")
    assert "quantization-aware training for 4 bits, calibrated on 40 samples" in out
    assert "fake_quantize" in shell.ok("inspect", "aware.safetensors")
    out = shell.ok("quantize", "aware.safetensors", "--data", "x.npz", "-o", "q.safetensors")
    assert "4 bits, calibrated on 40 samples" in out
    error = shell.error(
        "quantize", "aware.safetensors", "--data", "x.npz", "--bits", 6, "-o", "q6.safetensors"
    )
    assert "bits=6, but this network was trained for 4 bits" in error
    error = shell.error(*base, "quick", "--model", "small-adder", "-o", "no.safetensors")
    assert "begins with a trained network" in error and '"small-adder" is not' in error
    assert not Path("no.safetensors").exists()


def byte_images(path: str) -> tuple[Array, Array]:
    """An archive as `train` reads it: images of bytes, and what shows in them."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 90)
    x = rng.integers(0, 60, (90, 5, 5, 2)) + 80 * y[:, None, None, None]
    images = x.astype(np.uint8)
    np.savez(path, x_train=images[:60], y_train=y[:60], x_test=images[60:], y_test=y[60:])
    return images, y


def test_the_data_that_trained_a_network_quantize_and_evaluate_it(shell: Shell) -> None:
    """From bytes to integers by one archive: the file says what a pixel is, at each step."""
    images, y = byte_images("data.npz")
    adders_only().save("m.safetensors")
    base = ("--data", "data.npz", "--epochs", 2)
    out = shell.ok("train", *base, "--model", "m.safetensors", "-o", "t.safetensors")
    assert "u8 pixels enter as pixel * 0.00392157; the model file keeps it" in out
    said = float(out.split("validation: loss ")[1].split("accuracy ")[1].split()[0])
    out = shell.ok("evaluate", "t.safetensors", "--data", "data.npz")
    assert out.startswith("t.safetensors on data.npz, 30 test images: loss ")
    assert out.splitlines()[0].endswith(f"accuracy {said:.4f}")
    shell.ok("quantize", "t.safetensors", "--data", "data.npz", "-o", "q.safetensors")
    made = load_quantized("q.safetensors")
    assert made.graph.inputs[0].type.quantization is not None
    assert made.graph.inputs[0].type.quantization.scale == 1.0
    program = ag.compile(made.graph, weights=made.weights)
    assert made.preprocessing == Model.load("t.safetensors").preprocessing
    (answers,) = program.run([made.inputs(images[60:])])
    expected = np.mean(answers.argmax(axis=1) == y[60:])
    out = shell.ok("evaluate", "q.safetensors", "--data", "data.npz")
    first = f"q.safetensors on data.npz, 30 test images: accuracy {expected:.4f}\n\nclass "
    assert out.startswith(first)


def test_another_normalization_is_refused_by_both_names(shell: Shell) -> None:
    images, y = byte_images("data.npz")
    adders_only().save("m.safetensors")
    base = ("--data", "data.npz", "--recipe", "quick", "--epochs", 1, "--model", "m.safetensors")
    out = shell.ok("train", *base, "-o", "t.safetensors")
    assert "u8 pixels enter as (pixel * 0.00392157 - mean) / std, mean 0." in out
    said = out.split("validation: ")[1].splitlines()[0]
    for options in ((), ("--normalize", "statistics")):
        assert said in shell.ok("evaluate", "t.safetensors", "--data", "data.npz", *options)
    for option in ("brightness", "none"):
        given = ("t.safetensors", "--data", "data.npz", "--normalize", option)
        for command in (("evaluate",), ("diagnose",), ("quantize", "-o", "q.safetensors")):
            error = shell.error(command[0], *given, *command[1:])
            assert f'--normalize {option} contradicts "t.safetensors": by the option, u8' in error
            assert "by the file, u8 pixels enter as (pixel * 0.00392157 - mean) / std" in error
    shell.ok("quantize", "t.safetensors", "--data", "data.npz", "-o", "q.safetensors")
    trained = float(said.split("accuracy ")[1])
    out = shell.ok("evaluate", "q.safetensors", "--data", "data.npz")
    assert abs(float(out.split("accuracy ")[1].split()[0]) - trained) < 0.1
    np.savez("held_out.npz", x=images[60:], y=y[60:])
    assert said in shell.ok("evaluate", "t.safetensors", "--data", "held_out.npz")


@pytest.mark.slow
def test_a_network_that_says_nothing_of_pixels_has_to_be_told(shell: Shell) -> None:
    images, y = byte_images("data.npz")
    np.savez("held_out.npz", x=images[60:], y=y[60:])
    model = adders_only()
    for name, array in model.weights.items():
        if name.endswith(".mean"):
            array[...] = -20
    model.save("m.safetensors")
    for command in (("evaluate",), ("diagnose",), ("quantize", "-o", "q.safetensors")):
        error = shell.error(command[0], "m.safetensors", "--data", "data.npz", *command[1:])
        assert '"m.safetensors" does not say what a pixel is: give --normalize' in error
        given = ("m.safetensors", "--data", "data.npz", "--normalize", "brightness")
        shell.ok(command[0], *given, *command[1:])
    given = ("m.safetensors", "--data", "held_out.npz", "--normalize", "statistics")
    assert "would be those of the images to evaluate" in shell.error("evaluate", *given)


def test_other_classes_and_random_weights_are_said(shell: Shell) -> None:
    model = small_model(input_shape=(8, 8, 1))
    model.save("new.safetensors")
    error = shell.error("evaluate", "new.safetensors", "--data", "digits")
    assert (
        error
        == '"new.safetensors" has the random weights that it starts with, which guess: train it'
    )
    model.weights["bn1.mean"][...] = -8
    model.preprocessing = load("digits").preprocessing()
    model.save("m.safetensors")
    assert Model.load("m.safetensors").preprocessing == model.preprocessing
    done = shell("evaluate", "m.safetensors", "--data", "digits", "--normalize", "none")
    assert done.status == 0 and not done.err
    np.savez("few.npz", x=np.ones((4, 8, 8, 1), np.uint8), y=np.arange(4))
    done = shell("evaluate", "m.safetensors", "--data", "few.npz", "--normalize", "none")
    assert '"m.safetensors" tells 10 classes, the data have 4' in done.err
    names = ("cat", "dog", "bird", *"defghij")
    model.preprocessing = replace(model.preprocessing, classes=names)
    model.save("m.safetensors")
    done = shell("evaluate", "m.safetensors", "--data", "digits")
    ours, theirs = "cat, dog, bird, d, e and 5 more", "0, 1, 2, 3, 4 and 5 more"
    assert (
        f'tells the classes {ours}; "digits" has {theirs}: classes are compared by their'
        in done.err
    )
    other = adders_only()
    other.weights["adder_dense1.f"][...] *= 0.5  # other than those that its seed draws
    other.preprocessing = Preprocessing(Normalize((0.0,) * 2, (1.0,) * 2), classes=names[:3])
    other.save("other.safetensors")
    done = shell("evaluate", "other.safetensors", "--data", "digits")
    assert "give the data that it was trained for" in done.err and "warning" not in done.err


def test_what_evaluate_refuses(shell: Shell, network: Model) -> None:
    error = shell.error("evaluate", "m.safetensors", "--data", "digits")
    said = 'takes samples of shape (5, 5, 2), those of "digits" have shape (8, 8, 1): give the'
    assert said in error
    assert "random weights, which guess: train it" in shell.error("evaluate", "small-adder")
    error = shell.error("evaluate", "m.safetensors", "--data", "x.npz")
    assert 'has no array "y"' in error
    y = np.arange(40) % 5
    np.savez("five.npz", x=np.zeros((40, 5, 5, 2), np.float32), y=y)
    shell.ok("quantize", "m.safetensors", "--data", "x.npz", "-o", "q.safetensors")
    error = shell.error("evaluate", "q.safetensors", "--data", "five.npz")
    assert error == '"q.safetensors" has 3 classes, the images have labels up to 4'
    Path("same.ag").write_text(
        "graph same(%x: f32[N,5,5,2]) {\n  %y = relu(%x) : f32[N,5,5,2]\n  return %y\n}\n"
    )
    error = shell.error("evaluate", "same.ag", "--data", "five.npz")
    assert '"same.ag" answers with %y: f32[N,5,5,2], which are no classes' in error
