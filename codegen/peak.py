"""The arithmetic peak of this machine, measured by emitted loops that touch registers only.

Benchmarks divide by it: a share of the peak taken in the same run means the same on a noisy or
shared machine, where absolute figures do not.
"""

from __future__ import annotations

import ctypes
import time

from . import llvm
from .builder import I64, POINTER, Emitter, Index, Register
from .module import ModuleEmitter
from .target import Target

FORMS = ("product", "minimum", "direct", "clip", "between")


def peak_module(form: str, target: Target, accumulators: int) -> str:
    """`peak(n, in, out)`: n rounds of one term on each of `accumulators` independent vectors."""
    made = ModuleEmitter("peak", target)
    function = made.function("peak", [I64, POINTER, POINTER], exported=True)
    n, source, into = function.args
    e = Emitter(function, target, made.wait)
    lanes = target.lanes
    x = e.load(source, lanes=lanes)
    f = e.load(e.at(source, 4 * lanes), lanes=lanes)

    def rounds(_: Index, acc: list[Register]) -> list[Register]:
        # Opaque to the optimizer: else it would take `x` op `f` out of the loop.
        return [_opaque_term(e, form, x, f, a, number) for number, a in enumerate(acc)]

    zeros = [e.number(0.0, lanes)] * accumulators
    for k, total in enumerate(e.carry(0, n, 1, zeros, rounds)):
        e.store(total, e.at(into, 4 * lanes * k))
    e.b.ret_void()
    return str(made.module)


def _opaque_term(
    e: Emitter, form: str, x: Register, f: Register, acc: Register, number: int
) -> Register:
    """One term that depends on its accumulator, so that nothing can be hoisted or shared."""
    if form == "product":
        return e.fma(x, f, acc)
    if form == "minimum":
        return e.b.fadd(acc, e.integer_min(acc, x))
    if form == "clip":
        if e.target.subtracts_by_fma(number):
            difference = e.fma(acc, x, e.b.fneg(f))
        else:
            difference = e.b.fsub(acc, f)
        return e.fma(x, e.clip_unit(difference), acc)
    if form == "between":
        least = e.integer_min(acc, f)
        return e.fma(x, e.b.select(e.b.fcmp_ordered(">", least, x), least, x), acc)
    return e.b.fadd(acc, e.call("fabs", e.b.fsub(x, acc)))


def measure_peak(form: str, target: Target, seconds: float = 0.3) -> float:
    """G terms/s of one core, the best of several loop widths.

    form: "product" (multiply-add), "minimum" (integer min, float add), "direct" (sub, abs, add),
    and two of the input gradient of adder layers: "clip" (sub, clip to [-1, 1], multiply-add) and
    "between" (clip to bounds in registers by integer min and float max, multiply-add).
    """
    return max(_measure(form, target, count, seconds / 4) for count in (8, 12, 16, 24))


def _measure(form: str, target: Target, accumulators: int, seconds: float) -> float:
    if accumulators > target.registers - 3:
        return 0.0
    text = peak_module(form, target, accumulators)
    loaded = llvm.LoadedObject(llvm.compile_object(text, target), target)
    run = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(
        loaded.address("peak")
    )
    data = (ctypes.c_float * (2 * target.lanes))(*([1e-3] * 2 * target.lanes))
    out = (ctypes.c_float * (accumulators * target.lanes))()
    rounds, best = 200_000, 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run(rounds, data, out)
        elapsed = time.perf_counter() - start
        best = max(best, rounds * accumulators * target.lanes / elapsed / 1e9)
    return best
