"""Machine descriptions: names, the host, and that LLVM knows everything we pass to it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import click
import pytest

from addergraph.cli.main import commands
from addergraph.codegen import llvm
from addergraph.codegen.inspect.instructions import machine_for
from addergraph.codegen.targets.lookup import CORES, CPUS, TARGETS, host, runnable, target_named
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import AVX2, AVX512, BASELINE, X86_LEVELS
from addergraph.errors import TargetError

ON_X86 = pytest.mark.skipif(host().triple != BASELINE.triple, reason="the machine is not x86-64")


@pytest.mark.parametrize("name", TARGETS)
def test_targets_have_the_names_they_are_listed_under(name: str) -> None:
    assert target_named(name) is TARGETS[name]
    assert TARGETS[name].name == name
    assert TARGETS[name].isa.isidentifier()


def test_a_cpu_stands_for_its_level() -> None:
    for name, level in (("znver3", AVX2), ("znver4", AVX512), ("skylake-avx512", AVX512)):
        assert replace(target_named(name), machine=level.machine) == level


def test_host_is_a_target_that_runs_here() -> None:
    assert replace(target_named("host"), machine=host().machine) == host()
    assert runnable(host()) and runnable(target_named("host"))
    assert host().name != "toy"


def test_a_core_stands_for_the_best_code_that_all_of_its_kind_run() -> None:
    for name, target in (("cortex-m3", "thumbv6m"), ("cortex-m7", "thumbv7em")):
        assert target_named(name) is CORES[name] is TARGETS[target]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("x86-64-v5", "x86-64-v"), ("Znver4", "znver4"), ("aarch64", "aarch64-linux-gnu"), ("", "")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(TargetError) as raised:
        target_named(name)
    message = str(raised.value)
    assert f'unknown target or CPU "{name}"' in message and "known: host, x86-64" in message
    assert " toy," not in message
    assert not hint or f'did you mean "{hint}' in message


@ON_X86
@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("", AVX512),
        ("avx512vl", AVX2),
        ("avx512f", AVX2),
        ("fma", BASELINE),
        ("avx2", BASELINE),
    ],
)
def test_the_host_is_the_best_level_whose_features_are_all_there(
    missing: str, expected: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {name for name, _, _ in AVX512.needs}
    wide = every - {name for name, _, _ in AVX2.needs}
    assert {"avx512f", "avx512vl"} <= wide and {"avx2", "fma", "movbe"} <= every
    found = every - {missing} - (wide if expected is BASELINE else set())
    monkeypatch.setattr(llvm, "host_features", lambda: found)
    assert host() is expected
    levels = X86_LEVELS[: X86_LEVELS.index(expected) + 1]
    assert [runnable(t) for t in X86_LEVELS] == [t in levels for t in X86_LEVELS]
    assert runnable(TARGETS["toy"])


def test_machines_nobody_knows_need_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(TargetError, match="vax"):
        host()
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert host() is TARGETS["aarch64-linux-gnu"]
    assert not runnable(BASELINE)


def test_llvm_knows_every_cpu_and_feature() -> None:
    """It ends the process on an unknown CPU, and warns on stderr of an unknown feature."""
    script = (
        "from addergraph.codegen.llvm import compile_object\n"
        "from addergraph.codegen.targets.lookup import TARGETS\n"
        "for t in TARGETS.values():\n"
        "    text = f'target triple = \"{t.triple}\"\\ndefine void @f() {{\\n ret void\\n}}'\n"
        "    print(t.name, len(compile_object(text, t)) > 0)\n"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert made.returncode == 0 and made.stderr == ""
    assert made.stdout.splitlines() == [f"{name} True" for name in TARGETS]


def test_vectors_fit_the_registers() -> None:
    assert {t.name: t.lanes for t in X86_LEVELS} == {
        BASELINE.name: 4,
        AVX2.name: 8,
        AVX512.name: 16,
    }
    for t in (*TARGETS.values(), *CPUS.values()):
        few = t.word == 32 or t.lanes * t.registers == 4 * 32  # groups of four registers
        assert t.lanes.bit_count() == 1 and t.registers >= (8 if few else 16)


def test_the_help_names_every_target() -> None:
    command = commands.commands["compile"]
    context = click.Context(command, help_option_names=["-h", "--help"])  # click keeps the option
    (option,) = [p for p in command.get_params(context) if p.name == "target"]
    assert isinstance(option, click.Option)
    assert set(TARGETS) - {"toy"} <= set(re.findall(r"[\w-]+", str(option.help)))


@pytest.mark.parametrize("t", TARGETS.values(), ids=lambda t: t.name)
def test_machines_have_a_table_and_the_width_of_their_pointers(t: Target) -> None:
    machine = machine_for(t.triple)
    assert machine.name in t.triple.replace("_", "-")
    narrow = machine.name == "thumb" or "32" in t.triple
    assert t.word == 8 * t.pointer_bytes == (32 if narrow else 64)
    assert t.hosted == ("linux" in t.triple)
    assert (t.format == "elf") == (t.hosted or "-none-" in t.triple)
    if machine.name != "wasm":  # whose threads a page would have to ask for
        assert (
            t.atomics == (t.hosted or t.format != "elf") and t.multiplier >= t.floats >= t.atomics
        )
