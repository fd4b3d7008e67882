"""1,000 random graphs of each kind at every x86 level of this machine, and for the toy target.

`make fuzz` runs it, each time on other graphs. AG_FUZZ_SEED=<number> repeats a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from tests.codegen.harness import HERE
from tests.differential import Run, Tally, check_case
from tests.strategies import Case, cases
from tests.strategies_integers import integer_cases
from tests.strategies_quantized import quantized_cases
from tests.test_random_integers import STRICT, THREADS, every_run

GRAPHS = 1000
NETWORKS = 100  # from the quantizer


def fuzz(
    start: int, programs: st.SearchStrategy[Case], count: int, runs: Callable[[int], Sequence[Run]]
) -> Tally:
    """Checks `count` programs, number k in runs(k)."""
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
def test_every_level_has_the_bits_of_the_interpreter(fuzz_seed: int) -> None:
    def runs(number: int) -> list[Run]:
        return [Run(target, 1 + (number + i) % 3) for i, target in enumerate(HERE)]

    fuzz(fuzz_seed, cases(), GRAPHS, runs)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_integer_programs_on_every_level_and_any_threads(fuzz_seed: int) -> None:
    tally = fuzz(fuzz_seed, integer_cases(), GRAPHS, every_run)
    for target in STRICT:
        assert all(tally.runs[Run(target, n)] == GRAPHS for n in THREADS)
    assert sum(n for run, n in tally.runs.items() if run.strict) > GRAPHS // 4


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_quantized_networks_on_every_level_and_any_threads(fuzz_seed: int) -> None:
    fuzz(fuzz_seed, quantized_cases(), NETWORKS, every_run)
