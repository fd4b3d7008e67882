"""`mpirun` for tests, where the extra `mpi` is installed."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MISSING = "needs mpi4py and an mpirun: pip install 'addergraph[mpi]'"
ROOT = Path(__file__).parent.parent


@functools.cache
def launcher() -> str | None:
    """The mpirun that stands beside this Python, else the one on the path."""
    if importlib.util.find_spec("mpi4py") is None:
        return None
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def mpirun(size: int) -> list[str]:
    """The beginning of a command line; the test is skipped where there is none."""
    found = launcher()
    if found is None:
        pytest.skip(MISSING)
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    if "Open MPI" not in said and "PRTE" not in said.upper():
        return [found, "-n", str(size)]
    as_root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    return [found, *as_root, "--oversubscribe", "--bind-to", "none", "-n", str(size)]


def workers(parent: int) -> list[int]:
    """The processes that `mpirun` has started, by its number: the last of each chain of children,
    of those that are Pythons."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it has ended
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, below = [], [parent]
    while below:
        one = below.pop()
        children = [child for child, its in parents.items() if its == one]
        below += children
        if one != parent and _is_python(one):
            found.append(one)
    return sorted(found)


def _is_python(number: int) -> bool:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"-m" in words and b"python" in words[0]
