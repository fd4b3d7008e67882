"""Transposition of a square of registers."""

from __future__ import annotations

from collections.abc import Sequence

import llvmlite.ir as ir

from ..builder import I32, Emitter, Register


def emit_transpose(e: Emitter, rows: Sequence[Register]) -> list[Register]:
    """`lanes` vectors of `lanes` elements, transposed: result[k][p] = rows[p][k].

    log2(lanes) rounds, each of which interleaves vector i with vector i + lanes / 2.
    """
    lanes = len(rows)
    half = lanes // 2
    low = [i // 2 + lanes * (i % 2) for i in range(lanes)]
    high = [i + half for i in low]
    current = list(rows)
    for _ in range(lanes.bit_length() - 1):
        current = [
            shuffle(e, current[i], current[i + half], pattern)
            for i in range(half)
            for pattern in (low, high)
        ]
    return current


def shuffle(e: Emitter, a: Register, b: Register, pattern: Sequence[int]) -> Register:
    """The elements of a and b (numbered on after a's) that `pattern` lists."""
    chosen = ir.Constant(ir.VectorType(I32, len(pattern)), list(pattern))
    return e.b.shuffle_vector(a, b, chosen)
