"""Imports of passes and code generator, which forks wait for."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (see import_compiler)
import functools
import importlib
import os
import sys
import threading
from contextlib import ExitStack

_PACKAGE = __package__.rpartition(".")[0]
_importing = threading.RLock()
_held = ExitStack()  # over a fork


@functools.cache
def import_compiler() -> None:
    """Imports all that compiling needs, which forks wait for: a child forked in the middle would
    wait for the importing thread, which it does not have, for ever. `concurrent.futures` is there
    before: it and `logging` handle forks, and must not begin to in the middle of one."""
    with _importing:
        importlib.import_module("platformdirs")
        from ..codegen.inspect import limits, strict  # noqa: F401
        from ..codegen.kernels import all_kernels  # noqa: F401
        from ..codegen.measure import host  # noqa: F401
        from ..codegen.run import jit  # noqa: F401
        from ..passes import pipeline  # noqa: F401


def _before_fork() -> None:
    _held.enter_context(_importing)
    # Not a handler of its own: a fork that waits here runs none that is added meanwhile.
    if (llvm := sys.modules.get(f"{_PACKAGE}.codegen.llvm")) is not None:
        _held.enter_context(llvm.no_compilation())


if hasattr(os, "register_at_fork"):  # no other system forks
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_held.close,
        after_in_child=_held.close,
    )
