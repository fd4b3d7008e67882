"""The threads of a program: each enters emitted code once and waits there for calls.

Handing a call to a Python thread costs tens of microseconds, one to a thread that polls in emitted
code less than one. `entry_threads` has the protocol; here is who starts and ends the threads.

* They are daemon threads that `threading` does not list, started by the first call that needs them.
  They hold the code and their control block, never the program: it can be collected while they
  wait, and then dismisses them.
* Idle ones block in `sem_wait` after about a millisecond, and cost nothing.
* At exit of the interpreter all are dismissed and waited for. Afterwards, calls run on their
  caller's thread alone.
* A forked child has none of its parent's threads: it forgets them and starts its own.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import functools
import os
import threading
import weakref
from typing import Any

import numpy as np

from addergraph.errors import CodegenError
from addergraph.ir import Array
from addergraph.ir.state import aligned_bytes

from ..emit.entry_threads import ARENA, PARK, RELAX, SIGNAL, SLOT_BYTES, SLOTS, WAKE, control_bytes
from ..llvm import LoadedObject

_SEM_INIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)


class _Code:
    """The entry points of a loaded program, looked up once: a KeyboardInterrupt in a look-up would
    leave llvmlite's lock held."""

    def __init__(self, loaded: LoadedObject) -> None:
        self._loaded = loaded

        def entry(name: str, pointers: int, integers: int) -> Any:
            arguments = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * integers
            return ctypes.CFUNCTYPE(None, *arguments)(loaded.address(name))

        self.run, self.lead = entry("run", 3, 3), entry("lead", 3, 2)
        self.work, self.dismiss = entry("work", 1, 1), entry("dismiss", 1, 1)


class Workers:
    """Runs the calls of one loaded program, on its caller's thread and `threads - 1` others.

    shared  whether the threads of a call work in one arena (a bound program), or each in its own
    """

    def __init__(
        self, loaded: LoadedObject, threads: int, arena_bytes: int, *, shared: bool
    ) -> None:
        self.threads, self._code, self._shared = threads, _Code(loaded), shared
        self._arena_bytes = arena_bytes
        self._spare: list[tuple[Array, int]] = []  # arenas of calls that run alone
        self._finalizer: weakref.finalize[..., Workers] | None = None
        self.forget()
        _every.add(self)

    def forget(self) -> None:
        """As new: without threads, and no call is running."""
        self._turn = threading.Lock()
        self._crew: _Crew | None = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def run(self, io: Any, weights: int, samples: int, *, in_turn: bool) -> None:
        """One call. `weights` is an address; `io` and what it points to must outlive the call.

        A call that finds the workers busy with another waits if `in_turn`, else it runs alone.
        """
        threads = self.threads if self._shared else min(self.threads, samples)
        # `with` alone: an interrupt after an `acquire` of one's own would leave the lock held. Two
        # calls that both find it free take turns.
        if in_turn or (threads > 1 and not self._turn.locked()):
            with self._turn:
                self._run_together(io, weights, samples, threads)
        else:
            self._run_alone(io, weights, samples)

    def close(self) -> None:
        """Ends the threads, after the call that they are busy with, and waits for them."""
        with self._turn:
            crew, self._crew = self._crew, None
            self._send_home()
        if crew is not None:
            crew.join()

    def _run_together(self, io: Any, weights: int, samples: int, threads: int) -> None:
        if threads == 1 or _exiting.is_set():
            self._run_alone(io, weights, samples)
            return
        if self._crew is None:
            self._crew = self._started()
        self._code.lead(self._crew.address, io, weights, samples, threads)

    def _started(self) -> _Crew:
        crew = _Crew(self._code, self.threads, self._arena_bytes, self._shared)
        # Before any thread starts, so that an interrupt here leaves none behind. The threads know
        # nothing of this object: it may go while they wait.
        self._send_home()
        self._finalizer = weakref.finalize(self, crew.dismiss)
        self._finalizer.atexit = False
        crew.start()
        return crew

    def _send_home(self) -> None:
        # Not by calling the finalizer: late in an exit of the interpreter that does nothing.
        waiting = self._finalizer and self._finalizer.peek()
        if self._finalizer is not None and waiting:
            waiting[1]()
            self._finalizer.detach()

    def _run_alone(self, io: Any, weights: int, samples: int) -> None:
        try:
            arena = self._spare.pop()
        except IndexError:
            arena = _arena(self._arena_bytes)
        self._code.run(io, weights, arena[1], samples, 0, 1)
        self._spare.append(arena)


