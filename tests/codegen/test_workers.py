"""Worker threads: the same bits, few microseconds, no thread left behind."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from addergraph import compiler
from addergraph.codegen.emit.entry_threads import SIGNAL_BYTES, SLOT_BYTES, SLOTS, control_bytes
from addergraph.codegen.run.workers import _pool
from addergraph.errors import CodegenError
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.text import parse
from tests.codegen.states import step

OPEN = parse(
    """graph open(%x: f32[N,6]) params(%f: f32[6,5]) {
      %y = adder_dense(%x, %f) : f32[N,5]
      %z = exp(%y) : f32[N,5]
      return %y, %z
    }"""
)
BOUND = OPEN.bind(9)
WEIGHTS = {"f": np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)}
Program = Any


def open_program(threads: int) -> Program:
    return compiler.compile(OPEN, weights=WEIGHTS, threads=threads)


def bound_program(threads: int) -> Program:
    return compiler.compile(BOUND, weights=WEIGHTS, threads=threads)


def step_program(threads: int) -> Program:
    start = {"w": np.zeros((4, 3), np.float32), "count": np.zeros((), np.float32)}
    return compiler.compile(step(8), weights=start, threads=threads)


def samples(count: int = 9) -> Array:
    return np.random.default_rng(2).normal(size=(count, 6)).astype(np.float32)


def workers() -> int:
    """Threads of this process, up to a constant."""
    return len(os.listdir("/proc/self/task"))


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def bits(outputs: tuple[Array, ...]) -> bytes:
    return b"".join(a.tobytes() for a in outputs)


@pytest.fixture(scope="module", autouse=True)
def older_objects() -> None:
    """What other tests left: the collections below need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leak() -> Any:
    """Every test ends with no more threads of this process than it began with."""
    gc.collect()
    with _pool.owner, _pool.turn:  # programs that other tests keep share the threads
        _pool._users.clear()
        crew = _pool.dismissed()
    if crew is not None:
        crew.join()
    time.sleep(0.01)  # the system's part of a thread's end
    before = workers()
    yield
    gc.collect()
    assert eventually(lambda: workers() <= before)


# -- bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [open_program, bound_program])
def test_bits_do_not_depend_on_threads(make: Callable[[int], Program]) -> None:
    expected = bits(make(1).run([samples()]))
    for threads in (2, 3, 7):
        program = make(threads)
        assert all(bits(program.run([samples()])) == expected for _ in range(20))


def test_training_has_the_same_bits_on_any_number_of_threads() -> None:
    x = np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)
    found = set()
    for threads in (1, 2, 3, 7):
        program = step_program(threads)
        outputs = [program(x / 64).tobytes() for _ in range(10)]
        found.add((*outputs, program.state.views["w"].tobytes()))
    assert len(found) == 1


def test_a_changing_batch_changes_who_takes_part() -> None:
    """Threads without a share sit calls out and still join the next."""
    program = open_program(4)
    for count in (1, 4, 2, 9, 0, 3, 1, 2, 64, 3, 4, 2) * 10:
        expected = run_reference(OPEN, [samples(count)], WEIGHTS)[0]
        for one, other in zip(program.run([samples(count)]), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [open_program, bound_program])
def test_ten_thousand_calls_in_a_row(make: Callable[[int], Program]) -> None:
    program, x = make(2), samples()
    expected = bits(program.run([x]))
    assert all(bits(program.run([x])) == expected for _ in range(10_000))


def test_calls_between_pauses_find_workers_in_every_state() -> None:
    """Polling, yielding, about to park and parked."""
    program, x = bound_program(3), samples()
    expected = bits(program.run([x]))
    for turn in range(400):
        time.sleep((turn % 40) * 5e-5)
        assert bits(program.run([x])) == expected


# -- callers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [open_program, bound_program])
def test_many_python_threads_call_one_program(make: Callable[[int], Program]) -> None:
    program = make(3)
    inputs = [samples() + k for k in range(6)]
    expected = [bits(program.run([x])) for x in inputs]

    def work(k: int) -> bool:
        return all(bits(program.run([inputs[k]])) == expected[k] for _ in range(200))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_a_call_that_finds_the_workers_busy_runs_alone() -> None:
    program, x = bound_program(2), samples()
    expected = bits(program.run([x]))
    with _pool.owner, _pool.turn:  # as a call on another thread holds them
        assert bits(program.run([x])) == expected
    assert _pool.turn.acquire(blocking=False)
    _pool.turn.release()


