"""Products and quotients of indices without a multiplier: for strict programs.

    n c          shifts and additions, by the digits -1, 0, 1 of the constant c
    n m          a step of shift and add for each bit of a word
    n / d, n % d  one step of shift, compare and subtract for each bit of the quotient

LLVM would recognize sums of shifts and make a product of them again: it is not shown that they
belong together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hidden import hidden

if TYPE_CHECKING:
    from .indices import Indices


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
    """a * number of an index and a constant that is not 0, modulo the word."""
    terms = [(e.b.shl(a, e.index(place)), sign) for place, sign in signed_digits(number)[::-1]]
    if len(terms) > 1:
        terms = [(hidden(e.b, term), sign) for term, sign in terms]
    total, sign = terms[0]
    total = total if sign > 0 else e.b.neg(total)
    for term, sign in terms[1:]:
        total = hidden(e.b, e.b.add(total, term) if sign > 0 else e.b.sub(total, term))
    return total


def multiplied(e: Indices, a: Any, b: Any) -> Any:
    """a * b of two indices, modulo the word."""

    def step(_: Any, carried: list[Any]) -> list[Any]:
        a, b, total = carried
        odd = e.b.icmp_signed("!=", e.b.and_(b, e.index(1)), e.index(0))
        total = e.b.add(total, e.b.select(odd, a, e.index(0)))
        return [e.b.shl(a, e.index(1)), e.b.lshr(b, e.index(1)), total]

    return e.carry(0, e.target.word, 1, [a, b, e.index(0)], step)[2]


def divided(e: Indices, n: Any, d: Any, bits: int) -> tuple[Any, Any]:
    """Quotient and remainder of a non-negative index below 2^bits and a positive one."""
    width = e.target.word

    def step(_: Any, carried: list[Any]) -> list[Any]:
        rest, n, quotient = carried
        rest = e.b.or_(e.b.shl(rest, e.index(1)), e.b.lshr(n, e.index(width - 1)))
        fits = e.b.icmp_unsigned(">=", rest, d)
        rest = e.b.sub(rest, e.b.select(fits, d, e.index(0)))
        quotient = e.b.or_(e.b.shl(quotient, e.index(1)), e.b.zext(fits, e.word))
        return [rest, e.b.shl(n, e.index(1)), quotient]

    first = e.b.shl(n, e.index(width - bits)) if bits < width else n
    rest, _, quotient = e.carry(0, bits, 1, [e.index(0), first, e.index(0)], step)
    return quotient, rest
