"""Comparisons of vectors that LLVM makes true of NaN, on MVE.

`vcmp` takes a number for all lanes, or zero, as its second operand alone. Where it is the first
one, as 1 in 1 > x, LLVM (22) takes x < 1, and MVE's "less" is the opposite of "greater or equal":
it holds for NaN. Between two vectors all is right. So in the text of an optimized module such
numbers become vectors of which LLVM knows nothing: an empty instruction made them. Whether x is
NaN is asked of x and x, where the passes have x and 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

LANES = 4  # of a register of MVE
# What LLVM makes of "greater" with the operands as they stand; it exchanges those of `_EXCHANGED`.
_AS_THEY_STAND = ("ogt", "oge", "ult", "ule")
_EXCHANGED = ("olt", "ole", "ugt", "uge")
_ANY_ORDER = ("one", "ueq", "ord", "uno")
_NUMBER = r"%[\w.$-]+|zeroinitializer|splat \(float [^)]*\)"
_COMPARED = re.compile(rf"(.*= fcmp (?:\w+ )*)(\w+) <(\d+) x float> ({_NUMBER}), ({_NUMBER})(.*)")
_SPLAT = re.compile(
    r"\s*(%[\w.$-]+) = shufflevector <\d+ x float> .*, <\d+ x i32> zeroinitializer\b"
)
_LABEL = re.compile(r'[\w.$"-]+:')


def told_apart(ir_text: str) -> str:
    """The text of a module whose comparisons of f32 vectors say of NaN what they have to."""
    made: list[str] = []
    lines = iter(ir_text.splitlines())
    for line in lines:
        made.append(line)
        if line.startswith("define "):
            body = []
            while (inside := next(lines)) != "}":
                body.append(inside)
            made += [*_Function(body).told_apart(), "}"]
    return "\n".join(made) + "\n"


class _Function:
    """The lines of one function; `hidden`: what became a vector that LLVM does not know."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.splats = {found[1] for line in lines if (found := _SPLAT.match(line))}
        self.hidden: dict[tuple[str, int], str] = {}

    def told_apart(self) -> list[str]:
        compared = [self._compared(line) for line in self.lines]
        start = bool(_LABEL.match(compared[0]))
        made = compared[:start] + self._definitions(lambda value: not value.startswith("%"))
        for line in compared[start:]:
            made.append(line)
            if found := _SPLAT.match(line):
                made += self._definitions(found[1].__eq__)
        return made

    def _compared(self, line: str) -> str:
        found = _COMPARED.match(line)
        if found is None:
            return line
        start, relation, width, left, right, end = found.groups()
        if relation in ("ord", "uno") and "zeroinitializer" in (left, right):
            left = right = left if right == "zeroinitializer" else right
        if relation in (*_AS_THEY_STAND, *_ANY_ORDER):
            left = self._unseen(left, int(width))
        if relation in (*_EXCHANGED, *_ANY_ORDER):
            right = self._unseen(right, int(width))
        return f"{start}{relation} <{width} x float> {left}, {right}{end}"

    def _unseen(self, value: str, width: int) -> str:
        """What stands for `value`, where it is one number in all lanes."""
        if value.startswith("%") and value not in self.splats:
            return value
        return self.hidden.setdefault((value, width), f"%nan.{len(self.hidden)}")

    def _definitions(self, wanted: Callable[[str], bool]) -> list[str]:
        """Lines that make those of `hidden` whose value is `wanted`."""
        made = []
        for (value, width), name in self.hidden.items():
            if not wanted(value):
                continue
            given = value
            if value.startswith("%"):
                given = f"{name}.given"
                made.append(_shuffled(given, value, width, [0] * LANES))
            made.append(f'  {name}.4 = call <4 x float> asm "", "=w,0"(<4 x float> {given})')
            made.append(_shuffled(name, f"{name}.4", LANES, [i % LANES for i in range(width)]))
        return made


def _shuffled(name: str, value: str, width: int, lanes: Sequence[int]) -> str:
    mask = f"<{', '.join(f'i32 {lane}' for lane in lanes)}>"
    type = f"<{width} x float>"
    return f"  {name} = shufflevector {type} {value}, {type} poison, <{len(lanes)} x i32> {mask}"
