"""certify: files whose headers contradict each other are refused, and the field is named."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from addergraph.codegen.inspect import certificate
from addergraph.codegen.inspect.certificate import certify_bytes
from addergraph.errors import AdderGraphError, StorageError, UnsupportedError
from tests.codegen.elves import (
    ALLOC,
    CODE_AT,
    DATA_AT,
    EXEC,
    NOTYPE,
    UNDEFINED,
    WRITE,
    Relocation,
    Section,
    Segment,
    Symbol,
    linked,
    made,
)

CODE = ALLOC | EXEC
ADD_RETURN = bytes.fromhex("01f0c3")  # addl %esi, %eax; retq
CALL_RETURN = bytes.fromhex("e800000000c3")
OUT = Symbol("outside", section=UNDEFINED, kind=NOTYPE)
TEXT = Section(".text", ADD_RETURN, CODE)
OBJECT = made("x86-64", [TEXT], [Symbol("f", size=3)])
# Where an ELF file of 64 bits says it: offset, layout.
SECTIONS_AT, SEGMENT_SIZE, SECTION_SIZE, NAMES_IN = (40, "<Q"), (54, "<H"), (58, "<H"), (62, "<H")
TYPE, FLAGS, OFFSET, SIZE, LINK, INFO = (
    (4, "<I"), (8, "<Q"), (24, "<Q"), (32, "<Q"), (40, "<I"), (44, "<I")
)  # fmt: skip


def changed(data: bytes, field: tuple[int, str], value: int, section: int | None = None) -> bytes:
    """`data` with a field of its header, or of a section's, set to `value`."""
    offset, layout = field
    if section is not None:
        offset += struct.unpack_from("<Q", data, SECTIONS_AT[0])[0] + 64 * section
    copy = bytearray(data)
    struct.pack_into(layout, copy, offset, value)
    return bytes(copy)


def with_call(*relocations: Relocation) -> bytes:
    """Sections: 1 code, 2 relocations, 3 symbols, 4 names."""
    symbols = [Symbol("f", size=len(CALL_RETURN)), OUT]
    return made("x86-64", [Section(".text", CALL_RETURN, CODE)], symbols, relocations)


CALL = with_call(Relocation(1, 4, 2, -4))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(OBJECT, SECTION_SIZE, 40), "section headers are said to have 40 bytes"),
        (changed(OBJECT, NAMES_IN, 9), "names of its 4 sections are said to be in 9"),
        (changed(OBJECT, SIZE, 10_000, 1), "sections overlap or end behind it"),
        (changed(OBJECT, OFFSET, len(OBJECT), 1), "section 1 ends at byte"),
        (changed(OBJECT, TYPE, 8, 1), "section 1 is code without bytes"),
        (changed(OBJECT, FLAGS, CODE | 0x800, 1), "section 1 is compressed code"),
        (changed(OBJECT, (0, "<I"), 5000, 1), "there is no name at byte 5000"),
        (changed(OBJECT, LINK, 77, 2), "names of symbols are said to be in section 77"),
        (made("x86-64", [TEXT], [Symbol("f", section=50)]), "symbol is said to be in section 50"),
        (changed(CALL, LINK, 1, 2), "symbols of relocations are said to be in section 1"),
        (changed(CALL, INFO, 50, 2), "relocations are said to be of section 50"),
        (with_call(Relocation(1, 4, 9, -4)), "a relocation names symbol 9"),
        (changed(linked(ADD_RETURN), SEGMENT_SIZE, 32), "program headers are said to have 32"),
        (
            linked(ADD_RETURN, segments=[Segment(1, 5, CODE_AT, CODE_AT, 1 << 20)]),
            "segment 0 ends behind it",
        ),
    ],
)
def test_headers_that_contradict_each_other(data: bytes, said: str) -> None:
    with pytest.raises(AdderGraphError, match=said):
        certify_bytes(data, "x.o")


def reasons(data: bytes) -> str:
    found = certify_bytes(data, "x.o")
    assert not found.multiplication_free
    return "\n".join(map(str, found.failures))


def test_a_call_with_two_relocations() -> None:
    data = with_call(Relocation(1, 4, 2, -4), Relocation(1, 2, 1, -4))
    assert "has several relocations" in reasons(data)


def test_a_jump_to_below_everything_that_is_loaded() -> None:
    away = bytes.fromhex("e9") + struct.pack("<i", -CODE_AT - 0x800)
    assert "jmp" in reasons(linked(away))


def test_relocations_without_a_meaning_change_nothing() -> None:
    data = made("x86-64", [TEXT], [Symbol("f", size=3)], [Relocation(0, 0, 1)])
    assert certify_bytes(data, "x.o").multiplication_free


def test_relocations_of_the_other_form_do_not_fit_an_instruction() -> None:
    """x86-64 has addends beside its relocations: a linker would take this one from the code."""
    data = changed(with_call(Relocation(1, 4, 2, -4)), TYPE, 9, 2)  # REL
    data = changed(changed(data, (56, "<Q"), 16, 2), SIZE, 16, 2)
    assert "call" in reasons(data)


def test_pointers_of_arm_have_their_addend_in_the_data() -> None:
    code = Section(".text", bytes.fromhex("eff300807047"), CODE)  # mrs r0, apsr; bx lr
    symbols = [Symbol("$t", kind=NOTYPE, binding=0), Symbol("f", 1, 6)]
    at = [Relocation(0, 2, 2, section=2)]

    def judged(addend: int) -> bool:
        table = Section(".data", struct.pack("<I", addend), ALLOC | WRITE)
        return certify_bytes(made("thumb", [code, table], symbols, at), "x.o").multiplication_free

    assert judged(0) and judged(4) and not judged(2)


def test_what_runs_on_into_the_second_half_of_a_jump() -> None:
    pair = bytes.fromhex("1703050567004300")  # auipc t1; jr 4(t1); from byte 2: c.addi a0, 1
    symbols = [Symbol("f", 0, 8), Symbol("g", 2, 2)]
    found = reasons(made("riscv", [Section(".text", pair, CODE)], symbols))
    assert "runs on into the second half of a jump" in found


def test_more_reasons_than_are_shown() -> None:
    products = bytes.fromhex("0fafc6") * 40 + b"\xc3"
    section = Section(".text", products, CODE)
    found = certify_bytes(made("x86-64", [section], [Symbol("f", size=len(products))]), "x.o")
    *_, last = found.render().splitlines()
    assert last.strip() == f"and {len(found.failures) - certificate._SHOWN} more"


def test_a_file_larger_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(OBJECT)
    monkeypatch.setattr(certificate, "BYTES_LIMIT", len(OBJECT) - 1)
    with pytest.raises(StorageError, match=f"has {len(OBJECT)} bytes; at most"):
        certificate.certify(path)


def test_without_capstone_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(UnsupportedError, match="needs capstone"):
        certify_bytes(OBJECT, "x.o")


def test_arm_instructions_of_32_bits() -> None:
    section = Section(".text", bytes.fromhex("1eff2fe1"), CODE)  # bx lr
    symbols = [Symbol("$a", kind=NOTYPE, binding=0), Symbol("f", 0, 4)]
    with pytest.raises(UnsupportedError, match="ARM instructions of 32 bits"):
        certify_bytes(made("thumb", [section], symbols), "x.o")


def test_data_of_a_linked_file_at_the_end_of_its_pages() -> None:
    assert certify_bytes(linked(ADD_RETURN, data=bytes(8)), "x.so").multiplication_free
    assert DATA_AT > CODE_AT
