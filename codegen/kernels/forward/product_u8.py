"""conv2d and dense of u8 activations and i8 filters, i32 result, with a pointwise tail.

    Y[n,h,w,t] = sum_{i,j,k} X[n, s*h + d*i - p, s*w + d*j - p, k] F[i,j,k,t]  (+ b[t])

The loop nest, the runs and their rests are those of `dense_u8.py`, with another term: a step takes
four bytes of a pixel, broadcast, and four of the filter for each channel. Even and odd bytes become
16-bit numbers, whose products x86's pmaddwd adds in pairs, in 32 bits. (pmaddubsw, which takes
bytes as they are, saturates its sums at 16 bits: not exact.) Elsewhere a step is one byte.

    packed filter   i8[group][block][i][run][step][vectors * lanes][STEP]

A padded tap adds 0, so kernel rows outside the image are left out, and no sums of them are needed.
No sum exceeds i32: `Conv2d.infer` admits (2^31 - 1) // (255 * 128) terms at most. So nothing
depends on the order, the tile, the target or the threads. Adding the bias wraps.
"""

from __future__ import annotations

import llvmlite.ir as ir

from ...emit.builder import I32, Emitter, Register, constant, vector
from .dense_u8 import AdderU8Kernel


class ProductU8Kernel(AdderU8Kernel):
    """Dense conv2d and dense of u8 and i8 operands. See the module's contract."""

    @property
    def step(self) -> int:
        return 4 if self.target.pair_products else 1

    @property
    def part_lanes(self) -> int:
        return self.target.lanes

    @property
    def sum_size(self) -> int:
        return 0

    def _terms(self, e: Emitter, x: Register, f: Register) -> Register:
        """One number per lane: the sum of x f over its bytes."""
        made = vector(I32, self.lanes)
        if not self.target.pair_products:
            return e.b.mul(e.b.zext(x, made), e.b.sext(f, made))
        pairs = vector(ir.IntType(16), 2 * self.lanes)
        x, f, byte = e.b.bitcast(x, pairs), e.b.bitcast(f, pairs), constant(pairs, 8)
        even_x, odd_x = e.b.and_(x, constant(pairs, 255)), e.b.lshr(x, byte)
        even_f, odd_f = e.b.ashr(e.b.shl(f, byte), byte), e.b.ashr(f, byte)
        add = e.intrinsic(self.target.pair_products, made, [pairs] * 2)
        return e.b.add(e.b.call(add, [even_x, even_f]), e.b.call(add, [odd_x, odd_f]))
