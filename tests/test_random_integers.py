"""Random integer programs, the same on every run: every level, more threads than cores, strict."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from addergraph.codegen.target import X86_LEVELS
from tests.codegen.harness import HERE
from tests.differential import Run, Tally, check_case
from tests.strategies import Case
from tests.strategies_integers import integer_cases
from tests.strategies_quantized import quantized_cases

THREADS = (1, 2, 3, 7)
STRICT = [t.name for t in X86_LEVELS if t.name in HERE]
OPS = {
    "adder2d", "adder_dense", "add", "requantize_shift", "requantize_multiply", "max_pool2d", "pad",
    "flatten", "concat", "cast", "greater", "select", "argmax", "clip",
}  # fmt: skip


def every_run(number: int) -> list[Run]:
    """Every target by all thread counts, and every x86 level in strict mode by one of them."""
    strict = [Run(t, THREADS[(number + i) % len(THREADS)], True) for i, t in enumerate(STRICT)]
    return [Run(target, count) for target in HERE for count in THREADS] + strict


def one_target(number: int) -> list[Run]:
    """Targets take turns."""
    strict = Run(STRICT[number % len(STRICT)], THREADS[number % len(THREADS)], True)
    return [*(Run(HERE[number % len(HERE)], count) for count in THREADS), strict]


def check_some(programs: st.SearchStrategy[Case], count: int) -> Tally:
    tally = Tally()

    @settings(max_examples=count, phases=[Phase.generate])
    @given(programs)
    def each(case: Case) -> None:
        check_case(case, one_target(tally.cases), tally)

    each()
    assert tally.cases == count
    assert {run.target for run in tally.runs} == set(HERE)
    assert {run.target for run in tally.runs if run.strict} == set(STRICT)
    tally.require_trust()
    return tally


def test_integer_programs_have_the_bits_of_the_interpreter() -> None:
    tally = check_some(integer_cases(), 60)
    assert set(tally.ops) >= OPS


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_quantized_networks_have_the_bits_of_the_interpreter() -> None:
    check_some(quantized_cases(), 4)
