"""Benchmarks that nobody runs every day still run: what they take from the package is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    """As a module of the folder, and as a file, as its docstring says."""
    imports = (
        f"import benchmarks.{script}",
        f"import sys; sys.path[:0] = ['benchmarks']; import {script}",
    )
    for code in imports:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)
