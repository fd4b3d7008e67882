"""Rates of this core, measured by emitted loops whose operands are in registers and in L1.

A cycle is what one of a chain of scalar additions and exclusive ors takes. Every loop has many
short turns, of which the best counts: it met no interruption. What cost models get is the nearest
of a few STEPS, so that the rest of the noise decides no choice between kernels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.ir as ir

from addergraph.ir.state import aligned_bytes

from .. import llvm
from ..emit.builder import F32, I8, I32, I64, POINTER, Emitter, Index, Register, constant, vector
from ..emit.module import ModuleEmitter
from ..targets.target import Target
from .peak import LOOP

STEPS = (0.25, 0.33, 0.5, 0.67, 1.0, 1.5, 2.0, 3.0, 4.0)  # what numbers of ports can give
COUNTS = (8, 12)  # vectors under way in a loop: latency takes the one, order of issue the other
CHAIN = 8  # pairs of scalar instructions in a round
ROUNDS = 30_000  # of one turn: some 50 us
TURNS = 40
LEAST = 16  # bytes of a vector that fills a register
OPERAND = 77  # of bytes, and the bits of a small f32: nothing is NaN or denormal

Form = Callable[[Emitter, Register, Register], Register]  # (emitter, operand, sum) -> sum


def measured_rates(target: Target) -> dict[str, float]:
    """This core's rates by their names in `Rates`, for vectors of `target`, which it runs; those
    that the target has no instructions for are left out. Takes some 0.2 s."""
    best = _best_rounds(target)
    cycle = best["cycle", 1] / (2 * CHAIN)
    return {
        rate: _stepped(max(n * cycle / best[rate, n] for n in COUNTS)) for rate in _forms(target)
    }


def _stepped(rate: float) -> float:
    return min(STEPS, key=lambda step: abs(math.log(rate / step)))


def _best_rounds(target: Target) -> dict[tuple[str, int], float]:
    """Seconds of one round of each loop, by its name and count of vectors. Turns alternate."""
    text, names = _module(target)
    loaded = llvm.LoadedObject(llvm.compile_object(text, target), target)
    loops = {key: LOOP(loaded.address(symbol)) for key, symbol in names.items()}
    data, into = (aligned_bytes(max(COUNTS) * target.vector_bytes) for _ in range(2))
    data[...] = OPERAND
    best = dict.fromkeys(names, math.inf)
    for _ in range(TURNS):
        for key, loop in loops.items():
            start = time.perf_counter()
            loop(ROUNDS, data.ctypes.data, into.ctypes.data)
            best[key] = min(best[key], (time.perf_counter() - start) / ROUNDS)
    return best


def _module(target: Target) -> tuple[str, Mapping[tuple[str, int], str]]:
    """All loops, and their symbols."""
    made = ModuleEmitter("rates", target)
    names = {("cycle", 1): _emit(made, "cycle", I64, 1, _chain)}
    for rate, (type, form) in _forms(target).items():
        for count in COUNTS:
            names[rate, count] = _emit(made, rate, type, count, form)
    return str(made.module), names


def _emit(made: ModuleEmitter, name: str, type: Any, count: int, form: Form) -> str:
    """`name(n, in, out)`: n rounds of a form on `count` accumulators, each with its own operand."""
    function = made.function(made.unique(name), [I64, POINTER, POINTER], exported=True)
    n, data, into = function.args
    e, size = Emitter(function, made.target, made.wait), made.target.vector_bytes

    def rounds(_: Index, sums: list[Register]) -> list[Register]:
        e.keep_order()  # operands are read again in every round
        operands = (e.b.load(e.at(data, k * size), typ=type, align=8) for k in range(count))
        return [form(e, x, total) for x, total in zip(operands, sums, strict=True)]

    start = [e.b.load(e.at(data, k * size), typ=type, align=8) for k in range(count)]
    for k, total in enumerate(e.carry(0, n, 1, start, rounds)):
        e.b.store(total, e.at(into, k * size), align=8)
    e.b.ret_void()
    return str(function.name)


def _forms(target: Target) -> dict[str, tuple[Any, Form]]:
    """The type of the accumulators and one step, of each rate that can be measured."""
    floats, bytes = vector(F32, target.lanes), vector(I8, target.vector_bytes)
    forms: dict[str, tuple[Any, Form]] = {"terms": (floats, _term), "minima": (bytes, _minimum)}
    forms["shuffles"] = floats, _shuffle
    if target.byte_distances:
        forms["distances"] = vector(I64, target.lanes // 2), _distance
    if target.register_class and target.vector_bytes >= LEAST:
        forms["loads"] = floats, _load
    return forms


def _chain(e: Emitter, x: Register, total: Register) -> Register:
    for _ in range(CHAIN):
        total = e.b.xor(e.b.add(total, x), x)
    return total


def _term(e: Emitter, x: Register, total: Register) -> Register:
    return e.b.fadd(total, e.non_negative_min(x, e.number(2.0, e.lanes)))


def _minimum(e: Emitter, x: Register, total: Register) -> Register:
    return e.b.add(total, e.call("umin", x, constant(x.type, 99)))


def _distance(e: Emitter, x: Register, total: Register) -> Register:
    octets = vector(I8, e.target.vector_bytes)
    distances = e.intrinsic(e.target.byte_distances, total.type, [octets] * 2)
    sums = e.b.call(distances, [e.b.bitcast(x, octets), constant(octets, 99)])
    return e.b.add(total, sums)


def _load(e: Emitter, x: Register, total: Register) -> Register:
    """Nothing but the load of `x`: an empty instruction takes it, beside the accumulator."""
    kind, type = e.target.register_class, ir.FunctionType(total.type, [total.type] * 2)
    return e.b.call(ir.InlineAsm(type, "", f"={kind},0,{kind}"), [total, x])


def _shuffle(e: Emitter, x: Register, total: Register) -> Register:
    """The low halves of every four lanes interleave, as in a transposition."""
    lanes = e.lanes
    pattern = [4 * (k // 4) + k % 4 // 2 + (lanes if k % 2 else 0) for k in range(lanes)]
    return e.b.shuffle_vector(total, x, ir.Constant(ir.VectorType(I32, lanes), pattern))
