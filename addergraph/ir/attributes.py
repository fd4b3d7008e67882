"""Validation of what users write as attributes of layers and ops.

Each function returns the plain value or raises ShapeError; `where` is how the message speaks of the
layer or op.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

from ..errors import ShapeError, nearest

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right

FULL_PRECISION, SIGN = "full_precision", "sign"
GRADIENTS = (FULL_PRECISION, SIGN)  # of adder layers
BITS = (2, 8)  # of quantized activations and filters: the fewest, the most
DEFAULT_BITS = 8


def integer(where: str, name: str, value: object, least: int) -> int:
    """An integer of at least `least`; booleans and floats are none."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ShapeError(f"{where}: {name}={value!r} must be an integer of at least {least}")
    return number


def pair(where: str, name: str, value: object, least: int = 1) -> Pair:
    """One integer for both directions, or (vertical, horizontal)."""
    sides = list(value) if isinstance(value, Iterable) else [value, value]
    if len(sides) != 2:
        raise ShapeError(f"{where}: {name}={value!r} must be an int or a pair of ints")
    return integer(where, name, sides[0], least), integer(where, name, sides[1], least)


def padding(where: str, value: object) -> Padding:
    """One integer, (vertical, horizontal), or (top, bottom, left, right)."""
    if isinstance(value, str):
        raise ShapeError(
            f"{where}: padding={value!r} must be numbers of zeros; with stride 1 half of the "
            "kernel keeps the size of an image: padding=1 for kernel_size=3"
        )
    sides = list(value) if isinstance(value, Iterable) else [value] * 4
    if len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    if len(sides) != 4:
        raise ShapeError(
            f"{where}: padding={value!r} must be an int, (vertical, horizontal) or "
            "(top, bottom, left, right)"
        )
    top, bottom, left, right = (integer(where, "padding", s, 0) for s in sides)
    return top, bottom, left, right


def is_bits(value: object) -> bool:
    """Whether `value` is a number of bits that activations can be quantized to."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and BITS[0] <= value <= BITS[1]  # type: ignore[operator]


def flag(where: str, name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ShapeError(f"{where}: {name}={value!r} must be True or False")


def real(where: str, name: str, value: object, low: float, high: float = math.inf) -> None:
    """A finite number in [low, high]."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and low <= number <= high):
        most = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ShapeError(f"{where}: {name}={value!r} must be a number of at least {low:g}{most}")


def choice(where: str, name: str, value: object, known: Iterable[str]) -> None:
    """One of the words in `known`."""
    words = list(known)
    if value not in words:
        raise ShapeError(
            f"{where}: unknown {name} {value!r}{nearest(str(value), words)}; "
            f"known: {', '.join(words)}"
        )
