"""The long campaigns, a few seconds of each; `make campaign-...` has them all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.campaigns import crew as crews
from tests.campaigns.crew import Crew, Total
from tests.campaigns.graphs import KINDS, LEVELS, checked, drawn, kind_of
from tests.differential import Run, Tally, check_case, within_rounding

ROOT = Path(__file__).parent.parent


# -- graphs --------------------------------------------------------------------------------------


def test_a_number_says_which_graph_it_is() -> None:
    kinds = [kind_of(seed) for seed in range(200)]
    assert set(kinds) == set(KINDS)
    for kind in KINDS:
        seed = kinds.index(kind)
        one, other = drawn(kind, seed), drawn(kind, seed)
        assert str(one.graph) == str(other.graph)
        assert all((a == b).all() for a, b in zip(one.inputs, other.inputs, strict=True))


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_of_each_kind(kind: str) -> None:
    seed = next(seed for seed in range(0, 400, 4) if kind_of(seed) == kind)
    found = checked(kind, seed)
    assert found["graphs"] == {kind: 1}
    for level in LEVELS:
        assert found["cases"][f"{kind} {level}"] == 1


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
def test_a_gradient_beyond_its_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from addergraph.codegen.run.jit import Program

    right = Program.run

    def wrong(self, inputs):
        first, *others = right(self, inputs)
        return (first * 1.01 + 0.01, *others)

    monkeypatch.setattr(Program, "run", wrong)
    case = drawn("gradient", 0)
    with pytest.raises(AssertionError, match="first run on"):
        check_case(case, [Run("x86-64", 1)], Tally(), within_rounding)


def test_a_campaign_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.campaigns", "graphs", "--state", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode in (130, -signal.SIGTERM), said
    state = tmp_path / "total.json"
    before = Total.load(state)
    wanted = before.cases.total() + 2
    again = subprocess.run(
        [*command, "--cases", str(wanted)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "all right" in again.stdout
    after = Total.load(state)
    assert after.next > before.next
    assert after.cases.total() >= wanted
    assert sum(after.graphs.values()) == after.next + len(after.ahead)


class _Fake(crews.Worker):
    """Without compiling: dies of graph 1, finds graph 2 wrong, and is right about the others."""

    program = """
import json, sys
for line in sys.stdin:
    kind, seed = line.split()
    if seed == "1":
        sys.exit("a planted crash")
    right = {"graphs": {kind: 1}, "cases": {kind: 2}}
    print(json.dumps({"error": "another bit"} if seed == "2" else right), flush=True)
"""
    command = (sys.executable, "-c", program)


def test_failures_are_kept_and_the_campaign_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "Worker", _Fake)
    crew = Crew(tmp_path, 1, lambda total: None)
    assert crew.run(20)
    names = [f"{kind_of(n)} {n}" for n in (1, 2)]
    assert sorted(crew.total.failures) == sorted(names)
    for name, why in zip(names, ("a planted crash", "another bit"), strict=True):
        text = (tmp_path / f"{name.replace(' ', '-')}.txt").read_text()
        assert text.startswith("python -m tests.campaigns graphs --kind")
        assert why in text
    assert json.loads((tmp_path / "total.json").read_text())["failures"] == crew.total.failures
    assert Crew(tmp_path, 1, lambda total: None).run(20)  # there were enough
