"""How many processors this process may keep busy.

More threads than that make everything slower: in a control group with a quota of one processor,
training with 8 threads reached a fifth of the steps of one thread, as threads wait for others that
the kernel has stopped.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_processors(root: str | os.PathLike[str] = "/") -> int:
    """Those of its affinity, at most as many as the quota of its control groups pays for whole; at
    least 1. `root` is where `proc` and `sys` are. Quotas are read once: a prediction asks for this
    number, and may take less time than reading a dozen files."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _paid_for(os.fspath(root))))


@functools.cache
def _paid_for(root: str) -> int:
    """Whole processors that the smallest quota pays for."""
    return min(map(int, _quotas(Path(root))), default=sys.maxsize)


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group around this process may use; none for those without a
    limit. Of cgroups(7) version 2 (`cpu.max`) and 1 (`cpu.cfs_quota_us`)."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        place = PurePosixPath(path.lstrip("/"))
        if not controllers:
            tops = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            tops = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        else:
            continue
        for top in tops:
            for part in (place, *place.parents):
                yield from _limit(root / top / part)


def _limit(group: Path) -> Iterator[float]:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _text(group / "cpu.cfs_quota_us").strip()
        period = _text(group / "cpu.cfs_period_us").strip()
    if quota.isdecimal() and period.isdecimal() and int(period):
        yield int(quota) / int(period)  # "max" and -1 are no limit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
