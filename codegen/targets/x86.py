"""x86-64: the levels of its psABI that kernels are made for."""

from __future__ import annotations

from dataclasses import replace

from .target import Target

LINUX = "x86_64-unknown-linux-gnu"
PAUSE = "llvm.x86.sse2.pause"

# Names as LLVM has them, in the leaves of CPUID (Intel 64 and IA-32 Architectures Software
# Developer's Manual, volume 2A, "CPUID"; the last leaf: AMD64 Architecture Programmer's Manual,
# volume 3, appendix E): all that the psABI lists of a level beyond the baseline.
_LEVEL_3 = {
    1: {
        "sse3": 0, "ssse3": 9, "fma": 12, "cx16": 13, "sse4.1": 19, "sse4.2": 20, "movbe": 22,
        "popcnt": 23, "avx": 28, "f16c": 29,
    },
    7: {"bmi": 32 + 3, "avx2": 32 + 5, "bmi2": 32 + 8},
    0x80000001: {"sahf": 0, "lzcnt": 5},
}  # fmt: skip
_LEVEL_4 = {
    7: {"avx512f": 32 + 16, "avx512dq": 32 + 17, "avx512cd": 32 + 28, "avx512bw": 32 + 30,
        "avx512vl": 32 + 31},
}  # fmt: skip
OSXSAVE = 1, 27  # leaf and bit: the system keeps registers, and XCR0 says which
_YMM, _ZMM = 0b110, 0b11100110


def _needs(*levels: dict[int, dict[str, int]]) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (name, leaf, bit)
        for level in levels
        for leaf, bits in level.items()
        for name, bit in bits.items()
    )


BASELINE = Target(
    "x86-64", LINUX, "x86-64", "", lanes=4, registers=16, fma=False,
    lane_shifts=False,  # x86 before AVX2 shifts all lanes alike
    register_class="x", pause=PAUSE,
    byte_distances="llvm.x86.sse2.psad.bw", pair_products="llvm.x86.sse2.pmadd.wd",
    cpus="every x86-64 CPU",
)  # fmt: skip
AVX2 = Target(
    "x86-64-v3", LINUX, "x86-64-v3", "", lanes=8, registers=16, fma=True,
    register_class="x", pause=PAUSE,
    byte_distances="llvm.x86.avx2.psad.bw", pair_products="llvm.x86.avx2.pmadd.wd",
    variable_shift="llvm.x86.avx2.psllv.d.256",
    cpus="x86-64 CPUs with AVX2, FMA, BMI2, F16C, LZCNT and MOVBE: most of Intel since 2013 "
    "(Haswell), of AMD since 2017 (Zen)",
    baseline=BASELINE.cpu, needs=_needs(_LEVEL_3), states=_YMM,
)  # fmt: skip
AVX512 = Target(
    # LLVM prefers 256-bit vectors on some AVX-512 CPUs; the tiles are made for the full width.
    "x86-64-v4", LINUX, "x86-64-v4", "-prefer-256-bit", lanes=16, registers=32, fma=True,
    register_class="v", pause=PAUSE,
    byte_distances="llvm.x86.avx512.psad.bw.512", pair_products="llvm.x86.avx512.pmaddw.d.512",
    least_magnitude="llvm.x86.avx512.mask.range.ps.512",
    variable_shift="llvm.x86.avx512.psllv.d.512",
    cpus="x86-64 CPUs with AVX-512 (F, BW, CD, DQ, VL): Intel's servers since 2017 (Skylake), AMD "
    "since 2022 (Zen 4)",
    baseline=BASELINE.cpu, needs=_needs(_LEVEL_3, _LEVEL_4), states=_ZMM,
)  # fmt: skip
X86_LEVELS = (BASELINE, AVX2, AVX512)
EVERY = replace(
    BASELINE, name="x86-64-every",
    cpus="every x86-64 CPU, and uses AVX2 or AVX-512 where there is one of them",
    # In two roundings, as the baseline has to: all then give the same bits.
    above=tuple(replace(level, fma=False, beside_others=True) for level in (AVX2, AVX512)),
)  # fmt: skip
