"""SIGKILL of one process, at a random moment, of those that `mpirun` has started.

    python -m tests.campaigns processes [--kills N] [--seed S]

Runs of `addergraph train --deterministic` by 1, 2 or 4 processes. Each launch goes on from the
checkpoint that the one before it left, with another number of processes, and one of them is killed
after a random time: while it imports, compiles, trains, or waits for the others. All others have to
end by themselves; the checkpoint has to load, and must not be behind the one before. A run that
reaches its end must have written the model file of one undisturbed process, bit for bit, and the
same logs but for the times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from tests import drill_kill
from tests.drill_kill import ROOT, Report, Run
from tests.launching import mpirun, workers

SIZES = (1, 2, 4)
PARTS = 4
ENDS = 120.0  # seconds in which the others end


class Shared(Run):
    """One training by any number of processes."""

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__(folder, epochs, by_command=True)
        self.command += ["--deterministic", str(PARTS)]

    def launch(self, size: int, seconds: float | None, draw: random.Random) -> bool:
        """Whether it came to its end before one of its processes could be killed."""
        seconds = 10 * ENDS if seconds is None else seconds
        command = [*(mpirun(size) if size > 1 else []), *self.command]
        with tempfile.TemporaryFile("w+") as said:
            started = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
            try:
                started.wait(seconds)
            except subprocess.TimeoutExpired:
                there = workers(started.pid) if size > 1 else [started.pid]
                killed = draw.choice(there) if there else started.pid
                os.kill(killed, signal.SIGKILL)
            try:
                code = started.wait(ENDS)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()
                raise AssertionError(f"{size} processes did not end in {ENDS:g} s") from None
            said.seek(0)
            text = said.read()
        assert code == 0 or "Killed" in text or code == -signal.SIGKILL, text
        assert "Traceback" not in text, text
        assert self.position() is not None or code != 0
        return code == 0


def drill(kills: int, folder: Path, *, epochs: int, seed: int = 0) -> Report:
    """So many kills, and every run compared with one that nobody disturbed."""
    made = partial(Shared, epochs=epochs)
    return drill_kill.drill(kills, folder, made, seed=seed, sizes=SIZES, within=(0.3, 0.9))


def campaign(kills: int, seed: int) -> int:
    """So many kills; 1 if any was not survived."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="processes-") as folder:
        try:
            done = drill(kills, Path(folder), epochs=40, seed=seed)
        except AssertionError as error:
            print(f"FAIL {error}", flush=True)
            return 1
    of = ", ".join(f"{count} of {size}" for size, count in sorted(done.kills.items()))
    print(
        f"{done.kills.total()} kills of a process ({of}) in {time.perf_counter() - start:.0f} s, "
        f"{done.resumable} of them after a checkpoint: the others ended, every checkpoint loaded, "
        f"and all {done.runs} runs ended bit-identical to one process that nobody disturbed",
        flush=True,
    )
    return 0
