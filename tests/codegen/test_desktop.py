"""Libraries for Windows and macOS: their code is run here, their archives are read by LLVM."""

from __future__ import annotations

import re
import struct
import subprocess
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph.codegen.export.archive import Member, bsd_archive
from addergraph.codegen.export.library import Exported, compiled
from addergraph.codegen.inspect.certificate import certify
from addergraph.codegen.inspect.limits import require_no_calls
from addergraph.codegen.inspect.size import size_of
from addergraph.codegen.inspect.symbols import undefined
from addergraph.codegen.llvm import compile_object
from addergraph.codegen.targets.desktop import DESKTOP, MACOS, WINDOWS
from addergraph.codegen.targets.lookup import TARGETS, runnable, target_named
from addergraph.codegen.targets.target import Target
from addergraph.errors import AdderGraphError, StorageError, TargetError, UnsupportedError
from addergraph.ir import Array, Graph
from tests.codegen import macs
from tests.codegen.boards import static_program
from tests.codegen.test_header import BYTES as SMALL
from tests.codegen.windows import Library, aligned

BYTES = """
graph bytes(%x: u8[3,20,20,8]) params(%f: u8[3,3,8,24]) {
  %d = adder2d(%x, %f) stride=(2,2) padding=(1,1,1,1) : i32[3,10,10,24]
  %m = reduce_sum(%d) axes=(1,2) keepdims=false : i32[3,24]
  return %d, %m
}"""
FLOATS = """
graph floats(%x: f32[2,12,12,8]) params(%f: f32[3,3,8,24], %g: f32[3,3,24,16], %b: f32[16]) {
  %d = adder2d(%x, %f) padding=(1,1,1,1) : f32[2,12,12,24]
  %e = adder2d(%d, %g) stride=(2,2) : f32[2,5,5,16]
  %y = add(%e, %b) : f32[2,5,5,16]
  return %y
}"""
HERE = [t.name for t in WINDOWS if runnable(TARGETS[t.name.removesuffix("-windows")])]
DAMAGED = 4  # ERROR_WEIGHTS


def numbers(graph: Graph) -> tuple[dict[str, Array], list[Array]]:
    """Weights and inputs."""
    rng = np.random.default_rng(3)

    def one(dtype: str, shape: tuple[int, ...]) -> Array:
        if dtype == "u8":
            return rng.integers(0, 256, shape, np.uint8)
        return rng.standard_normal(shape, np.float32)

    drawn = {v.name: one(v.type.dtype.name, v.type.sizes) for v in graph.parameters}
    return drawn, [one(v.type.dtype.name, v.type.sizes) for v in graph.inputs]


def exported(text: str, target: str, folder: Path) -> tuple[Graph, Exported]:
    graph = ag.parse(text)
    return graph, ag.export(graph, folder, weights=numbers(graph)[0], target=target, name="net")


def number_of(made: Exported, macro: str) -> int:
    found = re.search(rf"#define NET_{macro} (\d+)u", made.header.read_text())
    assert found is not None
    return int(found[1])


# -- Windows -------------------------------------------------------------------------------------


@pytest.mark.needs("lld-link")
@pytest.mark.parametrize("text", [BYTES, FLOATS], ids=["bytes", "floats"])
@pytest.mark.parametrize("target", HERE)
def test_windows_code_gives_the_bits_of_linux(target: str, text: str, tmp_path: Path) -> None:
    graph, made = exported(text, target, tmp_path)
    weights, inputs = numbers(graph)
    library, arena = Library(made, tmp_path), number_of(made, "ARENA_BYTES")
    assert library.call("supported") == 1
    assert library.call("selftest", aligned(arena)) == 0
    outputs = [np.zeros(v.type.sizes, v.type.dtype.numpy) for v in graph.outputs]
    assert library.run(inputs, outputs, arena) == 0
    level = target.removesuffix("-windows").replace("x86-64-every", "x86-64")
    expected = ag.compile(graph, weights=weights, target=level).run(inputs)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.any() and ours.tobytes() == theirs.tobytes()
    library.memory[library.places["net_data_golden"]] ^= 1
    assert library.call("selftest", aligned(arena)) == DAMAGED


@pytest.mark.needs("lld-link")
def test_callers_keep_the_registers_that_windows_lets_them_keep(tmp_path: Path) -> None:
    """Every function of the code says how to walk its stack: so it has what it saves."""
    _, made = exported(FLOATS, "x86-64-v3-windows", tmp_path)
    data = made.code.read_bytes()
    (sections,) = struct.unpack_from("<H", data, 2)
    rows = [struct.unpack_from("<8s4I", data, 20 + 40 * n) for n in range(sections)]
    sizes = {name.rstrip(b"\0"): size for name, _, _, size, _ in rows}
    assert sizes[b".pdata"] >= 12 * 5  # kernels, body, barrier, and the functions of C


@pytest.mark.parametrize("target", [t.name for t in DESKTOP])
def test_no_frame_skips_a_page_of_the_stack(target: str, tmp_path: Path) -> None:
    """The systems put a page behind the stack that has to be touched before the next one."""
    for name, text in (("bytes", BYTES), ("floats", FLOATS)):
        _, made = exported(text, target, tmp_path / name)
        assert 100 < number_of(made, "STACK_BYTES") < 4096


