"""Small modules of LLVM IR, compiled for machines that the certificate reads."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

# machine -> (triple, cpu, features); those of RISC-V have no multiplier
MACHINES = {
    "x86-64": ("x86_64-unknown-linux-gnu", "x86-64-v3", ""),
    "aarch64": ("aarch64-unknown-linux-gnu", "generic", ""),
    "thumb": ("thumbv6m-none-eabi", "cortex-m0", ""),
    "riscv": ("riscv32-unknown-elf", "generic-rv32", "-m"),
    "riscv64": ("riscv64-unknown-elf", "generic-rv64", "-m"),
}
RISCV = ("riscv", "riscv64")
TABLE = {name: "riscv" if name in RISCV else name for name in MACHINES}  # of instructions

# Distances and a clamp, bytes, a requantization of two shifts, and a constant that Thumb loads
# from a literal pool.
CLEAN = """
declare i32 @llvm.abs.i32(i32, i1)
declare i32 @llvm.smin.i32(i32, i32)
define void @first(ptr %x, ptr %f, ptr %y, i32 %n) nounwind {
entry:
  br label %loop
loop:
  %i = phi i32 [ 0, %entry ], [ %next, %loop ]
  %sum = phi i32 [ 0, %entry ], [ %sum.next, %loop ]
  %px = getelementptr i8, ptr %x, i32 %i
  %pf = getelementptr i8, ptr %f, i32 %i
  %xb = load i8, ptr %px
  %fb = load i8, ptr %pf
  %xi = zext i8 %xb to i32
  %fi = zext i8 %fb to i32
  %d = sub i32 %xi, %fi
  %a = call i32 @llvm.abs.i32(i32 %d, i1 false)
  %sum.next = add i32 %sum, %a
  %next = add i32 %i, 1
  %more = icmp slt i32 %next, %n
  br i1 %more, label %loop, label %done
done:
  %h = ashr i32 %sum.next, 3
  %q = ashr i32 %sum.next, 5
  %r = sub i32 %h, %q
  %s = xor i32 %r, 305419896
  %c = call i32 @llvm.smin.i32(i32 %s, i32 255)
  store i32 %c, ptr %y
  ret void
}
"""
# A multiply of two numbers that nobody knows: as an instruction where there is one.
PLANTED = """
define i32 @second(i32 %a, i32 %b) nounwind {
  %s = add i32 %a, 7
  %p = mul i32 %s, %b
  ret i32 %p
}
"""
CALLING = """
declare i32 @elsewhere(i32)
define i32 @caller(i32 %a) nounwind {
  %s = call i32 @elsewhere(i32 %a)
  %r = add i32 %s, 1
  ret i32 %r
}
"""
# A call inside the file, and data of another one.
NEAR = """
@weights = external hidden global i8
define internal i32 @inside(ptr %a) noinline nounwind {
  %s = load i32, ptr %a, align 4
  ret i32 %s
}
define i32 @near(ptr %a) nounwind {
  %x = call i32 @inside(ptr %a)
  %y = call i32 @inside(ptr @weights)
  %r = add i32 %x, %y
  ret i32 %r
}
"""
CALLED = """
define i32 @elsewhere(i32 %a) nounwind {
  %s = add i32 %a, 5
  ret i32 %s
}
"""


def _made(ir: str, machine: str, features: str | None, model: str = "small") -> tuple[Any, Any]:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple, cpu, default = MACHINES[machine]
    module = llvm.parse_assembly(ir)
    module.triple = triple
    target = llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu,
        features=default if features is None else features,
        opt=2,
        reloc="pic",
        codemodel=model,
    )
    return target, module


def compiled(ir: str, machine: str, features: str | None = None, model: str = "small") -> bytes:
    """An object file, by default with the code model of the compiler."""
    target, module = _made(ir, machine, features, model)
    return bytes(target.emit_object(module))


def assembly(ir: str, machine: str, features: str | None = None) -> str:
    """The same as LLVM's assembly text."""
    target, module = _made(ir, machine, features)
    return str(target.emit_assembly(module))
