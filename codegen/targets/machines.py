"""The cores that have a table, by LLVM's names.

Rates are port counts of Agner Fog's instruction tables (agner.org/optimize, 2025), uops.info and
the vendors' optimization guides (AMD 57647 for Zen 4 and 58455 for Zen 5, Intel 248966); caches are
from the same guides. What a pair of instructions reaches is the lower of what each of them and what
both together find ports for. Measured in registers where there was a machine: Zen 3, Zen 4, Zen 5
and a Xeon of two 512-bit ports. `step`, `listed` and the cycles of cache lines were fitted to
kernels on Zen 5; others scale them by the width of the path to L2 and by their loads a cycle.
"""

from __future__ import annotations

from dataclasses import replace

from .machine import Machine, Rates

KB, MB = 1024, 1 << 20

ZEN5 = Machine(
    "znver5", 48 * KB, 12, MB, l2_line=1, l3_line=2,
    rates=(
        Rates(32, loads=2, terms=2, distances=2, minima=2, shuffles=2),
        Rates(64, loads=2, terms=2, distances=2, minima=2, shuffles=2, step=1.0, listed=2),
    ),
)  # fmt: skip
GENERIC = replace(ZEN5, name="generic")
