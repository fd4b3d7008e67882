"""Random graphs, gradients and integer programs, compiled for every x86 level of this machine.

A case is one graph and one level; it passes where text, every pass and native code keep what the
NumPy interpreter computes (`tests/differential.py`): every bit, of gradients every element within
its bound. The number of a graph is its seed, and says its kind and its size: nothing else does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from addergraph.codegen.targets.x86 import X86_LEVELS
from tests.codegen.harness import HERE
from tests.differential import Judge, Run, Tally, check_case, exactly, within_rounding
from tests.strategies import Case, random_case
from tests.strategies_gradients import gradient_case
from tests.strategies_integers import integer_case
from tests.strategies_quantized import quantized_case

LEVELS = tuple(t.name for t in X86_LEVELS if t.name in HERE)
SIZES = {(1, 2): 60, (3, 5): 25, (6, 12): 12, (13, 24): 3}  # nodes: how many in a hundred graphs
THREADS = (1, 1, 1, 2, 1, 1, 3)  # taking turns: a thread is slow to start on a busy machine


class Kind(NamedTuple):
    """A kind of random graphs: how one is made of a seed and a number of nodes, and judged."""

    share: int  # of a hundred graphs
    make: Callable[[int, int], Case]
    judged: Callable[[Case], Judge] = exactly
    strict: bool = False  # whether strict mode may take it


KINDS = {
    "float": Kind(45, random_case),
    "integer": Kind(33, integer_case, strict=True),
    "gradient": Kind(20, gradient_case, within_rounding),
    "quantized": Kind(2, lambda seed, nodes: quantized_case(seed), strict=True),
}


def kind_of(seed: int) -> str:
    """What the campaign makes of the graph of this number."""
    shares = [kind.share for kind in KINDS.values()]
    return Random(f"kind {seed}").choices(list(KINDS), shares)[0]


def drawn(kind: str, seed: int) -> Case:
    """The graph of this number."""
    random = Random(f"size {seed}")
    least, most = random.choices(list(SIZES), list(SIZES.values()))[0]
    return KINDS[kind].make(seed, random.randint(least, most))


def checked(kind: str, seed: int) -> dict[str, Any]:
    """Counts of what was compared of this graph, under the names of `Total`.

    AssertionError, with the smallest part that fails, where anything differs.
    """
    tally, made = Tally(), KINDS[kind]
    runs = [Run(level, THREADS[(seed + i) % len(THREADS)]) for i, level in enumerate(LEVELS)]
    if made.strict and seed % 4 == 0:
        runs.append(Run(LEVELS[seed // 4 % len(LEVELS)], 1, True))
    check_case(drawn(kind, seed), runs, tally, made.judged)
    cases = Counter(f"{kind} {run.target}{' strict' * run.strict}" for run in tally.runs)
    return {
        "graphs": {kind: 1},
        "cases": cases,
        "dull": {kind: len(tally.mistrusted)},
        "ops": tally.ops,
    }
