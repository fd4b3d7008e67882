"""AArch64 with Advanced SIMD: the portable lowering, plain vector IR that nobody has tuned."""

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
    cpus="every 64-bit ARM CPU (Armv8-A and later)",
)
