"""ELF objects and archives made byte by byte: those that no compiler makes, for the certificate."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from addergraph.codegen.export.archive import Member, archive

ALLOC, EXEC, WRITE = 2, 4, 1
NOTYPE, OBJECT, FUNCTION, IFUNC = 0, 1, 2, 10
LOCAL, GLOBAL, WEAK = 0, 1, 2
UNDEFINED, ABSOLUTE = 0, 0xFFF1
MACHINES = {"x86-64": (62, 64, 0), "aarch64": (183, 64, 0), "thumb": (40, 32, 0x05000000),
            "riscv": (243, 32, 1), "riscv64": (243, 64, 1)}  # fmt: skip


@dataclass(frozen=True)
class Section:
    name: str
    data: bytes
    flags: int = ALLOC
    type: int = 1
    info: int = 0


@dataclass(frozen=True)
class Symbol:
    """`section` is the number of a section of the list, from 1, or a special one."""

    name: str
    value: int = 0
    size: int = 0
    kind: int = FUNCTION
    binding: int = GLOBAL
    section: int = 1


@dataclass(frozen=True)
class Relocation:
    """`symbol` is the number of one of the list, from 1."""

    offset: int
    type: int
    symbol: int
    addend: int = 0
    section: int = 1


@dataclass
class Strings:
    data: bytes = b"\0"
    known: dict[str, int] = field(default_factory=dict)

    def at(self, text: str) -> int:
        if text not in self.known:
            self.known[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self.known[text]


def made(
    machine: str,
    sections: Sequence[Section],
    symbols: Sequence[Symbol] = (),
    relocations: Sequence[Relocation] = (),
) -> bytes:
    """A relocatable file of `sections`, then relocations, symbols and names."""
    number, bits, flags = MACHINES[machine]
    wide, strings = bits == 64, Strings()
    count = len(sections)
    tables = sorted({r.section for r in relocations})
    symtab = count + 1 + len(tables)
    rows = [_symbol(wide, strings, s) for s in (Symbol("", kind=0, binding=0, section=0), *symbols)]
    locals_ = 1 + sum(s.binding == LOCAL for s in symbols)
    packed = [(s.name, s.type, s.flags, s.data, 0, s.info, 0) for s in sections]
    with_addend = machine != "thumb"
    for section in tables:
        data = b"".join(
            _relocation(wide, with_addend, r) for r in relocations if r.section == section
        )
        size = (24 if wide else 12) if with_addend else 8
        packed.append((f".rel.{section}", 4 if with_addend else 9, 0, data, symtab, section, size))
    packed.append((".symtab", 2, 0, b"".join(rows), symtab + 1, locals_, 24 if wide else 16))
    names = [strings.at(p[0]) for p in packed] + [strings.at(".strtab")]
    packed.append((".strtab", 3, 0, strings.data, 0, 0, 0))
    start = 64 if wide else 52
    body, headers = b"", bytes(64 if wide else 40)
    for name, (_, kind, flag, data, link, info, entry) in zip(names, packed, strict=True):
        body += bytes(-(start + len(body)) % 16)
        values = (name, kind, flag, 0, start + len(body), len(data), link, info, 16, entry)
        headers += struct.pack("<IIQQQQIIQQ" if wide else "<IIIIIIIIII", *values)
        body += data
    body += bytes(-(start + len(body)) % 16)
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    head = struct.pack(
        layout, 1, number, 1, 0, 0, start + len(body), flags, start, 0, 0, 64 if wide else 40,
        len(packed) + 1, len(packed),
    )  # fmt: skip
    return identity + head + body + headers


def _symbol(wide: bool, strings: Strings, s: Symbol) -> bytes:
    name, info = (strings.at(s.name) if s.name else 0), s.binding << 4 | s.kind
    if wide:
        return struct.pack("<IBBHQQ", name, info, 0, s.section, s.value, s.size)
    return struct.pack("<IIIBBH", name, s.value, s.size, info, 0, s.section)


def _relocation(wide: bool, with_addend: bool, r: Relocation) -> bytes:
    info = r.symbol << (32 if wide else 8) | r.type
    if wide:
        return struct.pack("<QQq", r.offset, info, r.addend)
    return struct.pack("<IIi", r.offset, info, r.addend) if with_addend else struct.pack(
        "<II", r.offset, info
    )  # fmt: skip


def entry(name: bytes, data: bytes) -> bytes:
    """One member of an archive under any name."""
    header = b"%-16s%-12s%-6s%-6s%-8s%-10d`\n" % (name, b"0", b"0", b"0", b"644", len(data))
    return header + data + b"\n" * (len(data) % 2)


@dataclass(frozen=True)
class Segment:
    type: int
    flags: int
    offset: int
    address: int
    size: int
    memory: int | None = None


CODE_AT, DATA_AT = 0x1000, 0x2000  # in the file, as in memory


def linked(
    code: bytes,
    *,
    segments: Sequence[Segment] = (),
    data: bytes = b"",
    dynamic: Sequence[tuple[int, int]] = (),
    relocations: Sequence[tuple[int, int]] = (),
    entry: int = 0,
    flags: int = ALLOC | EXEC,
    name_at: int = CODE_AT,
) -> bytes:
    """A shared library for x86-64 of one function `f`, its segments said or those that fit.

    dynamic      (tag, value); relocations: (address, type), in a section .rela.dyn
    name_at      the address that the section of code says
    """
    strings = Strings()
    tags = b"".join(struct.pack("<qq", *row) for row in dynamic)
    rela = b"".join(struct.pack("<QQq", at, type, 0) for at, type in relocations)
    symbols = _symbol(True, strings, Symbol("", 0, 0, 0, 0, 0))
    symbols += _symbol(True, strings, Symbol("f", name_at, len(code)))
    body = code.ljust(DATA_AT - CODE_AT, b"\0") + data
    parts = [
        (".text", 1, flags, name_at, CODE_AT, code, 0), (".data", 1, 3, DATA_AT, DATA_AT, data, 0)
    ]  # fmt: skip
    for name, kind, content, size in (
        (".dynamic", 6, tags, 16), (".rela.dyn", 4, rela, 24), (".symtab", 2, symbols, 24)
    ):  # fmt: skip
        at = CODE_AT + len(body)
        alloc = ALLOC if kind != 2 else 0
        parts.append((name, kind, alloc, at, at, content, size))
        body += content
    names = [strings.at(p[0]) for p in parts] + [strings.at(".strtab")]
    parts.append((".strtab", 3, 0, 0, CODE_AT + len(body), strings.data, 0))
    body += strings.data
    rest = CODE_AT + len(body) - DATA_AT
    shown = segments or [
        Segment(1, 5, CODE_AT, CODE_AT, len(code)), Segment(1, 6, DATA_AT, DATA_AT, rest),
        *([Segment(2, 6, parts[2][4], parts[2][3], len(tags))] if dynamic else []),
    ]  # fmt: skip
    programs = b"".join(
        struct.pack("<IIQQQQQQ", s.type, s.flags, s.offset, s.address, s.address, s.size,
                    s.size if s.memory is None else s.memory, 4096)
        for s in shown
    )  # fmt: skip
    headers = bytes(64)
    for called, (_, kind, flag, address, at, content, size) in zip(names, parts, strict=True):
        link = len(parts) if kind == 2 else 0
        values = (called, kind, flag, address, at, len(content), link, 1, 1, size)
        headers += struct.pack("<IIQQQQIIQQ", *values)
    head = struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, entry, 64, CODE_AT + len(body), 0, 64, 56, len(shown), 64,
        len(parts) + 1, len(parts),
    )  # fmt: skip
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    return (identity + head + programs).ljust(CODE_AT, b"\0") + body + headers


def joined(members: Sequence[Member]) -> bytes:
    """A static archive, as `export` writes it."""
    return b"".join(archive(members))
