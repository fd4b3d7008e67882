"""Is what was compiled what was meant? One random case against the interpreter, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from addergraph import compiler
from addergraph.codegen.inspect.strict import require_layers
from addergraph.codegen.run.jit import Program
from addergraph.codegen.targets.x86 import BASELINE
from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import run_reference
from addergraph.ir.intervals import value_ranges
from addergraph.ir.text import parse
from addergraph.passes.lowering import Lowering
from addergraph.verification.reference import Reference, Total
from tests.codegen.harness import same_bits
from tests.minimize import minimize
from tests.strategies import Case, is_dull

DRAWN, ROUNDS = 64, 16  # of random cases: in each round, and how many of these at most
FOR_A_SHARE = 400  # cases of which a share of 1 % is one
Results = dict[str, Array]
Judge = Callable[[str, Results], None]  # AssertionError where results of "what" are wrong


class Run(NamedTuple):
    """One way to run a program; strict: compiled without products."""

    target: str
    threads: int
    strict: bool = False


class Tally:
    """What a run has seen, so that a run of empty or dull cases does not count as a success."""

    def __init__(self) -> None:
        self.cases = 0
        self.mistrusted: list[Case] = []
        self.ops: Counter[str] = Counter()
        self.runs: Counter[Run] = Counter()

    def add(self, case: Case, runs: Iterable[Run]) -> None:
        self.cases += 1
        self.ops.update(node.op.name for node in case.graph.nodes)
        self.runs.update(runs)
        if is_mistrusted(case.graph, reference(case.graph, case)):
            self.mistrusted.append(case)

    def require_trust(self) -> None:
        """At most 2 % of the cases may be such that a wrong program could pass them."""
        share = len(self.mistrusted) / self.cases
        assert share <= 0.02, f"{share:.1%} of the cases are dull, for example {self.mistrusted[0]}"


def check_some(
    programs: st.SearchStrategy[Case],
    count: int,
    ops: Iterable[str],
    runs: Callable[[int], Sequence[Run]],
) -> Tally:
    """Checks `count` programs, number k in runs(k), then those that have the first of one of `ops`.

    Programs are drawn until each of `ops` had its turn. Hypothesis draws from the constants of all
    loaded modules, so how many these are depends on which other tests run.
    """
    tally, wanted = Tally(), set(ops)

    def draw(number: int) -> None:
        @seed(number)
        @settings(max_examples=DRAWN if wanted else count, phases=[Phase.generate])
        @given(programs)
        def each(case: Case) -> None:
            new = (wanted - set(tally.ops)) & {node.op.name for node in case.graph.nodes}
            if new or tally.cases < count:
                check_case(case, runs(tally.cases), tally)

        each()

    for number in range(ROUNDS):
        if tally.cases < count or wanted - set(tally.ops):
            draw(number)
    assert tally.cases >= count
    assert not wanted - set(tally.ops), "these ops were not drawn"
    return tally


def require_trust_in(drawn: Callable[[int], Case]) -> None:
    """`Tally.require_trust` of cases that nothing is compiled for: `check_some` has too few of them
    to tell 1 % from 2 %, and they are others with every module that is added."""
    tally = Tally()
    for number in range(FOR_A_SHARE):
        tally.add(drawn(number), ())
    tally.require_trust()


def exactly(case: Case) -> Judge:
    """Every bit of the interpreter's."""
    expected = reference(case.graph, case)
    return lambda what, found: _require_same(what, found, expected)


def within_rounding(case: Case) -> Judge:
    """Every element within what f32 rounding explains, by the bounds of `ag.verify`.

    For graphs without updates.
    """
    weights = {p.name: case.weights[p.name] for p in case.graph.parameters}
    bounds = Reference(case.graph, case.inputs, weights, np.random.default_rng(case.seed))

    def judge(what: str, found: Results) -> None:
        totals = [Total(f"output {i}") for i in range(len(case.graph.outputs))]
        bounds.compare(totals, [found[total.name] for total in totals])
        wrong = [str(total.report()) for total in totals if total.failed]
        assert not wrong, "\n".join([what, *wrong])

    return judge


