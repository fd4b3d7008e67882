"""Comparisons of vectors on MVE; `test_boards.py` runs some."""

from __future__ import annotations

import re

import pytest

from addergraph.codegen.llvm import compile_assembly
from addergraph.codegen.nans import told_apart
from addergraph.codegen.targets.thumb import THUMBV8M_MVE

RELATIONS = ["olt", "ole", "ogt", "oge", "one", "ueq", "ord", "uno", "oeq", "une"]
# A number for all lanes, or zero, of which "less" is asked: true of NaN.
WRONG = re.compile(r"vcmpe?\w*\.f32\s+(lt|le), q\d, (zr|r\d+)")


def module(relation: str, left: str, right: str, width: int, label: str = "") -> str:
    floats, bits = f"<{width} x float>", f"<{width} x i1>"
    return f"""{label and "declare void @other()"}
define void @f(ptr %p, float %s, ptr %r) {{
{label}
  %x = load {floats}, ptr %p, align 4
  %one = insertelement {floats} poison, float %s, i64 0
  %all = shufflevector {floats} %one, {floats} poison, <{width} x i32> zeroinitializer
  %c = fcmp {relation} {floats} {left}, {right}
  %y = select {bits} %c, {floats} %x, {floats} %all
  store {floats} %y, ptr %r, align 4
  ret void
}}
"""


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("relation", RELATIONS)
def test_no_number_is_compared_as_if_nan_were_less(relation: str, width: int) -> None:
    """Whichever operand it is, and whether it is known when the code is made."""
    for number in ("%all", "zeroinitializer", "splat (float 1.500000e+00)"):
        for ends in (("%x", number), (number, "%x")):
            for label in ("", "entry:"):
                text = module(relation, *ends, width, label)
                assert not WRONG.search(compile_assembly(text, THUMBV8M_MVE)), text


@pytest.mark.parametrize(("relation", "first"), [("ult", 0), ("ule", 0), ("ugt", 1), ("uge", 1)])
def test_the_opposite_of_greater_has_no_number_first(relation: str, first: int) -> None:
    """Of these "less" is right, as the opposite of "greater or equal", if not exchanged."""
    for number in ("%all", "zeroinitializer"):
        for place in (0, 1):
            ends = (number, "%x") if place == 0 else ("%x", number)
            assert (" asm " in told_apart(module(relation, *ends, 4))) == (place == first)


def test_what_is_right_stays_as_it_is() -> None:
    """Two vectors, the number behind "greater", equality, scalars."""
    for text in (
        module("olt", "%x", "%x", 4),
        module("ogt", "%x", "zeroinitializer", 4),
        module("oeq", "%x", "zeroinitializer", 4),
        module("ogt", "%x", "%all", 4),
        "define i1 @f(float %x) {\n  %c = fcmp olt float %x, 0.000000e+00\n  ret i1 %c\n}\n",
    ):
        assert told_apart(text) == text
    assert "uno <4 x float> %x, %x" in told_apart(module("uno", "%x", "zeroinitializer", 4))
