"""`addergraph quantize`, and what the other commands do with the file that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from addergraph import Model
from tests.addergraph.models import adders_only
from tests.addergraph.shell import Shell


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
    assert "(chosen)" in out and "factors by integer products" in out
    assert "wrote q.safetensors" in out
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
    assert "by integer products" in out and "power" not in out
    assert "8 samples" in out
    assert "of 1 power of two" in shell.ok(*base, "--terms", 1)
    error = shell.error("compile", "m.safetensors", "-o", "build", "--multiplication-free")
    assert 'batch_norm "bn1": ag.quantize' in error


def test_errors(shell: Shell, network: Model) -> None:
    error = shell.error("quantize", "m.safetensors", "--data", "x.csv", "-o", "q.safetensors")
    assert error == '--data "x.csv": expected digits, or an .npz file with an array x'
    error = shell.error("quantize", "m.safetensors", "--data", "digits", "-o", "q.safetensors")
    assert "expected samples of real numbers [N,5,5,2]" in error
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
    assert "rounds as integers of 4 bits will, calibrated on 40 samples" in out
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
