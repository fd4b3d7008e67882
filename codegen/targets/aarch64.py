"""AArch64 with Advanced SIMD, and with its dot products."""

from __future__ import annotations

from dataclasses import replace

from .machines import CORTEX_A53, CORTEX_A55
from .target import Target

AARCH64 = Target(
    "aarch64-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "generic",
    "",
    lanes=4,
    registers=32,
    fma=True,
    broadcasts_compute=True,
    spare_registers=6,
    broadcast_run="llvm.aarch64.neon.ld{}r",
    pair_sums="llvm.aarch64.neon.uaddlp",
    signed_pair_sums="llvm.aarch64.neon.saddlp",
    short_sums=128,  # of 510 at most
    variable_shift="llvm.aarch64.neon.ushl.v4i32",
    machine=CORTEX_A53,  # which cannot reorder what it gets: the others do
    ordered=True,
    cpus="every 64-bit ARM CPU (Armv8-A and later)",
)
# ID_AA64ISAR0_EL1 says in bits 44 to 47, DP, whether there are udot and sdot. Linux answers for it
# in programs (docs.kernel.org, "ARM64 CPU Feature Registers"; since 4.11, of 2017). One that knows
# the register but not the field says 0.
DOTPROD = replace(
    AARCH64,
    name="aarch64-linux-gnu-dotprod",
    features="+dotprod",
    byte_dot="llvm.aarch64.neon.udot",
    signed_byte_dot="llvm.aarch64.neon.sdot",
    machine=CORTEX_A55,
    cpus="64-bit ARM CPUs with dot products of bytes: Arm's since 2017 (Cortex-A55, A75, A76, "
    "Neoverse N1), Apple's since 2019",
    baseline="generic",
    needs=(("dotprod", 0, 44),),
)
ARM_LEVELS = (AARCH64, DOTPROD)
# Its ABI keeps a register, x18, for itself. The number is the API level, of Android 5.
ANDROID, ANDROID_DOTPROD = (
    replace(
        level, name=level.name.replace("gnu", "android"), triple="aarch64-unknown-linux-android21",
        cpus=f"Android 5 and later, on {level.cpus}",
    )
    for level in ARM_LEVELS
)  # fmt: skip
