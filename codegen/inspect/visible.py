"""Whether all code of an ELF file can be seen: what else may become code, or change it, is refused.

A linker makes code of more than sections marked as code (intermediate code of `-flto`), and may
replace or rewrite what is marked; a loader reads segments and dynamic tags, not sections. So
sections, their flags, segments and tags are allow-lists, with the numbers of the System V ABI.
"""

from __future__ import annotations

import itertools
import re
import struct

from addergraph.errors import UnsupportedError

from . import elf

_CODE_FLAGS = 2 | 4 | 0x40 | 0x80 | 0x200 | 0x200000 | 0x10000000 | 0x20000000
_WRITE, _COMDAT = 1, 1  # SHF_WRITE; GRP_COMDAT, first word of a SHT_GROUP
_GROUP = 17
_STARTERS = (14, 15, 16)  # SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY
# PROGBITS, tables of symbols, names and relocations, hashes, notes, arrays of starters, groups;
# GNU's attributes, hash and versions, LLVM's address significance; unwinding, attributes.
_TYPES = frozenset({
    *range(10), 11, *_STARTERS, _GROUP, 0x6FFFFFF5, 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE,
    0x6FFFFFFF, 0x6FFF4C03, 0x70000001, 0x70000003,
})  # fmt: skip
_STARTER = re.compile(r"\.[cd]tors\b")  # the older way
_LOADED = 1  # SHT_PROGBITS
# What linkers throw away or copy into a section that is not loaded.
_UNLOADED = re.compile(
    r"\.z?debug_.*|\.comment|\.note.*|\.stab(str)?|\.gdb_index|\.gnu\.(attributes|build\.attributes)"
    r"|\.gnu_debug(link|altlink)|\.(ARM|riscv)\.attributes|\.llvm_addrsig|\.shstrtab|\.strtab"
)
_HIDDEN = re.compile(
    r"\.gnu\.(lto|debuglto|offload_lto)_.*|\.llvm(bc|cmd|\.lto|\.offloading)|\.gnu\.linkonce\..*"
    r"|.*fatbin.*"
)
_LTO_SYMBOLS = ("__gnu_lto_slim", "__gnu_lto_v1")
_CODE, _DYNAMIC, _INTERPRETER = 1, 2, 3  # PT_LOAD, PT_DYNAMIC, PT_INTERP
_X, _W = 1, 2  # PF_X, PF_W
_PAGE, _SEGMENTS = 4096, 64
# Names, hashes, symbols and versions of symbols, the flags that bind early, and relocations.
_TAGS = frozenset({
    0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 16, 17, 18, 19, 21, 24, 30, 0x6FFFFEF5, 0x6FFFFFF0,
    0x6FFFFFF9, 0x6FFFFFFA, 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFD,
})  # fmt: skip
_BY_TABLE = "{} (calls by way of a table: link with -Wl,-Bsymbolic)"
_TAG_NAMES = {
    1: "NEEDED (another library, which runs when it is loaded)", 12: "INIT", 13: "FINI",
    22: "TEXTREL (code that is changed when it is loaded)", 25: "INIT_ARRAY", 26: "FINI_ARRAY",
    36: "RELR", 2: _BY_TABLE.format("PLTRELSZ"), 20: _BY_TABLE.format("PLTREL"),
    23: _BY_TABLE.format("JMPREL"),
}  # fmt: skip
_FLAGS, _TEXTREL = 30, 4
_TABLES = {7: elf.RELA, 17: elf.REL}  # DT_RELA, DT_REL -> type of the section
_BYTES = {7: 8, 17: 18}  # of them: DT_RELASZ, DT_RELSZ
# R_*_RELATIVE, GLOB_DAT and of a whole word: they write an address into data.
_APPLIED = {
    elf.X86_64: (8, 6, 1), elf.AARCH64: (1027, 1025, 257), elf.ARM: (23, 21, 2),
    elf.RISCV: (3, 2, 1),
}  # fmt: skip


def require_visible(file: elf.Elf, name: str) -> None:
    """UnsupportedError that says which part of the file called `name` hides or changes code."""
    for section in file.sections:
        if why := _objection(section, file.linked):
            raise UnsupportedError(f'"{name}": section {section.name or "without a name"} {why}')
    found = [s for s in file.symbols if s.name in _LTO_SYMBOLS]
    if found:
        raise UnsupportedError(f'"{name}" says by its symbol {found[0].name} that it is of -flto')
    _require_no_replaceable(file, name)
    if file.linked:
        _require_loaded_as_seen(file, name)


def _objection(section: elf.Section, linked: bool) -> str:
    if _HIDDEN.fullmatch(section.name):
        return "holds code that is made when linking, or may be another file's; compile without it"
    if section.type not in _TYPES:
        return f"is of type {section.type:#x}, whose meaning is not known"
    if section.executable:
        return _objection_to_code(section, linked)
    if (section.type in _STARTERS and section.size) or _STARTER.match(section.name):
        return "holds functions that run before or after main; they are not followed"
    unknown = section.type == _LOADED and not section.allocated and section.size
    if unknown and not linked and not _UNLOADED.fullmatch(section.name):
        return "is neither loaded nor known: it may hold what a linker makes code of"
    return ""


