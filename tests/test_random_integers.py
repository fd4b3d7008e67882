"""Random integer programs, the same on every run: every level, more threads than cores, strict."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import strategies as st

from addergraph.codegen.targets.x86 import X86_LEVELS
from tests.codegen.harness import HERE
from tests.differential import Run, check_some, require_trust_in
from tests.strategies import Case
from tests.strategies_integers import integer_case, integer_cases
from tests.strategies_quantized import quantized_case, quantized_cases

THREADS = (1, 2, 3, 7)
STRICT = [t.name for t in X86_LEVELS if t.name in HERE]  # what the census reads
OPS = {
    "adder2d", "adder_dense", "conv2d", "dense", "add", "requantize_shift", "requantize_multiply",
    "max_pool2d", "pad", "flatten", "concat", "cast", "greater", "select", "argmax", "clip",
    "lookup", "reduce_sum", "sub",
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


@pytest.mark.slow
@pytest.mark.thinned(2)
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
@pytest.mark.parametrize(
    ("programs", "count", "ops"), [(integer_cases(), 20, OPS), (quantized_cases(), len(HERE), ())]
)
def test_native_code_has_the_bits_of_the_interpreter(
    programs: st.SearchStrategy[Case], count: int, ops: Iterable[str]
) -> None:
    tally = check_some(programs, count, ops, one_target)
    assert {run.target for run in tally.runs} == set(HERE)
    assert not ops or {run.target for run in tally.runs if run.strict} == set(STRICT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("drawn", [integer_case, quantized_case])
def test_few_programs_are_dull(drawn: Callable[[int], Case]) -> None:
    require_trust_in(drawn)
