"""What the C entry points of all libraries are made of: functions that return a code, checks of
pointers, sums over memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.ir.plan import ALIGNMENT
from addergraph.ir.types import f32

from ..emit.builder import I8, I32, POINTER, Emitter, Index
from ..emit.module import ModuleEmitter
from ..targets.target import Target
from .interface import MISALIGNED_ARENA, NULL_POINTER

SUMMED = 1 << 20  # words whose running sums are in memory at once


def visibility(target: Target) -> str:
    """Windows shows nothing that is not asked for, and its linkers refuse what LLVM would say."""
    return "dso_local" if target.format == "coff" else "hidden"


class Entries:
    """Emits entry points into one module."""

    def __init__(self, made: ModuleEmitter) -> None:
        self.made = made

    def external(self, symbol: str) -> Any:
        """Bytes of the data object."""
        made = ir.GlobalVariable(self.made.module, I8, symbol)
        made.linkage, made.global_constant = "external", True
        made.storage_class = visibility(self.made.target)
        return made

    def function(self, name: str, pointers: int, integers: int = 0) -> tuple[Emitter, list[Any]]:
        """An exported function that takes pointers, then integers, and returns a code."""
        types = [POINTER] * pointers + [I32] * integers
        function = self.made.function(name, types, exported=True, result=I32)
        # Some machines' calling conventions hold small integers extended in wide registers.
        for value in (function.return_value, *function.args[pointers:]):
            value.add_attribute("signext")
        return Emitter(function, self.made.target, self.made.wait), list(function.args)

    def check_pointers(self, e: Emitter, pointers: Sequence[Any], aligned: Sequence[Any]) -> None:
        """Returns a code unless none is NULL and the last ones are `aligned`."""
        null = ir.Constant(POINTER, None)
        for pointer in (*pointers, *aligned):
            require(e, e.b.icmp_unsigned("!=", pointer, null), NULL_POINTER)
        for pointer in aligned:
            low = e.b.and_(e.b.ptrtoint(pointer, e.word), e.index(ALIGNMENT - 1))
            require(e, e.b.icmp_signed("==", low, e.index(0)), MISALIGNED_ARENA)

    def call(
        self, e: Emitter, body: Any, pointers: Sequence[Any], weights: Any, arena: Any,
        thread: Any, threads: Any,
    ) -> None:  # fmt: skip
        """Calls a body (`emit/module.py`) on these inputs and outputs."""
        size = e.target.pointer_bytes
        with e.b.goto_entry_block():  # elsewhere the stack would be moved at run time
            io = e.b.alloca(POINTER, size=e.index(max(1, len(pointers))))
        for slot, pointer in enumerate(pointers):
            e.b.store(pointer, e.at(io, slot * size), align=size)
        e.b.call(body, [io, weights, arena, arena, thread, threads])

    def sums(self, e: Emitter, memory: Any, nbytes: int, align: int = 4) -> list[Any]:
        """Two sums over words in memory, as `checksum` has them."""

        def step(offset: Index, sums: list[Any]) -> list[Any]:
            word = e.b.load(e.at(memory, offset), typ=I32, align=align)
            first = e.b.add(sums[0], word)
            return [first, e.b.add(sums[1], first)]

        return e.carry(0, nbytes, 4, [code(0), code(0)], step)


def checksum(weights: Array) -> bytes:
    """Two sums over the 32-bit words of the weights, modulo 2^32: a += word, b += a."""
    words, first, second = weights.view(np.uint32), 0, 0
    for start in range(0, words.size, SUMMED):
        sums = np.cumsum(words[start : start + SUMMED], dtype=np.uint32)
        second += first * sums.size + int(sums.sum(dtype=np.uint32))
        first += int(sums[-1])
    return np.array([first % 2**32, second % 2**32], "<u4").tobytes()


def near(e: Emitter, found: Any, expected: Any, allowed: Any) -> Any:
    """A byte, 0 where both f32 are equal, both NaN, or no more than `allowed` apart."""
    a, b = e.load(found, f32), e.load(expected, f32)
    most = e.b.fpext(e.load(allowed, f32), ir.DoubleType())
    apart = e.b.fsub(e.b.fpext(a, ir.DoubleType()), e.b.fpext(b, ir.DoubleType()))
    close = e.b.and_(
        e.b.fcmp_ordered("<=", apart, most), e.b.fcmp_ordered(">=", apart, e.b.fneg(most))
    )
    nan = e.b.and_(e.b.fcmp_unordered("uno", a, a), e.b.fcmp_unordered("uno", b, b))
    right = e.b.or_(e.b.or_(close, nan), e.b.fcmp_ordered("==", a, b))
    return e.b.zext(e.b.not_(right), I8)


def widened(e: Emitter, number: Any) -> Any:
    """An i32 as an index."""
    return number if e.word == I32 else e.b.sext(number, e.word)


def code(value: int) -> Any:
    return ir.Constant(I32, value)


def require(e: Emitter, condition: Any, code_: int) -> None:
    """Returns `code_` from the function unless the i1 `condition` holds."""
    with e.b.if_then(e.b.not_(condition)):
        e.b.ret(code(code_))
