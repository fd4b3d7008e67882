"""Random graphs on the targets that emulators run, a moment of `make campaign-targets`; and that it
would see a wrong bit, and a step beyond an operand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect.limits import floats_of
from addergraph.codegen.targets.lookup import TARGETS, runnable, target_named
from addergraph.codegen.targets.toy import TOY
from addergraph.codegen.targets.x86 import X86_LEVELS
from addergraph.errors import UnsupportedError
from addergraph.ir import Array
from tests.campaigns import machines, targets
from tests.campaigns.graphs import drawn
from tests.campaigns.machines import MACHINES, Machine
from tests.differential import multiplies
from tests.strategies import Case
from tests.strategies_integers import integer_case

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EACH = 3  # graphs of a machine
TWO = """
graph two(%x: u8[2,9,9,5]) params(%f: u8[3,3,5,7], %g: u8[3,3,5,4]) {
  %y = max_pool2d(%x) window=(2,2) stride=(1,1) : u8[2,8,8,5]
  %d = adder2d(%y, %f) padding=(1,1,1,1) : i32[2,8,8,7]
  %s = max_pool2d(%y) window=(1,1) stride=(1,1) : u8[2,8,8,5]
  %z = adder2d(%s, %g) : i32[2,6,6,4]
  return %z, %d
}"""


def needing(machine: Machine, *marks: Any) -> Any:
    return pytest.param(machine, marks=(pytest.mark.needs(*machine.tools), *marks), id=machine.name)


NAMED = {machine.name: machine for machine in MACHINES}
PAGED, BARE = NAMED["aarch64-linux-gnu"], NAMED["thumbv7em"]


def takes(machine: Machine, seed: int) -> Case | None:
    """The graph of this number, where the machine takes it."""
    case = targets.exportable(drawn(targets.kind_of(seed), seed))
    if case is None or (floats_of(case.graph) and not machine.of.floats):
        return None
    return None if multiplies(case.graph) and not machine.of.multiplier else case


@pytest.mark.slow
@pytest.mark.parametrize("machine", [needing(m) for m in MACHINES])
def test_graphs_on_each_machine(machine: Machine) -> None:
    if machine.kind == "windows" and not runnable(target_named(machine.target[:-8])):
        pytest.skip("this processor does not run that level")
    done, seed = 0, 1000 * [m.name for m in MACHINES].index(machine.name)
    while done < EACH:
        seed += 1
        case = takes(machine, seed)
        error = None if case is None else targets.failure(case, machine, not machine.of.multiplier)
        if case is None or isinstance(error, UnsupportedError):
            continue
        assert error is None, (seed, error)
        done += 1


def test_every_target_has_a_machine() -> None:
    """But for the levels of x86-64, which this machine may run itself (`make campaign-graphs`);
    Android's, which are those of Linux by other calls of the system; and two of Windows."""
    own = {t.name for t in (*X86_LEVELS, TOY)}
    others = {"x86-64-v4-windows", "x86-64-every-windows"}
    android = {name for name in TARGETS if "android" in name}
    assert {m.target for m in MACHINES} == set(TARGETS) - own - others - android


@pytest.mark.slow
def test_machines_take_turns() -> None:
    seen = Counter[str]()
    for seed in range(160):
        kind = targets.kind_of(seed)
        case = None if kind == "quantized" else targets.exportable(drawn(kind, seed))
        turn = None if case is None else targets.machine_for(case, seed, list(MACHINES))
        if turn is not None:
            seen[turn[0].name] += 1
    assert set(seen) == set(NAMED) and min(seen.values()) >= 2


