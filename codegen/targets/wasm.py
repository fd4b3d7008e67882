"""WebAssembly with vectors of 128 bits: what every engine runs since Safari 16.4 (March 2023).

Chrome and Firefox have all of it since 2021, Node since 16.4. Of the proposals that became part of
WebAssembly 2.0, code is given

    simd128               vectors: sixteen distances of bytes at a time
    sign-ext              i32.extend8_s: a byte as a number in one instruction
    nontrapping-fptoint   i32.trunc_sat_f32_s: a float as an integer, without branches around a trap
    bulk-memory           memory.copy and memory.fill, which LLVM makes of the copies of tensors

and none of what came later: threads ask a page for headers of their own, relaxed SIMD (with it
fused multiply-add) gives other bits on other machines.
"""

from __future__ import annotations

from .target import Target

WASM32 = Target(
    "wasm32", "wasm32-unknown-unknown", "mvp",
    "+simd128,+sign-ext,+nontrapping-fptoint,+bulk-memory",
    # Of x86's 16, V8 has 15; tiles for 13 are the fastest there, in bytes and in f32.
    lanes=4, registers=13, fma=False, word=32, atomics=False,
    several_steps=1,  # engines unroll loops themselves
    lane_shifts=False,  # i32x4.shl shifts all lanes alike
    register_class="r",
    pair_sums="llvm.wasm.extadd.pairwise.unsigned",
    signed_pair_sums="llvm.wasm.extadd.pairwise.signed",
    short_sums=64,  # of 510 at most: 16 signed bits hold them, which x86 widens in one instruction
    pair_products="llvm.wasm.dot",
    cpus="engines of WebAssembly 2.0: browsers since 2023, Node since 16.4, wasmtime",
)  # fmt: skip
