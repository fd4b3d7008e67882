"""The table of planted bugs follows the code; `make drill` plants them."""

from __future__ import annotations

import ast
import re

import pytest

from tests.drill.__main__ import Outcome, judge, plantable
from tests.drill.mutant import Mutant
from tests.drill.table import MUTANTS, ROOT, mutated

LEAST = 30
SKIPS = re.compile(r'^(?:\w.*)?pytest\.importorskip\("(\w+)', re.MULTILINE)  # a whole file
INSTALLED = {"PIL", "capstone", "matplotlib", "onnx", "onnxruntime", "wasmtime"}  # by `make test`


def test_there_are_enough_and_each_has_its_name() -> None:
    assert len(MUTANTS) >= LEAST
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)
    assert len({(m.file, m.new, m.old) for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    assert mutant.old != mutant.new
    ast.parse(mutated(mutant))
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in source, test


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_names_the_package_without_which_its_tests_are_skipped(mutant: Mutant) -> None:
    files = {test.partition("::")[0] for test in mutant.tests}
    needed = {name for file in files for name in SKIPS.findall((ROOT / file).read_text())}
    assert needed - INSTALLED == ({mutant.needs} if mutant.needs else set())


def test_a_mutant_whose_tests_cannot_run_is_left_out_and_told() -> None:
    here, there = Mutant("a", "f", "o", "n", ()), Mutant("b", "f", "o", "m", (), needs="no_package")
    assert plantable([there, here, there]) == (
        [here],
        ["not planted: 2, whose tests need no_package: pip install no_package"],
    )


def test_an_entry_that_the_code_has_left_behind_is_named() -> None:
    gone = Mutant("gone", "passes/eliminate.py", "no such text", "", ())
    with pytest.raises(ValueError, match="occurs 0 times in passes/eliminate.py"):
        mutated(gone)


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [
        (0, "1 passed", Outcome.SURVIVED),
        (1, "FAILED tests/test_a.py::test_b[x - y] - AssertionError: no", Outcome.KILLED),
        (1, "FAILED tests/test_a.py::test_b - NameError: name 'x'", Outcome.INVALID),
        (1, "ERROR tests/test_a.py::test_b - ImportError: no", Outcome.INVALID),
        (-11, "Fatal Python error: Segmentation fault", Outcome.KILLED),
        (None, "", Outcome.KILLED),  # out of time
        (2, "Interrupted: 1 error during collection", Outcome.INVALID),
        (3, "INTERNALERROR", Outcome.INVALID),
        (4, "ERROR: not found: tests/test_a.py::test_b", Outcome.INVALID),
        (5, "no tests ran", Outcome.INVALID),
    ],
)
def test_what_counts_as_killed(code: int | None, output: str, expected: Outcome) -> None:
    assert judge(code, output)[0] is expected
