"""Reads ELF files: sections, segments, symbols, relocations. As strict as a certificate needs.

Layouts and constants: System V Application Binary Interface, chapters 4 and 5
(https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html). Little-endian, 32 and 64 bits.
Every offset, size and index is checked before it is used; what does not fit is a StorageError.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from addergraph.errors import StorageError, UnsupportedError

MAGIC = b"\x7fELF"
_FOREIGN = {
    b"!<": "an archive", b"BC\xc0\xde": "LLVM bitcode (-flto)", b"\0asm": "WebAssembly",
    b"\xde\xc0\x17\x0b": "LLVM bitcode (-flto)", b"\xcf\xfa\xed\xfe": "Mach-O",
    b"\xca\xfe\xba\xbe": "Mach-O", b"\x64\x86": "COFF", b"\x64\xaa": "COFF",
}  # fmt: skip
RELOCATABLE, EXECUTABLE, SHARED = 1, 2, 3  # e_type
X86_64, AARCH64, ARM, RISCV = 62, 183, 40, 243  # e_machine
SYMTAB, RELA, DYNAMIC, NOBITS, REL, DYNSYM = 2, 4, 6, 8, 9, 11  # sh_type
ALLOCATED, EXECUTABLE_SECTION = 2, 4  # SHF_ALLOC, SHF_EXECINSTR
_COMPRESSED = 0x800  # SHF_COMPRESSED
NOTYPE, FUNCTION, IFUNC = 0, 2, 10  # st_info, low half
_LOCAL, WEAK = 0, 2  # st_info, high half
NAMES_ANYWAY, NAMES_RATIO = 1 << 24, 8  # bytes of all names: those; of a large file, times its own
_RESERVED = 0xFF00  # section indices from here on have meanings of their own


@dataclass(frozen=True)
class Section:
    """`data` is empty for a section without bytes in the file, `offset` is its place there."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    entry_size: int
    data: bytes = field(repr=False)

    @property
    def executable(self) -> bool:
        return bool(self.flags & EXECUTABLE_SECTION)

    @property
    def allocated(self) -> bool:
        return bool(self.flags & ALLOCATED)


@dataclass(frozen=True)
class Segment:
    """A program header: `size` bytes from `offset` of the file lie at `address`, then zeros."""

    type: int
    flags: int
    offset: int
    address: int
    size: int
    memory: int


@dataclass(frozen=True)
class Symbol:
    """`section` is an index, 0 for a symbol that is defined elsewhere."""

    name: str
    value: int
    size: int
    kind: int
    binding: int
    section: int

    @property
    def undefined(self) -> bool:
        return self.section == 0 and self.name != ""

    @property
    def exported(self) -> bool:
        return self.section != 0 and self.binding != _LOCAL


@dataclass(frozen=True)
class Relocation:
    """`offset` is into section `section` of a relocatable file, an address in a linked one.

    `addend` is None where the bytes at `offset` hold it (SHT_REL).
    """

    section: int
    offset: int
    type: int
    symbol: Symbol
    addend: int | None


@dataclass(frozen=True)
class Elf:
    """A file as read. `symbols` has those of both tables, without repetitions.

    `relocations` of a linked file are those that a loader applies; its `segments` are what it maps.
    """

    type: int
    machine: int
    bits: int
    flags: int
    entry: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    @property
    def linked(self) -> bool:
        return self.type != RELOCATABLE


def read_elf(data: bytes, file: str) -> Elf:
    """The parts of an ELF file; `file` is its name in messages.

    StorageError where the bytes are no ELF file, are truncated or contradict themselves,
    UnsupportedError for big-endian files and for types other than object, program and library.
    """
    return _Reader(data, file).read()


