"""Entry points for worker threads that stay inside emitted code between calls.

    @work(control, thread)                       a worker enters once and leaves when dismissed
    @lead(control, io, weights, n, threads)      one call: thread 0's share; waits for the others
    @dismiss(control, threads)                   tells the workers to leave; does not wait for them

The control block, 64-byte aligned, zero but for what the workers' owner writes (`*`):

    0              relax* | park* | wake*: nullable callbacks `void relax(void)`,
                   `int park(signal)` (sem_wait) and `int wake(signal)` (sem_post)
    64             the call: io | weights | n | threads | stop (i32) | the program's `run`
    128 + 192 t    thread t: go (i32) at 0, arena* at 8     written by the leader
         + 64                done (i32), parked (i32)       written by the worker
         + 128               the signal*: a semaphore of at most 64 bytes

The workers may have entered `work` of another program than the one whose `lead` calls: all of them
are the same, and find `run` in the control block.

So no cache line is written by two threads that run at the same time. `lead` writes the call, then
advances `go` of those threads that take part; each runs `run(io, weights, arena, n, t, threads)`,
then sets `done` to its `go`. Threads that take no part read nothing. A worker without work polls
`go` for `IDLE_POLLS`, about a millisecond, then parks: it sets `parked`, looks at `go` once more
and blocks. The leader looks at `parked` after it has advanced `go`. With a full fence between the
two steps on both sides, at least one sees the other. A wake-up too many is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import llvmlite.ir as ir

from .builder import I32, I64, POINTER, Emitter, Index
from .waiting import SPINS, call_pointer, emit_wait, present

if TYPE_CHECKING:
    from .module import ModuleEmitter

THREAD_ENTRIES = ("work", "lead", "dismiss")
IDLE_POLLS = SPINS + 2048

RELAX, PARK, WAKE = 0, 8, 16
IO, WEIGHTS, SAMPLES, THREADS, STOP, RUN = 64, 72, 80, 88, 96, 104
SLOTS, SLOT_BYTES = 128, 192
GO, ARENA, DONE, PARKED, SIGNAL = 0, 8, 64, 68, 128
SIGNAL_BYTES = SLOT_BYTES - SIGNAL


def control_bytes(threads: int) -> int:
    """Size of the control block of so many threads."""
    return SLOTS + SLOT_BYTES * threads


def emit_thread_entries(made: ModuleEmitter, names: Sequence[str], run: Any) -> None:
    """Emits THREAD_ENTRIES, as `names`, around the function `run`."""
    _emit_work(made, names[0])
    _emit_lead(made, names[1], run)
    _emit_dismiss(made, names[2])


def _emit_work(made: ModuleEmitter, name: str) -> None:
    function = made.function(name, [POINTER, I64], exported=True)
    control, thread = function.args
    e = Emitter(function, made.target, made.wait)
    b = e.b
    slot = _slot(e, control, thread)
    relax = _pointer(e, control, RELAX)
    entry, wait = b.block, function.append_basic_block("wait")
    b.branch(wait)
    b.position_at_end(wait)
    seen = b.phi(I32)
    seen.add_incoming(ir.Constant(I32, 0), entry)
    emit_wait(e, e.at(slot, GO), seen, relax, IDLE_POLLS)
    go = _load(e, slot, GO, "acquire")
    with b.if_then(b.icmp_signed("==", go, seen)):
        _emit_park(e, control, slot, seen)
        seen.add_incoming(seen, b.block)
        b.branch(wait)
    stop = b.icmp_signed("!=", _load(e, control, STOP), ir.Constant(I32, 0))
    with b.if_then(stop):
        b.ret_void()
    arguments = [_pointer(e, control, IO), _pointer(e, control, WEIGHTS), _pointer(e, slot, ARENA)]
    numbers = [b.load(e.at(control, at), typ=I64, align=8) for at in (SAMPLES, THREADS)]
    run = _pointer(e, control, RUN)
    call_pointer(e, run, [*arguments, numbers[0], thread, numbers[1]], ir.VoidType())
    _set(e, slot, DONE, go, "release")
    seen.add_incoming(go, b.block)
    b.branch(wait)


def _emit_park(e: Emitter, control: Any, slot: Any, seen: Any) -> None:
    """Blocks until woken, unless there is work by now."""
    b = e.b
    park = _pointer(e, control, PARK)
    _set(e, slot, PARKED, 1)
    b.fence("seq_cst")
    idle = b.icmp_signed("==", _load(e, slot, GO), seen)
    with b.if_then(b.and_(idle, present(e, park))):
        call_pointer(e, park, [e.at(slot, SIGNAL)], I32)
    _set(e, slot, PARKED, 0)


def _emit_lead(made: ModuleEmitter, name: str, run: Any) -> None:
    types = [POINTER, POINTER, POINTER, I64, I64]
    function = made.function(name, types, exported=True)
    control, io, weights, n, threads = function.args
    e = Emitter(function, made.target, made.wait)
    address = ir.FormattedConstant(POINTER, run.get_reference())
    call = ((IO, io), (WEIGHTS, weights), (SAMPLES, n), (THREADS, threads), (RUN, address))
    for at, value in call:
        e.b.store(value, e.at(control, at), align=8)
    _emit_go(e, control, threads)
    arena = _pointer(e, _slot(e, control, 0), ARENA)
    e.b.call(run, [io, weights, arena, n, e.index(0), threads])
    relax = _pointer(e, control, RELAX)
    with e.loop(1, threads) as thread:
        slot = _slot(e, control, thread)
        before = e.b.sub(_load(e, slot, GO), ir.Constant(I32, 1))
        emit_wait(e, e.at(slot, DONE), before, relax)
    e.b.ret_void()


def _emit_dismiss(made: ModuleEmitter, name: str) -> None:
    function = made.function(name, [POINTER, I64], exported=True)
    control, threads = function.args
    e = Emitter(function, made.target, made.wait)
    _set(e, control, STOP, 1)
    _emit_go(e, control, threads)
    e.b.ret_void()


def _emit_go(e: Emitter, control: Any, threads: Any) -> None:
    """Advances `go` of threads 1, 2, ...; wakes those that are parked."""
    b = e.b
    with e.loop(1, threads) as thread:
        slot = _slot(e, control, thread)
        following = b.add(_load(e, slot, GO), ir.Constant(I32, 1))
        _set(e, slot, GO, following, "release")
    b.fence("seq_cst")
    wake = _pointer(e, control, WAKE)
    with e.loop(1, threads) as thread:
        slot = _slot(e, control, thread)
        parked = b.icmp_signed("!=", _load(e, slot, PARKED), ir.Constant(I32, 0))
        with b.if_then(b.and_(parked, present(e, wake))):
            call_pointer(e, wake, [e.at(slot, SIGNAL)], I32)


def _slot(e: Emitter, control: Any, thread: Index) -> Any:
    return e.at(control, e.add(SLOTS, e.mul(thread, SLOT_BYTES)))


def _pointer(e: Emitter, base: Any, at: int) -> Any:
    return e.b.load(e.at(base, at), typ=POINTER, align=8)


def _load(e: Emitter, base: Any, at: int, ordering: str = "monotonic") -> Any:
    return e.b.load_atomic(e.at(base, at), ordering, 4, typ=I32)


def _set(e: Emitter, base: Any, at: int, value: Any, ordering: str = "monotonic") -> None:
    """An atomic store, written as an exchange: llvmlite's has no opaque pointers."""
    value = ir.Constant(I32, value) if isinstance(value, int) else value
    e.b.atomic_rmw("xchg", e.at(base, at), value, ordering)
