"""Objects in a fifth of LLVM's time: it optimizes nothing, and chooses instructions simply.

Results keep their bits: what a program computes is in the text that LLVM gets.
"""

from __future__ import annotations

import pytest

from addergraph.codegen import llvm
from addergraph.codegen.targets.target import Target

_optimized = llvm.compile_object  # also where a test puts another in its place


def compile_object(text: str, target: Target) -> bytes:
    with llvm.no_compilation(), pytest.MonkeyPatch.context() as patch:  # on other threads
        patch.setattr(llvm, "SPEED", 0)
        patch.setattr(llvm, "EMISSION", 0)
        return _optimized(text, target)
