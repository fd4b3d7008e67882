"""RISC-V: RV64 with an operating system, portable code; cores without a system, and without a
multiplier."""

from __future__ import annotations

from dataclasses import replace

from .target import Target, scalar_core

# Of 31 registers, a larger tile's differences and pointers leave too few: sums go to the stack.
_TILE = (4, 2)
RISCV64 = Target(
    "riscv64-linux-gnu", "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d",
    lanes=1, registers=16, fma=False, max_tile=_TILE,
    cpus="every RISC-V CPU of 64 bits with M, A, F and D, as Linux distributions need them",
)  # fmt: skip
# Sixteen lanes of 32 bits are four registers of 128 bits, as every application core has them at
# least (RISC-V "V" extension 1.0, profile RVA23); with longer ones they are fewer.
RISCV64V = replace(
    RISCV64, name="riscv64-linux-gnu-v", features="+m,+a,+f,+d,+v", lanes=16, registers=8,
    max_tile=None, decoded=False,
    cpus="RISC-V CPUs of 64 bits with the vector extension V 1.0, whatever their vector length",
)  # fmt: skip
RISCV32I = scalar_core(
    "riscv32i", "riscv32-unknown-none-elf", "generic-rv32", 16, max_tile=_TILE,
    cpus="every RISC-V core of 32 bits, in programs of the ABI ilp32",
)  # fmt: skip
RISCV64I = replace(
    RISCV32I, name="riscv64i", triple="riscv64-unknown-none-elf", cpu="generic-rv64", word=64,
    cpus="every RISC-V core of 64 bits, in programs of the ABI lp64",
)  # fmt: skip
# Multiplication and compressed instructions, without atomic ones: ESP32-C2 and C3 have none, and a
# call has one thread.
RISCV32IMC = replace(
    RISCV32I, name="riscv32imc", features="+m,+c", multiplier=True,
    cpus="RISC-V cores of 32 bits with M and C (ESP32-C2, C3, C6, H2), in programs of the ABI "
    "ilp32",
)  # fmt: skip