def _objection_to_code(section: elf.Section, linked: bool) -> str:
    if section.flags & _WRITE:
        return "is code that can be written"
    if section.type != _LOADED and section.size:
        return f"is code, but of type {section.type:#x}"
    if section.flags & ~_CODE_FLAGS and not linked:
        return f"is code with flags {section.flags:#x}, by which a linker may change it"
    return ""


def _require_no_replaceable(file: elf.Elf, name: str) -> None:
    """Code in a COMDAT group gives way to that of another file with the same signature."""
    for group in file.sections:
        if group.type != _GROUP or file.linked:
            continue
        words = [w for (w,) in struct.iter_unpack("<I", group.data[: len(group.data) & ~3])]
        code = [i for i in words[1:] if i >= len(file.sections) or file.sections[i].executable]
        if code and words[0] & _COMDAT:
            raise UnsupportedError(
                f'"{name}": section {group.name} is a COMDAT group, whose code a linker may '
                "replace by that of another file; certify the linked file"
            )


def _require_loaded_as_seen(file: elf.Elf, name: str) -> None:
    """Segments and dynamic tags show a loader the sections that were read, and nothing else."""
    loaded = [s for s in file.segments if s.type == _CODE]
    if not 0 < len(loaded) <= _SEGMENTS:
        raise UnsupportedError(
            f'"{name}" has {len(loaded)} segments to load; linked files have 1 to {_SEGMENTS}'
        )
    if any(s.type == _INTERPRETER for s in file.segments):
        raise UnsupportedError(f'"{name}" starts another program (PT_INTERP); link statically')
    for segment in loaded:
        if segment.flags & _X and segment.flags & _W:
            raise UnsupportedError(f'"{name}" has code at {segment.address:#x} that can be written')
    if any(_cover(a, b) for a, b in itertools.combinations(loaded, 2)):
        raise UnsupportedError(f'"{name}" has segments that overlap in memory')
    for section in file.sections:
        if section.executable and section.size:
            _require_mapped(file, name, section)
    _require_tags(file, name)
    for r in file.relocations:
        if r.type not in _APPLIED.get(file.machine, ()) or _in_code(file, r.offset):
            raise UnsupportedError(
                f'"{name}" is changed at {r.offset:#x} when it is loaded '
                f"(relocation of type {r.type}); expected addresses in data"
            )


def _cover(a: elf.Segment, b: elf.Segment) -> bool:
    """Whether one of two segments replaces bytes of the other: whole pages are mapped, in order."""
    other = a.offset - a.address != b.offset - b.address and (a.flags | b.flags) & _X
    page = _PAGE if other else 1
    (start, end), (low, high) = [
        (s.address // page, (s.address + s.memory - 1) // page) for s in (a, b)
    ]
    return bool(a.memory and b.memory) and start <= high and low <= end


def _require_mapped(file: elf.Elf, name: str, section: elf.Section) -> None:
    for s in file.segments:
        shift = section.address - s.address
        inside = shift >= 0 and shift + section.size <= s.size
        if s.type == _CODE and s.flags & _X and inside and section.offset == s.offset + shift:
            return
    raise UnsupportedError(f'"{name}": section {section.name} is code that no segment loads so')


def _in_code(file: elf.Elf, address: int) -> bool:
    return any(
        s.type == _CODE and s.flags & _X and s.address - 8 < address < s.address + s.memory
        for s in file.segments
    )


def _require_tags(file: elf.Elf, name: str) -> None:
    for segment in file.segments:
        if segment.type != _DYNAMIC:
            continue
        shown = [s for s in file.sections if s.type == elf.DYNAMIC and s.offset == segment.offset]
        if [s.size for s in shown] != [segment.size]:
            raise UnsupportedError(f'"{name}" has dynamic tags that no section shows')
        word = struct.Struct("<qq" if file.bits == 64 else "<ii")
        data = shown[0].data
        tags = list(word.iter_unpack(data[: len(data) // word.size * word.size]))
        for tag, value in tags:
            tables = [s.address for s in file.sections if s.type == _TABLES.get(tag)]
            if tag not in _TAGS or (tag == _FLAGS and value & _TEXTREL):
                raise UnsupportedError(
                    f'"{name}" has the dynamic tag {_TAG_NAMES.get(tag, hex(tag))}, which is not '
                    "followed; link without libraries and start-up code (-nostdlib)"
                )
            # GNU ld states a table of no bytes where there are no relocations.
            empty = {size for other, size in tags if other == _BYTES.get(tag)} == {0}
            if tag in _TABLES and value not in tables and not empty:
                raise UnsupportedError(f'"{name}" has relocations that no section shows')
