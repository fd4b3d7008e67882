"""The machine that this process runs on: measured once, kept beside the cached objects.

Every process finds what the first one measured, so equal programs get equal kernels whoever
compiles them. Where this CPU has a table, what was measured counts only where it is far from that:
another thread of the core takes a part of its ports. Entries go by the CPU's name, features and
level, not by the version of the code generator.

ADDERGRAPH_MACHINE chooses otherwise: "builtin" takes the table of this CPU, any name that
`machine_named` knows that one's. Without a cache nothing is measured.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import llvm
from ..run import cache
from ..targets.machine import Machine
from ..targets.machines import GENERIC, MACHINES, machine_named
from ..targets.target import Target
from .rates import measured_rates

VARIABLE, BUILTIN = "ADDERGRAPH_MACHINE", "builtin"
SHARED = 0.6  # of a core's rates that one of two threads on it may be left with
FORMAT = 1  # of what the loops measure: bump when it changes


def host_machine(target: Target) -> Machine:
    """This machine, for code of `target`, which it runs. TargetError for a name in the environment
    that no machine has."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", BUILTIN):
        return machine_named(wanted)
    table, where = MACHINES.get(llvm.host_cpu()), cache.folder()
    known = table or GENERIC
    found = None if wanted == BUILTIN or where is None else _measured(target, str(where))
    return known if found is None else with_rates(known, target.vector_bytes, found, table is None)


def with_rates(known: Machine, width: int, found: Mapping[str, float], unknown: bool) -> Machine:
    """`known` with the rates that were found for vectors of `width` bytes: all of them where the
    CPU is `unknown`, else those that are far from its own."""
    rates = replace(known.at(width), width=width)
    far: dict[str, Any] = {
        name: rate
        for name, rate in found.items()
        if unknown or not SHARED < rate / getattr(rates, name) < 1 / SHARED
    }
    return replace(known, rates=(replace(rates, **far),))


@functools.cache
def _measured(target: Target, folder: str) -> Mapping[str, float] | None:
    """The rates that are cached in `folder`, or are measured now. None where nothing can be kept:
    it might come out differently next time."""
    import fcntl  # not on every system; filelock handles forks, which wait for our imports

    key = _key(target)
    if cache.made_folder() is None:
        return None
    try:
        with open(os.path.join(folder, f"{key}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            if cache.load(key) is None:
                cache.store(key, measured_rates(target), b"")
            found = cache.load(key)
    except OSError:  # the folder, or what locks files there
        return None
    return None if found is None else dict(found[0])


def _key(target: Target) -> str:
    parts = FORMAT, llvm.host_cpu(), sorted(llvm.host_features()), target.name
    return hashlib.sha256(repr(("machine", *parts)).encode()).hexdigest()
