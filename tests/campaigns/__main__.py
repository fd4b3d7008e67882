"""`make campaign-graphs` and the others: long random testing whose counts are in
docs/reliability.md.

    python -m tests.campaigns graphs [--cases N] [--jobs J] [--state FOLDER]
    python -m tests.campaigns graphs --seed S [--kind KIND]
    python -m tests.campaigns targets [as graphs]
    python -m tests.campaigns sanitizers [NETWORK ...]
    python -m tests.campaigns kills [--kills N] [--seed S]
    python -m tests.campaigns processes [--kills N] [--seed S]
    python -m tests.campaigns disk [WRITER ...]

Ctrl-C, SIGTERM and SIGHUP stop a campaign of graphs after a checkpoint; the same command goes on.
The exit status is 0 when all is right, 1 when anything failed, 130 when it was stopped.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

from . import disk, kills, processes, sanitizers
from .crew import CAMPAIGNS, Crew, Total, stopping
from .graphs import KINDS, drawn

LOGGED = 300.0  # seconds from one line to the next, where nobody looks


class Progress:
    """One line: on a terminal the same one again and again, elsewhere a new one now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._terminal, self._last = stream, stream.isatty(), 0.0

    def __call__(self, total: Total) -> None:
        now = time.monotonic()
        if now - self._last >= (0.5 if self._terminal else LOGGED):
            self._last = now
            self.say(str(total), again=True)

    def say(self, text: str, *, again: bool = False) -> None:
        """`again`: the next line replaces it on a terminal."""
        start, end = ("\r\x1b[K", "" if again else "\n") if self._terminal else ("", "\n")
        print(f"{start}{text}", end=end, file=self._stream, flush=True)


def graphs(given: argparse.Namespace) -> int:
    if given.seed is not None:
        kind = given.kind or CAMPAIGNS[given.campaign].kind_of(given.seed)
        return _again(given.campaign, kind, given.seed)
    progress = Progress(sys.stdout)
    state = given.state or Path(f"build/campaign-{given.campaign}")
    crew = Crew(state, given.jobs, progress, given.campaign)
    stopping(crew)
    done = crew.run(given.cases)
    total = crew.total
    progress.say(str(total))
    for name in ("graphs", "cases", "dull"):
        counts = ", ".join(f"{key} {n:,}" for key, n in sorted(getattr(total, name).items()))
        print(f"{name}: {counts}")
    for failure in total.failures:
        print(f"FAILED: {failure}; see {state}/{failure.replace(' ', '-')}.txt")
    if total.failures:
        return 1
    return 0 if done else 130


def _again(campaign: str, kind: str, seed: int) -> int:
    print(drawn(kind, seed))
    try:
        print(CAMPAIGNS[campaign].checked(kind, seed))
    except AssertionError as error:
        print(error)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="campaign")
    for campaign, cases, where in (
        ("graphs", 100_000, "at every x86 level"),
        ("targets", 5_000, "in the emulator of every target, between guards"),
    ):
        made = commands.add_parser(campaign, help=f"random graphs {where}")
        made.add_argument("--cases", type=int, default=cases, help="of graph and target, in all")
        made.add_argument("--jobs", type=int, default=1, help="processes")
        made.add_argument("--state", type=Path, help=f"build/campaign-{campaign} if not given")
        made.add_argument("--kind", choices=KINDS, help="of the graph to repeat")
        made.add_argument("--seed", type=int, help="repeat the graph of this number")
        made.set_defaults(run=graphs, campaign=campaign)
    made = commands.add_parser("sanitizers", help="exported C under ASan, UBSan and guard pages")
    made.add_argument("networks", nargs="*", metavar="NETWORK")
    made.set_defaults(run=lambda given: sanitizers.campaign(given.networks))
    made = commands.add_parser("kills", help="SIGKILL while saving and training")
    made.add_argument("--kills", type=int, default=200, help="of saving, and as many of training")
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    made.set_defaults(run=lambda given: kills.campaign(given.kills, given.seed))
    made = commands.add_parser("processes", help="SIGKILL of one of several processes that train")
    made.add_argument("--kills", type=int, default=50)
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    made.set_defaults(run=lambda given: processes.campaign(given.kills, given.seed))
    made = commands.add_parser("disk", help="full disks and quotas at each write")
    made.add_argument("writers", nargs="*", metavar="WRITER")
    made.set_defaults(run=lambda given: disk.campaign(given.writers))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # disks are unmounted, folders removed
    status: int = given.run(given)
    return status


if __name__ == "__main__":
    sys.exit(main())
