"""One random graph on another machine: a library for it, in an emulator, between guards.

Programs of Linux run under qemu-user, where operands, arena and weights lie between pages that may
not be touched. Cortex-M runs under qemu-system, where the bytes around operands have to stay. Code
for macOS and Windows runs as `macs.py` and `windows.py` of `tests/codegen` say, WebAssembly in
wasmtime.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addergraph import compiler
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect.elf import read_elf
from addergraph.codegen.targets.lookup import runnable, target_named
from addergraph.codegen.targets.target import Target
from addergraph.ir import Array, Graph
from tests.codegen import macs, windows
from tests.codegen.boards import CORTEX_M, LINUX, SOURCES, USER
from tests.codegen.harness import guarded, same_bits

HERE = Path(__file__).parent
PAGE, AROUND = 4096, 64  # bytes: between operands of Linux, and of a machine without pages
PATIENCE = 120.0  # seconds for a program
WRONG = ("right", "its status", "other bits", "a byte around is touched", "mprotect", "self-test")
NAME = "net"

_DATA = """
    .section .rodata.known,"a",%progbits
    .balign 64
    .globl {name}_data_golden, {name}_data_metadata
    .hidden {name}_data_golden, {name}_data_metadata
{name}_data_golden: .incbin "golden.bin"
    .balign 64
{name}_data_metadata: .incbin "metadata.bin"
    .section .guarded,"aw",%progbits
    .balign {page}
    .globl guard_below, guard_above, {name}_data_weights
guard_below:
    .zero {page}
    .zero {before}
{name}_data_weights:
    .incbin "weights.bin"
    .balign {page}
guard_above:
    .zero {page}
"""


class NoRoom(Exception):
    """A machine has too little memory for a case."""


@dataclass(frozen=True)
class Machine:
    """A target and what runs its programs.

    kind      "linux", "bare" (qemu-system), "libc" (x86-64), "macos", "windows" or "wasm"
    flags     of clang, or of cc
    room      bytes of operands and arena that it has
    paged     whether there are pages that may not be touched
    """

    name: str
    target: str
    kind: str
    emulator: str = ""
    flags: str = ""
    room: int = 16 << 20
    paged: bool = True

    @property
    def tools(self) -> tuple[str, ...]:
        own = (self.emulator.split()[0],) if self.emulator else ()
        more = {"libc": ("cc",), "windows": ("lld-link",), "wasm": ("wasm-ld",)}
        clang = ("clang", "ld.lld")
        return own + {**more, "macos": macs.TOOLS}.get(self.kind, clang)

    @property
    def missing(self) -> str:
        """The first of its tools that is not on the PATH."""
        absent = (t for t in self.tools if shutil.which(t) is None)
        return next(absent, "")

    @property
    def of(self) -> Target:
        return target_named(self.target)


_THUMB = "-mthumb -mcpu=cortex-"
_ALL: tuple[tuple[Any, ...], ...] = (
    *((t, t, "linux", emulator, flags) for t, (flags, emulator) in USER.items()),
    ("riscv64-linux-gnu-v, 256 bits", "riscv64-linux-gnu-v", "linux",
     "qemu-riscv64 -cpu rv64,v=true,vlen=256", LINUX["riscv64-linux-gnu-v"][0]),
    # A Cortex-M3 has no DSP instructions.
    ("thumbv6m", "thumbv6m", "bare", CORTEX_M.format("mps2-an385"),
     f"--target=thumbv6m-none-eabi {_THUMB}m0 -DMPS2", 3 << 20, False),
    ("thumbv7em", "thumbv7em", "bare", CORTEX_M.format("mps2-an386"),
     f"--target=thumbv7em-none-eabi {_THUMB}m4 -mfloat-abi=soft -DMPS2", 3 << 20, False),
    ("thumbv7em-f32", "thumbv7em-f32", "bare", CORTEX_M.format("mps2-an386"),
     f"--target=thumbv7em-none-eabi {_THUMB}m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard -DMPS2",
     3 << 20, False),
    ("thumbv8m-mve", "thumbv8m-mve", "bare", CORTEX_M.format("mps3-an547"),
     "--target=thumbv8m.main-none-eabi -mthumb -march=armv8-m.main -DMPS3", 400 << 10, False),
    ("x86-64-every, Nehalem", "x86-64-every", "libc", "qemu-x86_64 -cpu Nehalem"),
    # QEMU (7.2) reads whole vectors where a masked load reads a part: no page can be forbidden.
    ("x86-64-every, Haswell", "x86-64-every", "libc", "qemu-x86_64 -cpu Haswell", "", 16 << 20,
     False),
    ("arm64-macos", "arm64-macos", "macos", "qemu-aarch64", LINUX["aarch64-linux-gnu"][0]),
    ("x86-64-windows", "x86-64-windows", "windows"),
    ("x86-64-v3-windows", "x86-64-v3-windows", "windows"),
    ("wasm32", "wasm32", "wasm"),
)  # fmt: skip
MACHINES = tuple(Machine(*one) for one in _ALL)


def usable() -> list[Machine]:
    """Those that this machine has the tools for; Windows' code runs on its own processor."""
    found = []
    for one in MACHINES:
        here = one.kind != "windows" or runnable(target_named(one.target.removesuffix("-windows")))
        if here and not one.missing:
            found.append(one)
    return found


