"""The long campaigns, a moment of each; `make campaign-...` has them all."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from addergraph.codegen.run.jit import Program
from addergraph.files import storage
from tests.campaigns import crew as crews
from tests.campaigns import disk, sanitizers
from tests.campaigns.crew import Crew, Total, Worker, stopping
from tests.campaigns.graphs import KINDS, LEVELS, checked, drawn, kind_of
from tests.campaigns.kills import kill_saves
from tests.campaigns.writers import WRITERS, WRITTEN_BY
from tests.codegen.libraries import compiled
from tests.differential import Run, Tally, check_case, within_rounding

ROOT = Path(__file__).parent.parent
CONV = """
graph net(%image: f32[N,5,5,3]) params(%f: f32[3,3,3,5] init=normal(0,1)) {
  %y = adder2d(%image, %f) padding=(1,1,1,1) : f32[N,5,5,5]
  return %y
}"""


# -- graphs --------------------------------------------------------------------------------------


def test_a_number_says_which_graph_it_is() -> None:
    kinds = [kind_of(seed) for seed in range(200)]
    assert set(kinds) == set(KINDS)
    for kind in ("float", "integer", "gradient"):
        one, other = (drawn(kind, kinds.index(kind)) for _ in range(2))
        assert str(one.graph) == str(other.graph)
        assert all(np.array_equal(*pair) for pair in zip(one.inputs, other.inputs, strict=True))


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
@pytest.mark.parametrize(("kind", "seed"), [("float", 0), ("integer", 4), ("gradient", 16)])
def test_a_graph_of_each_kind(kind: str, seed: int) -> None:
    found = checked(kind, seed)
    assert found["graphs"] == {kind: 1}
    for level in LEVELS:
        assert found["cases"][f"{kind} {level}"] == 1


def test_a_gradient_beyond_its_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Program.run
    monkeypatch.setattr(Program, "run", lambda self, x: [1.001 * a + 1e-3 for a in right(self, x)])
    with pytest.raises(AssertionError, match=r"first run on(.|\n)*FAIL"):
        check_case(drawn("gradient", 16), [Run("x86-64", 1)], Tally(), within_rounding)


@pytest.mark.slow
def test_a_worker_answers_with_counts() -> None:
    worker = Worker()
    try:
        worker.ask(7)
        assert worker.answer()["graphs"] == {kind_of(7): 1}
    finally:
        worker.end()


class _Fake(Worker):
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
    command = (sys.executable, "-S", "-c", program)


@pytest.mark.needs("git")
def test_failures_are_kept_and_the_campaign_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "Worker", _Fake)
    crew = Crew(tmp_path, 1, lambda total: None)
    assert crew.run(20)
    names = [f"{kind_of(n)} {n}" for n in (1, 2)]
    assert crew.total.failures == names
    for name, why in zip(names, ("a planted crash", "another bit"), strict=True):
        text = (tmp_path / f"{name.replace(' ', '-')}.txt").read_text()
        assert text.startswith("python -m tests.campaigns graphs --kind")
        assert why in text
    assert Total.load(tmp_path / "total.json") == crew.total


@pytest.mark.needs("git")
def test_a_campaign_goes_on_where_a_signal_stopped_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "Worker", _Fake)
    old = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    crew = Crew(tmp_path, 2, lambda total: signal.raise_signal(signal.SIGTERM))
    try:
        stopping(crew)
        assert not crew.run(100)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    before = Total.load(tmp_path / "total.json")
    again = Crew(tmp_path, 2, lambda total: None)
    assert again.run(before.cases.total() + 10)
    after = again.total
    assert after.next + len(after.ahead) > before.next + len(before.ahead)
    assert after.graphs.total() + len(after.failures) == after.next + len(after.ahead)


# -- exported C ----------------------------------------------------------------------------------


@pytest.mark.needs("cc", "objcopy")
def test_an_export_between_guards(tmp_path: Path) -> None:
    assert sanitizers.exported(compiled(CONV, "x86-64"), tmp_path).check() == 4


@pytest.mark.needs("cc", "objcopy")
def test_a_step_beyond_a_buffer_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, right = compiled(CONV, "x86-64"), sanitizers.WEIGHTS
    built = sanitizers.exported(program, tmp_path)
    moved = right.replace(".zero {before}", ".zero {before} + 64")
    monkeypatch.setattr(sanitizers, "WEIGHTS", moved.replace(".zero {size}", ".zero {size} - 64"))
    with pytest.raises(AssertionError, match="guarded ended with"):
        built.check_between_guards(1)
    monkeypatch.setattr(sanitizers, "WEIGHTS", right)
    header = built.generated.read_text()
    built.generated.write_text(header.replace("_ARENA_BYTES", "_ARENA_BYTES - 64"))
    built.compile()
    with pytest.raises(AssertionError, match="guarded ended with"):
        built.check_between_guards(1)


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL of a forked child")
def test_kills_while_saving() -> None:
    assert kill_saves("model", 4).kills == 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="made for Linux")
@pytest.mark.parametrize("name", ["model", "cache", "results"])
def test_a_full_disk_at_each_step(name: str) -> None:
    found = list(disk.with_faults(name))
    assert len(found) >= 4
    assert not any(found), found


def test_what_a_failed_write_leaves_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "discard", lambda path: None)
    assert any("left behind" in text for text in disk.with_faults("model"))


def test_every_module_that_writes_has_a_writer() -> None:
    """But for `storage.py` itself, and native.py, which writes into memory."""
    calls = re.compile(
        r"(?<!`)\b(atomic_write|atomic_write_all|storage\.save|pictures\.save|os\.write|write_bytes|write_text)\("
    )
    found = {
        str(path.relative_to(ROOT))
        for top in ("addergraph", "passes", "codegen")
        for path in (ROOT / top).rglob("*.py")
        if calls.search(path.read_text())
    }
    assert found - {"addergraph/files/storage.py"} == set(WRITTEN_BY)
    assert set(WRITTEN_BY.values()) == set(WRITERS)
