"""What each kernel takes inside its network, and alone: one emitted program with a clock in it.

The program is the compiled one, with the C library's `clock_gettime` called before and after each
kernel (staged copies and the zeros of halos are part of the kernel that wants them). A run may
repeat every kernel in place: what one more repetition takes is the kernel's time alone, with its
operands in the caches. Behind the program's own arena stands a table:

    pointer to clock_gettime | i64 repetitions | for each kernel: timespec before, timespec after
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.errors import TargetError
from addergraph.ir import Array, Node
from addergraph.ir.state import State, aligned_bytes

from .. import llvm
from ..emit.builder import I32, I64, POINTER, Emitter
from ..emit.lowered import Lowered, ProgramFacts, pack_weights
from ..emit.module import VOID, BodyEmitter, ModuleEmitter
from ..emit.waiting import call_pointer
from ..run.jit import main_weights
from ..targets.lookup import require_runnable

CLOCK, REPETITIONS, TIMES = 0, 8, 16  # bytes into the table
TIMESPEC = 16  # i64 seconds, i64 nanoseconds
MONOTONIC = 1
REPEATED = 8
MOST_ROUNDS = 10_000


@dataclass(frozen=True)
class KernelTime:
    """Seconds of one node's kernel, the best of many runs.

    result  the types of its results
    inside  in the network: its operands are where the kernels before it left them
    alone   repeated in place
    terms   of a contraction: |x - f| or multiply-adds; 0 for other kernels
    """

    node: str
    symbol: str
    result: str
    inside: float
    alone: float
    terms: int


@dataclass(frozen=True)
class Profile:
    """The kernels in order; `seconds` is the best time of a whole run, clocks included.

    samples  of a batch that it computes in blocks: those of one, which a run is; else None
    """

    kernels: tuple[KernelTime, ...]
    seconds: float
    samples: int | None = None


def profile(lowered: Lowered, weights: Mapping[str, Array], seconds: float) -> Profile:
    """Runs the network (one block of samples where it has several) on random inputs, on one thread,
    for about `seconds`.

    Raises TargetError where this machine cannot run the target's code or has no clock_gettime.
    """
    target = lowered.target
    require_runnable(target, f'this machine cannot run code for "{target.name}"')
    program = _Program(lowered, weights)
    inside, whole = program.best(1, seconds / 2)
    repeated, _ = program.best(REPEATED, seconds / 2)
    alone = (repeated - inside) / (REPEATED - 1)
    kernels = tuple(
        KernelTime(
            node.name,
            program.kernels[node.name].symbol,
            ", ".join(str(v.type) for v in node.outputs),
            float(a),
            float(b),
            _terms(node),
        )
        for node, a, b in zip(program.nodes, inside, alone, strict=True)
    )
    return Profile(kernels, whole, None if lowered.blocks is None else lowered.samples)


def _terms(node: Node) -> int:
    one = node.contraction
    if one is None:
        return 0
    cost = one.op.cost([v.type for v in one.inputs])
    return (cost.additions + cost.multiplications) // 2


class _TimedBody(BodyEmitter):
    """The body of a program with a stamp on both sides of each node's kernel."""

    def __init__(self, made: ModuleEmitter, lowered: Lowered) -> None:
        super().__init__(made, lowered)
        self.table = lowered.arena_bytes
        self.nodes: list[Node] = []

    def emit_node(self, node: Node) -> None:
        e = self.e
        place = self.table + TIMES + 2 * TIMESPEC * len(self.nodes)
        self.nodes.append(node)
        repetitions = e.b.load(e.at(self.arena, self.table + REPETITIONS), typ=I64, align=8)
        self._stamp(place)
        with e.loop(0, repetitions):
            super().emit_node(node)
        self._stamp(place + TIMESPEC)

    def _stamp(self, place: int) -> None:
        e = self.e
        clock = e.b.load(e.at(self.arena, self.table + CLOCK), typ=POINTER, align=8)
        call_pointer(e, clock, [ir.Constant(I32, MONOTONIC), e.at(self.arena, place)], I32)


class _Program:
    """The timed program, loaded, with buffers for one run."""

    def __init__(self, lowered: Lowered, weights: Mapping[str, Array]) -> None:
        made = ModuleEmitter(lowered.main.name, lowered.target)
        entry = made.unique("profile")
        body = _TimedBody(made, lowered)
        _emit_entry(made, body.emit(made.unique("body")), entry)
        self.nodes, self.kernels = body.nodes, body.kernels
        facts = ProgramFacts(tuple(body.entries.values()), body.weights_bytes, body.kernels)
        self._weights = _packed(facts, lowered, main_weights(lowered, weights))
        self._arena = aligned_bytes(body.table + TIMES + 2 * TIMESPEC * len(body.nodes))
        table = self._arena[body.table :].view(np.int64)
        table[CLOCK // 8] = _clock_gettime()
        self._repetitions = table[REPETITIONS // 8 :][:1]
        self._times = table[TIMES // 8 :].reshape(-1, 2, 2)
        rng = np.random.default_rng(0)
        ends = (*lowered.main.inputs, *lowered.main.outputs)
        self._buffers = [
            rng.standard_normal(v.type.sizes).astype(v.type.dtype.numpy, order="C") for v in ends
        ]
        self._io = (ctypes.c_void_p * len(ends))(*(a.ctypes.data for a in self._buffers))
        code = llvm.compile_object(str(made.module), lowered.target)
        self._loaded = llvm.LoadedObject(code, lowered.target)
        self._run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(self._loaded.address(entry))

    def best(self, repetitions: int, seconds: float) -> tuple[Array, float]:
        """Seconds of each kernel's repetitions, and of the whole run, each the best of many."""
        self._repetitions[0] = repetitions
        runs: list[Array] = []
        end = time.perf_counter() + seconds
        while len(runs) < 4 or (time.perf_counter() < end and len(runs) < MOST_ROUNDS):
            self._run(self._io, self._weights.ctypes.data, self._arena.ctypes.data)
            runs.append(self._times[..., 0] + self._times[..., 1] / 1e9)
        times = np.stack(runs[1:])  # the first one warms up
        kernels = (times[..., 1] - times[..., 0]).min(axis=0)
        return kernels, float((times[:, -1, 1] - times[:, 0, 0]).min())


def _packed(facts: ProgramFacts, lowered: Lowered, numbers: Mapping[str, Array]) -> Array:
    """What the program takes as its weights; one with updates writes into them."""
    if not lowered.main.updates:
        return pack_weights(facts, lowered, numbers)
    state = State(lowered.main.parameters)
    state.load(numbers)
    return state.blob


def _emit_entry(made: ModuleEmitter, body: Any, name: str) -> None:
    """`profile(io, weights, arena)`: one thread's run of the body."""
    function = made.function(name, [POINTER, POINTER, POINTER], exported=True, result=VOID)
    io, weights, arena = function.args
    e = Emitter(function, made.target, made.wait)
    e.b.call(body, [io, weights, arena, arena, e.index(0), e.index(1)])
    e.b.ret_void()


def _clock_gettime() -> int:
    """The address of the C library's function."""
    try:
        address = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
    except (OSError, AttributeError):
        address = None
    if address is None:
        raise TargetError("a profile needs the C library's clock_gettime, which is not here")
    return address