def run(
    machine: Machine, graph: Graph, inputs: Sequence[Array], weights: dict[str, Array],
    expected: Sequence[Array], folder: Path, *, strict: bool, right: bool,
) -> None:  # fmt: skip
    """AssertionError unless the machine gives the bits of `expected` for a bound graph; what
    `compiler.export` raises. `right`: weights lie against the page behind them, else before."""
    made = compiler.export(
        graph, folder, weights=weights, target=machine.target, name=NAME,
        multiplication_free=strict,
    )  # fmt: skip
    if machine.kind == "windows":
        _on_windows(made, inputs, expected)
    elif machine.kind == "wasm":
        _in_engine(made, graph, inputs, expected)
    else:
        _in_emulator(machine, made, inputs, expected, right)


# -- programs ------------------------------------------------------------------------------------


def _in_emulator(
    machine: Machine, made: Exported, inputs: Sequence[Array], expected: Sequence[Array],
    right: bool,
) -> None:  # fmt: skip
    folder = made.header.parent
    arena = _number_of(made, "ARENA_BYTES")
    text = _described(machine, [*inputs, *expected], len(inputs), arena)
    (folder / "case.h").write_text(text)
    program = _linked(machine, made, folder, right)
    (folder / "images.bin").write_bytes(b"")
    done = subprocess.run(
        [*machine.emulator.split(), f"./{program.name}"], cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    said = done.stdout
    if machine.kind == "bare":
        written = folder / "logits.bin"
        said = written.read_bytes() if written.exists() else b""
    words = struct.unpack("<II", said) if len(said) == 8 else None
    status = f"status {done.returncode}" if words is None else WRONG[words[0]]
    tensor = "" if words is None or words[0] == 0 else f" (tensor {words[1]})"
    assert words == (0, words[1] if words else 0) and done.returncode == 0, (
        f"{machine.name}: {status}{tensor} {done.stderr.decode(errors='replace')[-300:]}"
    )


def _described(machine: Machine, tensors: Sequence[Array], inputs: int, arena: int) -> str:
    """case.h: the tensors, outputs as they are expected, and the places of all."""
    page = PAGE if machine.paged else AROUND
    sizes = [a.nbytes for a in tensors] + [arena]
    rows, size = [], 0
    for right in (False, True):
        at, row = 0, []
        for nbytes in sizes:
            span = -(-nbytes // page) * page
            row.append((at + page, span, at + page + (span - nbytes if right else 0), nbytes))
            at += span + 2 * page
        rows.append(row)
        size = at
    if size > machine.room:
        raise NoRoom(f"{size} bytes")
    before, behind = (", ".join(f"{{{a}, {b}, {c}, {d}}}" for a, b, c, d in row) for row in rows)
    start = "static const unsigned char "
    contents = [", ".join(map(str, a.tobytes() or bytes(1))) for a in tensors]
    arrays = "".join(f"{start}given_{i}[] = {{{data}}};\n" for i, data in enumerate(contents))
    names = ", ".join(f"given_{i}" for i in range(len(tensors)))
    pointers = ", ".join(f"(void *)(d)[{i}]" for i in range(len(tensors)))
    floats = ", ".join(str(int(a.dtype == np.float32)) for a in tensors)
    pages = "#define PAGES\n" if machine.paged else ""
    calls = f"""
#define RUN(d, arena) {NAME}_run({pointers}, arena)
#define SELFTESTED(arena) {NAME}_selftest(arena)
"""
    return f"""
#include "{NAME}.h"
#define PAGE {page}u
{pages}{"#define WEIGHTS" if machine.kind in ("linux", "libc") else ""}
enum {{ INPUTS = {inputs}, TENSORS = {len(tensors)}, MEMORY = {size} }};
#define LEFT {{{before}}}
#define RIGHT_PLACES {{{behind}}}
{arrays}
{start}*const given[] = {{{names}}};
{start}floats[] = {{{floats}}};
{calls}"""


def _linked(machine: Machine, made: Exported, folder: Path, right: bool) -> Path:
    program = folder / "program"
    flags = [*machine.flags.split(), "-std=c11", "-O1", f"-I{folder}", f"-I{SOURCES}"]
    source = HERE / "between_pages.c"
    bare = ["-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fuse-ld=lld"]
    if machine.kind in ("linux", "libc"):
        (folder / "data.s").write_text(_weights(made, folder, right))
        objects = [folder / "data.s", made.code]
        if machine.kind == "libc":
            _ran(
                [
                    "cc",
                    *flags,
                    "-DLIBC",
                    "-D_GNU_SOURCE",
                    "-no-pie",
                    "-o",
                    program,
                    source,
                    *objects,
                ],
                folder,
            )
            return program
        _ran(["clang", *flags, *bare, "-o", program, source, SOURCES / "linux.c", *objects], folder)
        return program
    if machine.kind == "macos":
        objects = [SOURCES / "linux.c", macs.for_linux(made, folder)]
        _ran(["clang", *flags, *bare, "-o", program, source, *objects], folder)
        return program
    script = "mps3" if "MPS3" in machine.flags else "mps2"
    objects = []
    for one in (source, SOURCES / "cortexm.c"):
        objects.append(folder / f"{one.stem}.o")
        _ran(["clang", *flags, "-ffreestanding", "-c", "-o", objects[-1], one], folder)
    command = ["ld.lld", "-z", "noexecstack", "-T", f"{script}.ld", "-o", program.resolve()]
    _ran([*command, *(o.resolve() for o in (*objects, made.archive))], SOURCES)
    return program


def _weights(made: Exported, folder: Path, right: bool) -> str:
    """Assembly of the data object, its weights between guards."""
    data = read_elf(made.data.read_bytes(), made.data.name)
    size = 0
    for part in ("weights", "golden", "metadata"):
        symbol = next(s for s in data.symbols if s.name == f"{NAME}_data_{part}")
        section = data.sections[symbol.section].data
        content = section[symbol.value : symbol.value + symbol.size]
        (folder / f"{part}.bin").write_bytes(content)
        size = len(content) if part == "weights" else size
    before = -(-size // 64) * -64 % PAGE if right else 0
    text = _DATA.format(name=NAME, page=PAGE, before=before)
    for part in ("weights", "golden", "metadata"):
        text = text.replace(f'"{part}.bin"', f'"{folder / part}.bin"')
    return text


def _ran(command: Sequence[object], folder: Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-3000:]}"


def _number_of(made: Exported, macro: str) -> int:
    start = f"#define {NAME.upper()}_{macro} "
    line = next(x for x in made.header.read_text().splitlines() if x.startswith(start))
    return int(line.removeprefix(start).rstrip("u"))


# -- in this process -----------------------------------------------------------------------------


def _on_windows(made: Exported, inputs: Sequence[Array], expected: Sequence[Array]) -> None:
    from contextlib import ExitStack

    library = windows.Library(made, made.header.parent)
    for right in (False, True):
        with ExitStack() as stack:
            buffers = [stack.enter_context(guarded(a.nbytes, right)) for a in (*inputs, *expected)]
            arena = stack.enter_context(guarded(_number_of(made, "ARENA_BYTES"), right))
            for buffer, array in zip(buffers, inputs, strict=False):
                buffer.bytes[:] = np.frombuffer(array.tobytes(), np.uint8)
                buffer.freeze()
            code = library.call("run", *(b.bytes for b in buffers), arena.bytes)
            assert code == 0, f"its status is {code}"
            outputs = [b.bytes.tobytes() for b in buffers[len(inputs) :]]
            _require_same(outputs, expected)
            assert library.call("selftest", arena.bytes) == 0


def _in_engine(
    made: Exported, graph: Graph, inputs: Sequence[Array], expected: Sequence[Array]
) -> None:
    """What a call does not own of the memory stays as it was."""
    from tests.codegen.modules import Module

    module = Module(made)
    memory = module.exports["memory"]

    def contents() -> bytearray:
        return bytearray(memory.read(module.store, 0, memory.data_len(module.store)))

    for name, array in ((f"input_{i}", a) for i, a in enumerate(inputs)):
        memory.write(module.store, array.tobytes(), module.address(name))
    before = contents()
    found = module.run(graph, inputs)
    _require_same([a.tobytes() for a in found], expected)
    after = contents()
    owned = [(module.address(f"output_{i}"), a.nbytes) for i, a in enumerate(expected)]
    owned += [(module.address("arena"), _number_of(made, "ARENA_BYTES")), (0, 1 << 16)]  # the stack
    for start, size in owned:
        before[start : start + size] = after[start : start + size] = bytes(size)
    assert before == after, "bytes of others are touched"
    assert module.call("selftest") == 0


def _require_same(found: Sequence[bytes], expected: Sequence[Array]) -> None:
    for i, (data, right) in enumerate(zip(found, expected, strict=True)):
        array = np.frombuffer(data, right.dtype).reshape(right.shape)
        assert same_bits(array, right), f"other bits (output {i})"
