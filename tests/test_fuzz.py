"""1,000 random graphs at every x86 level that this machine runs, and for the toy target.

`make fuzz` runs it, each time on other graphs. AG_FUZZ_SEED=<number> repeats a run.
"""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import Phase, given, seed, settings

from tests.codegen.harness import HERE
from tests.differential import Tally, check_case
from tests.strategies import Case, cases

GRAPHS = 1000


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_every_level_has_the_bits_of_the_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    start = int(os.environ.get("AG_FUZZ_SEED") or secrets.randbits(32))
    with capsys.disabled():
        print(f"\nfuzzing with AG_FUZZ_SEED={start}")
    tally = Tally()

    @seed(start)
    @settings(max_examples=GRAPHS, derandomize=False, phases=[Phase.generate])
    @given(cases())
    def each(case: Case) -> None:
        check_case(case, [(t, 1 + (tally.cases + i) % 3) for i, t in enumerate(HERE)], tally)

    each()
    assert tally.cases == GRAPHS
    tally.require_trust()
