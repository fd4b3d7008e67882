"""1,000 random graphs of each kind at every x86 level of this machine, and for the toy target.

`make fuzz` runs it, each time on other graphs. AG_FUZZ_SEED=<number> repeats a run.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from tests.codegen.harness import HERE
from tests.differential import Run, Tally, check_case
from tests.strategies import Case, cases
from tests.strategies_integers import integer_cases
from tests.strategies_quantized import quantized_cases
from tests.test_random_integers import THREADS, every_run

GRAPHS = 1000
NETWORKS = 40  # quantizing one takes about a second


def fuzz(
    capsys: pytest.CaptureFixture[str],
    programs: st.SearchStrategy[Case],
    count: int,
    runs: Callable[[int], Sequence[Run]],
) -> Tally:
    """Checks `count` programs, number k in runs(k)."""
    start = int(os.environ.get("AG_FUZZ_SEED") or secrets.randbits(32))
    with capsys.disabled():
        print(f"\nfuzzing with AG_FUZZ_SEED={start}")
    tally = Tally()

    @seed(start)
    @settings(max_examples=count, derandomize=False, phases=[Phase.generate])
    @given(programs)
    def each(case: Case) -> None:
        check_case(case, runs(tally.cases), tally)

    each()
    assert tally.cases == count
    tally.require_trust()
    return tally


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_every_level_has_the_bits_of_the_interpreter(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(capsys, cases(), GRAPHS, lambda k: [Run(t, 1 + (k + i) % 3) for i, t in enumerate(HERE)])


@pytest.mark.fuzz
def test_integer_programs_on_every_level_and_any_threads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tally = fuzz(capsys, integer_cases(), GRAPHS, every_run)
    for target in HERE:
        assert all(tally.runs[Run(target, n)] == GRAPHS for n in THREADS)
    assert sum(n for run, n in tally.runs.items() if run.strict) > GRAPHS


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_quantized_networks_on_every_level_and_any_threads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fuzz(capsys, quantized_cases(), NETWORKS, every_run)
