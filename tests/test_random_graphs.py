"""96 random graphs: text, passes and native code against the interpreter, every op in one at least.

The x86 levels that this machine runs, the toy target and thread counts take turns. Hypothesis draws
from the constants of all loaded modules, so what is drawn depends on which other tests run: where
an op has not occurred, more graphs are drawn, and at last the test fails.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, seed, settings

from addergraph.ir import registry
from tests.codegen.harness import HERE
from tests.differential import Run, Tally, check_case
from tests.strategies import MADE_BY_PASSES, NOT_EXACT, Case, cases

GRAPHS, MORE, ROUNDS = 96, 32, 5  # at first, in each further round, and how many of these
RUNS = [Run(target, threads) for threads in (1, 2, 3) for target in HERE]


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_native_code_has_the_bits_of_the_interpreter() -> None:
    tally = Tally()

    def run(count: int, number: int) -> None:
        @seed(number)
        @settings(max_examples=count, phases=[Phase.generate])
        @given(cases())
        def each(case: Case) -> None:
            check_case(case, [RUNS[tally.cases % len(RUNS)]], tally)

        each()

    run(GRAPHS, 0)
    assert tally.cases == GRAPHS
    assert set(tally.runs) == set(RUNS)
    drawn = set(registry()) - NOT_EXACT - MADE_BY_PASSES
    for number in range(1, 1 + ROUNDS):
        if drawn != set(tally.ops):
            run(MORE, number)
    assert set(tally.ops) == drawn
    tally.require_trust()
