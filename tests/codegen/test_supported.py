"""Libraries for newer CPUs, on older ones: they say so, where their code would end the program."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.cpu import CPUID, XGETBV
from addergraph.codegen.inspect.certificate import certify
from addergraph.codegen.targets.lookup import CPUS, TARGETS, has_native_code, host, runnable
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import AVX2, AVX512, BASELINE, X86_LEVELS
from tests.codegen.libraries import built_c

WIDE = """
graph wide(%x: f32[64]) {
  %y = add(%x, %x) : f32[64]
  return %y
}"""
# What main returns: the answer of wide_supported, ten times the code of the self-test; or it runs.
ASKED = """
#include "wide.h"
static unsigned char memory[WIDE_ARENA_BYTES + WIDE_ARENA_ALIGN];
static float x[64], y[64];
int main(int count, char **words)
{
    void *arena = memory + (WIDE_ARENA_ALIGN - (uintptr_t)memory % WIDE_ARENA_ALIGN);
    if (count > 1)
        return wide_run(x, y, arena) != WIDE_OK || words[1][0] == 0;
    return wide_supported() + 10 * wide_selftest(arena);
}
"""
PASSED, REFUSED = 1, 70
LISTING = """
movq %rbx, %r8; movl %edi, %eax; andl $0x80000000, %eax; cpuid; cmpl %edi, %eax; jb 0x23
movl %edi, %eax; xorl %ecx, %ecx; cpuid; movl %ecx, %eax; shlq $0x20, %rbx; orq %rbx, %rax
movq %r8, %rbx; retq; xorl %eax, %eax; movq %r8, %rbx; retq
xorl %ecx, %ecx; xgetbv; retq
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for level in X86_LEVELS:
        folder = tmp_path_factory.mktemp(level.name)
        compiler.export(ag.parse(WIDE), folder, weights={}, target=level.name)
        (folder / "asked.c").write_text(ASKED)
        made[level.name] = built_c(folder / "asked.c", folder, "wide", f"-I{folder}")
    return made


def status(*command: str | Path) -> int:
    return subprocess.run(command, capture_output=True, timeout=60).returncode


@pytest.mark.needs("cc")
@pytest.mark.skipif(not has_native_code() or host() not in X86_LEVELS, reason="for x86-64")
def test_this_machine_is_told_as_llvm_tells_it(programs: dict[str, Path]) -> None:
    found = {name: status(program) for name, program in programs.items()}
    assert found == {t.name: PASSED if runnable(t) else REFUSED for t in X86_LEVELS}


@pytest.mark.needs("cc", "qemu-x86_64")
@pytest.mark.parametrize(
    ("cpu", "level"),
    [
        ("qemu64", BASELINE),
        ("Nehalem", BASELINE),
        ("SandyBridge", BASELINE),  # AVX without AVX2
        ("Haswell,-movbe", BASELINE),
        ("Haswell,-xsave", BASELINE),  # the system keeps no wide registers
        ("Haswell", AVX2),
    ],
)
def test_older_cpus_answer(cpu: str, level: Target, programs: dict[str, Path]) -> None:
    emulated = ("qemu-x86_64", "-cpu", cpu)
    for target in X86_LEVELS:
        expected = REFUSED if target.lanes > level.lanes else PASSED
        assert status(*emulated, programs[target.name]) == expected, target.name


@pytest.mark.needs("cc", "qemu-x86_64")
def test_otherwise_the_code_is_an_illegal_instruction(programs: dict[str, Path]) -> None:
    found = [status("qemu-x86_64", "-cpu", "Nehalem", programs[t.name], "run") for t in X86_LEVELS]
    assert found == [0, -signal.SIGILL, -signal.SIGILL]


def test_the_raw_functions_are_what_their_comments_say() -> None:
    capstone = pytest.importorskip("capstone")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT
    shown = [
        f"{mnemonic} {operands}".strip()
        for code in (CPUID, XGETBV)
        for _, _, mnemonic, operands in decoder.disasm_lite(code, 0)
    ]
    assert shown == LISTING.strip().replace("\n", "; ").split("; ")


def test_strict_code_that_asks_is_certified(tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    integers = ag.parse(
        "graph sums(%x: u8[2,8]) params(%f: u8[8,4]) {\n"
        "  %y = adder_dense(%x, %f) : i32[2,4]\n  return %y\n}"
    )
    weights = {"f": np.ones((8, 4), np.uint8)}
    made = compiler.export(
        integers, tmp_path, weights=weights, target=AVX512.name, multiplication_free=True
    )
    found = certify(made.archive)
    assert found.multiplication_free, found.render()
    assert {"cpuid", "xgetbv"} <= {f.name for f in found.functions}
    header = made.header.read_text()
    assert '#define SUMS_TARGET "x86_64-unknown-linux-gnu"' in header
    assert '#define SUMS_CPU "x86-64-v4"' in header and " avx512vl" in header


def test_every_target_says_what_runs_it() -> None:
    for target in (*TARGETS.values(), *CPUS.values()):
        assert 15 < len(target.cpus) < 150 and not target.cpus.endswith("."), target.name
        assert bool(target.needs) == bool(target.baseline) >= bool(target.states)
        assert bool(target.states) == (target.cpu in ("x86-64-v3", "x86-64-v4"))