def test_updates_take_turns() -> None:
    program, x = step_program(2), np.zeros((8, 4), np.float32)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [program(x) for _ in range(100)], range(4)))
    assert program.state.views["count"] == 400


def test_errors_and_interrupts_between_calls_leave_the_workers_usable() -> None:
    program, x = bound_program(2), samples()
    expected = bits(program.run([x]))
    # A process that a shell starts in the background ignores interrupts until told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(5):
            with pytest.raises(AssertionError):
                assert not bits(program.run([x]))
            program.run([x])
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert bits(program.run([x])) == expected
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupts_during_calls_arrive_after_them() -> None:
    """A timer interrupts calls anywhere, the start of the threads too; the program survives it."""
    program, x = step_program(2), np.zeros((8, 4), np.float32)
    other, rows = open_program(3), samples()
    expected = bits(open_program(1).run([rows]))
    caught = 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(50):
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-4 + 1e-5 * turn)
                while True:
                    program(x)
                    other(rows)
            except KeyboardInterrupt:
                caught += 1
                if turn % 5 == 0:
                    other.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    count = float(program.state.views["count"])
    program(x)
    assert bits(other.run([rows])) == expected
    assert caught == 50 and program.state.views["count"] == count + 1


# -- lives of threads ----------------------------------------------------------------------------


def test_threads_start_with_the_first_call_that_needs_them() -> None:
    before = workers()
    program = open_program(3)
    program.run([samples(1)])
    assert workers() == before
    program.run([samples(2)])
    assert workers() == before + 2


def test_close_ends_the_threads_and_a_later_call_starts_new_ones() -> None:
    before, program = workers(), bound_program(3)
    program.close()
    expected = bits(program.run([samples()]))
    for _ in range(3):
        program.close()
        program.close()
        assert eventually(lambda: workers() == before)  # the system's part of a thread's end
        assert bits(program.run([samples()])) == expected
        assert workers() == before + 2


@pytest.mark.slow
def test_two_hundred_programs_leave_no_thread() -> None:
    before = workers()
    for turn in range(200):
        program = bound_program(3)
        program.run([samples()])
        if turn % 4 == 0:
            program.cycle = [program]  # collected by the garbage collector alone
    del program
    gc.collect()
    assert eventually(lambda: workers() == before)


def test_programs_share_the_threads_of_the_process() -> None:
    """Thirty programs of eight threads held 210."""
    before, x = workers(), samples()
    expected = bits(bound_program(1).run([x]))
    programs = [(bound_program, open_program)[k % 2](8) for k in range(30)]
    for _ in range(3):
        assert {bits(p.run([x])) for p in programs} == {expected}
    assert workers() == before + 7
    smaller = open_program(3)
    assert bits(smaller.run([x])) == expected and workers() == before + 7
    for program in programs[1:]:
        program.close()
    del programs, program
    gc.collect()
    assert bits(smaller.run([x])) == expected and workers() == before + 7
    smaller.close()
    assert eventually(lambda: workers() == before)


def test_a_larger_program_gets_a_larger_crew() -> None:
    before, x = workers(), samples()
    programs = [bound_program(threads) for threads in (2, 3, 5, 4)]
    assert len({bits(p.run([x])) for p in programs}) == 1
    assert eventually(lambda: workers() == before + 4)
    assert len({bits(p.run([x])) for p in programs}) == 1


