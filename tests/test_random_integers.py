"""Random integer programs, the same on every run: every level, more threads than cores, strict."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from addergraph.codegen.targets.x86 import X86_LEVELS
from tests.codegen.harness import HERE
from tests.differential import Run, Tally, check_case
from tests.strategies import Case
from tests.strategies_integers import integer_cases
from tests.strategies_quantized import quantized_cases

THREADS = (1, 2, 3, 7)
STRICT = [t.name for t in X86_LEVELS if t.name in HERE]  # what the census reads
OPS = {
    "adder2d", "adder_dense", "conv2d", "dense", "add", "requantize_shift", "requantize_multiply",
    "max_pool2d", "pad", "flatten", "concat", "cast", "greater", "select", "argmax", "clip",
    "lookup",
}  # fmt: skip


def every_run(number: int) -> list[Run]:
    """Every x86 level by all thread counts, one of them in strict mode too; now and then toy."""
    strict = Run(STRICT[number % len(STRICT)], THREADS[number % len(THREADS)], True)
    targets = STRICT if number % 4 else HERE
    return [*(Run(target, count) for target in targets for count in THREADS), strict]


def one_target(number: int) -> list[Run]:
    """Targets take turns; every third round in strict mode as well."""
    target = HERE[number % len(HERE)]
    strict = target in STRICT and number // len(HERE) % 3 == 0
    return [*(Run(target, count) for count in THREADS), *[Run(target, 2, True)] * strict]


def check_some(programs: st.SearchStrategy[Case], count: int) -> Tally:
    tally = Tally()

    @settings(max_examples=count, phases=[Phase.generate])
    @given(programs)
    def each(case: Case) -> None:
        check_case(case, one_target(tally.cases), tally)

    each()
    assert tally.cases == count
    assert {run.target for run in tally.runs} == set(HERE)
    tally.require_trust()
    return tally


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_integer_programs_have_the_bits_of_the_interpreter() -> None:
    tally = check_some(integer_cases(), 48)
    assert set(tally.ops) >= OPS
    assert {run.target for run in tally.runs if run.strict} == set(STRICT)


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_quantized_networks_have_the_bits_of_the_interpreter() -> None:
    check_some(quantized_cases(), 4)
