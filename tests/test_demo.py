"""The demo, with little training: it runs to its end, and what it promises holds."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from addergraph import Model
from addergraph.data import digits

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "digits.py"


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--output", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *options], env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.needs("cc")
def test_the_demo_trains_compiles_and_compares(tmp_path: Path) -> None:
    done = demo(tmp_path, "--epochs", "6", "--seeds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for line in (
        "epoch 6/6",
        "graph digits(",
        "= fused(",
        'verify "digits": 360 samples, given inputs: passed',
        "self-test passed",
        "360 calls",
        "the C program's answers are bit-identical to the in-process ones",
        "microseconds an image",
        "instructions by kind",
    ):
        assert line in done.stdout, line
    found = {
        name: float(value) for name, value in re.findall(r"accuracy, (.+?) +(0\.\d+)", done.stdout)
    }
    assert found["in-process"] == found["C program"] == found["NumPy reference"] >= 0.95
    assert found["mean of 2 seeds"] >= 0.95
    data = digits.load()
    stored = Model.load(tmp_path / "digits.safetensors").evaluate(data.x_test, data.y_test)
    assert stored["accuracy"] == pytest.approx(found["in-process"], abs=1e-4)


@pytest.mark.slow
def test_without_a_c_compiler_the_rest_runs_and_the_error_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, and with a tenth of the images."""
    few = digits.Digits(*(array[: 36 if len(array) == 360 else 128] for array in digits.load()))
    monkeypatch.setattr(digits, "load", lambda: few)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", [str(DEMO), "--output", str(tmp_path), "--epochs", "1"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(DEMO), run_name="__main__")
    said = capsys.readouterr()
    assert end.value.code == 1
    assert said.err.startswith("error: the C part of the demo needs a C compiler")
    assert "accuracy, in-process" in said.out
    assert "accuracy, C program" not in said.out