class _Crew:
    """Threads and their control block."""

    def __init__(self, code: _Code, threads: int, arena_bytes: int, shared: bool) -> None:
        self.threads, self._code = threads, code
        self._control = aligned_bytes(control_bytes(threads))
        self.address = self._control.ctypes.data
        self._store(RELAX, _libc("sched_yield"))
        if all([_semaphore(self._signal(t)) for t in range(threads)]):
            self._store(PARK, _libc("sem_wait"))
            self._store(WAKE, _libc("sem_post"))
        arenas = [_arena(arena_bytes) for _ in range(1 if shared else threads)]
        self._arenas = [arenas[t % len(arenas)] for t in range(threads)]
        for t, (_, arena) in enumerate(self._arenas):
            self._store(SLOTS + SLOT_BYTES * t + ARENA, arena)
        self._ends: list[_thread.LockType] = []  # each held by a thread until it ends

    def start(self) -> None:
        # Not by `threading`: a KeyboardInterrupt inside Thread.start leaves its locks held.
        try:
            for thread in range(1, self.threads):
                end = _thread.allocate_lock()
                end.acquire()
                _thread.start_new_thread(_work, (self._code, self._control, thread, end))
                self._ends.append(end)
        except RuntimeError as error:
            self.dismiss()
            raise CodegenError(
                f"the system does not start {self.threads - 1} more threads ({error}); "
                "compile with a smaller `threads`"
            ) from None

    def dismiss(self) -> None:
        """Tells the threads to end. Safe anywhere, in a finalizer on one of them as well."""
        self._code.dismiss(self.address, self.threads)

    def join(self) -> None:
        """Waits for the end of the threads."""
        for end in self._ends:
            end.acquire()
            end.release()

    def _signal(self, thread: int) -> int:
        return self.address + SLOTS + SLOT_BYTES * thread + SIGNAL

    def _store(self, at: int, address: int) -> None:
        self._control[at : at + 8].view(np.uint64)[0] = address


def _work(code: _Code, control: Array, thread: int, end: _thread.LockType) -> None:
    """What a thread of a crew does. Its arguments keep alive what it runs on."""
    code.work(control.ctypes.data, thread)
    end.release()


def _arena(nbytes: int) -> tuple[Array, int]:
    """A new arena and its address."""
    arena = aligned_bytes(nbytes)
    # The barrier's third word: what a long wait calls. The GIL is not held in there.
    arena[8:16].view(np.uint64)[0] = _libc("sched_yield")
    return arena, arena.ctypes.data


def _semaphore(address: int) -> bool:
    """Makes a semaphore; False where the C library has none. Then idle threads go on polling."""
    made = _libc("sem_init")
    return bool(made) and not _SEM_INIT(made)(address, 0, 0)


@functools.cache
def _libc(name: str) -> int:
    """Address of a function of the C library, or 0 where there is none."""
    try:
        return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


# -- the end of the process, and forks -----------------------------------------------------------

_every: weakref.WeakSet[Workers] = weakref.WeakSet()
_exiting = threading.Event()


def _at_exit() -> None:
    _exiting.set()
    for workers in list(_every):
        workers.close()


def _after_fork() -> None:
    for workers in list(_every):
        workers.forget()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # not on Windows, where this is imported to export
    os.register_at_fork(after_in_child=_after_fork)
