"""Machines: tables, what models make of them, and that the host's is measured once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import addergraph as ag
from addergraph import compiler, layers, ops
from addergraph.codegen import llvm
from addergraph.codegen.emit.lowered import planned_call
from addergraph.codegen.kernels.forward.choice import expected_choice
from addergraph.codegen.kernels.schedule import DENSE, SPARSE, Choice
from addergraph.codegen.measure import host, rates
from addergraph.codegen.measure.host import host_machine, with_rates
from addergraph.codegen.targets.lookup import CPUS, TARGETS, runnable, target_named
from addergraph.codegen.targets.machine import Machine
from addergraph.codegen.targets.machines import GENERIC, MACHINES, ZEN3, ZEN5, machine_named
from addergraph.codegen.targets.x86 import AVX2, AVX512, X86_LEVELS
from addergraph.errors import TargetError
from addergraph.ir.state import initial_weights

HERE = [t for t in X86_LEVELS if runnable(t)]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nobody who says which machine this is."""
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv("ADDERGRAPH_MACHINE", raising=False)
    host._measured.cache_clear()
    return tmp_path


# -- tables ----------------------------------------------------------------------------------------


def test_every_cpu_has_a_table() -> None:
    assert CPUS.keys() == MACHINES.keys()
    for name, target in CPUS.items():
        assert target.machine is MACHINES[name] and target.machine.name == name
        assert target.machine.rates[-1].width >= target.vector_bytes


@pytest.mark.parametrize("machine", MACHINES.values(), ids=lambda m: m.name)
def test_wider_vectors_are_no_faster_by_the_byte(machine: Machine) -> None:
    """Or the table has a width's rates in another one's row."""
    widths = [one.width for one in machine.rates]
    assert widths == sorted(set(widths))
    for one in machine.rates:
        assert one.terms <= one.loads, "a term of a list has a load"
        assert min(one.loads, one.terms, one.distances, one.minima, one.shuffles) > 0
    for narrow, wide in zip(machine.rates, machine.rates[1:], strict=False):
        assert narrow.loads >= wide.loads and narrow.terms >= wide.terms
    assert 4096 * machine.l1_ways <= machine.l1 < machine.l2, "`_patches.py` counts on 64 sets"
    assert machine.l2_line <= machine.l3_line


def test_rates_are_those_of_the_width_or_of_the_next_wider_one() -> None:
    narrow, wide = MACHINES["znver4"].rates
    assert [MACHINES["znver4"].at(n) for n in (4, 32, 33, 64, 128)] == [narrow] * 2 + [wide] * 3


def test_targets_are_made_for_the_machine_that_is_named() -> None:
    arm = {n for n in TARGETS if n.startswith(("aarch64", "arm64"))}
    assert {n for n, t in TARGETS.items() if t.machine is not GENERIC} == arm
    assert replace(ZEN5, name="generic") == GENERIC
    assert target_named("znver4").machine is MACHINES["znver4"]
    assert target_named("x86-64-v3", "znver4") == replace(AVX2, machine=MACHINES["znver4"])
    assert target_named("znver4", "generic") == AVX512
    assert target_named("riscv32i", "generic") is not None
    with pytest.raises(TargetError, match='unknown machine "znver33" .did you mean "znver3"'):
        target_named("x86-64", "znver33")
    with pytest.raises(TargetError, match='this machine does not run code for "thumbv6m"'):
        target_named("thumbv6m", "host")


def test_models_read_the_machine() -> None:
    """512 lists of 7x7 pixels: where arithmetic binds, leaving half of it out is worth more."""
    found = choices(layers.Adder(512, 3, padding=1), (1, 7, 7, 512))
    assert found["generic"].kind == DENSE
    assert found["sapphirerapids"] == Choice(SPARSE)


def test_models_count_what_short_sums_cost_at_their_ends() -> None:
    """Sums of 16 terms: a dense kernel there is as long about its outputs as about its terms."""
    found = choices(layers.Adder(32, 1, stride=2), (1, 32, 32, 16))
    assert found["generic"].kind == DENSE
    assert found["sapphirerapids"] == Choice(SPARSE)


def choices(layer: Any, shape: tuple[int, ...]) -> dict[str, Choice]:
    """What the model chooses for a layer behind a relu, half of whose taps are above zero."""
    graph = ag.trace(lambda x: layer(ops.relu(x)), ag.tensor("f32", shape))
    weights, found = initial_weights(graph), {}
    for name in ("generic", "sapphirerapids"):
        lowered = compiler.lower(graph, target_named("x86-64-v4", name), weights=weights)
        (node,) = [n for n in lowered.main.nodes if n.name == "adder1"]
        found[name] = expected_choice(planned_call(lowered, node))
    return found


