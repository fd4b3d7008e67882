"""Index arithmetic of emitted code: folded in Python where it can be, shifted where it must be.

Indices are `int | ir.Value`, as wide as the target's pointers (`Indices.word`). On a target whose
code may not multiply (`target.multiplier`), products and quotients become shifts, additions and
comparisons (`shift_add.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir

from ..targets.target import Target
from . import shift_add

I64 = ir.IntType(64)
Index = Any  # int or ir.Value of type Indices.word


class Indices(ABC):
    """What an `Emitter` does with indices."""

    b: Any
    target: Target

    @abstractmethod
    def carry(
        self, start: Index, stop: Index, step: int, values: Sequence[Any], body: Any
    ) -> list[Any]:
        """A loop that carries `values`; see `Emitter`."""

    @property
    def word(self) -> Any:
        """The type of an index in a register: i64 or i32."""
        return ir.IntType(self.target.word)

    def index(self, value: Index) -> Any:
        """A register for an index."""
        return ir.Constant(self.word, value) if isinstance(value, int) else value

    def add(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int) and a == 0:
            return b
        if isinstance(b, int) and b == 0:
            return a
        return self.b.add(self.index(a), self.index(b), flags=("nsw",))

    def sub(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if isinstance(b, int) and b == 0 else self.b.sub(self.index(a), self.index(b))

    def mul(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        for one, other in ((a, b), (b, a)):
            if isinstance(one, int) and one in (0, 1):
                return other if one else 0
            if isinstance(one, int) and not self.target.multiplier:
                return shift_add.multiplied_by_constant(self, other, one)
        if not self.target.multiplier:
            return shift_add.multiplied(self, self.index(a), self.index(b))
        return self.b.mul(self.index(a), self.index(b), flags=("nsw",))

    def div(self, a: Index, b: Index) -> Index:
        """Quotient of non-negative indices."""
        return self.quotient(a, b)[0]

    def mod(self, a: Index, b: Index) -> Index:
        """Remainder of non-negative indices."""
        return self.quotient(a, b)[1]

    def quotient(self, a: Index, b: Index, below: int | None = None) -> tuple[Index, Index]:
        """Quotient and remainder of a non-negative index, under `below`, and a positive one."""
        if isinstance(b, int):
            if isinstance(a, int):
                return divmod(a, b)
            if b == 1:
                return a, 0
        wide = self.index(a), self.index(b)
        if self.target.multiplier or (isinstance(b, int) and not b & (b - 1)):
            return self.b.udiv(*wide), self.b.urem(*wide)
        bits = self.target.word if below is None else max(1, (below - 1).bit_length())
        return shift_add.divided(self, *wide, bits)

    def minimum(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        a, b = self.index(a), self.index(b)
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def maximum(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        a, b = self.index(a), self.index(b)
        return self.b.select(self.b.icmp_signed(">", a, b), a, b)

    def less(self, a: Index, b: Index) -> Any:
        """An i1: a < b, signed."""
        return self.b.icmp_signed("<", self.index(a), self.index(b))

    def dot(self, indices: Sequence[Index], strides: Sequence[int]) -> Index:
        """sum of index * stride."""
        total: Index = 0
        for i, stride in zip(indices, strides, strict=True):
            total = self.add(total, self.mul(i, stride))
        return total

    def split(self, item: Index, sizes: Sequence[int]) -> list[Index]:
        """The multi-index of flat `item` in a row-major grid of `sizes`."""
        parts: list[Index] = []
        below = math.prod(sizes)
        for size in reversed(sizes[1:]):
            item, rest = self.quotient(item, size, below)
            parts.append(rest)
            below = -(-below // max(1, size))
        return [item, *reversed(parts)]
