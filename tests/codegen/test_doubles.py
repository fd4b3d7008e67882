"""f64 by integers, for float units of f32 alone: the bits of this machine's own f64."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest

from addergraph.codegen import doubles, llvm
from addergraph.codegen.targets.x86 import BASELINE
from tests.codegen.test_target import ON_X86

pytestmark = ON_X86

# An operation of IR -> the type of its result, and the function that LLVM calls.
OPERATIONS = {
    "fpext float %x to double": ("double", "__extendsfdf2"),
    "fptrunc double %x to float": ("float", "__truncdfsf2"),
    "fadd double %x, %y": ("double", "__adddf3"),
    "fsub double %x, %y": ("double", "__subdf3"),
    "fmul double %x, %y": ("double", "__muldf3"),
    "fdiv double %x, %y": ("double", "__divdf3"),
    "fcmp ole double %x, %y": ("i32", "__ledf2"),
    "fcmp oge double %x, %y": ("i32", "__gedf2"),
}
TYPES: dict[str, Any] = {"double": ctypes.c_double, "float": ctypes.c_float, "i32": ctypes.c_int32}
ENDS = np.array([0.0, np.inf, np.nan, 5e-324, 1e-310, 1.7e308, 2.0**-149, 2.0**-150, 3.4028236e38])
UNARY = ("fpext float %x to double", "fptrunc double %x to float")
EXPECTED: dict[str, Any] = {
    "fadd double %x, %y": np.add, "fsub double %x, %y": np.subtract,
    "fmul double %x, %y": np.multiply, "fdiv double %x, %y": np.divide,
}  # fmt: skip


def function(operation: str, other: str = "") -> Any:
    """The function, or another one that is there for the operation, compiled for this machine under
    a name that is not its libraries'."""
    result, name = OPERATIONS[operation]
    name = other or name
    takes = "float" if "float %x" in operation else "double"
    used = f"define void @f({takes} %x, {takes} %y) {{\n  %r = {operation}\n  ret void\n}}\n"
    text = doubles.defined(used).replace("weak hidden", "").replace("@__", "@its_")
    loaded = llvm.LoadedObject(llvm.compile_object(text, BASELINE), BASELINE)
    arguments = [TYPES[takes]] * (1 if operation in UNARY else 2)
    made = ctypes.CFUNCTYPE(TYPES[result], *arguments)(loaded.address(name.replace("__", "its_")))
    made.loaded = loaded  # type: ignore[attr-defined]
    return made


def drawn(seed: int, count: int = 1500) -> np.ndarray[Any, Any]:
    """All magnitudes; those around f32's; numbers in the middle of two of f32; subnormal ones."""
    rng = np.random.default_rng(seed)
    any_bits = rng.integers(0, 2**64, count, np.uint64)
    near = any_bits & ~np.uint64(0x7FF << 52) | rng.integers(
        860, 1160, count, np.uint64
    ) << np.uint64(52)
    middle = near & ~np.uint64(0x1FFFFFFF) | np.uint64(0x10000000)
    below = any_bits & np.uint64(0x801FFFFFFFFFFFFF)
    parts = [any_bits, near, middle, below]
    return np.concatenate([*(p.view(np.float64) for p in parts), ENDS, -ENDS])


def same(found: Any, expected: Any) -> bool:
    if np.isnan(expected):
        return bool(np.isnan(found))
    return bool(found == expected and np.signbit(found) == np.signbit(expected))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("operation", "made"), [*zip(UNARY, (np.float64, np.float32), strict=True)]
)
def test_conversions(operation: str, made: Any) -> None:
    native, values = function(operation), drawn(0)
    if made == np.float64:
        values = np.concatenate([values.astype(np.float32), values.view(np.float32)])
    wrong = [x for x in values if not same(made(native(float(x))), made(x))]
    assert wrong == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("operation", EXPECTED)
def test_arithmetic(operation: str) -> None:
    native, expected, x = function(operation), EXPECTED[operation], drawn(1)
    close = x * np.exp2(np.resize(np.arange(-60, 60), x.size)) * (1 + 2.0**-50)
    pairs = [*zip(x, np.roll(x, 1), strict=True), *zip(x, -np.roll(x, x.size // 4), strict=True)]
    pairs += [*zip(x, -close, strict=True), *itertools.product([*ENDS, *-ENDS], repeat=2)]
    pairs += [(a, float(1 + n % 100)) for n, a in enumerate(x)]
    wrong = [p for p in pairs if not same(native(*map(float, p)), expected(*p))]
    assert wrong == []


@pytest.mark.parametrize(
    ("operation", "name", "unordered"),
    [("fcmp ole", "", 1), ("fcmp oge", "", -1), ("fcmp oge", "__ltdf2", 1),
     ("fcmp ole", "__gtdf2", -1)],
)  # fmt: skip
def test_comparisons(operation: str, name: str, unordered: int) -> None:
    """And the contrary ones, that LLVM may call for these."""
    native, x = function(f"{operation} double %x, %y", name), drawn(2, 300)
    for a, b in [*itertools.product([*ENDS, *-ENDS], repeat=2), *zip(x, x[::-1], strict=True)]:
        expected = unordered if np.isnan(a) or np.isnan(b) else int(a > b) - int(a < b)
        assert native(float(a), float(b)) == expected, (a, b)


def test_modules_without_f64_stay_as_they_are() -> None:
    text = "define float @f(float %x) {\n  %y = fadd float %x, %x\n  ret float %y\n}\n"
    assert doubles.defined(text) == text
