"""Disassembles the code of an ELF file, function by function, with capstone.

capstone (https://www.capstone-engine.org) is a decoder that shares nothing with LLVM's emitter, so
the two check each other. It is an optional dependency: the extra `addergraph[certify]`.

Every byte of every executable section is read: what no function symbol covers stands as a piece of
its own, called by section and offset. Two kinds of bytes are no instructions: zeros between
functions, and what the mapping symbols `$d` of the ARM and RISC-V ABIs mark as data (literal
pools; ARM AAELF32 5.5.5, AAELF64 5.7, RISC-V psABI "Mapping Symbol"), which is counted.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from addergraph.errors import UnsupportedError

from . import elf
from .instructions import AARCH64, RISCV, THUMB, X86_64, Machine

_MACHINES = {elf.X86_64: X86_64, elf.AARCH64: AARCH64, elf.ARM: THUMB, elf.RISCV: RISCV}
_BITS = {elf.X86_64: (64,), elf.AARCH64: (64,), elf.ARM: (32,), elf.RISCV: (32, 64)}
_RISCV_COMPRESSED = 1  # EF_RISCV_RVC in e_flags
# $d, $d.1; $x and, of RISC-V, $xrv32i2p1: the first letter is the state from here on.
_MAPPING = re.compile(r"\$(?:([atd])(?:\..*)?|(x)(?:[.r].*)?)")


States = list[tuple[int, str]]


@dataclass(frozen=True)
class Instruction:
    """`offset` is into the section; `mnemonic` None for bytes that are no instruction."""

    offset: int
    size: int
    mnemonic: str | None
    operands: str


@dataclass(frozen=True)
class Piece:
    """The code of one function, or bytes of a section that are in none.

    section    its index
    offset     into the section, of the first byte
    size       bytes, the data among them included
    data_bytes bytes marked as data
    """

    name: str
    section: int
    offset: int
    size: int
    data_bytes: int
    instructions: tuple[Instruction, ...]


def machine_of(file: elf.Elf, name: str) -> Machine:
    """The machine of an ELF file called `name`; UnsupportedError for one without a table."""
    machine = _MACHINES.get(file.machine)
    if machine is None or file.bits not in _BITS[file.machine]:
        raise UnsupportedError(
            f'"{name}" is for machine {file.machine} with {file.bits} bits; instructions are known '
            "for x86-64 (62), AArch64 (183), Thumb (40) and RISC-V (243)"
        )
    return machine


def capstone_version() -> str:
    """The version of capstone; UnsupportedError where it is not installed."""
    return str(_capstone().__version__)


def disassemble(file: elf.Elf, name: str) -> list[Piece]:
    """The code of an ELF file called `name`, in order of sections and offsets.

    UnsupportedError for machines without a table, for 32-bit ARM files whose mapping symbols were
    stripped or that have code that is not Thumb, and where capstone is not installed.
    """
    machine_of(file, name)
    decoder = decoder_of(file)
    symbols: dict[int, list[elf.Symbol]] = {}
    for symbol in file.symbols:
        symbols.setdefault(symbol.section, []).append(symbol)
    pieces = []
    for index, section in enumerate(file.sections):
        if not section.executable or not section.data:
            continue
        inside = symbols.get(index, [])
        states = _states(file, inside, section)
        _require_thumb(file, name, section, states)
        for label, start, end in _extents(file, inside, section):
            found = list(_decoded(decoder, section.data, start, end, states))
            data = end - start - sum(i.size for i in found)
            pieces.append(Piece(label, index, start, end - start, data, tuple(found)))
    return pieces


def _capstone() -> Any:
    try:
        import capstone
    except ImportError:
        raise UnsupportedError(
            "reading instructions needs capstone: pip install 'addergraph[certify]', "
            "or pip install capstone"
        ) from None
    return capstone


def decoder_of(file: elf.Elf) -> Any:
    """capstone for the machine of a file."""
    c = _capstone()
    if file.machine == elf.X86_64:
        made = c.Cs(c.CS_ARCH_X86, c.CS_MODE_64)
        made.syntax = c.CS_OPT_SYNTAX_ATT  # as LLVM prints it
        return made
    if file.machine == elf.AARCH64:
        return c.Cs(c.CS_ARCH_ARM64, c.CS_MODE_ARM)
    if file.machine == elf.ARM:
        return c.Cs(c.CS_ARCH_ARM, c.CS_MODE_THUMB | c.CS_MODE_MCLASS)
    mode = c.CS_MODE_RISCV64 if file.bits == 64 else c.CS_MODE_RISCV32
    return c.Cs(c.CS_ARCH_RISCV, mode | (c.CS_MODE_RISCVC if file.flags & _RISCV_COMPRESSED else 0))


def origin_of(file: elf.Elf, section: elf.Section) -> int:
    """What to subtract of a symbol's value for its offset into the section."""
    return section.address if file.linked else 0


