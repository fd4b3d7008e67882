"""Armv7-A with Advanced SIMD (NEON): Linux of 32 bits."""

from __future__ import annotations

from .target import Target

# Thumb-2 code, as Debian's. Vectors of floats flush subnormal numbers to zero, by the architecture.
ARMV7 = Target(
    "armv7-linux-gnueabihf", "thumbv7-unknown-linux-gnueabihf", "cortex-a7", "",
    lanes=4, registers=16, fma=True, word=32, spare_registers=7, bytes_unrolled=False,
    pair_sums="llvm.arm.neon.vpaddlu", added_pair_sums="llvm.arm.neon.vpadalu",
    signed_pair_sums="llvm.arm.neon.vpaddls",
    cpus="32-bit ARM CPUs with NEON, VFPv4 and division (Cortex-A7, A15; Raspberry Pi 2), whose "
    "vectors take subnormal floats as 0",
)  # fmt: skip