def test_programs_of_one_crew_are_called_from_many_threads() -> None:
    makers = [bound_program, open_program] * 3
    programs = [make(2 + k % 3) for k, make in enumerate(makers)]
    steps, zeros = [step_program(2), step_program(3)], np.zeros((8, 4), np.float32)
    x = samples()
    expected = bits(bound_program(1).run([x]))

    def work(k: int) -> bool:
        for _ in range(100):
            steps[k % 2](zeros)
            if bits(programs[k].run([x])) != expected:
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert [float(s.state.views["count"]) for s in steps] == [300, 300]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_that_would_wait_for_the_call_it_interrupted_is_refused(threads: int) -> None:
    """It ran between two steps of a call on its own thread, and waited for ever."""
    program, x = step_program(threads), np.zeros((8, 4), np.float32)
    other, rows = bound_program(2), samples()
    expected, refused = bits(other.run([rows])), []

    def handler(*_: object) -> None:
        for call in (lambda: program(x), program.close):
            try:
                call()
            except CodegenError as error:
                refused.append(str(error))
        assert bits(other.run([rows])) == expected

    before = signal.signal(signal.SIGUSR1, handler)
    original = program._workers.code.lead, program._workers.code.run

    def raised(entry: Any) -> Any:
        def run(*arguments: Any) -> None:
            signal.raise_signal(signal.SIGUSR1)
            entry(*arguments)

        return run

    program._workers.code.lead, program._workers.code.run = map(raised, original)
    try:
        program(x)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(refused) == 2 and all("interrupted a call" in text for text in refused)
    assert program.state.views["count"] == 1
    program.close()


def test_idle_workers_cost_nothing() -> None:
    programs = [bound_program(7), open_program(3)]
    for program in programs:
        program.run([samples()])
    time.sleep(0.1)
    start = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - start < 0.02
    assert len({bits(p.run([samples()])) for p in programs}) == 1


def test_a_system_without_threads_to_give_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    original, before = _thread.start_new_thread, workers()

    def start(*arguments: Any) -> int:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(original(*arguments))
        return started[0]

    program = bound_program(3)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start)
        with pytest.raises(CodegenError, match="does not start 2 more threads"):
            program.run([samples()])
    assert len(started) == 1 and eventually(lambda: workers() == before)
    assert bits(program.run([samples()])) == bits(bound_program(1).run([samples()]))


@pytest.mark.parametrize("missing", ["sem_init", "sched_yield"])
def test_a_c_library_without_semaphores_or_yield(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from addergraph.codegen.run import workers as module

    original = module._libc
    monkeypatch.setattr(module, "_libc", lambda name: 0 if name == missing else original(name))
    program = bound_program(2)
    expected = bits(bound_program(1).run([samples()]))
    for pause in (0, 0.01, 0):
        time.sleep(pause)
        assert bits(program.run([samples()])) == expected


# -- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [open_program, bound_program])
def test_a_forked_child_starts_its_own_threads(make: Callable[[int], Program]) -> None:
    program, x = make(2), samples()
    expected = bits(program.run([x]))
    with _pool.owner, _pool.turn:  # another thread's call, at the worst moment for a fork
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that hangs dies of it
            os._exit(0 if bits(program.run([x])) == expected and _alive(program) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert bits(program.run([x])) == expected


def _alive(program: Program) -> bool:
    tasks = workers()
    program.close()
    return tasks == 2


EXITS = {
    "plain": "",
    "in a cycle": "program.cycle = [program]",
    "in a thread": "import threading; threading.Thread(target=lambda: program.run([x])).start()",
    "at exit": "import atexit; atexit.register(lambda: print(program.run([x])[0].shape))",
    "by exception": "raise SystemExit(0)",
}
# One process imports; a child of it for each way to end comes to the end of the script.
ENDS = """
import os, signal, sys
import numpy as np
from addergraph import compiler
from addergraph.ir.text import parse

ways, graph = eval(sys.argv[1]), parse(sys.argv[2])
for how, code in ways.items():
    child = os.fork()
    if child == 0:
        break
    print(f"{how}: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
else:
    sys.exit()
signal.alarm(20)
program = compiler.compile(graph, threads=3, weights={"f": np.ones((6, 5), np.float32)})
x = np.ones((9, 6), np.float32)
program.run([x])
exec(code)
"""


@pytest.mark.slow
def test_the_interpreter_ends_at_once() -> None:
    made = subprocess.run(
        [sys.executable, "-X", "dev", "-c", ENDS, repr(EXITS), str(BOUND)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert made.returncode == 0 and not made.stderr
    ended = [f"{how}: 0" for how in EXITS]
    ended.insert(list(EXITS).index("at exit"), "(9, 5)")
    assert made.stdout.splitlines() == ended


def test_no_two_threads_write_one_cache_line() -> None:
    assert SLOTS % 64 == SLOT_BYTES % 64 == 0 and SIGNAL_BYTES >= 32
    assert control_bytes(3) == SLOTS + 3 * SLOT_BYTES
