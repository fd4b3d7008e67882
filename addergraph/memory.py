"""How much memory this process may still take.

Without a limit of its own, a process that takes more is ended by the kernel when it first touches
the memory, with nothing said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60  # version 1 of cgroups writes its "no limit" as about 2^63


@dataclass(frozen=True)
class Available:
    """Bytes that this process may still take, and what limits them."""

    nbytes: int
    limit: str


def available_memory(root: Path = Path("/")) -> Available | None:
    """The least of what the machine has free, this process's limits and its cgroups' allow.

    None where there is no `proc/meminfo` below `root`. Sources: proc(5), getrlimit(2), and
    cgroup-v1/memory and cgroup-v2 in the kernel's admin guide.
    """
    found = [*_machine(root), *_process(root), *_cgroups(root)]
    return min(found, key=lambda a: a.nbytes) if found else None


def _machine(root: Path) -> Iterator[Available]:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield Available(1024 * int(value.split()[0]), "MemAvailable of /proc/meminfo")


def _process(root: Path) -> Iterator[Available]:
    """The limits of address space and of data, less what this process has of them."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    sizes = _text(root / "proc/self/statm").split()
    if not sizes:
        return
    page = resource.getpagesize()
    for name, number, used in (("AS", resource.RLIMIT_AS, 0), ("DATA", resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(number)
        if limit != resource.RLIM_INFINITY:
            yield Available(max(0, limit - page * int(sizes[used])), f"the limit RLIMIT_{name}")


def _cgroups(root: Path) -> Iterator[Available]:
    """The limits of the cgroups that hold this process, from its own up to the topmost."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            names = ("memory.max", "memory.current", "inactive_file")
            top = root / "sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "sys/fs/cgroup/memory"
        else:
            continue
        own = top / path.strip("/")
        # Inside a container the path may be the host's, which is not mounted: the top is ours.
        folders = [own, *own.parents] if own.is_dir() else [top]
        for folder in folders:
            if folder.is_relative_to(top):
                yield from _cgroup(folder, *names)


def _cgroup(folder: Path, limit: str, usage: str, cache: str) -> Iterator[Available]:
    """What a group may still take; file pages that nobody uses are given back on demand."""
    most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
    if not (most.isdigit() and used.isdigit()) or int(most) >= _UNLIMITED:
        return
    statistics = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines())
    free = int(most) - int(used) + int(statistics.get(cache, "0"))
    yield Available(max(0, free), f"the memory limit of cgroup {folder}")


def _text(path: Path) -> str:
    """The content of a file of the kernel; nothing where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
