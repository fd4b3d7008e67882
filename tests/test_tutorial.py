"""docs/tutorial.md in an empty folder: each block runs, and prints what the next one shows."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from addergraph.cli.main import commands
from tests.documents import blocks, words_of

pytestmark = pytest.mark.slow

pytest.importorskip("PIL")
pytest.importorskip("capstone")
pytest.importorskip("matplotlib")
TUTORIAL = "docs/tutorial.md"


def run_shell(code: str) -> str:
    """What its commands print; pip installs nothing here."""
    printed = ""
    for words in words_of(code):
        if words[0] == "addergraph":
            done = CliRunner().invoke(commands, words[1:])
            assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"
            printed += done.output
        elif words[0] != "pip":
            printed += subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return printed


def run_python(code: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, TUTORIAL, "exec"), names)
    return printed.getvalue()


def without_numbers(text: str) -> list[str]:
    """Its lines; numbers depend on the machine in their last digits."""
    return [re.sub(r"\d[\d.,]*|\s+", "#", line) for line in text.splitlines()]


@pytest.mark.usefixtures("quick_objects")
@pytest.mark.needs("cc", "make")
def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed, everything, shown = "", "", 0
    for language, code in blocks(TUTORIAL):
        if language == "text":
            assert set(without_numbers(code)) <= set(without_numbers(printed)), printed
            shown += 1
            continue
        printed = run_python(code, names) if language == "python" else run_shell(code)
        everything += printed
    accuracies = [float(found) for found in re.findall(r" accuracy (0\.\d+)$", everything, re.M)]
    assert shown == 7 and len(accuracies) >= 4 and min(accuracies[-4:]) > 0.95
    assert "bits that differ: 0\n" in everything
