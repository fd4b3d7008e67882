"""How emitted code waits for another thread: it polls with `pause`, then lets others run.

A wait for a counter polls it a bounded number of times, about a microsecond, and from then on calls
the nullable `void relax(void)` (in Python: sched_yield) between polls: a thread that shares its
core with the one it waits for must not keep it from working. A wait may give up after a number of
polls; `entry_threads` then parks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir

from .builder import I32, POINTER, Emitter

SPINS = 32  # polls before `relax` is called


class _Callee:
    """A pointer seen as a function, since opaque pointers do not know what they call."""

    def __init__(self, pointer: Any, function_type: Any) -> None:
        self.function_type = function_type
        self.type = pointer.type
        self.get_reference = pointer.get_reference


def call_pointer(e: Emitter, pointer: Any, arguments: Sequence[Any], result: Any) -> Any:
    """Emits a call of the function at `pointer`."""
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    return e.b.call(_Callee(pointer, function_type), arguments)


def present(e: Emitter, pointer: Any) -> Any:
    """An i1: whether a pointer is not null."""
    return e.b.icmp_unsigned("!=", pointer, ir.Constant(POINTER, None))


def emit_wait(e: Emitter, word: Any, seen: Any, relax: Any, polls: int | None = None) -> None:
    """Emits a wait until the i32 at `word` is not `seen`, or has been read `polls` times.

    `relax` is the pointer of what a long wait calls, None for nothing.
    What other threads wrote before they changed the word is visible afterwards.
    """
    b, before = e.b, e.b.block
    poll, again, done = (e.function.append_basic_block(n) for n in ("poll", "again", "passed"))
    b.branch(poll)
    b.position_at_end(poll)
    count = b.phi(I32)
    count.add_incoming(ir.Constant(I32, 0), before)
    moved = b.icmp_signed("!=", b.load_atomic(word, "acquire", 4, typ=I32), seen)
    b.cbranch(moved, done, again)
    b.position_at_end(again)
    if e.target.pause:
        b.call(e.intrinsic(e.target.pause, ir.VoidType(), []), [])
    tired = b.icmp_unsigned(">=", count, ir.Constant(I32, SPINS))
    if relax is not None:
        with b.if_then(b.and_(tired, present(e, relax))):
            call_pointer(e, relax, [], ir.VoidType())
    more = b.add(count, ir.Constant(I32, 1))
    # Without a limit the count stays where it is tired: it shall not wrap to zero.
    more = b.select(tired, count, more) if polls is None else more
    count.add_incoming(more, b.block)
    if polls is None:
        b.branch(poll)
    else:
        b.cbranch(b.icmp_unsigned("<", more, ir.Constant(I32, polls)), poll, done)
    b.position_at_end(done)
