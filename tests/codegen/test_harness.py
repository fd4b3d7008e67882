"""The harness catches what it is there to catch."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

import pytest

from addergraph.codegen.llvm import compile_object
from addergraph.codegen.targets.lookup import target_named
from tests.codegen.harness import guarded, undefined_symbols


def signal_of(action: Callable[[], object]) -> int:
    """The signal that ends a child process which does `action`; 0 if it survives."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        action()
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("nbytes", [0, 1, 12, 4096, 5000])
def test_one_byte_outside_a_buffer_is_a_crash(nbytes: int) -> None:
    with guarded(nbytes, right=True) as right, guarded(nbytes, right=False) as left:
        assert signal_of(lambda: ctypes.string_at(right.address + nbytes, 1)) == signal.SIGSEGV
        assert signal_of(lambda: ctypes.string_at(left.address - 1, 1)) == signal.SIGSEGV
        assert signal_of(lambda: ctypes.string_at(right.address, nbytes)) == 0


def test_writing_to_a_frozen_buffer_is_a_crash() -> None:
    with guarded(64, right=True) as buffer:
        buffer.freeze()
        assert signal_of(lambda: ctypes.memset(buffer.address, 0, 1)) == signal.SIGSEGV
        assert signal_of(lambda: ctypes.string_at(buffer.address, 64)) == 0


def test_library_calls_are_seen() -> None:
    text = "declare float @expf(float)\ndefine float @f(float %x) {{\n{0}\n  ret float %y\n}}"
    host = target_named("host")
    assert undefined_symbols(
        compile_object(text.format("  %y = call float @expf(float %x)"), host)
    ) == {"expf"}
    assert not undefined_symbols(compile_object(text.format("  %y = fadd float %x, %x"), host))
