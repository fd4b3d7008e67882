"""Benchmarks that nobody runs every day still run: what they take from the package is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from addergraph import Model, layers, ops, zoo
from addergraph.ir.trace import Tensor
from benchmarks import training_memory, training_step
from benchmarks.startup import COMPILE

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def test_the_start_is_measured_in_two_parts() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    imported, compiled = json.loads(done.stdout)
    assert imported > 0 and compiled > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_imports(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import benchmarks.{script}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["training_step", "training_memory"])
def test_benchmarks_of_training_make_a_step(
    benchmark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network of one layer, which compiles at once."""

    def tiny(x: Tensor) -> Tensor:
        return ops.flatten(layers.Adder(10, 32)(x))

    monkeypatch.setattr(zoo, "build", lambda network: Model(tiny, input_shape=(32, 32, 3)))
    x, targets = training_step.images(2)
    if benchmark == "training_step":
        training_step.ours("resnet20", 2, 1)["training"]()
    else:
        training_memory.ours("resnet20")(x, targets, 1)(0)