class _Reader:
    def __init__(self, data: bytes, file: str) -> None:
        self.data, self.file = data, file
        self.left = max(NAMES_ANYWAY, NAMES_RATIO * len(data))

    def damaged(self, what: str) -> StorageError:
        return StorageError(f'"{self.file}" is damaged or truncated: {what}')

    def read(self) -> Elf:
        data = self.data
        if data[:4] != MAGIC:
            known = next((what for start, what in _FOREIGN.items() if data.startswith(start)), "")
            found = f"is {known}" if known else f"begins with {data[:4].hex(' ') or 'nothing'}"
            raise StorageError(
                f'"{self.file}" is no ELF file: it {found}, expected {MAGIC.hex(" ")}'
            )
        if len(data) < 16 or data[4] not in (1, 2) or data[5] not in (1, 2) or data[6] != 1:
            raise self.damaged(f"its identification is {data[4:16].hex(' ')}")
        if data[5] == 2:
            raise UnsupportedError(f'"{self.file}" is big-endian; little-endian files are read')
        self.wide = data[4] == 2
        layout = "<HHIQQQIHHHHHH" if self.wide else "<HHIIIIIHHHHHH"
        header = self.unpack(layout, 16, "its header")
        kind, machine, version, start, programs, table, flags = header[:7]
        program_entry, program_count, entry, count, names = header[8:]
        if version != 1:
            raise self.damaged(f"its version is {version}, expected 1")
        if kind not in (RELOCATABLE, EXECUTABLE, SHARED):
            raise UnsupportedError(
                f'"{self.file}" is an ELF file of type {kind}; objects, programs and shared '
                "libraries are read"
            )
        sections = self.sections(table, entry, count, names)
        tables = {i: self.symbols(s, sections) for i, s in enumerate(sections)
                  if s.type in (SYMTAB, DYNSYM)}  # fmt: skip
        symbols = tuple(dict.fromkeys(symbol for found in tables.values() for symbol in found))
        tables.setdefault(0, [Symbol("", 0, 0, 0, 0, 0)])  # of relocations without symbols
        relocations = tuple(
            relocation
            for section in sections
            if section.type in (REL, RELA) and (kind == RELOCATABLE or section.allocated)
            for relocation in self.relocations(section, tables, sections)
        )
        segments = self.segments(programs, program_entry, program_count)
        bits = 64 if self.wide else 32
        return Elf(
            kind, machine, bits, flags, start, segments, sections, symbols, relocations
        )  # fmt: skip

    def unpack(self, layout: str, offset: int, what: str) -> tuple[int, ...]:
        if offset + struct.calcsize(layout) > len(self.data):
            raise self.damaged(f"{what} ends behind the file's {len(self.data)} bytes")
        return struct.unpack_from(layout, self.data, offset)

    def segments(self, table: int, entry: int, count: int) -> tuple[Segment, ...]:
        layout = "<IIQQQQQQ" if self.wide else "<IIIIIIII"
        if count and entry != struct.calcsize(layout):
            raise self.damaged(f"its program headers are said to have {entry} bytes")
        found = []
        for i in range(count):
            row = self.unpack(layout, table + i * entry, f"program header {i}")
            if self.wide:
                kind, flags, offset, address, _, size, memory, _ = row
            else:
                kind, offset, address, _, size, memory, flags, _ = row
            if offset + size > len(self.data):
                raise self.damaged(f"segment {i} ends behind it")
            found.append(Segment(kind, flags, offset, address, size, memory))
        return tuple(found)

    def sections(self, table: int, entry: int, count: int, names: int) -> tuple[Section, ...]:
        layout = "<IIQQQQIIQQ" if self.wide else "<IIIIIIIIII"
        if not count or not table:
            raise UnsupportedError(
                f'"{self.file}" has no section headers, so its functions cannot be told apart; '
                "give the file as it was linked, not stripped of them"
            )
        if entry != struct.calcsize(layout):
            raise self.damaged(f"its section headers are said to have {entry} bytes")
        if names >= count:
            raise self.damaged(f"the names of its {count} sections are said to be in {names}")
        raw = [self.unpack(layout, table + i * entry, f"section header {i}") for i in range(count)]
        if sum(h[5] for h in raw if h[1] not in (0, NOBITS)) > len(self.data):
            raise self.damaged("its sections overlap or end behind it")
        texts = self.content(names, raw[names])
        return tuple(
            Section(
                self.text(texts, name), kind, flags, address, at, size, link, info, entry_size,
                self.content(i, raw[i]),
            )
            for i, (name, kind, flags, address, at, size, link, info, _, entry_size)
            in enumerate(raw)
        )  # fmt: skip

    def content(self, index: int, header: tuple[int, ...]) -> bytes:
        kind, flags, offset, size = header[1], header[2], header[4], header[5]
        if kind in (0, NOBITS):
            if flags & EXECUTABLE_SECTION and size:
                raise self.damaged(f"section {index} is code without bytes")
            return b""
        if offset + size > len(self.data):
            raise self.damaged(
                f"section {index} ends at byte {offset + size} of {len(self.data)}"
            )  # fmt: skip
        if flags & EXECUTABLE_SECTION and flags & _COMPRESSED:
            raise UnsupportedError(f'"{self.file}": section {index} is compressed code')
        return self.data[offset : offset + size]

    def text(self, strings: bytes, offset: int) -> str:
        end = strings.find(b"\0", offset)
        if end < 0:
            raise self.damaged(f"there is no name at byte {offset} of {len(strings)}")
        self.left -= end - offset
        if self.left < 0:
            raise self.damaged("its names overlap, and have many times its bytes")
        return strings[offset:end].decode(errors="backslashreplace")

    def symbols(self, table: Section, sections: tuple[Section, ...]) -> list[Symbol]:
        layout = "<IBBHQQ" if self.wide else "<IIIBBH"
        rows = self.rows(table, layout)
        if table.link >= len(sections):
            raise self.damaged(f"the names of symbols are said to be in section {table.link}")
        strings, found = sections[table.link].data, []
        for row in rows:
            if self.wide:
                name, info, _, section, value, size = row
            else:
                name, value, size, info, _, section = row
            if len(sections) <= section < _RESERVED:
                raise self.damaged(f"a symbol is said to be in section {section}")
            text = self.text(strings, name) if name else ""
            found.append(Symbol(text, value, size, info & 15, info >> 4, section))
        return found

    def relocations(
        self, table: Section, tables: Mapping[int, list[Symbol]], sections: tuple[Section, ...]
    ) -> list[Relocation]:
        layout = ("<QQ" if self.wide else "<II") if table.type == REL else (
            "<QQq" if self.wide else "<IIi"
        )  # fmt: skip
        if table.info >= len(sections):
            raise self.damaged(f"relocations are said to be of section {table.info}")
        if table.link not in tables:
            raise self.damaged(f"the symbols of relocations are said to be in section {table.link}")
        symbols = tables[table.link]
        shift, mask = (32, 0xFFFFFFFF) if self.wide else (8, 0xFF)
        found = []
        for row in self.rows(table, layout):
            if row[1] >> shift >= len(symbols):
                raise self.damaged(f"a relocation names symbol {row[1] >> shift}")
            symbol = symbols[row[1] >> shift]
            addend = row[2] if table.type == RELA else None
            found.append(Relocation(table.info, row[0], row[1] & mask, symbol, addend))
        return found

    def rows(self, table: Section, layout: str) -> list[tuple[int, ...]]:
        if table.entry_size != struct.calcsize(layout) or table.size % table.entry_size:
            raise self.damaged(
                f"section {table.name} has {table.size} bytes in entries of {table.entry_size}"
            )
        return list(struct.iter_unpack(layout, table.data))
