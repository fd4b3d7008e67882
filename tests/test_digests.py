"""`benchmarks/digests.py`: equal digests for equal code, and what differs is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from addergraph.codegen import llvm
from addergraph.codegen.targets.x86 import BASELINE
from benchmarks.digests import loaded

ROOT = Path(__file__).parent.parent
SMALLEST = ("--only", "integers/dense", "--targets", "x86-64", "riscv32i")
CODE = """
define internal void @{name}(ptr %p) noinline {{
  store i32 {number}, ptr %p
  ret void
}}
define void @run(ptr %p) {{
  call void @{name}(ptr %p)
  ret void
}}
"""


def digests(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.digests", *SMALLEST, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_runs_are_equal_and_a_changed_line_is_found(tmp_path: Path) -> None:
    first = digests()
    assert first.returncode == 0, first.stderr
    refused, accepted = (line.split() for line in first.stdout.splitlines())
    assert refused == ["integers/dense", "riscv32i", "UnsupportedError", "-", "-", "-"]
    assert accepted[:2] == ["integers/dense", "x86-64"]
    assert all(len(column) == 16 and int(column, 16) for column in accepted[2:])

    before = tmp_path / "before.txt"
    before.write_text(first.stdout)
    same = digests("--compare", before)
    assert (same.returncode, same.stdout) == (0, ""), same.stderr

    *kept, plan = accepted
    changed = " ".join([*kept, plan[::-1] if plan != plan[::-1] else "0" * 16])
    before.write_text(f"{changed}\nanother-case x86-64 0 0 0 0\n")
    other = digests("--compare", before)
    assert other.returncode == 1, other.stderr
    assert other.stdout.splitlines() == [
        "integers/dense riscv32i: new", "integers/dense x86-64: other plan",
    ]  # fmt: skip


def test_a_word_without_cases_is_refused() -> None:
    wrong = subprocess.run(
        [sys.executable, "-m", "benchmarks.digests", "--only", "no-such-case"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "no case" in wrong.stderr


def test_names_inside_an_object_are_not_its_code() -> None:
    def compiled(name: str, number: int) -> Any:
        return llvm.compile_object(CODE.format(name=name, number=number), BASELINE)

    one, renamed, changed = compiled("first", 7), compiled("second", 7), compiled("first", 8)
    assert one != renamed
    assert loaded(one) == loaded(renamed)
    assert loaded(one) != loaded(changed)
