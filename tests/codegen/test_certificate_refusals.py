"""certify: what it cannot follow, see or account for is refused, and it says what and where."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from addergraph.codegen.export.archive import Member
from addergraph.codegen.inspect.certificate import certify_bytes
from addergraph.codegen.inspect.flow import UNKNOWN_PLACE
from addergraph.errors import StorageError, UnsupportedError
from tests.codegen.elves import (
    ABSOLUTE,
    ALLOC,
    CODE_AT,
    DATA_AT,
    EXEC,
    GLOBAL,
    IFUNC,
    LOCAL,
    NOTYPE,
    OBJECT,
    UNDEFINED,
    WEAK,
    WRITE,
    Relocation,
    Section,
    Segment,
    Symbol,
    entry,
    joined,
    linked,
    made,
)  # fmt: skip
from tests.codegen.objects import CLEAN, PLANTED, compiled

CODE = ALLOC | EXEC
ADD = "01f0"  # addl %esi, %eax
RETURN = "c3"
MULTIPLY = bytes.fromhex("0fafc6c3")  # imull %esi, %eax; retq
OUT = Symbol("outside", section=UNDEFINED, kind=NOTYPE)


def text(code: str, name: str = ".text", flags: int = CODE) -> Section:
    return Section(name, bytes.fromhex(code), flags)


def first(code: str, value: int = 0) -> Symbol:
    return Symbol("f", value, len(bytes.fromhex(code)) - value)


def x86(
    code: str, *symbols: Symbol, more: Sequence[Section] = (), at: Sequence[Relocation] = ()
) -> bytes:
    """A function `f` (symbol 1) of `code`, and what else is given."""
    return made("x86-64", [text(code), *more], [first(code), *symbols], at)


def failures(data: bytes) -> list[str]:
    found = certify_bytes(data, "x.o")
    assert found.multiplication_free == (not found.failures)
    return [str(f) for f in found.failures]


# -- where control goes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "symbols", "at", "reason"),
    [
        # a pointer in memory: the relocation names the pointer, not what is called
        ("ff1500000000c3", [Symbol("fp", kind=OBJECT, section=2)], (2, 2), UNKNOWN_PLACE),
        ("ff2500000000", [Symbol("fp", kind=OBJECT, section=2)], (2, 2), UNKNOWN_PLACE),
        ("ff1500000000c3", [OUT], (2, 41), UNKNOWN_PLACE),  # by way of the GOT
        ("ffd0c3", [], None, UNKNOWN_PLACE),  # callq *%rax
        ("ff24c500000000", [Symbol("table", kind=OBJECT, section=2)], (3, 11), UNKNOWN_PLACE),
        ("3effe0", [], None, UNKNOWN_PLACE),  # notrack jmpq *%rax
        ("e800000000c3", [OUT], (1, 4), 'calls "outside", which is not in this file'),
        ("e900000000", [OUT], (1, 4), 'calls "outside", which is not in this file'),
        ("0f8400000000c3", [OUT], (2, 2), 'calls "outside", which is not in this file'),
        ("e800000000c3", [Symbol("fp", kind=OBJECT, section=2)], (1, 4), "is no instruction"),
        (
            "e800000000c3",
            [Symbol("odd", 0x1234, kind=NOTYPE, section=ABSOLUTE)],
            (1, 4),
            "is no instruction",
        ),
        ("e800000000c3", [Symbol("soft", 5, 1, binding=WEAK)], (1, 4), "which is weak"),
        ("e800000000c3", [], (1, 4), "f+0x0: callq 5: goes to what is no instruction"),  # f+1
        ("eb01b80fafc6c3c3", [], None, "goes to what is no instruction"),  # into an operand
        ("eb7f", [], None, "goes to what is no instruction"),  # behind the section
        ("ebf0", [], None, "goes to what is no instruction"),  # before it
        ("01f0", [], None, "runs on into what was not decoded"),
        ("7400", [], None, "goes to what is no instruction"),
        ("66e90000c3c3c3", [], None, "as processors and decoders differ on it"),
        ("50c3", [], None, "is not its caller's"),  # pushq %rax; retq
        ("48890424c3", [], None, "is not its caller's"),  # movq %rax, (%rsp); retq
    ],
)
def test_a_transfer_that_does_not_end_in_what_was_decoded(
    code: str, symbols: list[Symbol], at: tuple[int, int] | None, reason: str
) -> None:
    target = 2 if symbols else 1
    addend = -3 if not symbols and at else -4
    relocations = [Relocation(*at, target, addend)] if at else []
    data = x86(code, *symbols, more=[Section(".data", bytes(8), ALLOC | WRITE)], at=relocations)
    assert any(reason in f for f in failures(data)), failures(data)


@pytest.mark.parametrize(
    ("machine", "code", "reason"),
    [
        ("aarch64", "00001fd6", UNKNOWN_PLACE),  # br x0
        ("aarch64", "00003fd6c0035fd6", UNKNOWN_PLACE),  # blr x0
        ("aarch64", "00005fd6", UNKNOWN_PLACE),  # ret x0
        ("aarch64", "fe0300aac0035fd6", "is not its caller's"),  # mov x30, x0; ret
        ("aarch64", "1e0040f9c0035fd6", "is not its caller's"),  # ldr x30, [x0]; ret
        ("aarch64", "02000014", "goes to what is no instruction"),  # b +8
        ("aarch64", "0000010b", "runs on"),  # add
        ("thumb", "8047", UNKNOWN_PLACE),  # blx r0
        ("thumb", "0047", UNKNOWN_PLACE),  # bx r0
        ("thumb", "8746", UNKNOWN_PLACE),  # mov pc, r0
        ("thumb", "8744", UNKNOWN_PLACE),  # add pc, r0
        ("thumb", "86467047", "is not its caller's"),  # mov lr, r0; bx lr
        ("thumb", "01b400bd", "is not its caller's"),  # push {r0}; pop {pc}
        ("thumb", "10e0", "goes to what is no instruction"),  # b
        # In Thumb-2 the condition of `it` makes what follows run on: bx lr, if it does not hold.
        ("thumb", "08bf7047", "runs on"),  # it eq; bxeq lr
        ("thumb", "08bf70477047", ""),  # it eq; bxeq lr; bx lr
        ("thumb", "04bf7047", "states"),  # itt eq; bxeq lr, and no second one
        ("thumb", "08bffee7", "runs on"),  # it eq; beq to itself
        ("thumb", "10b404eb050e10bd", "is not its caller's"),  # push {r4}; add.w lr; pop {r4, pc}
        ("thumb", "04eb050e7047", "is not its caller's"),  # add.w lr, r4, r5; bx lr
        ("thumb", "10b5864610bd", ""),  # push {r4, lr}; mov lr, r0; pop {r4, pc}
        ("thumb", "10b58646bde810407047", ""),  # ...; pop.w {r4, lr}; bx lr
        ("thumb", "10b586467047", "is not its caller's"),  # push {r4, lr}; mov lr, r0; bx lr
        ("thumb", "864610b510bd", "is not its caller's"),  # mov lr, r0; push {r4, lr}; pop {r4, pc}
        ("thumb", "50f804eb7047", "is not its caller's"),  # ldr lr, [r0], #4; bx lr
        ("thumb", "4ef8040b7047", "is not its caller's"),  # str r0, [lr], #4; bx lr
        ("thumb", "cef804007047", ""),  # str.w r0, [lr, #4]; bx lr
        ("thumb", "dfe800f0", "not in the table"),  # tbb [pc, r0]
        ("thumb", "00b10047", UNKNOWN_PLACE),  # cbz r0; bx r0
        ("thumb", "38b17047", "goes to what is no instruction"),  # cbz r0
        ("riscv", "0285", UNKNOWN_PLACE),  # c.jr a0
        ("riscv64", "02950280", UNKNOWN_PLACE),  # c.jalr a0
        ("riscv", "67000500", UNKNOWN_PLACE),  # jr a0
        ("riscv", "1703000067000300", ""),  # auipc t1, 0; jr t1: to itself, which is known
        ("riscv", "1703000067800300", UNKNOWN_PLACE),  # auipc t1; jr t2
        ("riscv", "1703000067008300", "goes to what is no instruction"),  # auipc t1; jr 8(t1)
        ("riscv", "17030000670043006ff0dfff", "is the second half of a jump"),
        ("riscv", "aa808280", "is not its caller's"),  # c.mv ra, a0; c.jr ra
    ],
)  # fmt: skip
def test_other_machines(machine: str, code: str, reason: str) -> None:
    odd = machine == "thumb"
    symbols = [first(code, 0)]
    if odd:
        symbols = [Symbol("f", 1, len(code) // 2), Symbol("$t", 0, 0, NOTYPE, LOCAL)][::-1]
    found = failures(made(machine, [text(code)], symbols))
    assert any(reason in f for f in found) if reason else not found, found


def test_a_table_of_functions_that_relocations_fill() -> None:
    """Its own functions are decoded; those from outside are never called, as none is from here."""
    table = Section(".data.rel.ro", bytes(16), ALLOC | WRITE)
    code = "488b0500000000ffe0"  # movq table(%rip), %rax; jmpq *%rax
    at = [Relocation(3, 2, 2, -4), Relocation(0, 1, 3, 0, section=2)]
    data = x86(code, Symbol("table", kind=OBJECT, section=2), OUT, more=[table], at=at)
    assert failures(data) == [f"f+0x7: jmpq *%rax: {UNKNOWN_PLACE}"]


def test_pointers_to_the_middle_of_an_instruction() -> None:
    data = x86(
        "b80fafc6c3c3", more=[Section(".data", bytes(8), ALLOC | WRITE)],
        at=[Relocation(0, 1, 1, 1, section=2)],
    )  # fmt: skip
    assert failures(data) == [".data+0x0: address: 0x1 is no instruction that was decoded"]


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [
        (Symbol("inner", 1, 0), "inner+0x0: symbol: is no instruction"),
        (Symbol("inner", 1, 0, NOTYPE), "inner+0x0: symbol: is no instruction"),
        (Symbol("$inner", 1, 0, NOTYPE), "$inner+0x0: symbol: is no instruction"),
        (Symbol("data", 0, 4, section=2), "data+0x0: symbol: is no instruction"),
        (Symbol("data", 0, 4, NOTYPE, section=2), "neither function nor data by its type"),
        (Symbol("rom", 0x1000, 4, section=ABSOLUTE), "rom+0x0: symbol: is no instruction"),
        (Symbol("chosen", 0, 6, IFUNC), "is chosen when it is loaded (IFUNC)"),
        (Symbol("__mulsi3", 0, 0, NOTYPE, GLOBAL, UNDEFINED), "is not in this file"),
    ],
)
def test_symbols_outside_of_what_was_decoded(symbol: Symbol, reason: str) -> None:
    data = x86("b80fafc6c3c3", symbol, more=[Section(".data", MULTIPLY, ALLOC | WRITE)])
    assert any(reason in f for f in failures(data)), failures(data)


def test_thumb_functions_have_odd_values() -> None:
    """By an even one, a linker calls the same bytes as ARM instructions."""
    symbols = [Symbol("$t", 0, 0, NOTYPE, LOCAL), Symbol("f", 0, 2)]
    assert any("ARM code, not Thumb" in f for f in failures(made("thumb", [text("7047")], symbols)))


@pytest.mark.parametrize(
    ("machine", "code", "type", "offset"),
    [
        ("x86-64", "01f0c390909090", 2, 0),  # over the opcode
        ("x86-64", "b800000000c3", 2, 0),
        ("x86-64", "e800000000c3", 1, 1),  # 8 bytes, of which 4 are of the next instruction
        ("x86-64", "b800000000c3", 14, 1),  # R_X86_64_8, which is never of the kinds that are known
        ("x86-64", "c3", 1, 0),
        ("aarch64", "00041e4ec0035fd6", 277, 0),  # ADD_ABS_LO12_NC over an add of vectors
        ("aarch64", "00041e4ec0035fd6", 257, 0),  # ABS64
        ("aarch64", "0000010bc0035fd6", 283, 0),  # CALL26 over an add
        ("aarch64", "00000091c0035fd6", 277, 1),  # not at its first byte
        ("riscv", "3305b50082800100", 27, 0),  # LO12_I over an add of registers
        ("riscv", "1305150082800100", 51, 0),  # RELAX
        ("riscv", "1305150082800100", 43, 0),  # ALIGN
        ("riscv64", "1305150082800100", 2, 0),  # 64
        ("riscv", "170500003385b50067800000", 19, 0),  # CALL_PLT of an auipc before an add
        ("x86-64", "0fb60500000000c3", 41, 3),  # GOTPCRELX: linkers know no movzbl
        ("x86-64", "480fb60500000000c3", 42, 4),
    ],
)
def test_relocations_that_make_other_instructions(
    machine: str, code: str, type: int, offset: int
) -> None:
    number = Symbol("number", 0x12345678, 0, NOTYPE, LOCAL, ABSOLUTE)
    data = made(machine, [text(code)], [number, first(code)], [Relocation(offset, type, 1)])
    assert any("relocation of type" in f for f in failures(data)), failures(data)


def test_a_relocation_of_data_that_reaches_into_code() -> None:
    symbols = [Symbol("$d", 0, 0, NOTYPE, LOCAL), Symbol("$x", 4, 0, NOTYPE, LOCAL)]
    data = made("aarch64", [text("00000000c0035fd6")], symbols, [Relocation(0, 257, 1)])
    assert failures(data) == [".text+0x0: $d: a relocation of type 257 reaches into an instruction"]


def test_padding_that_nothing_reaches_may_end_a_section() -> None:
    assert failures(x86("01f0c36690")) == []
    (failure,) = failures(x86("01f0eb00" + "6690"))
    assert "f+0x4: nop: runs on into what was not decoded" in failure


def test_what_runs_into_zeros_is_refused() -> None:
    code = "01f0" + "00" * 14 + "c3"
    symbols = [Symbol("f", 0, 2), Symbol("g", 16, 1)]
    (failure,) = failures(made("x86-64", [text(code)], symbols))
    assert "f+0x0: addl %esi, %eax: runs on" in failure


SYSTEM = {
    "aarch64": "7f2003d5 5f2003d5 9f2003d5 bf2003d5 9f3f03d5 df3f03d5 00423bd5 00421bd5 bf4000d5 "
    "7f4103d5 010000d4 1f7508d5 e0039fd6",  # wfi, wfe, sev(l), dsb, isb, mrs, msr, cps-like, eret
    "thumb": "eff31080 80f31088 72b6 62b6 bff34f8f bff36f8f 30bf 20bf 40bf abbe",
    "riscv": "73005010 73001012 0f00f00f 0f100000 73100530 f32200b0 73001000 73000000 73002010",
    "riscv64": "73005010 73001012 7390 2230 73002030",
}


@pytest.mark.parametrize("machine", SYSTEM)
def test_what_only_systems_do_is_control(machine: str) -> None:
    tail = {"aarch64": "c0035fd6", "thumb": "7047"}.get(machine, "67800000")
    code = SYSTEM[machine].replace(" ", "").replace("1f7508d5", "") + tail
    code = code.replace("7390" + "2230", "73902230")
    symbols = [Symbol("f", int(machine == "thumb"), len(code) // 2)]
    if machine == "thumb":
        symbols.insert(0, Symbol("$t", 0, 0, NOTYPE, LOCAL))
    found = certify_bytes(made(machine, [text(code)], symbols), "x.o")
    assert found.multiplication_free, found.render()
    assert set(found.functions[0].counts) == {"control"}


# -- what is no code by its section, and becomes some ------------------------------------------


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (Section(".gnu.lto_main.0", b"x", 0x80000000), ".gnu.lto_main.0 holds code"),
        (Section(".gnu.lto_main.0", b"x", ALLOC), ".gnu.lto_main.0 holds code"),
        (Section(".gnu.offload_lto_f", b"x", 0), "holds code"),
        (Section(".llvmbc", b"x", 0), ".llvmbc holds code"),
        (Section(".llvm.lto", b"x", 0, 0x6FFF4C0C), ".llvm.lto holds code"),
        (Section(".nv_fatbin", b"x"), "holds code"),
        (Section(".gnu.linkonce.t.f", b"\xc3", CODE), "may be another file's"),
        (Section(".deplibs", b"m\0", 0, 0x6FFF4C04), "is of type 0x6fff4c04"),
        (Section(".strange", b"x", 0), "neither loaded nor known"),
        (Section(".fast", b"\xc3", CODE | WRITE), "is code that can be written"),
        (Section(".fast", b"\xc3", CODE | 0x30), "is code with flags 0x36"),
        (Section(".fast", b"\xc3", CODE, 7), "is code, but of type 0x7"),
        (Section(".init_array", bytes(8), ALLOC | WRITE, 14), "run before or after main"),
        (Section(".ctors", bytes(8), ALLOC | WRITE), "run before or after main"),
        (Section(".group", struct.pack("<II", 1, 1), 0, 17), "COMDAT group"),
        (Section(".relr", bytes(8), ALLOC, 19), "is of type 0x13"),
        (Section(".crel.text", b"x", 0, 0x40000014), "is of type 0x40000014"),
    ],
)  # fmt: skip
def test_sections_that_hide_or_change_code(section: Section, said: str) -> None:
    data = x86(ADD + RETURN, more=[section])
    with pytest.raises(UnsupportedError, match=r'^"x\.a\(b\.o\)": section ') as caught:
        certify_bytes(joined([Member("b.o", [data], ())]), "x.a")
    assert said in str(caught.value)


@pytest.mark.parametrize(("comdat", "member"), [(1, 2), (0, 1)])
def test_groups_of_data_or_of_this_file_alone_replace_no_code(comdat: int, member: int) -> None:
    group = Section(".group", struct.pack("<II", comdat, member), 0, 17)
    assert failures(x86(ADD + RETURN, more=[Section(".rodata.t", b"x"), group])) == []


def test_the_symbol_of_a_file_of_lto() -> None:
    slim = Symbol("__gnu_lto_slim", 1, 1, OBJECT, GLOBAL, 0xFFF2)
    with pytest.raises(UnsupportedError, match="__gnu_lto_slim"):
        certify_bytes(x86(ADD + RETURN, slim), "x.o")


def test_code_in_sections_of_no_function_is_decoded_to_the_last_byte() -> None:
    hidden = text(MULTIPLY.hex(), ".hidden")
    assert any("imull" in f for f in failures(x86(ADD + RETURN, more=[hidden])))
    cut = text("c30faf", ".cut")
    assert any("does not decode" in f for f in failures(x86(ADD + RETURN, more=[cut])))


# -- archives -----------------------------------------------------------------------------------

GOOD = x86(ADD + RETURN)
BAD = x86(MULTIPLY.hex())
MAGIC = b"!<arch>\n"


def test_every_member_is_judged() -> None:
    both = MAGIC + entry(b"a/", GOOD) + entry(b"a/", BAD)
    assert failures(both) == ["a: f+0x0: imull %esi, %eax: address mul/div"]
    assert failures(MAGIC + entry(b"a", GOOD)) == []  # BSD's short names have no stroke


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (MAGIC + entry(b"/", BAD), "its first member is no symbol index"),
        (MAGIC + entry(b"/SYM64/", BAD), "its first member is no symbol index"),
        (MAGIC + entry(b"a/", GOOD) + entry(b"/", BAD), "not in its table of long names"),
        (MAGIC + entry(b"/", bytes(4)) + entry(b"/", BAD), "not in its table of long names"),
        (MAGIC + entry(b"//", b"x/\n") + entry(b"//", BAD), "not in its table of long names"),
        (MAGIC + entry(b"a/", GOOD) + entry(b"//", BAD), "not in its table of long names"),
        (MAGIC + entry(b"//", b"x/\n") + entry(b"/7", BAD), "not in its table of long names"),
        (MAGIC + entry(b"/x", BAD), "not in its table of long names"),
        (MAGIC + entry(b"", BAD), "has the name b''"),
        (MAGIC + entry(b"a\nb/", BAD), "has the name"),
        (MAGIC + entry(b"a/", GOOD) + b"garbage", "no header of a member at byte"),
        (MAGIC + entry(b"a/", GOOD) + BAD, "no header of a member at byte"),
        (MAGIC + entry(b"a/", GOOD + b"?")[:-1] + b"x" + entry(b"b/", GOOD), "is of no member"),
        (MAGIC + entry(b"a/", GOOD)[:-1], "is truncated"),
        (MAGIC + entry(b"a/", MAGIC + entry(b"b/", BAD)), "is no ELF file: it is an archive"),
        (MAGIC + entry(b"a/", b"BC\xc0\xde1234"), "is no ELF file: it is LLVM bitcode"),
        (MAGIC + entry(b"a/", b"\xde\xc0\x17\x0b"), "is no ELF file: it is LLVM bitcode"),
        (MAGIC + entry(b"a/", b"\xcf\xfa\xed\xfe"), "is no ELF file: it is Mach-O"),
        (MAGIC + entry(b"a/", b"\x64\x86\x01\x00"), "is no ELF file: it is COFF"),
        (MAGIC + entry(b"a/", b"INPUT(x.o)"), "is no ELF file: it begins with"),
        (MAGIC + entry(b"a/", GOOD) + entry(b"empty/", b""), "begins with nothing"),
        (b"!<thin>\n" + entry(b"a/", GOOD), "is a thin archive"),
    ],
)
def test_every_byte_of_an_archive_is_accounted_for(data: bytes, said: str) -> None:
    with pytest.raises(StorageError) as caught:
        certify_bytes(data, "x.a")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", [b"#1/8", b"__.SYMDEF", b"__.SYMDEF SORTED"])
def test_archives_of_bsd_are_refused(name: bytes) -> None:
    with pytest.raises(UnsupportedError, match="archive of macOS or BSD"):
        certify_bytes(MAGIC + entry(name, BAD), "x.a")


def test_a_weak_definition_in_another_member_is_not_the_one_that_is_called() -> None:
    calling = x86("e800000000c3", OUT, at=[Relocation(1, 4, 2, -4)])
    weak = made("x86-64", [text(RETURN)], [Symbol("outside", 0, 1, binding=WEAK)])
    (failure,) = failures(MAGIC + entry(b"a/", calling) + entry(b"b/", weak))
    assert 'calls "outside", which is weak' in failure
    strong = made("x86-64", [text(RETURN)], [Symbol("outside", 0, 1)])
    assert failures(MAGIC + entry(b"a/", calling) + entry(b"b/", strong)) == []


# -- linked files, of which a loader sees the segments ------------------------------------------

CLEAR = bytes.fromhex(ADD + RETURN)
TEXT, DATA = Segment(1, 5, CODE_AT, CODE_AT, 3), Segment(1, 6, DATA_AT, DATA_AT, 0x100)


def test_a_linked_file_that_is_shown_as_it_is_loaded() -> None:
    tags = [(5, DATA_AT), (30, 8), (0, 0)]
    data = linked(CLEAR, data=bytes(8), dynamic=tags, relocations=[(DATA_AT, 8)], entry=CODE_AT)
    assert failures(data) == []
    assert failures(linked(CLEAR, entry=CODE_AT + 1)) == [
        "entry point+0x0: 0x1001: is no instruction that was decoded"
    ]


@pytest.mark.parametrize(
    ("size", "flags", "said"),
    [(4, 5, ""), (3, 5, "no segment loads so"), (4, 7, "that can be written")],
)
def test_a_linked_file_of_32_bits(size: int, flags: int, said: str) -> None:
    """The fields of its program headers stand in another order."""
    data = bytearray(made("riscv", [text("67800000")], [first("67800000")]))
    at = data.index(bytes.fromhex("67800000"))
    struct.pack_into("<H", data, 16, 3)
    struct.pack_into("<I", data, 28, len(data))
    struct.pack_into("<HH", data, 42, 32, 1)
    data += struct.pack("<IIIIIIII", 1, at, 0, 0, size, size, flags, 4096)
    if not said:
        assert failures(bytes(data)) == []
        return
    with pytest.raises(UnsupportedError, match=said):
        certify_bytes(bytes(data), "x.so")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (linked(CLEAR, segments=[DATA]), "section .text is code that no segment loads so"),
        (linked(CLEAR, segments=[replace(TEXT, offset=CODE_AT + 16)]), "no segment loads so"),
        (linked(CLEAR, segments=[replace(TEXT, address=CODE_AT + 1)]), "no segment loads so"),
        (linked(CLEAR, segments=[replace(TEXT, size=2)]), "no segment loads so"),
        (linked(CLEAR, segments=[replace(TEXT, flags=4)]), "no segment loads so"),
        (linked(CLEAR, name_at=0x5000), "no segment loads so"),
        (linked(CLEAR, segments=[replace(TEXT, flags=7)]), "that can be written"),
        (linked(CLEAR, flags=CODE | WRITE), "is code that can be written"),
        (linked(CLEAR, segments=[TEXT, replace(DATA, address=CODE_AT + 2)]), "overlap in memory"),
        (
            linked(CLEAR, segments=[TEXT, Segment(1, 4, DATA_AT + 16, CODE_AT + 16, 4)]),
            "overlap in memory",
        ),
        (linked(CLEAR, segments=[TEXT, Segment(3, 4, DATA_AT, DATA_AT, 4)]), "PT_INTERP"),
        (linked(CLEAR, segments=[Segment(6, 4, 64, 64, 56)]), "has 0 segments to load"),
        (linked(CLEAR, segments=[TEXT, Segment(2, 6, DATA_AT, DATA_AT, 16)], data=bytes(16)),
         "dynamic tags that no section shows"),
        (linked(CLEAR, dynamic=[(1, 1), (0, 0)]), "NEEDED (another library"),
        (linked(CLEAR, dynamic=[(12, CODE_AT), (0, 0)]), "the dynamic tag INIT,"),
        (linked(CLEAR, dynamic=[(25, DATA_AT), (0, 0)]), "the dynamic tag INIT_ARRAY,"),
        (linked(CLEAR, dynamic=[(22, 0), (0, 0)]), "TEXTREL"),
        (linked(CLEAR, dynamic=[(30, 4), (0, 0)]), "has the dynamic tag 0x1e,"),
        (linked(CLEAR, dynamic=[(36, DATA_AT), (0, 0)]), "RELR"),
        (linked(CLEAR, dynamic=[(0x6FFFFEFC, 1), (0, 0)]), "has the dynamic tag 0x6ffffefc"),
        (linked(CLEAR, dynamic=[(7, DATA_AT), (0, 0)]), "relocations that no section shows"),
        (linked(CLEAR, dynamic=[(7, 0), (8, 0), (0, 0), (8, 24)]), "relocations that no section"),
        (linked(CLEAR, dynamic=[(7, 0), (18, 0), (0, 0)]), "relocations that no section shows"),
        (linked(CLEAR, relocations=[(CODE_AT + 1, 8)]), "is changed at 0x1001"),
        (linked(CLEAR, relocations=[(CODE_AT - 7, 8)]), "is changed at 0xff9"),
        (linked(CLEAR, relocations=[(DATA_AT, 37)]), "(relocation of type 37)"),  # IRELATIVE
    ],
)  # fmt: skip
def test_what_a_loader_would_see_otherwise(data: bytes, said: str) -> None:
    with pytest.raises(UnsupportedError, match=r'^"x\.so"') as caught:
        certify_bytes(data, "x.so")
    assert said in str(caught.value)


def test_a_table_of_no_relocations_hides_nothing() -> None:
    """GNU ld states one for RISC-V."""
    assert certify_bytes(
        linked(CLEAR, dynamic=[(7, 0), (8, 0), (0, 0)]), "x.so"
    ).multiplication_free


def test_a_linked_file_is_no_member_of_an_archive() -> None:
    with pytest.raises(UnsupportedError, match="is linked, and no member that a linker takes"):
        certify_bytes(MAGIC + entry(b"a/", linked(CLEAR)), "x.a")


def test_a_clean_object_beside_one_that_multiplies() -> None:
    members = [Member(n, [compiled(t, "x86-64")], ()) for n, t in (("a", CLEAN), ("b", PLANTED))]
    assert [f.split(":")[0] for f in failures(joined(members))] == ["b"]