def test_objects_for_different_machines_are_different_entries(cached: Path) -> None:
    graph = ag.trace(lambda x: ops.relu(x), ag.tensor("f32", (4,)))
    names = ("znver3", "generic")
    codes = {compiler.build(graph, target="x86-64", tune_for=name).code for name in names}
    assert len(codes) == 1 and len(list(cached.iterdir())) == 2


# -- this machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
def test_measured_rates_are_steps(target: Any) -> None:
    found = rates.measured_rates(target)
    assert found.keys() == {"loads", "terms", "distances", "minima", "shuffles"}
    assert set(found.values()) <= set(rates.STEPS)


@pytest.mark.skipif(AVX2 not in HERE, reason="the machine has no AVX2")
def test_loops_execute_what_they_measure() -> None:
    """LLVM leaves out what nobody reads, and does once what does not change."""
    text, names = rates._module(AVX2)
    functions = llvm.compile_assembly(text, AVX2).split(".globl")
    body = {f.split()[0]: f for f in functions[1:]}
    expected = {
        "terms": "vpminsd", "minima": "vpminub", "distances": "vpsadbw", "shuffles": "vunpcklps",
        "loads": "vmov", "cycle": "xor",
    }  # fmt: skip
    for (rate, count), symbol in names.items():
        (loop,) = [b for b in body[symbol].split(".LBB") if expected[rate] in b and "\tj" in b][-1:]
        assert loop.count(f"\t{expected[rate]}") >= (rates.CHAIN if rate == "cycle" else count)


def test_rates_near_the_table_are_the_tables() -> None:
    table = ZEN3.at(32)
    found: dict[str, Any] = {"loads": table.loads * 0.75, "terms": 0.67, "shuffles": 4.0}
    (made,) = with_rates(ZEN3, 32, found, unknown=False).rates
    assert made == replace(table, terms=0.67, shuffles=4.0)
    (made,) = with_rates(GENERIC, 16, found, unknown=True).rates
    assert made == replace(GENERIC.at(16), width=16, **found)


def test_the_host_is_measured_once(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([{"terms": 0.25}, {"terms": 4.0}])
    monkeypatch.setattr(host, "measured_rates", lambda target: next(found))
    monkeypatch.setattr(llvm, "host_cpu", lambda: "a CPU without a table")
    first = target_named("host")
    assert first.rates.terms == 0.25 and first.machine.name == "generic"
    host._measured.cache_clear()  # as in another process
    assert target_named("host") == first
    (entry,) = [path for path in cached.iterdir() if path.suffix != ".lock"]
    entry.write_bytes(entry.read_bytes()[:-1])
    host._measured.cache_clear()
    assert target_named("host").rates.terms == 4.0, "a damaged entry is measured again"


def test_processes_that_measure_at_once_agree(cached: Path) -> None:
    script = (
        "import random\n"
        "from addergraph.codegen import llvm\n"
        "from addergraph.codegen.measure import host\n"
        "from addergraph.codegen.targets.lookup import target_named\n"
        "llvm.host_cpu = lambda: 'a CPU without a table'\n"
        "host.measured_rates = lambda target: {'terms': random.random()}\n"
        "print(target_named('host').rates.terms)\n"
    )
    command = [sys.executable, "-c", script]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate()[0] for process in running}
    assert len(outputs) == 1 and 0 < float(outputs.pop()) < 1


def test_nothing_is_measured_without_leave(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "measured_rates", lambda target: pytest.fail("measured"))
    monkeypatch.setattr(llvm, "host_cpu", lambda: "znver4")
    for variable, value, expected in (
        ("ADDERGRAPH_MACHINE", "builtin", MACHINES["znver4"]),
        ("ADDERGRAPH_MACHINE", "skylake", MACHINES["skylake"]),
        ("ADDERGRAPH_CACHE", "", MACHINES["znver4"]),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert target_named("host").machine == expected
    monkeypatch.setenv("ADDERGRAPH_MACHINE", "znver44")
    with pytest.raises(TargetError, match='unknown machine "znver44"'):
        host_machine(AVX2)


def test_a_folder_that_cannot_be_written_means_the_table(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cached / "file").touch()
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(cached / "file" / "objects"))
    monkeypatch.setattr(llvm, "host_cpu", lambda: "znver4")
    assert target_named("host").machine is machine_named("znver4")
