"""AArch64 with Advanced SIMD."""

from __future__ import annotations

from .target import Target

AARCH64 = Target(
    "aarch64-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "generic",
    "",
    lanes=4,
    registers=32,
    fma=True,
    pair_sums="llvm.aarch64.neon.uaddlp",
    signed_pair_sums="llvm.aarch64.neon.saddlp",
    cpus="every 64-bit ARM CPU (Armv8-A and later)",
)
