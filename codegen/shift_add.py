"""Products and quotients of indices without a multiplier: for strict programs.

    n c          shifts and additions, by the digits -1, 0, 1 of the constant c
    n m          64 steps of shift and add
    n / d, n % d  one step of shift, compare and subtract for each bit of the quotient

LLVM would recognize sums of shifts and make a product of them again. An empty assembly statement
between them, which costs no instruction, hides that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llvmlite.ir as ir

if TYPE_CHECKING:
    from .indices import Indices

I64 = ir.IntType(64)
WORD = 64


def signed_digits(number: int) -> list[tuple[int, int]]:
    """(place, sign) with number = sum sign 2^place: the fewest digits, no two beside each other."""
    digits, place = [], 0
    while number:
        if number & 1:
            sign = 2 - (number & 3)
            digits.append((place, sign))
            number -= sign
        number >>= 1
        place += 1
    return digits


def multiplied_by_constant(e: Indices, a: Any, number: int) -> Any:
    """a * number of an i64 and a constant that is not 0."""
    terms = [(e.b.shl(a, _word(place)), sign) for place, sign in signed_digits(number)[::-1]]
    if len(terms) > 1:
        terms = [(_hidden(e, term), sign) for term, sign in terms]
    total, sign = terms[0]
    total = total if sign > 0 else e.b.neg(total)
    for term, sign in terms[1:]:
        total = _hidden(e, e.b.add(total, term) if sign > 0 else e.b.sub(total, term))
    return total


def multiplied(e: Indices, a: Any, b: Any) -> Any:
    """a * b of two i64, modulo 2^64."""

    def step(_: Any, carried: list[Any]) -> list[Any]:
        a, b, total = carried
        odd = e.b.icmp_signed("!=", e.b.and_(b, _word(1)), _word(0))
        total = e.b.add(total, e.b.select(odd, a, _word(0)))
        return [e.b.shl(a, _word(1)), e.b.lshr(b, _word(1)), total]

    return e.carry(0, WORD, 1, [a, b, _word(0)], step)[2]


def divided(e: Indices, n: Any, d: Any, bits: int = WORD) -> tuple[Any, Any]:
    """Quotient and remainder of a non-negative i64 below 2^bits and a positive one."""

    def step(_: Any, carried: list[Any]) -> list[Any]:
        rest, n, quotient = carried
        rest = e.b.or_(e.b.shl(rest, _word(1)), e.b.lshr(n, _word(WORD - 1)))
        fits = e.b.icmp_unsigned(">=", rest, d)
        rest = e.b.sub(rest, e.b.select(fits, d, _word(0)))
        quotient = e.b.or_(e.b.shl(quotient, _word(1)), e.b.zext(fits, I64))
        return [rest, e.b.shl(n, _word(1)), quotient]

    first = e.b.shl(n, _word(WORD - bits)) if bits < WORD else n
    rest, _, quotient = e.carry(0, bits, 1, [_word(0), first, _word(0)], step)
    return quotient, rest


def _hidden(e: Indices, value: Any) -> Any:
    return e.b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [value], False)


def _word(value: int) -> Any:
    return ir.Constant(I64, value)
