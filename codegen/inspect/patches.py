"""What relocations do to code: which field of which instruction each type fills, and what it names.

A linker writes where a relocation says. One that writes over an opcode makes an add a multiply, so
in code only the types below are allowed, each over instructions with the bits that it belongs to.
Types: the processor supplements of the System V ABI (x86-64 4.4, AAELF64 5.7, AAELF32 5.6) and the
RISC-V ELF psABI ("Relocations"). Linker relaxation (R_RISCV_RELAX, R_RISCV_ALIGN), which deletes
instructions, is none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import elf
from .disassembly import Instruction

# x86-64: type -> bytes of the field, which has to be all of a displacement or immediate:
# 64, PC32, GOT32, PLT32, GOTPCREL, 32, 32S, PC64, GOTOFF64, GOTPC32, GOT64, GOTPCREL64, GOTPC64,
# PLTOFF64, GOTPCRELX, REX_GOTPCRELX.
_X86 = {1: 8, 2: 4, 3: 4, 4: 4, 9: 4, 10: 4, 11: 4, 24: 8, 25: 8, 26: 4, 27: 8, 28: 8, 29: 8,
        31: 8, 41: 4, 42: 4}  # fmt: skip
# GOTPCRELX and REX_GOTPCRELX, of which linkers make other instructions of these: a call or jump,
# mov, test, and add to cmp.
_REWRITTEN, _REWRITABLE = (41, 42), (0xFF, 0x8B, 0x85, *range(0x03, 0x40, 8))
# Others: type -> (mask, value) of the instruction words, one of which has to fit.
_Words = tuple[tuple[int, int], ...]
_ADR, _STORE, _MOVE = (
    ((0x1F000000, 0x10000000),),
    ((0x3B000000, 0x39000000),),
    ((0x1F800000, 0x12800000),),
)
_AARCH64: Mapping[int, _Words] = {
    **dict.fromkeys(range(263, 270), _MOVE),  # MOVW_UABS_G0..G3
    273: ((0x3B000000, 0x18000000),),  # LD_PREL_LO19
    **dict.fromkeys((274, 275, 276, 311), _ADR),  # ADR_PREL_*, ADR_GOT_PAGE
    277: ((0x7FC00000, 0x11000000),),  # ADD_ABS_LO12_NC
    **dict.fromkeys((278, 284, 285, 286, 299, 312), _STORE),  # LDST*_ABS_LO12_NC, LD64_GOT_LO12_NC
    279: ((0x7E000000, 0x36000000),),  # TSTBR14
    280: ((0xFF000000, 0x54000000), (0x7E000000, 0x34000000)),  # CONDBR19
    282: ((0x7C000000, 0x14000000),),  # JUMP26
    283: ((0x7C000000, 0x14000000),),  # CALL26
}  # fmt: skip
_THUMB: Mapping[int, _Words] = {
    10: ((0xD000F800, 0xD000F000),),  # THM_CALL; the second half word is the higher
    30: ((0xD000F800, 0x9000F000),),  # THM_JUMP24
    102: ((0xF800, 0xE000),),  # THM_JUMP11
    103: ((0xF000, 0xD000),),  # THM_JUMP8
}
_UPPER, _JUMP = ((0x7F, 0x17),), ((0x7F, 0x6F),)
_LOW_I = ((0x7F, 0x03), (0x7F, 0x07), (0x707F, 0x13), (0x707F, 0x1B), (0x707F, 0x67))
_LOW_S = ((0x7F, 0x23), (0x7F, 0x27))
_RISCV: Mapping[int, _Words] = {
    16: ((0x7F, 0x63),), 17: _JUMP,  # BRANCH, JAL
    **dict.fromkeys((18, 19, 20, 23), _UPPER),  # CALL, CALL_PLT, GOT_HI20, PCREL_HI20
    24: _LOW_I, 25: _LOW_S, 26: ((0x7F, 0x37),), 27: _LOW_I, 28: _LOW_S,  # LO12, HI20
    44: ((0xC003, 0xC001),), 45: ((0xE003, 0xA001), (0xE003, 0x2001)),  # RVC_BRANCH, RVC_JUMP
}  # fmt: skip
_WORDS = {elf.AARCH64: _AARCH64, elf.ARM: _THUMB, elf.RISCV: _RISCV}
CALLS = (18, 19)  # of RISC-V: at the auipc of an auipc, jalr pair
POINTERS = {elf.X86_64: 1, elf.AARCH64: 257, elf.ARM: 2, elf.RISCV: 2}  # an address in data
_RISCV_32 = 1
# Of a 64-bit word: ABS64, PREL64; 64, ADD64, SUB64, and of x86-64 any.
_WIDE = {
    elf.X86_64: range(256), elf.AARCH64: (257, 260), elf.ARM: (), elf.RISCV: (2, 36, 40)
}  # fmt: skip


def fits(file: elf.Elf, r: elf.Relocation, i: Instruction, code: bytes, decoder: Any) -> bool:
    """Whether a relocation in code fills a field of the instruction `i`, of the bytes `code`."""
    if r.type == 0:
        return True  # R_*_NONE
    if (r.addend is None) != (file.machine == elf.ARM):
        return False
    if file.machine == elf.X86_64:
        if r.type in _REWRITTEN and not _rewritable(code, r.offset - i.offset):
            return False
        return _X86.get(r.type) == _field(decoder, code, r.offset - i.offset)
    if r.offset != i.offset:
        return False
    word = int.from_bytes(code, "little")
    words = _WORDS[file.machine].get(r.type, ())
    return i.size == _size(file, r) and any(word & mask == value for mask, value in words)


def _rewritable(code: bytes, at: int) -> bool:
    """Whether an instruction is REX, opcode, ModRM, distance, its opcode one that linkers know."""
    rex = at == 3 and code[0] >> 4 == 4
    return (at == 2 or rex) and code[at - 2] in _REWRITABLE


def _size(file: elf.Elf, r: elf.Relocation) -> int:
    """Bytes of the instruction that a relocation belongs to."""
    short = {elf.ARM: (102, 103), elf.RISCV: (44, 45)}.get(file.machine, ())
    return 2 if r.type in short else 4


def width(file: elf.Elf, r: elf.Relocation) -> int:
    """At most how many bytes a relocation of data fills."""
    return 8 if file.bits == 64 and r.type in _WIDE[file.machine] else 4


def is_pointer(file: elf.Elf, r: elf.Relocation) -> bool:
    """Whether a relocation makes data the address of its symbol."""
    narrow = file.machine == elf.RISCV and file.bits == 32
    return r.type == (_RISCV_32 if narrow else POINTERS[file.machine])


def addend(file: elf.Elf, r: elf.Relocation) -> int:
    """What is added to the symbol's address where data holds it."""
    if r.addend is not None:
        return r.addend
    width = file.bits // 8
    return int.from_bytes(file.sections[r.section].data[r.offset : r.offset + width], "little")


def _field(decoder: Any, code: bytes, at: int) -> int | None:
    """The size of the displacement or immediate that begins at byte `at` of an instruction.

    Both stand last, the immediate behind. (The size that capstone gives of a displacement is that
    of operands with a prefix 66: wrong.)
    """
    (decoded,) = decoder.disasm(code, 0)
    second = decoded.imm_offset
    if at and at == second:
        return len(code) - at
    return (second or len(code)) - at if at and at == decoded.disp_offset else None
