"""96 random graphs, the same on every run: text, passes and native code against the interpreter.

The x86 levels that this machine runs, the toy target and thread counts take turns.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings

from addergraph.ir import registry
from tests.codegen.harness import HERE
from tests.differential import Run, Tally, check_case
from tests.strategies import MADE_BY_PASSES, NOT_EXACT, Case, cases

GRAPHS = 96
RUNS = [Run(target, threads) for threads in (1, 2, 3) for target in HERE]


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_native_code_has_the_bits_of_the_interpreter() -> None:
    tally = Tally()

    @settings(max_examples=GRAPHS, phases=[Phase.generate])
    @given(cases())
    def each(case: Case) -> None:
        check_case(case, [RUNS[tally.cases % len(RUNS)]], tally)

    each()
    assert tally.cases == GRAPHS
    assert set(tally.runs) == set(RUNS)
    assert set(registry()) - set(tally.ops) == NOT_EXACT | MADE_BY_PASSES
    tally.require_trust()
