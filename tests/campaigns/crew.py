"""Processes that work through numbered graphs, and what they have found so far.

State is one JSON file that is replaced as a whole, so a campaign may be stopped, or killed, at any
moment: it goes on behind the last checkpoint, and no graph is counted twice.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addergraph.files.storage import atomic_write
from tests.campaigns import graphs, targets

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 1800.0  # seconds for one graph: a barrier that is broken waits for ever
RENEWED = 3000  # graphs after which a process is replaced, as a compilation leaves 1.4 KB
CHECKPOINT = 15.0  # seconds
# How the numbered graphs of a campaign are made and checked.
CAMPAIGNS: dict[str, Any] = {"graphs": graphs, "targets": targets}


@dataclass
class Total:
    """What a campaign has seen.

    next, ahead  the first graph that is not done, and those behind it that are
    cases        of graph and level, by kind and level; `dull`: graphs that a wrong program may pass
    """

    next: int = 0
    ahead: list[int] = field(default_factory=list)
    seconds: float = 0.0
    graphs: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    dull: Counter[str] = field(default_factory=Counter)
    ops: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Total:
        if not path.exists():
            return cls()
        raw = json.loads(path.read_text())
        counters = ("graphs", "cases", "dull", "ops")
        return cls(**raw | {name: Counter(raw[name]) for name in counters})

    def save(self, path: Path) -> None:
        atomic_write(path, json.dumps(vars(self), indent=1).encode())

    def add(self, number: int, answer: dict[str, Any]) -> None:
        for name in ("graphs", "cases", "dull", "ops"):
            getattr(self, name).update(answer.get(name, {}))
        self.ahead.append(number)
        while self.next in self.ahead:
            self.ahead.remove(self.next)
            self.next += 1

    def numbers(self) -> Iterator[int]:
        """What is left to do."""
        done = set(self.ahead)
        number = self.next
        while True:
            if number not in done:
                yield number
            number += 1

    def __str__(self) -> str:
        found = f"{len(self.failures)} failed" if self.failures else "all right"
        return (
            f"{self.cases.total():,} cases of {self.graphs.total():,} graphs, {found}, "
            f"{self.cases.total() / max(self.seconds, 1e-9):.1f} a second"
        )


class Worker:
    """A process and the graph that it is busy with."""

    command: Sequence[str] = (sys.executable, "-m", "tests.campaigns.worker")

    def __init__(self, campaign: str = "graphs") -> None:
        self.campaign = campaign
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            [*self.command, campaign], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True,  # Ctrl-C is for the parent
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._asked, self.answers = self._process.stdin, self._process.stdout
        self.number, self.since, self.done = -1, 0.0, 0

    def ask(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        try:
            self._asked.write(f"{CAMPAIGNS[self.campaign].kind_of(number)} {number}\n")
        except BrokenPipeError:  # it is dead: `answer` says how it died
            return

    def answer(self) -> dict[str, Any]:
        """What it says of the graph; where it says nothing, how it ended."""
        self.done += 1
        line = self.answers.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        code = self._process.wait()
        self._said.seek(0)
        return {"error": f"the process ended with status {code}\n{self._said.read()[-8000:]}"}

    @property
    def late(self) -> bool:
        return time.monotonic() - self.since > PATIENCE

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._asked, self.answers, self._said):
            try:
                stream.close()
            except BrokenPipeError:
                continue


class Crew:
    """A campaign in a folder: `total.json`, and a text file for each graph that fails."""

    def __init__(
        self, folder: Path, jobs: int, show: Callable[[Total], None], campaign: str = "graphs"
    ) -> None:
        self.campaign = campaign
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._jobs, self._show = folder, jobs, show
        self._path = folder / "total.json"
        self.total = Total.load(self._path)
        self._stopped = False

    def stop(self, *_: object) -> None:
        """Ends `run` soon; for signals."""
        self._stopped = True

    def run(self, cases: int) -> bool:
        """Goes on until there were so many cases in all; False where it was stopped before."""
        commit = _commit()
        if commit not in self.total.commits:
            self.total.commits.append(commit)
        before, start = self.total.seconds, time.monotonic()
        saved, numbers = start, self.total.numbers()
        workers = [Worker(self.campaign) for _ in range(self._jobs)]
        try:
            for worker in workers:
                worker.ask(next(numbers))
            while self.total.cases.total() < cases and not self._stopped:
                self._turn(workers, numbers)
                self.total.seconds = before + time.monotonic() - start
                self._show(self.total)
                if time.monotonic() - saved > CHECKPOINT:
                    self.total.save(self._path)
                    saved = time.monotonic()
        finally:
            for worker in workers:
                worker.end()
            self.total.save(self._path)
        return not self._stopped

    def _turn(self, workers: list[Worker], numbers: Iterator[int]) -> None:
        """Takes the answers that are there, or come within a second, and asks on."""
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(1.0)]
        for i, worker in enumerate(workers):
            if worker in ready:
                self._record(worker.number, worker.answer())
            elif worker.late:
                self._record(worker.number, {"error": f"no answer in {PATIENCE:.0f} s"})
                worker.end()
            else:
                continue
            if not worker.alive or worker.done >= RENEWED:
                worker.end()
                workers[i] = worker = Worker(self.campaign)
            worker.ask(next(numbers))

    def _record(self, number: int, answer: dict[str, Any]) -> None:
        error = answer.get("error")
        if error is not None:
            kind = CAMPAIGNS[self.campaign].kind_of(number)
            name = f"{kind} {number}"
            self.total.failures.append(name)
            again = f"python -m tests.campaigns {self.campaign} --kind {kind} --seed {number}\n"
            atomic_write(self._folder / f"{name.replace(' ', '-')}.txt", (again + error).encode())
        self.total.add(number, answer)


def stopping(crew: Crew) -> None:
    """Ctrl-C, SIGTERM and SIGHUP stop the crew after a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, crew.stop)


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"
