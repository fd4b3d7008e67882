"""`make drill`: plants one compiler bug at a time and runs the tests that have to notice it.

    python -m tests.drill [-j WORKERS] [--timeout SECONDS] [WORDS OF A NAME ...]

Each worker has a copy of the repository (tracked files as they are now, and new ones that git does
not ignore). First the selected tests run on an unchanged copy, where they must pass. A mutant is
killed when a test fails, the process crashes, or time runs out: the last line counts these, since
a machine that is busy with something else runs out of time, too (`--timeout`). It is invalid when
it does not import, or fails by a name that is not there: then nothing was tested. The exit status
is 0 when all are killed, 1 when one survives or is invalid, or none was planted. A mutant is left
out where its tests need a package that is not installed; the last lines say so. The compiler's
cache is off."""

from __future__ import annotations

import argparse
import enum
import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .mutant import Mutant
from .table import MUTANTS, ROOT, mutated

TIMEOUT = 180.0  # seconds for one mutant: a broken barrier waits for ever
OUT_OF_TIME = "out of time"
# Errors of a mutant that does not run at all.
BROKEN = {"NameError", "UnboundLocalError", "AttributeError", "ImportError", "SyntaxError"}


class Outcome(enum.Enum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    INVALID = "INVALID"


def judge(code: int | None, output: str) -> tuple[Outcome, str]:
    """What pytest's exit status (None: out of time) says of a mutant, and why."""
    if code is None:
        return Outcome.KILLED, OUT_OF_TIME
    if code < 0:
        return Outcome.KILLED, signal.Signals(-code).name
    lines = [s for s in output.splitlines() if s.startswith(("FAILED ", "ERROR "))]
    reason = lines[0] if lines else output.strip()[-300:]
    if code == 0:
        return Outcome.SURVIVED, "every selected test passes"
    if code != 1:
        return Outcome.INVALID, reason
    error = re.search(r" - (\w+)(?::|$)", reason)
    broken = error is not None and error.group(1) in BROKEN
    return (Outcome.INVALID if broken else Outcome.KILLED), reason


def plantable(mutants: Iterable[Mutant]) -> tuple[list[Mutant], list[str]]:
    """Those whose tests can run here, and a sentence for each package that others need."""
    kept: list[Mutant] = []
    missing: Counter[str] = Counter()
    for mutant in mutants:
        if mutant.needs and importlib.util.find_spec(mutant.needs) is None:
            missing[mutant.needs] += 1
        else:
            kept.append(mutant)
    return kept, [
        f"not planted: {count}, whose tests need {name}: pip install {name}"
        for name, count in missing.items()
    ]


def copy_repository(into: Path) -> None:
    """The files that git knows or would take, with their symbolic links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, into / name
        if source.is_symlink() or source.exists():  # a tracked file may be deleted
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def run_tests(folder: Path, tests: Iterable[str], timeout: float) -> tuple[int | None, str]:
    """Pytest's exit status (None when out of time) and output."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, "--hypothesis-profile=drill", *tests],
        cwd=folder, env=_environment(folder), text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with what the tests started
        process.communicate()
        return None, ""
    return process.returncode, output


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ADDERGRAPH_CACHE": "",  # an object from before the bug would hide it
        "PYTHONPATH": str(folder),
        # Two states of a file within one second share the key of a .pyc.
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "300",
    }


def drill(mutant: Mutant, folder: Path, timeout: float) -> tuple[Outcome, str]:
    """Plants the bug in a copy, runs its tests, and takes it out again."""
    path = folder / mutant.file
    whole = path.read_text()
    path.write_text(mutated(mutant, folder))
    try:
        return judge(*run_tests(folder, mutant.tests, timeout))
    finally:
        path.write_text(whole)


def run(mutants: Sequence[Mutant], workers: int, timeout: float) -> bool:
    """Whether all are killed."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="addergraph-drill-") as temporary:
        folders = [Path(temporary) / str(i) for i in range(workers)]
        for folder in folders:
            copy_repository(folder)
        for mutant in mutants:
            mutated(mutant, folders[0])  # fails early where the table is out of date
        if not _passes_without(mutants, folders, 10 * timeout):
            return False
        free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for folder in folders:
            free.put(folder)

        def one(mutant: Mutant) -> tuple[Outcome, str, float]:
            folder, begin = free.get(), time.monotonic()
            try:
                return *drill(mutant, folder, timeout), time.monotonic() - begin
            finally:
                free.put(folder)

        outcomes, late = [], 0
        with ThreadPoolExecutor(workers) as pool:
            results = pool.map(one, mutants)
            for number, (mutant, (outcome, why, seconds)) in enumerate(
                zip(mutants, results, strict=True), 1
            ):
                outcomes.append(outcome)
                late += why == OUT_OF_TIME
                print(f"{number:3}/{len(mutants)} {outcome.value:8} {seconds:5.1f} s  "
                      f"{mutant.file}: {mutant.name}\n{'':24}{why}", flush=True)  # fmt: skip
    killed = outcomes.count(Outcome.KILLED)
    seconds = time.monotonic() - start
    print(f"{killed} of {len(mutants)} mutants killed in {seconds:.0f} s,", end=" ")
    print(f"{late} of them {OUT_OF_TIME}")
    return killed == len(mutants)


def _passes_without(mutants: Sequence[Mutant], folders: Sequence[Path], timeout: float) -> bool:
    """Whether the tests pass on the unchanged code; a kill would say nothing otherwise.

    Each folder runs a share of the test files.
    """
    tests = dict.fromkeys(t for m in mutants for t in m.tests)
    files = list(dict.fromkeys(t.partition("::")[0] for t in tests))
    shares = [set(files[i :: len(folders)]) for i in range(len(folders))]

    def share(number: int) -> tuple[int | None, str]:
        mine = [t for t in tests if t.partition("::")[0] in shares[number]]
        return run_tests(folders[number], mine, timeout) if mine else (0, "")

    with ThreadPoolExecutor(len(folders)) as pool:
        results = list(pool.map(share, range(len(folders))))
    for code, output in results:
        if code:
            print(f"without any mutant the selected tests already fail:\n{output[-3000:]}")
        elif code is None:
            print(f"without any mutant the selected tests take more than {timeout:.0f} s")
    return all(code == 0 for code, _ in results)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for one mutant")
    parser.add_argument("words", nargs="*", help="only mutants whose file or name holds one")
    given = parser.parse_args()
    chosen = [
        m
        for m in MUTANTS
        if not given.words or any(word in f"{m.file}: {m.name}" for word in given.words)
    ]
    if not chosen:
        parser.error(f"no mutant's file or name holds any of {given.words}")
    planted, left_out = plantable(chosen)
    killed = bool(planted) and run(planted, max(1, given.workers), given.timeout)
    for line in left_out:
        print(line)
    return 0 if killed else 1


if __name__ == "__main__":
    sys.exit(main())
