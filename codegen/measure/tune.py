"""Schedules by measuring: every kernel that serves a contraction is timed, the fastest is kept.

The candidates are the dense kernel with each tile of `schedule.contraction_tiles` and the sparse
kernels. Each distinct call is timed alone, on one thread, on random numbers, of which as many are
above zero as in the call's weights; winners are stored in the cache, so that the same layer is not
measured again on the same machine. All candidates give the same bits (products: on one target), so
tuning changes nothing but speed.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Graph, Node, Op
from addergraph.ir.state import aligned_bytes
from addergraph.ir.taps import Taps
from addergraph.ir.types import f32
from addergraph.ops.fused import Fused

from .. import llvm
from ..emit.lowered import Lowered, planned_call
from ..emit.module import standalone
from ..kernels import Call, Kernel, Operand, families, taps_of
from ..kernels.forward.choice import candidates, expected_choice, forward_contraction
from ..kernels.schedule import Choice
from ..run import cache
from ..targets.lookup import runnable

RUNS = 15  # timings of each candidate at least: the best of five depends on luck by a tenth


@dataclass(frozen=True)
class Tuned:
    """What was found for one node: seconds of each candidate, the fastest, the model's choice."""

    node: str
    choice: Choice
    seconds: Mapping[Choice, float]
    model: Choice

    @property
    def loss(self) -> float:
        """How many times as long the model's choice takes as the winner."""
        return self.seconds[self.model] / self.seconds[self.choice]


def tune(lowered: Lowered, seconds: float) -> tuple[Tuned, ...]:
    """The fastest kernel of every forward contraction, within about `seconds` of measuring.

    Raises UnsupportedError for a target that this machine does not run.
    """
    if not runnable(lowered.target):
        raise UnsupportedError(
            f'tuning measures on this machine, which does not run code for "{lowered.target.name}"'
        )
    calls: dict[Call, dict[Choice, Kernel]] = {}
    nodes: dict[str, Call] = {}
    for node in lowered.main.nodes:
        found = _options(lowered, node)
        if found is not None and len(found[1]) > 1:
            nodes[node.name], calls[found[0]] = found[0], found[1]
    budget = seconds / max(1, sum(map(len, calls.values())))
    measured = {call: _measured(call, options, budget) for call, options in calls.items()}
    return tuple(_tuned(name, call, measured[call]) for name, call in nodes.items())


def _options(lowered: Lowered, node: Node) -> tuple[Call, dict[Choice, Kernel]] | None:
    body = _body(node.op)
    op = node.op if body is None else body.nodes[0].op
    if families().get(type(op)) is not forward_contraction:
        return None
    call = planned_call(lowered, node)
    return call, candidates(call, body)


def _body(op: Op) -> Graph | None:
    return op.body if isinstance(op, Fused) else None


def _tuned(name: str, call: Call, seconds: Mapping[Choice, float]) -> Tuned:
    fastest = min(seconds, key=lambda choice: (seconds[choice], str(choice)))
    return Tuned(name, fastest, seconds, expected_choice(call, _body(call.op)))


def _measured(call: Call, options: Mapping[Choice, Kernel], budget: float) -> dict[Choice, float]:
    """Seconds of each candidate, from the cache if this call was measured before."""
    from addergraph import __version__

    key = cache.key_of("tune", repr(call), *map(str, options), __version__, llvm.version())
    found = cache.load(key)
    if found is not None:
        return {Choice.parse(text): float(time) for text, time in found[0].items()}
    seconds = _times(call, options, budget)
    cache.store(key, {str(choice): time for choice, time in seconds.items()}, b"")
    return seconds


def _times(call: Call, options: Mapping[Choice, Kernel], budget: float) -> dict[Choice, float]:
    """Seconds of one call of each kernel, the best of several. They take turns, so that all of them
    meet the machine's slow and its fast spells; `budget` is for each."""
    drawn = _operands(call)
    runs = {choice: _prepared(call, kernel, drawn) for choice, kernel in options.items()}
    best, end, turns = dict.fromkeys(options, np.inf), time.perf_counter() + budget * len(runs), 0
    for run in runs.values():
        run()
    while turns < RUNS or time.perf_counter() < end:
        for choice, run in runs.items():
            start = time.perf_counter()
            run()
            best[choice] = min(best[choice], time.perf_counter() - start)
        turns += 1
    return {choice: float(seconds) for choice, seconds in best.items()}


def _prepared(call: Call, kernel: Kernel, drawn: Sequence[Array]) -> Callable[[], object]:
    """One call of `kernel` on these operands, of which it packs its own filters."""
    loaded = llvm.LoadedObject(
        llvm.compile_object(standalone(call, kernel), call.target), call.target
    )
    buffers, pointers = list(drawn), []
    for number, operand in enumerate((*call.inputs, *call.outputs)):
        if number in kernel.packs:
            packing = kernel.packs[number]
            buffers[number] = aligned_bytes(packing.nbytes)
            taps = taps_of(call, number)
            packing.pack(_drawn(np.random.default_rng(number), operand, taps), buffers[number])
            pointers.append(buffers[number].ctypes.data)
            continue
        pointers.append(buffers[number].ctypes.data + _origin(operand))
    scratch, barrier = aligned_bytes(max(64, kernel.workspace)), aligned_bytes(64)
    types = [ctypes.c_void_p] * (len(pointers) + 2) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(None, *types)(loaded.address("kernel"))
    arguments = (*pointers, scratch.ctypes.data, barrier.ctypes.data, 0, 1)

    def run(*_kept: object) -> object:
        return function(*arguments)

    return functools.partial(run, loaded, buffers, scratch, barrier)


def _operands(call: Call) -> list[Array]:
    """Random inputs, and outputs. All candidates have the same: a copy of its own may be better or
    worse for a kernel only by where in the caches it lies."""
    rng, made = np.random.default_rng(0), []
    for operand in (*call.inputs, *call.outputs):
        numbers = np.abs(rng.normal(size=operand.layout.padded)).astype("f4")
        made.append(_aligned(numbers.astype(operand.type.dtype.numpy)))
    return made


def _drawn(rng: np.random.Generator, operand: Operand, taps: Taps) -> Array:
    """Numbers with such taps: sparse kernels take their time by them."""
    above, saturated = taps.shares
    size, drawn = np.abs(rng.normal(size=operand.shape)), rng.random(operand.shape)
    if operand.type.dtype == f32:
        small = np.where(drawn < above, size, -size)
        return np.where(drawn >= 1 - saturated, taps.top, small).astype(np.float32)
    small = np.where(drawn < above, np.ceil(16 * size), 0)
    return np.where(drawn >= 1 - saturated, 255, small).astype(operand.type.dtype.numpy)


def _origin(operand: Operand) -> int:
    return operand.layout.origin * operand.type.dtype.itemsize


def _aligned(array: Array) -> Array:
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    made = aligned_bytes(raw.size)
    made[...] = raw
    return made
