"""x86-64: the levels of its psABI that kernels are made for."""

from __future__ import annotations

from .target import Target

LINUX = "x86_64-unknown-linux-gnu"
PAUSE = "llvm.x86.sse2.pause"

BASELINE = Target(
    "x86-64", LINUX, "x86-64", "", lanes=4, registers=16, fma=False,
    lane_shifts=False,  # x86 before AVX2 shifts all lanes alike
    register_class="x", pause=PAUSE,
    byte_distances="llvm.x86.sse2.psad.bw", pair_products="llvm.x86.sse2.pmadd.wd",
)  # fmt: skip
AVX2 = Target(
    "x86-64-v3", LINUX, "x86-64-v3", "", lanes=8, registers=16, fma=True,
    register_class="x", pause=PAUSE,
    byte_distances="llvm.x86.avx2.psad.bw", pair_products="llvm.x86.avx2.pmadd.wd",
)  # fmt: skip
AVX512 = Target(
    # LLVM prefers 256-bit vectors on some AVX-512 CPUs; the tiles are made for the full width.
    "x86-64-v4", LINUX, "x86-64-v4", "-prefer-256-bit", lanes=16, registers=32, fma=True,
    register_class="v", pause=PAUSE,
    byte_distances="llvm.x86.avx512.psad.bw.512", pair_products="llvm.x86.avx512.pmaddw.d.512",
    least_magnitude="llvm.x86.avx512.mask.range.ps.512",
)  # fmt: skip
X86_LEVELS = (BASELINE, AVX2, AVX512)

FEATURES = {  # that LLVM reports of a CPU on which all kernels of the level run
    AVX2.name: {"avx2", "fma", "bmi2", "f16c", "lzcnt", "movbe"},
    AVX512.name: {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"},
}


def level_of(features: frozenset[str]) -> Target:
    """The best level of a CPU with these features."""
    if FEATURES[AVX512.name] <= features:
        return AVX512
    return AVX2 if FEATURES[AVX2.name] <= features else BASELINE