def _states(file: elf.Elf, symbols: Sequence[elf.Symbol], section: elf.Section) -> States:
    """Offset and "d" data, "a" ARM, "t" Thumb or "x" code from there on, in order of offsets."""
    if file.machine == elf.X86_64:
        return []
    found = {}
    for symbol in symbols:
        if match := _MAPPING.fullmatch(symbol.name):
            found[symbol.value - origin_of(file, section)] = match[1] or match[2]
    return sorted(found.items())


def _require_thumb(file: elf.Elf, name: str, section: elf.Section, states: States) -> None:
    if file.machine != elf.ARM:
        return
    if not states:
        raise UnsupportedError(
            f'"{name}" has no mapping symbols ($t, $d) in section {section.name}, without which '
            "code and literals cannot be told apart; give the file before it is stripped"
        )
    if any(state == "a" for _, state in states):
        raise UnsupportedError(
            f'"{name}" has ARM instructions of 32 bits in section {section.name}; '
            "compile it for Thumb (thumbv6m)"
        )


def _extents(
    file: elf.Elf, symbols: Sequence[elf.Symbol], section: elf.Section
) -> list[tuple[str, int, int]]:
    """(name, start, end) of functions, and of the bytes between them that are not all zero.

    Functions that overlap are each read in full; names for one extent are joined.
    """
    thumb = ~1 if file.machine == elf.ARM else ~0  # bit 0 of a value says that it is Thumb code
    names: dict[tuple[int, int], list[str]] = {}
    for symbol in symbols:
        if symbol.kind != elf.FUNCTION or not symbol.size:
            continue
        start = (symbol.value & thumb) - origin_of(file, section)
        start, end = max(start, 0), min(start + symbol.size, section.size)
        if start < end:
            names.setdefault((start, end), []).append(symbol.name)
    found, position = [], 0
    for start, end in [*sorted(names), (section.size, section.size)]:
        if any(section.data[position:start]):
            found.append((f"{section.name}+{position:#x}", position, start))
        if start < end:
            found.append((" ".join(sorted(set(names[start, end]))), start, end))
        position = max(position, end)
    return found


def _decoded(
    decoder: Any, data: bytes, start: int, end: int, states: States
) -> Iterator[Instruction]:
    """The instructions of data[start:end]. Behind bytes that are none, nothing more is read."""
    at = bisect.bisect_right(states, start, key=lambda state: state[0])
    state = states[at - 1][1] if at else "x"
    inside = states[at : bisect.bisect_left(states, end, at, key=lambda state: state[0])]
    bounds = [(start, state), *inside, (end, "d")]
    for (first, kind), (last, _) in itertools.pairwise(bounds):
        if kind == "d":
            continue
        position = first
        for at, size, mnemonic, operands in decoder.disasm_lite(data[first:last], first):
            yield Instruction(at, size, mnemonic, operands)
            position = at + size
        if position < last:
            yield Instruction(position, last - position, None, data[position:][:8].hex(" "))
