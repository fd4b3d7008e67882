"""One library for every x86-64 CPU: the same bits by each level's code, which the CPU chooses."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.emit.module import emit_program
from addergraph.codegen.export.entry import emit_library
from addergraph.codegen.export.interface import interface_of
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect import elf
from addergraph.codegen.inspect.certificate import certify
from addergraph.codegen.llvm import compile_object
from addergraph.codegen.targets.lookup import TARGETS
from addergraph.codegen.targets.x86 import AVX2, AVX512, EVERY
from addergraph.compiler.lowering import levels
from addergraph.errors import UnsupportedError
from addergraph.ir.state import initial_weights
from tests.codegen.libraries import built_c

NET = ag.parse("""
graph net(%x: f32[2,6,6,5]) params(%f: f32[3,3,5,19] init=normal(0,1),
    %g: f32[3,3,19,20] init=normal(0,1) eta=0.2, %d: f32[20,7] init=normal(0,1)) {
  %c = conv2d(%x, %f) padding=(1,1,1,1) : f32[2,6,6,19]
  %r = relu(%c) : f32[2,6,6,19]
  %a = adder2d(%r, %g) input_nonnegative=true : f32[2,4,4,20]
  %p = global_avg_pool(%a) : f32[2,20]
  %s = dense(%p, %d) : f32[2,7]
  %y = softmax(%s) : f32[2,7]
  return %s, %y
}""")
INTEGERS = ag.parse("""
graph net(%x: u8[2,40]) params(%f: u8[40,9]) {
  %y = adder_dense(%x, %f) : i32[2,9]
  return %y
}""")
RUN = """
#include <stdio.h>
#include "net.h"
static unsigned char memory[NET_ARENA_BYTES + NET_ARENA_ALIGN];
static float x[NET_X_ELEMENTS], s[NET_S_ELEMENTS], y[NET_Y_ELEMENTS];
int main(void)
{
    void *arena = memory + (NET_ARENA_ALIGN - (uintptr_t)memory % NET_ARENA_ALIGN);
    for (int i = 0; i < (int)NET_X_ELEMENTS; i++)
        x[i] = (float)(i * 7919 % 1000) / 300 - 1;
    if (!net_supported() || net_run(x, s, y, arena) || net_run(x, s, y, arena))
        return 9;
    fwrite(s, 1, sizeof s, stdout);
    fwrite(y, 1, sizeof y, stdout);
    return net_selftest(arena);
}
"""
CPUS = ("Nehalem", "Haswell")  # whose best levels are the first and the second


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("every")
    return compiler.export(NET, folder, weights=initial_weights(NET, 0), target=EVERY.name)


@pytest.fixture(scope="module")
def program(library: Exported) -> Path:
    folder = library.header.parent
    (folder / "run.c").write_text(RUN)
    return built_c(folder / "run.c", folder, "net", f"-I{folder}", "-static")


def answers(program: Path, *emulated: str) -> tuple[int, bytes]:
    done = subprocess.run([*emulated, program], capture_output=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.needs("cc", "qemu-x86_64")
def test_every_cpu_gives_the_same_bits(program: Path) -> None:
    here = answers(program)
    assert here[0] == 0 and np.abs(np.frombuffer(here[1], np.float32)).max() > 1
    assert [answers(program, "qemu-x86_64", "-cpu", cpu) for cpu in CPUS] == [here, here]


@pytest.mark.needs("cc", "qemu-x86_64")
def test_the_best_level_of_the_cpu_runs(program: Path, tmp_path: Path) -> None:
    """Zeros for the weights of one level show where that is the CPU's."""
    forms = levels(NET, initial_weights(NET, 0), None, EVERY.name, None, False)
    made = emit_library(forms, interface_of(forms[0], above=forms[1:]), exact=True)[1]
    ends = [level.offset for level in made]
    read = elf.read_elf(program.read_bytes(), "run")
    symbol = next(s for s in read.symbols if s.name == "net_data_weights")
    home = read.sections[symbol.section]
    start, before, found = home.offset + symbol.value - home.address, answers(program)[1], []
    for first, end in itertools.pairwise(ends):
        data = bytearray(program.read_bytes())
        data[start + first : start + end] = bytes(end - first)
        changed = tmp_path / str(first)
        changed.write_bytes(data)
        changed.chmod(0o755)
        found.append([answers(changed, "qemu-x86_64", "-cpu", cpu)[1] == before for cpu in CPUS])
    assert found == [[False, True], [True, False]]


def test_the_header_says_what_is_asked_and_kept(library: Exported) -> None:
    text = library.header.read_text()
    assert "runs on every x86-64 CPU, and uses AVX2 or AVX-512 where there is one of them." in text
    assert f"asks the CPU which of {EVERY.name}, {AVX2.name}, {AVX512.name} it has" in " ".join(
        text.replace("\n *", " ").split()
    )


def test_strict_code_of_every_level_is_certified(tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    weights = {"f": np.arange(360, dtype=np.uint8).reshape(40, 9)}
    made = compiler.export(
        INTEGERS, tmp_path, weights=weights, target=EVERY.name, multiplication_free=True
    )
    found = certify(made.archive)
    assert found.multiplication_free, found.render()
    kernels = [name for f in found.functions if "adder" in (name := f.name)]
    assert len(kernels) == 3, kernels


@pytest.mark.slow
def test_other_targets_leave_no_trace(tmp_path: Path) -> None:
    """LLVM's back end for WebAssembly lowers a limit of jump tables for all machines."""
    weights = {"f": np.arange(360, dtype=np.uint8).reshape(40, 9)}

    def code() -> bytes:
        made = compiler.export(
            INTEGERS, tmp_path, weights=weights, target=EVERY.name, multiplication_free=True,
            overwrite=True,
        )  # fmt: skip
        return made.code.read_bytes()

    first = code()
    for name in TARGETS:
        if not TARGETS[name].above:
            lowered = compiler.lower(INTEGERS, TARGETS[name])
            compile_object(str(emit_program(lowered)[0]), TARGETS[name])
    assert code() == first


def test_a_program_is_of_one_level(tmp_path: Path) -> None:
    program = ag.compile(NET, weights=initial_weights(NET, 0), target=EVERY.name)
    with pytest.raises(UnsupportedError, match=r"one level of .*ag\.export"):
        program.export(tmp_path / "library")
