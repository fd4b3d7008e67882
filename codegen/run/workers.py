"""The threads of compiled programs: one crew a process, which every program's calls share.

Handing a call to a Python thread costs tens of microseconds, one to a thread that polls in emitted
code less than one. `entry_threads` has the protocol; here is who starts and ends the threads.

* They are daemon threads that `threading` does not list, started by the first call that needs them,
  as many as the largest call so far wanted. They hold the code of the program that started them,
  never the program.
* A call that finds them busy with another runs on its caller's thread alone.
* Idle ones block in `sem_wait` after about a millisecond, and cost nothing.
* They end when no program that used them is left, or all are closed, or the interpreter exits.
  Afterwards, calls run on their caller's thread alone.
* A forked child has none of its parent's threads: it forgets them and starts its own.
* A signal handler or finalizer may run a program whose call it interrupted, but for one with
  updates, which must not interleave, and `close`: both would wait for themselves, and refuse.
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
_Arena = tuple[Array, int]  # and its address


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
    """Runs the calls of one loaded program, on its caller's thread and `threads - 1` of the crew.

    shared  whether the threads of a call work in one arena (a bound program), or each in its own
    """

    def __init__(
        self, loaded: LoadedObject, threads: int, arena_bytes: int, *, shared: bool
    ) -> None:
        self.threads, self.code, self._shared = threads, _Code(loaded), shared
        self._arena_bytes = arena_bytes
        self._spare: list[_Arena] = []  # of calls that run alone
        self.forget()
        _every.add(self)

    def forget(self) -> None:
        """As new: no call is running, and none has met the crew."""
        self._turn = threading.RLock()  # of calls that must not interleave
        self._arenas: list[_Arena] = []  # of the threads of a call
        self._seat: object = None  # what the crew knows this program by
        self._finalizer: weakref.finalize[..., Workers] | None = None

    def run(self, io: Any, weights: int, samples: int, *, in_turn: bool) -> None:
        """One call. `weights` is an address; `io` and what it points to must outlive the call.

        One `in_turn` waits for the one before it; CodegenError on the thread of that very call.
        """
        if not in_turn:
            self._run(io, weights, samples)
            return
        _require_other(self._turn, "a program with updates cannot be called")
        with self._turn:
            self._run(io, weights, samples)

    def close(self) -> None:
        """Gives up the threads, after the call that they are busy with; waits for their end where
        no other program uses them. CodegenError on the thread of that very call."""
        for lock in (self._turn, _pool.owner):
            _require_other(lock, "a program cannot be closed")
        with self._turn:
            crew = _pool.left(self._seat)
            if self._finalizer is not None:
                self._finalizer.detach()
            self._arenas, self._seat = [], None
        if crew is not None:
            crew.join()

    def _run(self, io: Any, weights: int, samples: int) -> None:
        threads = self.threads if self._shared else min(self.threads, samples)
        # `with` alone: an interrupt after an `acquire` of one's own would leave the lock held. Two
        # calls that both find it free take turns.
        if threads < 2 or _exiting.is_set() or _pool.turn.locked():
            self._run_alone(io, weights, samples)
            return
        with _pool.owner, _pool.turn:
            address = _pool.joined(self)
            self.code.lead(address, io, weights, samples, threads)

    def enrolled(self) -> object:
        """What the crew knows this program by, until it is closed or collected."""
        if self._seat is None:
            seat = object()
            self._finalizer = weakref.finalize(self, _pool.left_behind, seat)
            self._finalizer.atexit = False
            self._seat = seat
        return self._seat

    @property
    def arenas(self) -> list[_Arena]:
        """Of each thread of a call."""
        if not self._arenas:
            made = [_arena(self._arena_bytes) for _ in range(1 if self._shared else self.threads)]
            self._arenas = [made[t % len(made)] for t in range(self.threads)]
        return self._arenas

    def _run_alone(self, io: Any, weights: int, samples: int) -> None:
        try:
            arena = self._spare.pop()
        except IndexError:
            arena = _arena(self._arena_bytes)
        self.code.run(io, weights, arena[1], samples, 0, 1)
        self._spare.append(arena)


class _Pool:
    """The crew of this process, and who uses it.

    turn    held by the call that the crew is busy with; `owner`, around it, knows its thread
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As new: without threads."""
        self.turn, self.owner = threading.Lock(), threading.RLock()
        self._crew: _Crew | None = None
        self._leaving: list[_Crew] = []  # to be dismissed, also when an interrupt comes between
        self._users: set[object] = set()
        self._served: object = None  # whose arenas the crew has

    def joined(self, workers: Workers) -> int:
        """The control block of a crew that has the threads and the arenas of `workers`. The caller
        holds the turn."""
        crew, seat = self._crew, workers.enrolled()
        if crew is None or crew.threads < workers.threads:
            crew = self._started(workers.code, workers.threads)
        if self._served is not seat:
            self._served = None
            self._users.add(seat)
            crew.serve(workers.arenas)
            self._served = seat
        return crew.address

    def left(self, seat: object) -> _Crew | None:
        """A program does without; the crew, if it was the last one and its threads were told to
        end."""
        with self.owner, self.turn:
            self._users.discard(seat)
            self._served = None
            return None if self._users else self.dismissed()

    def left_behind(self, seat: object) -> None:
        """The same of a program that was collected: anywhere, in the middle of a call as well. Who
        holds the turn is a user."""
        self._users.discard(seat)
        if not self._users and not self.turn.locked():
            self.left(seat)

    def _started(self, code: _Code, threads: int) -> _Crew:
        """A larger crew in place of the one there is."""
        self.dismissed()
        crew = _Crew(code, threads)
        self._leaving = [crew]  # until all of its threads have started
        crew.start()
        self._crew = crew
        self._leaving = []
        return crew

    def dismissed(self) -> _Crew | None:
        """The crew, whose threads were told to end. The caller holds the turn."""
        crew = self._crew
        if crew is not None:
            self._leaving = [*self._leaving, crew]
        self._crew = self._served = None
        for one in self._leaving:
            one.dismiss()
        self._leaving = []
        return crew


class _Crew:
    """Threads and their control block."""

    def __init__(self, code: _Code, threads: int) -> None:
        self.threads, self._code = threads, code
        self._control = aligned_bytes(control_bytes(threads))
        self.address = self._control.ctypes.data
        self._store(RELAX, _libc("sched_yield"))
        if all([_semaphore(self._signal(t)) for t in range(threads)]):
            self._store(PARK, _libc("sem_wait"))
            self._store(WAKE, _libc("sem_post"))
        self._ends: list[_thread.LockType] = []  # each held by a thread until it ends

    def serve(self, arenas: list[_Arena]) -> None:
        """The next calls are of the program that has these."""
        for t, (_, arena) in enumerate(arenas):
            self._store(SLOTS + SLOT_BYTES * t + ARENA, arena)

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
        """Tells the threads to end. No call may be under way."""
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


def _require_other(lock: Any, what: str) -> None:
    """CodegenError where this very thread holds the lock: it would wait for itself."""
    if lock._is_owned():  # what `threading.Condition` asks of a lock
        raise CodegenError(
            f"{what} from a signal handler or finalizer that interrupted a call of it on the same "
            "thread; do it after that call"
        )


def _arena(nbytes: int) -> _Arena:
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

_pool = _Pool()
_every: weakref.WeakSet[Workers] = weakref.WeakSet()
_exiting = threading.Event()


def _at_exit() -> None:
    _exiting.set()
    with _pool.owner, _pool.turn:
        crew = _pool.dismissed()
    if crew is not None:
        crew.join()


def _after_fork() -> None:
    _pool.forget()
    for workers in list(_every):
        workers.forget()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # not on Windows, where this is imported to export
    os.register_at_fork(after_in_child=_after_fork)
