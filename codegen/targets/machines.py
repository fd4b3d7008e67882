"""The cores that have a table, by LLVM's names.

Rates are counted from the ports that uops.info and Agner Fog's instruction tables (agner.org/
optimize) give for the instructions: a pair reaches the lower of what each of the two and both
together find ports for. Widths of data paths and caches are from the vendors' optimization guides
(AMD 56305 for Zen 2, 56665 Zen 3, 57647 Zen 4, 58455 Zen 5; Intel 248966). Loops in registers
measured the same where there was a machine: Zen 3, Zen 4, Zen 5, and a Xeon of Golden Cove. There
and on Zen 4 the pairs share two ports for 512 bits, or four of half the width: one a cycle. Of
Intel's two, one alone has minima of integers and additions that saturate, the other psadbw; both
have plain additions and minima of floats, and what may go to both often takes the wrong one.

Of ARM cores the rates are llvm-mca's (LLVM 19), of loops of the instructions alone; it models
Cortex-A76 as an older core, so that its table is Neoverse N1's. Distances are those of uabd and
udot, or of uabd and uadalp. Caches have the usual sizes, and cycles of their lines are assumed:
nothing was measured on these cores. Cortex-A55 is taken for an A53 with dot products.

Cycles of cache lines, `latency`, `listed`, `dense` and `load_cost` were fitted to kernels on Zen 5,
the last two on Zen 3 as well, `finish` and `listed_finish` on Golden Cove. Elsewhere cycles of
lines follow the width of the path to L2 (64 bytes a cycle; 32 on Zen 1 to 4; Intel's sustains some
48), and what an L3 delivers to one core (published measurements by chipsandcheese.com).
"""

from __future__ import annotations

from dataclasses import replace

from addergraph.errors import TargetError, nearest

from .machine import Machine, Rates

KB, MB = 1024, 1 << 20

ZEN5 = Machine(
    "znver5", 48 * KB, 12, MB, l2_line=1, l3_line=2,
    rates=(
        Rates(32, loads=2, terms=2, distances=2, minima=2, shuffles=2),
        Rates(64, loads=2, terms=2, distances=2, minima=2, shuffles=2, listed=1.0),
    ),
)  # fmt: skip
ZEN4 = Machine(
    "znver4", 32 * KB, 8, MB, l2_line=2, l3_line=2,
    rates=(
        Rates(32, loads=2, terms=2, distances=1.5, minima=2, shuffles=2),
        Rates(64, loads=1, terms=1, distances=1, minima=1, shuffles=1, listed=1.0),
    ),
)  # fmt: skip
ZEN3 = replace(
    ZEN4, name="znver3", l2=512 * KB,
    rates=(replace(ZEN4.rates[0], distances=2, dense=0.7, load_cost=0.6),),
)  # fmt: skip
ZEN2 = replace(
    ZEN3, name="znver2",
    rates=(Rates(32, loads=2, terms=2, distances=1, minima=1.5, shuffles=2),),
)  # fmt: skip
ZEN1 = replace(
    ZEN3, name="znver1",
    rates=(
        Rates(16, loads=2, terms=2, distances=1, minima=1.5, shuffles=2),
        Rates(32, loads=1, terms=1, distances=0.5, minima=0.75, shuffles=1),
    ),
)  # fmt: skip

_PORTS_01 = Rates(32, loads=2, terms=1, distances=1, minima=1.5, shuffles=1)
_PORTS_015 = replace(_PORTS_01, loads=3, terms=1.5, shuffles=1.5)
_PORTS_0_5 = Rates(
    64, loads=2, terms=1, distances=1, minima=1, shuffles=1, listed=1.0, float_minima=True,
    saturating_sums=True, finish=6, listed_finish=75,
)  # fmt: skip
HASWELL = Machine(
    "haswell", 32 * KB, 8, 256 * KB, l2_line=2, l3_line=3, rates=(replace(_PORTS_01, minima=1),)
)
SKYLAKE = replace(HASWELL, name="skylake", rates=(_PORTS_01,))
GOLDEN_COVE = Machine(
    "alderlake", 48 * KB, 12, 1280 * KB, l2_line=1.5, l3_line=3, rates=(_PORTS_015, _PORTS_0_5)
)
SAPPHIRE_RAPIDS = replace(GOLDEN_COVE, name="sapphirerapids", l2=2 * MB, l3_line=3)
ICELAKE_SERVER = replace(
    GOLDEN_COVE, name="icelake-server", l3_line=3, rates=(_PORTS_01, _PORTS_0_5)
)
SKYLAKE_SERVER = replace(ICELAKE_SERVER, name="skylake-avx512", l1=32 * KB, l1_ways=8, l2=MB)

CORTEX_A53 = Machine(
    "cortex-a53", 32 * KB, 4, 512 * KB, l2_line=8, l3_line=16,
    rates=(
        Rates(16, loads=1, terms=0.5, distances=0.5, minima=0.5, shuffles=1, load_cost=0.5),
    ),
    in_order=True,
)  # fmt: skip
CORTEX_A55 = replace(CORTEX_A53, name="cortex-a55")
CORTEX_A72 = Machine(
    "cortex-a72", 32 * KB, 2, MB, l2_line=4, l3_line=8,
    rates=(
        Rates(16, loads=1, terms=0.67, distances=1, minima=1, shuffles=0.67, load_cost=0.1),
    ),
    order="neoverse-n1",
)  # fmt: skip
CORTEX_A76 = Machine(
    "cortex-a76", 64 * KB, 4, 512 * KB, l2_line=2, l3_line=4,
    rates=(
        Rates(16, loads=2, terms=1, distances=1, minima=1, shuffles=2, latency=2, load_cost=0.1),
    ),
)  # fmt: skip
APPLE_M1 = Machine(
    "apple-m1", 128 * KB, 8, 3 * MB, l2_line=2, l3_line=4,
    rates=(
        Rates(
            16, loads=2, terms=1.5, distances=1.5, minima=1.5, shuffles=3, latency=3, load_cost=0.1
        ),
    ),
)  # fmt: skip

MACHINES: dict[str, Machine] = {
    m.name: m
    for m in (
        ZEN1, ZEN2, ZEN3, ZEN4, ZEN5, HASWELL, replace(HASWELL, name="broadwell"), SKYLAKE,
        SKYLAKE_SERVER, replace(SKYLAKE_SERVER, name="cascadelake"),
        replace(ICELAKE_SERVER, name="icelake-client", l2=512 * KB, l3_line=3), ICELAKE_SERVER,
        replace(ICELAKE_SERVER, name="tigerlake", l3_line=3), GOLDEN_COVE,
        replace(GOLDEN_COVE, name="raptorlake", l2=2 * MB), SAPPHIRE_RAPIDS,
        replace(SAPPHIRE_RAPIDS, name="emeraldrapids"),
        replace(SAPPHIRE_RAPIDS, name="graniterapids"),
        CORTEX_A53, CORTEX_A55, CORTEX_A72, CORTEX_A76,
        replace(CORTEX_A76, name="neoverse-n1", l2=MB), APPLE_M1,
    )
}  # fmt: skip
GENERIC = replace(ZEN5, name="generic")  # what schedules are made for where no CPU is named


def machine_named(name: str) -> Machine:
    """The machine called `name`. TargetError with the nearest known name."""
    known = {**MACHINES, GENERIC.name: GENERIC}
    if name not in known:
        raise TargetError(
            f'unknown machine "{name}"{nearest(str(name), known)}; known: {", ".join(known)}'
        )
    return known[name]
