"""A target for tests, which every x86-64 CPU runs."""

from __future__ import annotations

from .target import Target
from .x86 import BASELINE

# Odd sizes on purpose: every tail and edge of a kernel runs on small tensors.
TOY = Target(
    "toy", BASELINE.triple, BASELINE.cpu, "", lanes=2, registers=16, fma=False, max_tile=(3, 2),
    lane_shifts=False, register_class=BASELINE.register_class, pause=BASELINE.pause,
    cpus=BASELINE.cpus,
)  # fmt: skip
