"""The one file that calls LLVM: objects, assembly, loading, and errors that stay ours."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from addergraph.codegen import llvm
from addergraph.codegen.targets.lookup import TARGETS, host, runnable
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import AVX2, AVX512
from addergraph.errors import CodegenError
from tests.codegen.growth import growth

IMPORTS = """
from addergraph.codegen import llvm
from addergraph.codegen.targets.lookup import host
"""
SEVEN = "define i64 @seven() {\n  ret i64 7\n}"
SUM = """define void @sum(ptr %x, ptr %y) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %a = getelementptr float, ptr %x, i64 %i
  %b = getelementptr float, ptr %y, i64 %i
  %v = load float, ptr %a
  %w = fadd float %v, 1.0
  store float %w, ptr %b
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, 1024
  br i1 %more, label %loop, label %done
done:
  ret void
}"""


def test_an_object_runs_in_this_process() -> None:
    loaded = llvm.LoadedObject(llvm.compile_object(SEVEN, host()), host())
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address("seven"))() == 7


def test_many_objects_with_the_same_symbol_live_side_by_side() -> None:
    codes = [SEVEN.replace("7", str(n)) for n in range(20)]
    loaded = [llvm.LoadedObject(llvm.compile_object(c, host()), host()) for c in codes]
    functions = [ctypes.CFUNCTYPE(ctypes.c_int64)(each.address("seven")) for each in loaded]
    assert [f() for f in functions] == list(range(20))


def test_an_unknown_symbol_is_an_error() -> None:
    """In a process of its own: LLVM could end it."""
    script = (
        f"{IMPORTS}from addergraph.errors import CodegenError\n"
        f"loaded = llvm.LoadedObject(llvm.compile_object({SEVEN!r}, host()), host())\n"
        "try:\n    loaded.address('eight')\nexcept CodegenError as error:\n    print(error)"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert 'no symbol "eight"' in made.stdout


@pytest.mark.parametrize(
    "text", ["not LLVM", "define i64 @f() {\n  ret i32 7\n}", "define void @f() {\n}", "declare"]
)
def test_invalid_code_is_our_own_error(text: str) -> None:
    with pytest.raises(CodegenError, match="a bug in AdderGraph"):
        llvm.compile_object(text, host())


def test_the_same_text_gives_the_same_bytes() -> None:
    for target in TARGETS.values():
        assert llvm.compile_object(SUM, target) == llvm.compile_object(SUM, target)


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=lambda t: t.name)
def test_scalar_loops_stay_scalar(target: Target) -> None:
    """Vectors are explicit: what LLVM made of a loop would be nobody's schedule."""
    assembly = llvm.compile_assembly(SUM, target)
    assert "addss" in assembly and "addps" not in assembly


def test_wide_vectors_stay_wide_on_avx512() -> None:
    text = SUM.replace("float, ptr %a", "<16 x float>, ptr %a").replace(
        "fadd float %v, 1.0", "fadd <16 x float> %v, %v"
    ).replace("store float", "store <16 x float>")  # fmt: skip
    assert "zmm" in llvm.compile_assembly(text, AVX512)
    assert "zmm" not in llvm.compile_assembly(text, AVX2)


def test_every_runnable_level_runs_the_same_code() -> None:
    for target in TARGETS.values():
        if not runnable(target):
            continue
        loaded = llvm.LoadedObject(llvm.compile_object(SUM, target), target)
        x, y = (ctypes.c_float * 1024)(*range(1024)), (ctypes.c_float * 1024)()
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(loaded.address("sum"))(x, y)
        assert list(y) == [i + 1 for i in range(1024)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("compiled", ["compile_object", "compile_assembly", "compile_both"])
def test_a_compilation_leaves_little_memory_behind(compiled: str) -> None:
    """1.5 KB. Each pass manager would be 69 KB, the constants of each module 22."""
    values = ", ".join(f"i64 {{{n} + 1000 * number}}" for n in range(200))
    script = f"""{IMPORTS}
def action(number):
    constants = f"@n = global [200 x i64] [{values}]"
    llvm.{compiled}({SUM!r} + "\\n" + constants, host())
"""
    assert growth(script) < 8192


def test_the_version_is_that_of_llvm() -> None:
    parts = llvm.version().split(".")
    assert len(parts) == 3 and all(p.isdigit() for p in parts)
