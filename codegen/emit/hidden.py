"""A value of which LLVM knows nothing: an empty assembly statement made it.

The statement costs no instruction. LLVM neither computes what behind it is known before, nor takes
one form of a computation for another across it.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir


def hidden(b: ir.IRBuilder, value: Any, kind: str = "r") -> Any:
    """`value` in a register of the `kind` of LLVM's inline assembly, "r" of the general ones."""
    type = ir.FunctionType(value.type, [value.type])
    return b.call(ir.InlineAsm(type, "", f"={kind},0"), [value])
