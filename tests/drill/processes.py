"""Planted bugs in threads, forks and handles of compiled code, and in what machines are said to
be."""

from __future__ import annotations

from .mutant import Mutant, tests_of

WORKERS, PROGRAMS = "codegen/run/workers.py", "addergraph/model/programs.py"


def workers(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/test_workers.py", *names)


MUTANTS = (
    Mutant(
        "the crew keeps the arenas of the program before", WORKERS,
        "if self._served is not seat:", "if self._served is None:",
        workers("test_programs_share_the_threads_of_the_process"),
    ),
    Mutant(
        "a program gets a crew with too few threads", WORKERS,
        "crew.threads < workers.threads", "crew.threads < 1",
        workers("test_a_larger_program_gets_a_larger_crew"),
    ),
    Mutant(
        "the crew stays when its last program is collected", WORKERS,
        "if not self._users and not self.turn.locked():", "if self._users:",
        workers("test_two_hundred_programs_leave_no_thread"),
    ),
    Mutant(
        "a handler waits for the step that it interrupted", WORKERS,
        "if lock._is_owned():", "if lock is None:",
        workers("test_a_handler_that_would_wait_for_the_call_it_interrupted_is_refused"),
    ),
    Mutant(
        "a forked child believes in its parent's threads", WORKERS,
        "    _pool.forget()\n    for workers", "    for workers",
        workers("test_a_forked_child_starts_its_own_threads"),
    ),
    Mutant(
        "a fork does not wait for a compilation", "codegen/llvm.py",
        "with _lock, ExitStack() as held:", "with ExitStack() as held:",
        tests_of("codegen/test_forks.py"),
    ),
    Mutant(
        "a fork does not wait for imports", "addergraph/compiler/forks.py",
        "    _held.enter_context(_importing)\n", "",
        tests_of("codegen/test_forks.py"),
    ),
    Mutant(
        "weights that were handed out are not compared", PROGRAMS,
        "        self._times += 1\n", "        self._times += 0\n",
        tests_of("test_copies.py", "test_any_way_to_write_weights_is_noticed"),
    ),
    Mutant(
        "views of the weights' memory are not counted", PROGRAMS,
        "owners[id(base)] + 2", "owners[id(base)] + 99",
        tests_of("test_copies.py", "test_any_way_to_write_weights_is_noticed"),
    ),
    Mutant(
        "a copied model shares its weights", "addergraph/model/model.py",
        '{name: array.copy() for name, array in self._weights.items()}\n        return made',
        "self._weights\n        return made",
        tests_of("test_copies.py", "test_a_copied_model_has_its_own_weights_and_predicts"),
    ),
    Mutant(
        "a quota of the control group above does not count", "addergraph/processors.py",
        "for part in (place, *place.parents):", "for part in (place,):",
        tests_of("addergraph/test_processors.py"),
    ),
    Mutant(
        "a machine without vectors of that width gives the widest ones' rates",
        "codegen/targets/machine.py",
        "if rates.width >= width), self.rates[-1]", "if rates.width == width), self.rates[-1]",
        tests_of("codegen/test_machine.py"),
    ),
    Mutant(
        "the ends of a dense kernel's sums take no time", "codegen/kernels/forward/choice.py",
        " + rates.finish * outputs", "",
        tests_of("codegen/test_machine.py"),
    ),
    Mutant(
        "rates near the CPU's table count as measured", "codegen/measure/host.py",
        "if unknown or not SHARED", "if unknown or SHARED",
        tests_of("codegen/test_machine.py"),
    ),
)  # fmt: skip
