"""The memory that a training run needs, and a refusal where the machine has less.

    need = training_need([step.graph(64)])
    print(need)              # 1.20 MiB: arena 1.02 MiB, state 156 KiB, batches 32.0 KiB
    require_memory(need)     # MemoryLimitError where that is more than there is

The arena is all that forward, loss, backward and update hold between their kernels, as
`passes/plan_memory.py` lays it out. Without the refusal a run that does not fit would start, and
be ended by the kernel when its first step touches the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import compiler
from ..errors import MemoryLimitError
from ..ir import Graph
from ..ir.state import parameter_offsets
from ..report.summary import size_text

STATE_COPIES = 4  # the state, those of the step before and the last good epoch, the best weights
BATCHES = 4  # in use, being made, and two that wait (`data.Loader`)
_UNLIMITED = 1 << 60  # version 1 of cgroups writes its "no limit" as about 2^63


@dataclass(frozen=True)
class Need:
    """Bytes that a training run takes beside the data set and what the process has already.

    arena    working memory of the compiled steps, one for each batch size
    state    weights and the optimizer's state, with the copies that a run keeps
    batches  prefetched samples and their targets
    """

    arena: int
    state: int
    batches: int

    @property
    def total(self) -> int:
        return self.arena + self.state + self.batches

    def __str__(self) -> str:
        parts = ("arena", self.arena), ("state", self.state), ("batches", self.batches)
        listed = ", ".join(f"{name} {size_text(count)}" for name, count in parts)
        return f"{size_text(self.total)}: {listed}"


@dataclass(frozen=True)
class Available:
    """Bytes that this process may still take, and what limits them."""

    nbytes: int
    limit: str


def training_need(
    steps: Sequence[Graph],
    arenas: Sequence[int] | None = None,
    *,
    batches: int = BATCHES,
    copies: int = STATE_COPIES,
) -> Need:
    """The need of a run with these training steps (`TrainStep.graph`), one for each batch size,
    which share one state.

    `arenas`: `Program.arena_bytes` of each, where they are compiled already. Otherwise they are
    planned here, which takes as long as compiling without its last part (seconds for ResNet-20).
    """
    state = max(parameter_offsets(step.parameters)[1] for step in steps)
    inputs = max(sum(v.type.nbytes for v in step.inputs) for step in steps)
    arenas = arenas or [compiler.arena_bytes(step) for step in steps]
    return Need(sum(arenas), copies * state, batches * inputs)


def require_memory(need: Need, available: Available | None = None) -> None:
    """MemoryLimitError where `need` exceeds what is available, `available_memory()` unless given.

    Where the system does not tell (it has no /proc), nothing is refused.
    """
    available = available or available_memory()
    if available is None or need.total <= available.nbytes:
        return
    raise MemoryLimitError(
        f"the training needs {need}; available are {size_text(available.nbytes)} "
        f"({available.limit}). Use a smaller batch, free memory, or raise the limit"
    )


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
