"""Code for macOS, run on Linux: linked by LLVM's linker for macOS into a library that nothing has
to be changed in, it stands in a program of Linux, whose calls put pointers into the same registers.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from addergraph.codegen.export.library import Exported

LD64 = next((p for p in ("ld64.lld", "ld64.lld-14", "ld64.lld-19") if shutil.which(p)), "ld64.lld")
TOOLS = ("clang", "ld.lld", LD64, "llvm-nm", "qemu-aarch64")


def for_linux(made: Exported, folder: Path) -> Path:
    """Assembly for AArch64 that has the bytes of an exported library for macOS, and its symbols as
    C names them. It can be written to, so that a test may change its data."""
    prefix, dylib, image = made.header.stem, folder / "linked.dylib", folder / "mac.bin"
    command: list[str | Path] = [
        LD64, "-dylib", "-arch", "arm64", "-platform_version", "macos", "11.0", "11.0",
        "-u", f"_{prefix}_selftest", "-o", dylib, made.archive,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    listed = subprocess.run(["llvm-nm", dylib], capture_output=True, text=True, check=True).stdout
    rows = [row.split() for row in listed.splitlines()]
    places = {name[1:]: at for at, _, name in rows if name.startswith(f"_{prefix}_")}
    image.write_bytes(_segment(dylib.read_bytes()))
    lines = [
        '.section .mac, "awx"', ".balign 16384", f'mac_image: .incbin "{image.resolve()}"',
        *(f".globl {name}\n.set {name}, mac_image + 0x{at}" for name, at in places.items()),
    ]  # fmt: skip
    written = folder / "mac.s"
    written.write_text("\n".join(lines) + "\n")
    return written


def _segment(data: bytes) -> bytes:
    """The first segment of a library for macOS. That nothing is to be changed in it, and that it
    is all that is loaded, is checked."""
    assert data[:4] == b"\xcf\xfa\xed\xfe"
    at, count, found = 32, struct.unpack_from("<I", data, 16)[0], []
    for _ in range(count):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 0x19:  # LC_SEGMENT_64
            found.append(struct.unpack_from("<16s4Q", data, at + 8))
        if kind in (0x22, 0x80000022):  # LC_DYLD_INFO
            assert not any(struct.unpack_from("<8I", data, at + 8)), "it has addresses"
        at += size
    assert [name.rstrip(b"\0") for name, *_ in found] == [b"__TEXT", b"__LINKEDIT"]
    _, address, _, offset, length = found[0]
    assert address == offset == 0
    return data[:length]
