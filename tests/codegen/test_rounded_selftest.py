"""Self-tests of libraries that were written on a machine which could not run them: of f32, and of
sums of bytes, which are exact."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.emit.module import emit_program
from addergraph.codegen.export.entry import CHECKSUM_BYTES, tolerances
from addergraph.codegen.inspect import elf
from addergraph.codegen.inspect.certificate import certify
from addergraph.codegen.llvm import compile_assembly
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array, Graph
from addergraph.ir.plan import align
from addergraph.ir.state import initial_weights
from addergraph.ops._elementwise import INTEGER_BOUNDS
from tests.codegen.boards import LINUX, static_program

SMALL = """
graph small(%x: f32[5,40]) params(%f: f32[40,6] init=normal(0,1), %d: f32[6,4] init=normal(0,1)) {
  %distances = adder_dense(%x, %f) : f32[5,6]
  %scores = dense(%distances, %d) : f32[5,4]
  %y = softmax(%scores) : f32[5,4]
  %class = argmax(%y) axis=1 : i32[5]
  return %scores, %y, %class
}"""
MAIN = """
#include "small.h"
#include "board.h"
static unsigned char arena[SMALL_ARENA_BYTES] __attribute__((aligned(SMALL_ARENA_ALIGN)));
int main(void)
{
    if (small_supported() != 1)
        return 99; /* REFUSED */
    int32_t code = small_selftest(arena);
    return board_write(arena + SMALL_ARENA_BYTES - 320, 320) ? code : 98;
}
"""
PASSED, WRONG, REFUSED = 0, 5, 99
INPUTS, OUTPUTS = CHECKSUM_BYTES, CHECKSUM_BYTES + align(5 * 40 * 4)
Y, CLASS, END = 128, 256, 320  # of outputs of 80, 80 and 20 bytes, each aligned
ALLOWED = OUTPUTS + END
TARGETS = [
    pytest.param(t, marks=pytest.mark.needs("clang", "ld.lld", LINUX[t][1].split()[0]))
    for t in LINUX
]
SLOWER = [
    pytest.param(*t.values, marks=(*t.marks, pytest.mark.slow)) for t in TARGETS[1:]
]  # of floats: one machine says most


class Program:
    """A program that returns the code of the self-test, and writes the outputs that it found."""

    def __init__(
        self, target: str, folder: Path, graph: Graph, weights: dict[str, Array],
        strict: bool = False,
    ) -> None:  # fmt: skip
        self.made = compiler.export(
            graph, folder, weights=weights, target=target, multiplication_free=strict
        )
        self.emulator = LINUX[target][1].split()
        (folder / "main.c").write_text(MAIN)
        self.path = folder / "program"
        static_program(target, folder, self.made.archive, self.path)
        read = elf.read_elf(self.path.read_bytes(), "program")
        golden = next(s for s in read.symbols if s.name == "small_data_golden")
        section = read.sections[golden.section]
        self.golden = section.offset + golden.value - section.address

    def run(self, change: Callable[[Array], object] = lambda golden: None) -> tuple[int, bytes]:
        """Status and outputs, after a change of the words of the golden block."""
        data = np.fromfile(self.path, np.uint8)
        change(data[self.golden :][: ALLOWED + END])
        path = self.path.with_name("changed")
        data.tofile(path)
        path.chmod(0o755)
        done = subprocess.run([*self.emulator, path], capture_output=True, timeout=60)
        return done.returncode, done.stdout


@pytest.fixture(scope="module", params=[TARGETS[0], *SLOWER])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    graph = ag.parse(SMALL)
    folder = tmp_path_factory.mktemp("small")
    return Program(request.param, folder, graph, initial_weights(graph, 0))


BYTES = """
graph small(%x: u8[2,6,7,5])
params(%f: u8[3,3,5,7], %g: i8[3,2,5,9], %h: i8[210,6], %i: u8[210,3]) {
  %distances = adder2d(%x, %f) padding=(1,1,1,1) : i32[2,6,7,7]
  %products = conv2d(%x, %g) stride=(2,1) : i32[2,2,6,9]
  %flat = flatten(%x) : u8[2,210]
  %some = dense(%flat, %h) : i32[2,6]
  %few = adder_dense(%flat, %i) : i32[2,3]
  return %distances, %products, %some, %few
}"""


@pytest.mark.parametrize("target", TARGETS)
def test_sums_of_bytes_are_exact_on_other_machines(target: str, tmp_path: Path) -> None:
    """Of odd numbers of channels, in padding, and at the ends of the range."""
    graph, rng = ag.parse(BYTES), np.random.default_rng(0)
    weights: dict[str, Array] = {}
    for p in graph.parameters:
        least, most = INTEGER_BOUNDS[p.type.dtype]
        drawn = rng.integers(least, most, p.type.sizes, endpoint=True)
        numbers = np.where(rng.random(drawn.shape) < 0.3, least, drawn)
        weights[p.name] = numbers.astype(p.type.dtype.numpy)
    made = Program(target, tmp_path, graph, weights)
    assert made.run()[0] == PASSED

    def another(golden: Array) -> None:
        golden[CHECKSUM_BYTES + align(2 * 6 * 7 * 5)] ^= 1

    assert made.run(another)[0] == WRONG


SPARSE = """
graph small(%x: f32[1,12,12,16]) params(%f: f32[3,3,16,16]) {{
  %a = {} : f32[1,12,12,16]
  %y = adder2d(%a, %f) input_nonnegative=true : f32[1,10,10,16]
  return %y
}}"""


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if t.values[0] in ("armv7-linux-gnueabihf", "aarch64-linux-gnu")]
)
@pytest.mark.parametrize(
    ("kind", "mean", "in_front"),
    [("sparse", -1.0, "relu(%x)"), ("kinds", 0.0, "clip(%x) lo=0.0 hi=0.5")],
)
def test_lists_of_taps_serve_indices_of_any_width(
    target: str, kind: str, mean: float, in_front: str, tmp_path: Path
) -> None:
    f = np.random.default_rng(0).normal(mean, 1, (3, 3, 16, 16)).astype(np.float32)
    made = Program(target, tmp_path, ag.parse(SPARSE.format(in_front)), {"f": f})
    names = [s.name for s in elf.read_elf(made.made.code.read_bytes(), "small.o").symbols]
    assert any(kind in name for name in names), names
    assert made.run()[0] == PASSED


@pytest.mark.needs("clang", "ld.lld", "qemu-aarch64")
@pytest.mark.parametrize("strict", [False, True])
def test_dot_products_ask_the_cpu_first(strict: bool, tmp_path: Path) -> None:
    """They multiply distances by 1, which strict code does not."""
    graph = ag.parse(
        "graph small(%x: u8[4,8]) params(%f: u8[8,4]) {\n"
        "  %y = adder_dense(%x, %f) : i32[4,4]\n  return %y\n}"
    )
    f = np.arange(32, dtype=np.uint8).reshape(8, 4)
    made = Program("aarch64-linux-gnu-dotprod", tmp_path, graph, {"f": f}, strict)
    for cpu, status in (("cortex-a53", REFUSED), ("cortex-a76", PASSED)):
        command = [*made.emulator, "-cpu", cpu, str(made.path)]
        assert subprocess.run(command, capture_output=True, timeout=60).returncode == status
    found = certify(made.made.archive)
    assert found.multiplication_free == strict
    assert strict or any("udot" in str(failure) for failure in found.failures)


def test_android_keeps_its_register() -> None:
    """x18, which LLVM uses elsewhere where so many values are alive."""
    graph = ag.parse(BYTES)
    used = {
        name: bool(
            re.search(r"\b[wx]18\b", compile_assembly(str(emit_program(lowered)[0]), target))
        )
        for name in ("aarch64-linux-gnu", "aarch64-linux-android", "aarch64-linux-android-dotprod")
        if (lowered := compiler.lower(graph, target := target_named(name)))
    }
    assert used == {
        "aarch64-linux-gnu": True,
        "aarch64-linux-android": False,
        "aarch64-linux-android-dotprod": False,
    }


def moved(by: float) -> Callable[[Array], object]:
    """The first score of the golden outputs moved by so many times what it may be off."""

    def change(golden: Array) -> None:
        scores = golden[OUTPUTS:].view(np.float32)
        allowed = golden[ALLOWED:].view(np.float32)
        assert 0 < allowed[0] < 1e-4 * abs(scores[0])
        scores[0] += by * allowed[0]

    return change


def test_other_bits_pass_within_what_rounding_explains(program: Program) -> None:
    expected: list[Array] = []
    status, found = program.run(lambda golden: expected.append(golden[OUTPUTS:ALLOWED].copy()))
    assert status == PASSED
    assert found[CLASS:][:20] == expected[0][CLASS:][:20].tobytes()
    assert found[:80] != expected[0][:80].tobytes(), "the same bits would say little"
    for by, code in ((-0.4, PASSED), (0.4, PASSED), (-3, WRONG), (3, WRONG), (np.inf, WRONG)):
        assert program.run(moved(by))[0] == code, by
    facts = json.loads(program.made.metadata.read_text())
    assert facts["golden"] == {"exact": False, "seed": 0}
    assert "each element within what rounding explains" in program.made.header.read_text()


def test_other_numbers_than_f32_are_equal(program: Program) -> None:
    def other_class(golden: Array) -> None:
        golden[OUTPUTS + CLASS] ^= 1

    def free(golden: Array) -> None:
        other_class(golden)
        assert (golden[ALLOWED + CLASS :][:20] == 255).all()
        golden[ALLOWED + CLASS] = 0

    assert program.run(other_class)[0] == WRONG
    assert program.run(free)[0] == PASSED


def test_nan_is_as_good_as_nan(program: Program) -> None:
    def not_a_number(golden: Array) -> None:
        golden[INPUTS:].view(np.float32)[0] = np.nan

    def expected(golden: Array) -> None:
        not_a_number(golden)
        for output in (0, Y):
            golden[OUTPUTS + output :].view(np.float32)[:4] = -np.float32(np.nan)
        golden[OUTPUTS + CLASS] = 0

    assert program.run(not_a_number)[0] == WRONG
    assert program.run(expected)[0] == PASSED


def test_tolerances_are_rounded_up() -> None:
    outputs = [np.zeros(3, np.float32), np.zeros(2, np.int32), np.zeros(2, bool)]
    allowed = [np.array([0, 0.1, 1e-50]), np.array([0, np.inf]), np.array([np.inf, 0])]
    floats, integers, flags = tolerances(outputs, allowed)
    assert floats.dtype == np.float32 and floats[0] == 0
    assert (floats[1:].astype("f8") >= allowed[0][1:]).all() and floats[1] < 0.1001
    assert integers.tolist() == [255] * 4 + [0] * 4 and flags.tolist() == [0, 255]
    for output, made in zip(outputs, (floats, integers, flags), strict=True):
        assert made.nbytes == output.nbytes
