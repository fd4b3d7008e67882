"""Thumb of Armv6-M: the code that every Cortex-M runs."""

from __future__ import annotations

from .target import scalar_core

# Cortex-M0: `muls` takes 1 or 32 cycles, by the maker's choice, and nothing divides.
THUMBV6M = scalar_core(
    "thumbv6m",
    "thumbv6m-none-eabi",
    "cortex-m0",
    8,
    32,
    "every Cortex-M, in programs of any float ABI",
)
