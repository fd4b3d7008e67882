"""Random graphs: text, passes and native code against the interpreter, every op in one at least.

The x86 levels that this machine runs, the toy target and thread counts take turns. `make fuzz` has
a thousand graphs.
"""

from __future__ import annotations

import pytest

from addergraph.ir import registry
from tests.codegen.harness import HERE
from tests.differential import Run, check_some, require_trust_in
from tests.strategies import MADE_BY_PASSES, NOT_EXACT, cases, random_case

GRAPHS = 32
RUNS = [Run(target, threads) for threads in (1, 2, 3) for target in HERE]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_native_code_has_the_bits_of_the_interpreter() -> None:
    ops = set(registry()) - NOT_EXACT - MADE_BY_PASSES
    tally = check_some(cases(), GRAPHS, ops, lambda number: [RUNS[number % len(RUNS)]])
    assert set(tally.runs) == set(RUNS)
    assert set(tally.ops) == ops


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_few_graphs_are_dull() -> None:
    require_trust_in(random_case)
