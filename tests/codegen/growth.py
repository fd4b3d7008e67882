"""How much memory an action leaves behind, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import gc

def _resident():
    gc.collect()
    with open("/proc/self/status") as file:
        (found,) = (line.split() for line in file if line.startswith("VmRSS:"))
    return 1024 * int(found[1])

for number in range({warm}):
    action(number)
before = _resident()
for number in range({warm}, {warm} + {times}):
    action(number)
print((_resident() - before) // {times})
"""


def growth(script: str, *, warm: int = 30, times: int = 60) -> int:
    """Bytes by which a process grows with each call of `action(number)`, which `script` defines.

    The calls before, `warm` of them, fill caches and the gaps of the heap.
    """
    done = subprocess.run(
        [sys.executable, "-c", script + _SCRIPT.format(warm=warm, times=times)],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # one heap for all threads, one kind of gaps
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
