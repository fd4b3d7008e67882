"""stack: the bound that a header states is not passed, is near, and is absent where unknown."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from pathlib import Path

import pytest

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.inspect.stack import stack_bytes
from addergraph.codegen.targets.lookup import TARGETS, target_named
from addergraph.ir.state import initial_weights
from tests.codegen.libraries import MIXED, NET, SHARED, compiled

# A thread on a stack of its own paints what lies below it, calls, and looks how deep the paint is
# gone. The call takes one argument, so that nothing but the return address is between.
PAINTED = """
#include <pthread.h>
#include <stdio.h>
#include "{name}.h"
static char stack[1 << 20] __attribute__((aligned(4096)));
static unsigned char memory[{NAME}_ARENA_BYTES + {NAME}_ARENA_ALIGN];
static void *work(void *arena)
{{
    char *top, *volatile p;
    __asm__ volatile("mov %%rsp, %0" : "=r"(top));
    for (p = stack + 4096; p < top; p++)
        *p = 0x5a;
    if ({name}_selftest(arena) != {NAME}_OK)
        return arena;
    for (p = stack + 4096; p < top && *p == 0x5a; p++)
        ;
    printf("%ld\\n", (long)(top - p));
    return NULL;
}}
int main(void)
{{
    void *arena = memory + ({NAME}_ARENA_ALIGN - (uintptr_t)memory % {NAME}_ARENA_ALIGN);
    void *failed;
    pthread_t thread;
    pthread_attr_t own;
    pthread_attr_init(&own);
    if (pthread_attr_setstack(&own, stack, sizeof stack)) return 1;
    if (pthread_create(&thread, &own, work, arena)) return 2;
    if (pthread_join(thread, &failed) || failed) return 3;
    return 0;
}}
"""


@pytest.mark.needs("cc")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads a register of x86-64")
@pytest.mark.parametrize("text", [NET, MIXED, SHARED])
def test_a_call_takes_no_more_and_not_much_less(text: str, tmp_path: Path) -> None:
    program = compiled(text)
    made = program.export(tmp_path, shared=False)
    name = program.graph.name
    source = tmp_path / "painted.c"
    source.write_text(PAINTED.format(name=name, NAME=name.upper()))
    folder = tmp_path
    built = subprocess.run(
        ["cc", "-O1", "-o", str(tmp_path / "painted"), str(source), str(made.archive),
         f"-I{folder}", "-pthread"], capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "painted"], capture_output=True, text=True)
    assert done.returncode == 0
    found = re.search(rf"{name.upper()}_STACK_BYTES (\d+)u", made.header.read_text())
    assert found is not None
    used, stated = int(done.stdout), int(found[1])
    assert used <= stated <= used + 256  # 128 of them are the red zone
    assert json.loads(made.metadata.read_text())["stack_bytes"] == stated


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if not (TARGETS[t].in_engine or TARGETS[t].above)]
)
def test_every_target_states_it(target: str, tmp_path: Path) -> None:
    graph = ag.parse(
        """graph bytes(%x: u8[N,2]) params(%f: u8[2,4]) {
  %y = adder_dense(%x, %f) : i32[N,4]
  return %y
}"""
    )
    lowered = compiler.lower(graph, target_named(target))
    made = export(lowered, initial_weights(graph), tmp_path, shared=False)
    stack = json.loads(made.metadata.read_text())["stack_bytes"]
    assert 16 <= stack < 1000
    assert f"#define BYTES_STACK_BYTES {stack}u" in made.header.read_text()


def assembly(*lines: str) -> str:
    return "\n".join(line if line.endswith(":") else f"\t{line}" for line in lines)


@pytest.mark.parametrize(
    ("triple", "lines", "expected"),
    [
        # the deeper of two callees; pushes, and both forms of a subtraction
        ("x86_64-unknown-linux-gnu", ["f:", "pushq %rbx", "callq g", "callq h", "popq %rbx", "retq",
         "g:", "subq $100, %rsp", "addq $100, %rsp", "h:", "addq $-128, %rsp", "subq $-128, %rsp"],
         8 + 8 + 8 + 128 + 128),
        ("x86_64-unknown-linux-gnu", ["f:", "pushq %rbx", "callq g", "callq h@PLT", "popq %rbx",
         "g:", "subq $100, %rsp", "addq $100, %rsp", "h:", "addq $-128, %rsp", "jmp g"],
         8 + 8 + 8 + 128 + 8 + 100 + 128),
        ("x86_64-unknown-linux-gnu", ["f:", "andq $-64, %rsp", "leaq -40(%rbp), %rsp"],
         8 + 64 + 128),
        ("x86_64-unknown-linux-gnu", ["f:", "subq %rax, %rsp"], None),
        ("x86_64-unknown-linux-gnu", ["f:", "movq %rax, %rsp"], None),
        ("x86_64-unknown-linux-gnu", ["f:", "jne elsewhere"], None),
        ("x86_64-unknown-linux-gnu", ["f:", "callq f"], None),
        ("aarch64-unknown-linux-gnu", ["f:", "stp x29, x30, [sp, #-32]!", "sub sp, sp, #288",
         "b g", "g:", "str d8, [sp, #-16]!", "ldr d8, [sp], #16"], 32 + 288 + 16),
        ("aarch64-unknown-linux-gnu", ["f:", "sub sp, sp, #12, lsl #12"], None),
        ("aarch64-unknown-linux-gnu", ["f:", "mov sp, x9"], None),
        ("riscv32-unknown-elf", ["f:", "addi sp, sp, -2032", "addi sp, sp, -160", "tail g",
         "g:", "addi sp, sp, -16", "addi sp, sp, 16"], 2032 + 160 + 16),
        ("riscv32-unknown-elf", ["f:", "sub sp, sp, a0"], None),
        ("riscv32-unknown-elf", ["f:", "call __mulsi3"], None),
        ("thumbv6m-none-eabi", ["f:", "push {r4, r5, r7, lr}", "sub sp, #228", "bl g",
         "g:", "push {r7, lr}"], 16 + 228 + 8),
        ("thumbv6m-none-eabi", ["f:", "add sp, r6"], None),
        ("thumbv7em-none-eabi", ["f:", "push.w {r4, r5, r6, r7, r8, r9, r10, r11, lr}",
         "vpush {d8, d9}", "sub.w sp, sp, #1024", "stm.w sp, {r0, r1}", "blne g",
         "add.w sp, sp, #1", "vpop {d8, d9}", "pop.w {r4, pc}", "g:", "str r4, [sp, #-8]!",
         "subw sp, sp, #500",
         "ldr r4, [sp], #8"], 36 + 16 + 1024 + 8 + 500),
        ("thumbv7em-none-eabi", ["f:", "vpushq {q4}"], None),
        ("thumbv7em-none-eabi", ["f:", "stmdb sp!, {r4}"], None),
        ("thumbv7em-none-eabi", ["f:", "bic sp, sp, #7"], None),
        ("mips-unknown-elf", ["f:", "addiu $sp, $sp, -16"], None),
    ],
)  # fmt: skip
def test_what_is_counted_and_what_is_not_known(
    triple: str, lines: list[str], expected: int | None
) -> None:
    assert stack_bytes(assembly(*lines), triple, ["f"]) == expected


def test_an_entry_that_is_not_there_is_not_known() -> None:
    assert stack_bytes("f:\n", "riscv32-unknown-elf", ["f", "g"]) is None
