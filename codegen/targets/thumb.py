"""Thumb: Cortex-M without an operating system.

Armv6-M is the code that every Cortex-M runs. Armv7E-M is that of cores with the DSP extension,
whose general registers of four bytes are small vectors; Armv8.1-M has vectors of 16.
"""

from __future__ import annotations

from dataclasses import replace

from .target import Target, WholeSums, scalar_core

# Cortex-M0: `muls` takes 1 or 32 cycles, by the maker's choice, and nothing divides.
THUMBV6M = scalar_core(
    "thumbv6m", "thumbv6m-none-eabi", "cortex-m0", 8, negates_by_product=True,
    cpus="every Cortex-M, in programs of any float ABI",
)  # fmt: skip
DSP = WholeSums(
    width=4, numbers=6, distances=("llvm.arm.usada8", "x", "f", "sum"),
    products=("llvm.arm.smlad", "x", "f", "sum"), widened=("llvm.arm.uxtb16", "llvm.arm.sxtb16"),
)  # fmt: skip
THUMBV7EM = Target(
    "thumbv7em", "thumbv7em-none-eabi", "cortex-m4", "-fpregs",
    lanes=1, registers=12, fma=False, word=32, floats=False, atomics=False,
    bytes_unrolled=False, whole_sums=DSP,
    cpus="Cortex-M with the DSP extension (M4, M7; M33 and M35P that have it; M55, M85), in "
    "programs of any float ABI",
)  # fmt: skip
# FPv4-SP has no instructions for f64, but a fused multiply-add.
THUMBV7EM_F32 = replace(
    THUMBV7EM, name="thumbv7em-f32", features="", registers=32, fma=True, floats=True,
    doubles=False,
    cpus="Cortex-M with the DSP extension and floats of single precision (M4F; M7, M33 that have "
    "them), in programs of any float ABI",
)  # fmt: skip
HELIUM = WholeSums(
    width=16, numbers=4, distances=("llvm.arm.mve.vabav.v16i8", 1, "sum", "x", "f"),
    products=("llvm.arm.mve.vmldava.v8i16", 0, 0, 0, "sum", "x", "f"),
)  # fmt: skip
THUMBV8M_MVE = Target(
    "thumbv8m-mve", "thumbv8.1m.main-none-eabi", "cortex-m55", "",
    lanes=4, registers=8, fma=True, word=32, loses_nans=True, atomics=False,
    bytes_unrolled=False, decoded=False, whole_sums=HELIUM,
    cpus="Cortex-M with MVE of integers and floats, Arm's Helium (M55, M85), in programs of any "
    "float ABI",
)  # fmt: skip