def test_a_frame_of_a_page_is_refused() -> None:
    """In a training step of hundreds of layers, pointers to all parameters would be one."""
    text = """
    define void @f() "no-stack-arg-probe" {{
      %p = alloca [{} x i8]
      call void @h(ptr %p)
      ret void
    }}
    define internal void @h(ptr %p) noinline {{
      store volatile i8 0, ptr %p
      ret void
    }}"""
    for size, fits in ((3 << 10, True), (5 << 10, False)):
        with nullcontext() if fits else pytest.raises(UnsupportedError, match="f takes 5.*4095"):
            compiled(text.format(size), (), "net", ("f",), WINDOWS[0])


# -- macOS ---------------------------------------------------------------------------------------

MAIN = """
#include "net.h"
#include "board.h"
static unsigned char arena[NET_ARENA_BYTES] __attribute__((aligned(64)));
extern unsigned char net_data_golden[];
int main(void)
{
    int32_t code = net_selftest(arena);
    net_data_golden[0] ^= 1;
    return code != 0 ? 1 : net_selftest(arena) == 4 ? 0 : 2;
}
"""


@pytest.mark.needs(*macs.TOOLS)
@pytest.mark.parametrize("text", [BYTES, FLOATS], ids=["bytes", "floats"])
def test_code_for_macs_runs_in_an_emulator(text: str, tmp_path: Path) -> None:
    _, made = exported(text, MACOS.name, tmp_path)
    (tmp_path / "main.c").write_text(MAIN)
    program = tmp_path / "program"
    static_program("aarch64-linux-gnu", tmp_path, macs.for_linux(made, tmp_path), program)
    assert subprocess.run(["qemu-aarch64", program], timeout=60, check=False).returncode == 0


@pytest.mark.needs("llvm-ar")
def test_the_archive_is_that_of_llvm_for_macs(tmp_path: Path) -> None:
    def one(name: str, *symbols: str) -> Member:
        text = "".join(f'@{s} = constant [{len(s)} x i8] c"{s}"\n' for s in symbols)
        return Member(name, [compile_object(text, MACOS)], tuple(f"_{s}" for s in symbols))

    for members in (
        [one("net.o", "net_run", "net_a"), one("net_data.o", "net_data")],
        [one("a_name_of_sixteen.o", "first"), one("b.o"), one("c.o", "zz", "a")],
    ):
        for m in members:
            (tmp_path / m.name).write_bytes(b"".join(m.data))
        ours, theirs = tmp_path / "ours.a", tmp_path / "theirs.a"
        ours.write_bytes(b"".join(bsd_archive(members)))
        names = [m.name for m in members]
        command = ["llvm-ar", "--format=darwin", "rcsD", theirs.name, *names]
        subprocess.run(command, cwd=tmp_path, check=True)
        for told in (["llvm-ar", "t"], ["llvm-nm", "--print-armap"]):
            read = [
                subprocess.run([*told, a], capture_output=True, text=True, check=True).stdout
                for a in (ours, theirs)
            ]
            ours_said, theirs_said = (sorted(one.splitlines()) for one in read)
            assert [x.replace("ours.a", "theirs.a") for x in ours_said] == theirs_said
        for m in members:  # each begins at a multiple of 8, as the linkers of macOS want it
            assert ours.read_bytes().index(b"".join(m.data)) % 8 == 0
        theirs.unlink()


# -- what is needed of elsewhere, and what cannot be ---------------------------------------------


@pytest.mark.parametrize("target", [WINDOWS[0], MACOS], ids=lambda t: t.name)
def test_a_call_of_another_library_is_found(target: Target) -> None:
    long = "a_function_whose_name_is_long"
    text = "declare void @{0}()\ndefine void @f() {{\n  call void @{0}()\n  ret void\n}}"
    for name in ("memcpy", long):
        data = compile_object(text.format(name), target)
        assert undefined(data) == [target.c_prefix + name]
        with pytest.raises(UnsupportedError, match=f"calls functions .*\n  _?{name}"):
            require_no_calls(data, target, {})
        require_no_calls(data, target, {}, [name])
        for end in range(0, len(data) - 1, 7):
            try:
                undefined(data[:end])
            except StorageError:
                continue
    with pytest.raises(StorageError, match="is no COFF of x86-64 and no Mach-O: 7f 45 4c 46"):
        undefined(b"\x7fELF" + bytes(60))


@pytest.mark.parametrize("target", ["x86-64-v3-windows", "arm64-macos"])
def test_what_these_libraries_cannot_have(target: str, tmp_path: Path) -> None:
    graph, made = ag.parse(SMALL), tmp_path / "made"
    weights = {"f": np.arange(8, dtype=np.uint8).reshape(2, 4)}
    with pytest.raises(UnsupportedError, match="has no strict code: certificates are made of ELF"):
        ag.export(graph, made, weights=weights, target=target, multiplication_free=True)
    assert not made.exists()
    library = ag.export(graph, made, weights=weights, target=target)
    assert library.shared is None
    assert "linked for Linux alone" in library.metadata.read_text()
    for read in (certify, size_of):
        with pytest.raises(AdderGraphError, match="COFF|Mach-O|of macOS"):
            read(library.code if read is certify else library.archive)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("windows", "x86-64-windows, x86-64-v3-windows"),
        ("x86_64-pc-windows-msvc", "x86-64-windows, x86-64-v3-windows"),
        ("aarch64-apple-darwin", "Macs with a processor of Apple's run the code of arm64-macos"),
        ("macos", "arm64-macos"),
    ],
)
def test_other_names(name: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        target_named(name)