@pytest.mark.parametrize("machine", [needing(PAGED), needing(BARE, pytest.mark.slow)])
def test_what_is_wrong_is_seen(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, rng = ag.parse(TWO), np.random.default_rng(0)
    weights = {p.name: rng.integers(0, 256, p.type.sizes, np.uint8) for p in graph.parameters}
    case = Case(2, graph, (rng.integers(0, 256, (2, 9, 9, 5), np.uint8),), weights)
    assert targets.failure(case, machine, False) is None
    with monkeypatch.context() as patch:  # of an arena that has to hold what stands between two
        patch.setattr(machines, "_number_of", lambda made, macro: 64)
        wrong = f"{machine.name}: status {-11 if machine.paged else 1}", "is touched"
        assert any(part in said(case, machine) for part in wrong)  # 1 is a fault
    described = machines._described

    def other(m: Machine, tensors: Any, *more: Any) -> str:
        last = tensors[-1] + np.ones((), tensors[-1].dtype)
        return described(m, [*tensors[:-1], last], *more)

    monkeypatch.setattr(machines, "_described", other)
    assert "other bits" in said(case, machine)


def said(case: Case, machine: Machine) -> str:
    return str(targets.failure(case, machine, False))


@pytest.mark.needs(*NAMED["thumbv8m-mve"].tools)
def test_runs_that_fill_no_register() -> None:
    """Channels of pixels that stand apart: fewer than the bytes that Cortex-M55 takes at once."""
    channels, rng = range(1, 18), np.random.default_rng(0)
    made = [f"%f{c}: u8[2,2,{c},3]" for c in channels]
    layers = "".join(
        f"  %x{c} = slice(%x) start=(0,0,0,0) stop=(1,4,4,{c}) : u8[1,4,4,{c}]\n"
        f"  %y{c} = adder2d(%x{c}, %f{c}) dilation=(2,2) : i32[1,2,2,3]\n"
        for c in channels
    )
    outputs = ", ".join(f"%y{c}" for c in channels)
    graph = ag.parse(
        f"graph runs(%x: u8[1,4,4,17]) params({', '.join(made)}) {{\n{layers}  return {outputs}\n}}"
    )
    weights = {p.name: rng.integers(0, 256, p.type.sizes, np.uint8) for p in graph.parameters}
    case = Case(0, graph, (rng.integers(0, 256, (1, 4, 4, 17), np.uint8),), weights)
    assert targets.failure(case, NAMED["thumbv8m-mve"], False) is None


@pytest.mark.slow
@pytest.mark.needs(*PAGED.tools)
@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "cortex-a72", "cortex-a55", "cortex-a76"])
def test_steps_that_arm_takes_together(target: str, tmp_path: Path) -> None:
    """The largest distances: a whole kernel, a row, or some steps of one fill sums of 16 bits. Runs
    of every length beyond whole groups of steps, and f32 in the order of its sums."""
    graph = ag.parse("""
graph together(%x: u8[1,5,9,56], %z: u8[1,1030], %v: f32[1,5,9,27])
    params(%f: u8[3,3,56,16], %g: u8[3,3,60,4], %h: u8[1030,5], %k: f32[3,3,27,16]) {
  %a = adder2d(%x, %f) padding=(1,1,1,1) : i32[1,5,9,16]
  %w = pad(%x) before=(0,0,0,0) after=(0,0,0,4) : u8[1,5,9,60]
  %b = adder2d(%w, %g) : i32[1,3,7,4]
  %c = adder_dense(%z, %h) : i32[1,5]
  %d = adder2d(%v, %k) : f32[1,3,7,16]
  return %a, %b, %c, %d
}""")
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {
        p.name: np.zeros(p.type.sizes, np.uint8) for p in graph.parameters[:3]
    }
    weights["k"] = rng.standard_normal((3, 3, 27, 16), np.float32)
    v = rng.standard_normal((1, 5, 9, 27), np.float32)
    far = np.full((1, 5, 9, 56), 255, np.uint8), np.full((1, 1030), 255, np.uint8), v
    random = {n: rng.integers(0, 256, weights[n].shape, np.uint8) for n in "fgh"}
    any_bytes = *(rng.integers(0, 256, a.shape, np.uint8) for a in far[:2]), v
    machine = replace(PAGED, name=target, target=target, emulator="qemu-aarch64 -cpu max")
    for inputs, numbers in ((far, weights), (any_bytes, weights | random)):
        expected = list(ag.compile(graph, weights=numbers)(*inputs))  # f32 has the same bits, too
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        machines.run(machine, graph, inputs, numbers, expected, folder, strict=False, right=True)


@pytest.mark.needs(*PAGED.tools)
def test_a_number_beyond_the_weights_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(c for c in map(integer_case, range(9, 99)) if c.graph.parameters)
    right = machines._weights

    def cut(made: Exported, folder: Path, at_the_end: bool) -> str:
        text, path = right(made, folder, True), folder / "weights.bin"
        less = f'"{path}", 0, {path.stat().st_size - 64}'
        moved = text.replace(f'"{path}"', less)
        return moved.replace("guard_below:\n", "guard_below:\n    .zero 64\n")

    assert targets.failure(case, PAGED, False) is None
    monkeypatch.setattr(machines, "_weights", cut)
    assert "status -11" in said(case, PAGED)