def check_case(
    case: Case, runs: Sequence[Run], tally: Tally, judged: Callable[[Case], Judge] = exactly
) -> None:
    """Text, every pass, and native code of each run must keep what `case` computes.

    Strict runs are left out where the graph multiplies by definition. Otherwise fails with the
    smallest part of the case that does not.
    """
    if multiplies(case.graph):
        runs = [run for run in runs if not run.strict]
    error = _failure(case, runs, judged)
    if error is not None:
        small = minimize(case, lambda part: _failure(part, runs, judged) is not None)
        wrong = _failure(small, runs, judged)
        raise AssertionError(f"{small}{wrong!r}\nfound in {case}") from error
    tally.add(case, runs)


def multiplies(graph: Graph) -> bool:
    """Whether strict mode refuses a graph as declared."""
    try:
        require_layers(graph, BASELINE)
    except UnsupportedError:
        return True
    return False


def _failure(case: Case, runs: Sequence[Run], judged: Callable[[Case], Judge]) -> Exception | None:
    try:
        judge = judged(case)
        assert parse(str(case.graph)) == case.graph, "printed and parsed, the graph is another"
        compiler.optimize(case.graph, [_Compare(case, judge)])
        for (target, strict), same in groupby(runs, lambda run: (run.target, run.strict)):
            _check_native(case, target, strict, [run.threads for run in same], judge)
    except Exception as error:  # whatever it is, it is what we look for
        return error
    return None


def reference(graph: Graph, case: Case) -> Results:
    """Every output, by its number, and every updated parameter, by name."""
    weights = {p.name: case.weights[p.name] for p in graph.parameters}
    outputs, updates = run_reference(graph, case.inputs, weights)
    return {f"output {i}": a for i, a in enumerate(outputs)} | updates


def _require_same(what: str, found: Results, expected: Results) -> None:
    assert found.keys() == expected.keys(), what
    for name, array in expected.items():
        if not same_bits(found[name], array):
            where = np.flatnonzero(found[name] != array)[:8]
            raise AssertionError(
                f"{what}: {name} differs in {(found[name] != array).sum()} of {array.size} "
                f"elements, first at {where}: {found[name].reshape(-1)[where]}, "
                f"expected {array.reshape(-1)[where]}"
            )


class _Compare:
    """Observer: each pass keeps what the case computes."""

    def __init__(self, case: Case, judge: Judge) -> None:
        self.case, self.judge = case, judge

    def __call__(self, name: str, before: Lowering, after: Lowering, seconds: float) -> None:
        if after != before:
            self.judge(f'pass "{name}"', reference(after.main, self.case))


def _check_native(
    case: Case, target: str, strict: bool, threads: Sequence[int], judge: Judge
) -> None:
    """One compiled program, by each number of threads."""
    first = compiler.compile(
        case.graph, weights=case.weights, target=target, cache=False, multiplication_free=strict
    )
    weights = case.weights if first.state is None else None
    for count in threads:
        program = Program(first.built, weights, first.state, count)
        for attempt in ("first", "second"):  # the second run finds the arena as the first left it
            found = {f"output {i}": a for i, a in enumerate(program.run(case.inputs))}
            if program.state is not None:
                updated = [u.parameter.name for u in case.graph.updates]
                found |= {name: program.state.views[name].copy() for name in updated}
                program.state.load(case.weights)
            what = f"{attempt} run on {Run(target, count, strict)}"
            judge(what, found)
        program.close()


def is_mistrusted(graph: Graph, expected: Results) -> bool:
    """Whether an output is almost all zeros or one number without having to be."""
    known = value_ranges(graph)
    return any(
        is_dull(expected[f"output {i}"]) and not known[value.name].constant
        for i, value in enumerate(graph.outputs)
    )
