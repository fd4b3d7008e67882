"""SIGKILL at random moments of saving and of `addergraph train`.

Saving: a forked child writes one version over another, again and again, and is killed after a
random time. Then every file must have the bytes of one version, and be readable: a model, a model
of integers, a library; of a checkpoint, a run that goes on from it. What a killed process was
writing may be left under a name of its own; the next save must not mind it.

Training: `tests/drill_kill.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
import traceback
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.drill_kill import report

from .disk import Site, files_of

SAVED = ("model", "quantized model", "library", "checkpoint and history")
TEMPORARY = (".tmp", ".link-")


class Kills(NamedTuple):
    """Of one writer: kills, after how many of them the new version was there, and how many left
    something under a name of its own."""

    kills: int
    new: int
    left: int


def kill_saves(name: str, kills: int, seed: int = 0) -> Kills:
    """AssertionError where a kill leaves anything but the old or the new version."""
    random, new, left = Random(f"{name} {seed}"), 0, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        here, elsewhere = Path(folder) / "here", Path(folder) / "elsewhere"
        here.mkdir()
        elsewhere.mkdir()
        site = Site(name, here, elsewhere)
        site.restore()
        start = time.perf_counter()
        site.write()
        usual = time.perf_counter() - start
        for _ in range(kills):
            site.restore()
            _killed(site, random.uniform(0.0, 2.5) * usual)
            found = files_of(here)
            temporary = [path for path in found if path not in site.old.keys() | site.new.keys()]
            for path in temporary:
                assert any(mark in path for mark in TEMPORARY), f"{name}: {path} is left"
                (here / path).unlink()
            site.judge(failed=True)
            new += found != site.old
            left += bool(temporary)
    return Kills(kills, new, left)


def _killed(site: Site, seconds: float) -> None:
    """A child writes the versions in turn, and is killed after so long."""
    child = os.fork()
    if child == 0:
        os.setsid()  # with a compiler that it starts
        try:
            for version in count(1):
                site.writer.write(site.folder, version if site.writer.varies else version % 2)
        except BaseException:
            traceback.print_exc()
        os._exit(1)  # writing ended by itself, which it must not
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):  # it has not come to `setsid`
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"{site.name}: writing failed before the kill"


def campaign(kills: int, seed: int) -> int:
    """So many kills of saving, and as many of training; 1 if any was not survived."""
    failed = 0
    for number, name in enumerate(SAVED):
        share = (kills + number) // len(SAVED)
        try:
            done = kill_saves(name, share, seed)
            print(f"{name}: {done.kills} kills while saving, {done.new} after new bytes were in "
                  f"place, {done.left} left a temporary file; all whole", flush=True)  # fmt: skip
        except AssertionError as error:
            failed += 1
            print(f"FAIL {error}", flush=True)
    try:
        print(f"addergraph train: {report(kills, seed=seed, by_command=True)}", flush=True)
    except AssertionError as error:
        failed += 1
        print(f"FAIL addergraph train: {error}", flush=True)
    return int(failed > 0)
