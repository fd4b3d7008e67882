"""Windows and macOS: the instruction sets of Linux, in objects of their own formats.

Functions take their arguments as the system's ABI says, but for none of ours these are floats. The
environment "gnu" of Windows names how runtime support is found, and ours needs none: the linkers of
MSVC and of MinGW both take the objects, which refer to no `_fltused` and probe no stack.
"""

from __future__ import annotations

from dataclasses import replace

from .aarch64 import DOTPROD
from .machines import APPLE_M1
from .x86 import EVERY, X86_LEVELS

_WINDOWS = "x86_64-pc-windows-gnu"
WINDOWS = tuple(
    replace(
        level, name=f"{level.name}-windows", triple=_WINDOWS, decoded=False,
        above=tuple(replace(other, triple=_WINDOWS, decoded=False) for other in level.above),
        cpus=f"Windows of 64 bits, on {level.cpus}",
    )
    for level in (*X86_LEVELS, EVERY)
)  # fmt: skip
# Every Mac of Apple's own processors has what `needs` would ask for.
MACOS = replace(
    DOTPROD, name="arm64-macos", triple="aarch64-apple-macosx11.0.0", cpu="apple-m1", features="",
    needs=(), baseline="", decoded=False, machine=APPLE_M1,
    cpus="Macs with a processor of Apple's (M1 and later)",
)  # fmt: skip
DESKTOP = (*WINDOWS, MACOS)
