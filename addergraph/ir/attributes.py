"""Validation of what users write as attributes of layers and ops.

Each function returns the plain value or raises ShapeError; `where` is how the message speaks of the
layer or op.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .. import border
from ..border import shown
from ..errors import ShapeError, nearest

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right

FULL_PRECISION, SIGN = "full_precision", "sign"
GRADIENTS = (FULL_PRECISION, SIGN)  # of adder layers
BITS = (2, 8)  # of quantized activations and filters: the fewest, the most
DEFAULT_BITS = 8


def integer(where: str, name: str, value: object, least: int) -> int:
    """An integer of at least `least`; booleans and floats are none."""
    number = border.accept(int, value)
    if number is None or number < least:
        raise ShapeError(f"{where}: {name}={shown(value)} must be an integer of at least {least}")
    return int(number)


def pair(where: str, name: str, value: object, least: int = 1) -> Pair:
    """One integer for both directions, or (vertical, horizontal)."""
    sides = _sides(value, 2)
    if len(sides) != 2:
        raise ShapeError(f"{where}: {name}={shown(value)} must be an int or a pair of ints")
    return integer(where, name, sides[0], least), integer(where, name, sides[1], least)


_PADDINGS = "numbers of zeros: an int, (vertical, horizontal) or (top, bottom, left, right)"


def padding(where: str, value: object) -> Padding:
    """One integer, (vertical, horizontal), or (top, bottom, left, right)."""
    if isinstance(value, str):
        raise ShapeError(
            f"{where}: padding={value!r} must be {_PADDINGS}; with stride 1 half of the kernel "
            'keeps the size of an image, 1 of kernel_size=3; layers with a kernel take "same", too'
        )
    sides = _sides(value, 4)
    if len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    if len(sides) != 4 or any(border.accept(Sequence[object], s) is not None for s in sides):
        raise ShapeError(f"{where}: padding={shown(value)} must be {_PADDINGS}")
    top, bottom, left, right = (integer(where, "padding", s, 0) for s in sides)
    return top, bottom, left, right


def _sides(value: object, count: int) -> Sequence[object]:
    """The items of what has some, as they are; of a single value as many as `count`."""
    if isinstance(value, str):
        return []
    items: Sequence[object] | None = border.accept(Sequence[object], value)
    return [value] * count if items is None else items


def is_bits(value: object) -> bool:
    """Whether `value` is a number of bits that activations can be quantized to."""
    number = border.accept(int, value)
    return number is not None and BITS[0] <= number <= BITS[1]


def flag(where: str, name: str, value: object) -> bool:
    return border.flag(f"{where}: {name}", value, ShapeError)


def real(where: str, name: str, value: object, low: float, high: float = math.inf) -> float:
    """A finite number in [low, high]."""
    number = border.accept(float, value)
    if number is None or not (math.isfinite(number) and low <= number <= high):
        most = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ShapeError(
            f"{where}: {name}={shown(value)} must be a number of at least {low:g}{most}"
        )
    return float(number)


def choice(where: str, name: str, value: object, known: Iterable[str]) -> None:
    """One of the words in `known`."""
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise ShapeError(
            f"{where}: unknown {name} {shown(value)}{nearest(f'{value}', words)}; "
            f"known: {', '.join(words)}"
        )
