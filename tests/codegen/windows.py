"""Code for Windows, run on Linux: linked by lld-link into a library that needs no other, laid out
in memory as Windows does, and called as Windows calls."""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from addergraph.codegen import llvm
from addergraph.codegen.export.library import Exported
from addergraph.codegen.targets.x86 import BASELINE
from addergraph.ir import Array

MOST = 64  # arguments of a call
_BASE = 0x180000000
_LOADED: list[llvm.LoadedObject] = []
_PE, _RELOCATIONS = 0x3C, 5  # where the header stands; the number of a directory


class Library:
    """The `functions` of an exported library for Windows."""

    def __init__(
        self, made: Exported, folder: Path,
        functions: Sequence[str] = ("run", "selftest", "supported"),
    ) -> None:  # fmt: skip
        names = [f"{made.header.stem}_{name}" for name in functions]
        linked, listed = folder / "linked.dll", folder / "linked.map"
        command = [
            "lld-link", "/dll", "/noentry", "/nodefaultlib", "/machine:x64", f"/base:{_BASE:#x}",
            f"/out:{linked}", f"/map:{listed}", *(f"/export:{name}" for name in names),
            str(made.archive),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
        image = laid_out(linked.read_bytes())
        self.memory = mmap.mmap(
            -1, len(image), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        self.memory.write(image)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        rows = (line.split() for line in listed.read_text().splitlines())
        places = {
            row[1]: int(row[2], 16) - _BASE for row in rows
            if len(row) > 3 and len(row[2]) == 16 and ":" in row[0]
        }  # fmt: skip
        self.places = places  # of every symbol, in the memory
        self.prefix = made.header.stem

    def call(self, name: str, *arguments: Array | int | None) -> int:
        """What the function gives for pointers, of arrays that it reads or writes, None for NULL,
        and integers."""
        given = [a.ctypes.data if isinstance(a, np.ndarray) else a or 0 for a in arguments]
        given += [0] * (MOST - len(given))
        return int(_caller()(self._start + self.places[f"{self.prefix}_{name}"], *given))

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array], arena: int) -> int:
        return self.call("run", *inputs, *outputs, aligned(arena))


def aligned(size: int) -> Array:
    """Bytes from a multiple of 64 on."""
    whole = np.zeros(size + 64, np.uint8)
    return whole[-whole.ctypes.data % 64 :][:size]


def laid_out(data: bytes) -> bytes:
    """The memory of a linked file (PE32+) that nothing has to be changed in."""
    (header,) = struct.unpack_from("<I", data, _PE)
    assert data[header : header + 4] == b"PE\0\0"
    sections, optional = struct.unpack_from("<H12xH", data, header + 6)
    size, heads = struct.unpack_from("<I I", data, header + 24 + 56)
    moved = struct.unpack_from("<II", data, header + 24 + 112 + 8 * _RELOCATIONS)
    assert moved[1] == 0, "it has addresses"
    image = bytearray(size)
    image[:heads] = data[:heads]
    for n in range(sections):
        row = header + 24 + optional + 40 * n
        length, address, raw, offset = struct.unpack_from("<4I", data, row + 8)
        there = min(length, raw)
        image[address : address + there] = data[offset : offset + there]
    return bytes(image)


@functools.cache
def _caller() -> Callable[..., int]:
    """(function, pointers) -> what it gives, called by the convention of Windows."""
    types = ", ".join(f"i64 %a{i}" for i in range(MOST))
    text = f"""
    define i32 @to_windows(i64 %f, {types}) nounwind {{
      %p = inttoptr i64 %f to ptr
      %r = call win64cc i32 %p({types})
      ret i32 %r
    }}"""
    loaded = llvm.LoadedObject(llvm.compile_object(text, BASELINE), BASELINE)
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_uint64] * (MOST + 1))
    made = kind(loaded.address("to_windows"))
    _LOADED.append(loaded)  # its code goes with it
    return made
