"""Every command and code block of the README runs, and prints what the README says it prints."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from addergraph import parse
from addergraph.cli.main import commands
from tests.documents import ROOT, blocks, python_blocks, shell_commands

README = (ROOT / "README.md").read_text()
BLOCKS, PYTHON, COMMANDS = (
    blocks("README.md"),
    python_blocks("README.md"),
    shell_commands("README.md"),
)
GRAPHS = [code.strip() for language, code in BLOCKS if language == ""]
# Appended: the last of an option counts. What these numbers make better is not looked at here.
FEWER = {"train": ["--epochs", "3"], "verify": ["--samples", "2"], "bench": ["--seconds", "0.1"]}
C_LINES = [line for language, code in BLOCKS if language == "c" for line in code.splitlines()]


def run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    return printed.getvalue()


@pytest.mark.slow
def test_the_program_trains_and_verifies() -> None:
    printed = run(PYTHON[0])
    stated = re.search(r"accuracy (0\.\d+)", README)
    found = re.search(r"'accuracy': (0\.\d+)", printed)
    assert stated is not None
    assert found is not None
    assert float(found[1]) == pytest.approx(float(stated[1]), abs=0.01)
    assert "passed" in printed


def test_the_graphs_are_what_the_example_prints() -> None:
    before, after = GRAPHS
    assert run(PYTHON[1]) == f"{before}\n{after}\n"
    assert str(parse(before)) == before
    assert str(parse(after)) == after


def test_there_are_no_other_blocks() -> None:
    assert {language for language, _ in BLOCKS} <= {"python", "sh", "c", ""}
    assert (len(PYTHON), len(GRAPHS)) == (2, 2)
    assert {command[0] for command in COMMANDS} == {"make", "pip", "addergraph", "python"}


def test_pip_installs_extras_that_exist() -> None:
    (command,) = [c for c in COMMANDS if c[0] == "pip"]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.fullmatch(r"\.\[(.*)\]", command[-1])
    assert extras is not None
    assert set(extras[1].split(",")) <= set(known["optional-dependencies"])
    assert "addergraph" in known["scripts"] and ">=3.11" in known["requires-python"]


def test_an_index_of_packages_gets_no_dead_links() -> None:
    for_index = runpy.run_path(str(ROOT / "setup.py"))["for_index"]
    known, unknown = for_index(README, "https://host.invalid/src"), for_index(README, None)
    assert re.findall(r"\]\((?!https?://)[^)]*\)", known + unknown) == []
    assert "[docs/training.md](https://host.invalid/src/docs/training.md)" in known
    assert "(docs/training.md)" in unknown and "](https://arxiv.org/" in unknown


def test_examples_are_there_and_run_by_a_test() -> None:
    tested = (ROOT / "tests" / "test_examples.py").read_text()
    for command in (c for c in COMMANDS if c[0] == "python"):
        assert (ROOT / command[1]).is_file() and f'example("{Path(command[1]).stem}"' in tested


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "make"], ids=" ".join)
def test_make_has_the_target(command: list[str]) -> None:
    done = subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_line_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        if command[0] == "addergraph":
            done = CliRunner().invoke(commands, [*command[1:], *FEWER.get(command[1], [])])
            assert done.exit_code == 0, f"{shlex.join(command)}\n{done.output}"
            assert done.output, shlex.join(command)
    header = (tmp_path / "build" / "digits.h").read_text()
    assert all(line in header for line in C_LINES)
