"""The arithmetic peak of this machine, measured by emitted loops that touch registers only.

Benchmarks divide by it: a share of the peak taken in the same run means the same on a noisy or
shared machine, where absolute figures do not.
"""

from __future__ import annotations

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import llvm
from ..emit.builder import F32, I8, I32, I64, POINTER, Emitter, Index, Register, constant, vector
from ..emit.module import ModuleEmitter
from ..targets.target import Target

FORMS = ("product", "minimum", "direct", "clip", "between", "distances", "minima")
ROUNDS = 200_000  # of one measurement
LOOP = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
THREAD_ROUNDS = 8 * ROUNDS  # with several threads: they do not start at the same instant


def peak_module(form: str, target: Target, accumulators: int) -> str:
    """`peak(n, in, out)`: n rounds of one term on each of `accumulators` independent vectors."""
    made = ModuleEmitter("peak", target)
    function = made.function("peak", [I64, POINTER, POINTER], exported=True)
    n, source, into = function.args
    e = Emitter(function, target, made.wait)
    size, zero = 4 * target.lanes, _zero(form, target)
    operand = vector(F32, target.lanes) if zero.type.element == F32 else zero.type
    x, f = (e.b.load(e.at(source, k * size), typ=operand, align=4) for k in range(2))

    def rounds(_: Index, acc: list[Register]) -> list[Register]:
        # Opaque to the optimizer: else it would take `x` op `f` out of the loop.
        return [_opaque_term(e, form, x, f, a, number) for number, a in enumerate(acc)]

    start = f if form == "minima" else zero  # LLVM sees that minima with 0 stay 0
    for k, total in enumerate(e.carry(0, n, 1, [start] * accumulators, rounds)):
        e.store(total, e.at(into, size * k))
    e.b.ret_void()
    return str(made.module)


def _zero(form: str, target: Target) -> Any:
    """An accumulator's start: of psadbw its lanes are 64 bits wide."""
    if form == "minima":
        return constant(vector(I8, 4 * target.lanes), 0)
    if form != "distances":
        return constant(vector(F32, target.lanes), 0.0)
    if target.byte_distances:
        return constant(vector(I64, target.lanes // 2), 0)
    return constant(vector(I32, target.lanes), 0)


def terms_of_vector(form: str, target: Target) -> int:
    """Terms that one vector operation on an accumulator takes: with psadbw one for each byte."""
    bytewise = form == "minima" or (form == "distances" and target.byte_distances != "")
    return 4 * target.lanes if bytewise else target.lanes


def _opaque_term(
    e: Emitter, form: str, x: Register, f: Register, acc: Register, number: int
) -> Register:
    """One term that depends on its accumulator, so that nothing can be hoisted or shared."""
    if form == "product":
        return e.fma(x, f, acc)
    if form == "minimum":
        return e.b.fadd(acc, e.non_negative_min(acc, x))
    if form == "clip":
        if e.target.subtracts_by_fma(number):
            difference = e.fma(acc, x, e.b.fneg(f))
        else:
            difference = e.b.fsub(acc, f)
        return e.fma(x, e.clip_unit(difference), acc)
    if form == "between":
        least = e.non_negative_min(acc, f)
        return e.fma(x, e.b.select(e.b.fcmp_ordered(">", least, x), least, x), acc)
    if form == "minima":
        return e.b.add(acc, e.call("umin", x, acc))
    if form == "distances":
        return e.b.add(acc, _distances(e, x, acc))
    return e.b.fadd(acc, e.call("fabs", e.b.fsub(x, acc)))


def _distances(e: Emitter, x: Register, acc: Register) -> Register:
    """What the kernels of `terms.py` execute, between `x` and the accumulator's bytes."""
    if not e.target.byte_distances:
        difference = e.b.sub(x, acc)
        return e.call("smax", difference, e.b.neg(difference))
    octets = vector(I8, 4 * e.target.lanes)
    call = e.intrinsic(e.target.byte_distances, acc.type, [octets] * 2)
    return e.b.call(call, [e.b.bitcast(x, octets), e.b.bitcast(acc, octets)])


def measure_peak(form: str, target: Target, seconds: float = 0.3, threads: int = 1) -> float:
    """G terms/s of `threads` threads that run at once, each at its best; the best of several loop
    widths.

    form: "product" (multiply-add), "minimum" (min, float add), "direct" (sub, abs, add),
    two of the input gradient of adder layers: "clip" (sub, clip to [-1, 1], multiply-add) and
    "between" (clip to bounds in registers by min and max, multiply-add), and
    "distances" of bytes (psadbw and a 64-bit add; elsewhere on 32-bit lanes sub, neg, max, add),
    and "minima" of bytes (min and add of bytes, without widening their sums).
    """
    widths = [count for count in (8, 12, 16, 24) if count <= target.registers - 3]
    return max(_measure(form, target, count, seconds / len(widths), threads) for count in widths)


def _measure(form: str, target: Target, accumulators: int, seconds: float, threads: int) -> float:
    loaded = llvm.LoadedObject(
        llvm.compile_object(peak_module(form, target, accumulators), target), target
    )
    run = LOOP(loaded.address("peak"))
    data = (ctypes.c_float * (2 * target.lanes))(*([1e-3] * 2 * target.lanes))
    rounds = THREAD_ROUNDS if threads > 1 else ROUNDS
    work = rounds * accumulators * terms_of_vector(form, target) / 1e9
    together = threading.Barrier(threads)

    def rate(_: int) -> float:
        """Of one thread, while the others run too."""
        out = (ctypes.c_float * (accumulators * target.lanes))()
        together.wait()
        start = time.perf_counter()
        run(rounds, data, out)
        return work / (time.perf_counter() - start)

    best = [0.0] * threads
    with ThreadPoolExecutor(threads) as pool:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            best = [max(pair) for pair in zip(best, pool.map(rate, range(threads)), strict=True)]
    return sum(best)
