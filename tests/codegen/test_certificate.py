"""certify: what may stand in compiled code, on each machine, and what is found when it may not."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import addergraph as ag
from addergraph import compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.export.archive import Member
from addergraph.codegen.inspect import elf
from addergraph.codegen.inspect.census import census, count_instructions
from addergraph.codegen.inspect.certificate import Certificate, certify, certify_bytes
from addergraph.codegen.inspect.flow import UNKNOWN_PLACE
from addergraph.codegen.inspect.instructions import CONTROL, MACHINES, PRODUCTS, REFUSED, UNKNOWN
from addergraph.codegen.targets.lookup import target_named
from addergraph.errors import AdderGraphError, StorageError, UnsupportedError
from addergraph.ir.state import initial_weights
from tests.codegen import elves, objects
from tests.codegen.elves import joined, linked
from tests.codegen.libraries import MIXED, NET
from tests.codegen.objects import CALLED, CALLING, CLEAN, NEAR, PLANTED, RISCV, TABLE, compiled
from tests.damage import within

TABLES = {machine.name: machine for machine in MACHINES}


def reasons(made: Certificate) -> list[str]:
    return [str(failure) for failure in made.failures]


# -- the machines --------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", objects.MACHINES)
def test_clean_code_is_certified(machine: str) -> None:
    made = certify_bytes(compiled(CLEAN, machine), "clean.o")
    assert made.multiplication_free and made.machine == TABLE[machine] and not made.failures
    (function,) = made.functions
    assert function.name == "first" and sum(function.counts.values()) >= 15
    assert not set(function.counts) & set(REFUSED)
    assert function.data_bytes == (4 if machine == "thumb" else 0), "its literal pool"
    assert made.render().endswith("multiplication-free: yes, all of it")


@pytest.mark.parametrize(
    ("machine", "features", "offset", "instruction"),
    [
        ("x86-64", None, 3, "imull %esi, %eax"),
        ("aarch64", None, 4, "mul w0, w8, w1"),
        ("thumb", None, 2, "muls r0, r1, r0"),
        ("riscv", "+m", 4, "mul a0, a0, a1"),
        ("riscv", "+m,+c", 2, "mul a0, a0, a1"),
        ("riscv64", "+m", 4, "mulw a0, a0, a1"),
        ("riscv64", "+m,+c", 2, "mulw a0, a0, a1"),
    ],
)
def test_a_planted_multiply_is_named_with_its_place(
    machine: str, features: str | None, offset: int, instruction: str
) -> None:
    made = certify_bytes(compiled(CLEAN + PLANTED, machine, features), "planted.o")
    assert not made.multiplication_free
    (failure,) = made.failures
    assert (failure.function, failure.offset) == ("second", offset)
    assert failure.instruction == instruction and failure.reason in REFUSED
    assert f"  second+{offset:#x}: {instruction}: " in made.render()


@pytest.mark.parametrize(
    ("machine", "offset", "called"), [("riscv", 8, "__mulsi3"), ("riscv64", 16, "__muldi3")]
)
def test_a_multiply_by_a_library_call_is_found_where_there_is_no_instruction(
    machine: str, offset: int, called: str
) -> None:
    made = certify_bytes(compiled(CLEAN + PLANTED, machine), "soft.o")
    (failure,) = made.failures
    assert (failure.function, failure.offset) == ("second", offset)
    assert failure.reason == f'calls "{called}", which is not in this file'


def test_a_long_name_is_shown_by_its_ends() -> None:
    name = f"{'a' * 30}{'b' * 30}"
    shown = certify_bytes(compiled(CLEAN.replace("@first", f"@{name}"), "x86-64"), "x.o").render()
    assert f" {'a' * 19}..{'b' * 21} " in f" {shown} ".replace("\n", " ") and name not in shown


@pytest.mark.parametrize("machine", objects.MACHINES)
def test_calls_must_stay_inside_the_archive(machine: str) -> None:
    caller, called = compiled(CALLING, machine), compiled(CALLED, machine)
    (failure,) = certify_bytes(caller, "caller.o").failures
    assert failure.function == "caller" and 'calls "elsewhere"' in failure.reason
    members = [
        Member("caller.o", [caller], ("caller",)),
        Member("called.o", [called], ("elsewhere",)),
    ]
    made = certify_bytes(joined(members), "both.a")
    assert made.multiplication_free and not made.undefined
    assert [f.label for f in made.functions] == ["caller.o: caller", "called.o: elsewhere"]


@pytest.mark.parametrize("machine", ["x86-64", *RISCV])
def test_calls_through_an_address_are_found(machine: str) -> None:
    """The large code model loads addresses of functions, from the code or from data."""
    made = certify_bytes(compiled(CALLING, machine, model="large"), "far.o")
    (failure,) = made.failures
    assert failure.function == "caller" and failure.reason == UNKNOWN_PLACE


@pytest.mark.parametrize("machine", RISCV)
def test_a_call_of_risc_v_in_two_parts_is_found(machine: str) -> None:
    """auipc with an address outside (R_RISCV_PCREL_HI20), then a jump to what its register has."""
    data = compiled(CALLING, machine)
    (call,) = [r for r in elf.read_elf(data, "x").relocations if r.symbol.name == "elsewhere"]
    word = "<Q" if machine == "riscv64" else "<I"  # of an offset; the type is behind it
    type_at = data.index(struct.pack(f"{word}B", call.offset, call.type)) + struct.calcsize(word)
    made = certify_bytes(data[:type_at] + b"\x17" + data[type_at + 1 :], "x.o")
    assert reasons(made) == [f"caller+0xc: jalr ra: {UNKNOWN_PLACE}"]


@pytest.mark.parametrize("machine", objects.MACHINES)
def test_calls_inside_the_file_are_no_calls_of_the_data_outside(machine: str) -> None:
    """RISC-V calls by two instructions; the second jumps to what the first has in a register."""
    made = certify_bytes(compiled(NEAR, machine), "near.o")
    assert made.multiplication_free, made.render()
    assert "weights" in made.undefined


@pytest.mark.parametrize("machine", objects.MACHINES)
def test_code_in_sections_of_other_names_is_read(machine: str) -> None:
    elsewhere = PLANTED.replace("nounwind {", 'nounwind section ".fast" {')
    made = certify_bytes(compiled(CLEAN + elsewhere, machine, "+m" * (machine in RISCV)), "x.o")
    (failure,) = made.failures
    assert failure.function == "second"
    assert {f.section for f in made.functions} == {".text", ".fast"}


@pytest.mark.parametrize("machine", objects.MACHINES)
@pytest.mark.parametrize("planted", ["", PLANTED])
def test_llvm_and_capstone_count_the_same(machine: str, planted: str) -> None:
    features = "+m" if machine in RISCV else None
    text = objects.assembly(CLEAN + planted, machine, features)
    made = certify_bytes(compiled(CLEAN + planted, machine, features), "x.o")
    counted = count_instructions(text, TABLES[TABLE[machine]])
    for f in made.functions:
        if "+" in f.name:
            continue  # padding behind a function
        # The assembler aligns loops and literal pools; the text has a directive there.
        padding = sum(n for mnemonic, n in f.mnemonics.items() if "nop" in mnemonic)
        padding += machine == "thumb" and f.data_bytes > 0  # mov r8, r8
        assert sum(f.counts.values()) - padding == sum(counted[f.name].values())
        products = {kind: f.counts[kind] for kind in REFUSED}
        assert products == {kind: counted[f.name][kind] for kind in REFUSED}
        assert sum(products.values()) == (f.name == "second")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("x86-64", MIXED),
        ("x86-64-v3", MIXED),
        ("x86-64-v4", NET),
        ("aarch64-linux-gnu", NET),
        ("riscv64-linux-gnu", MIXED),
    ],
)
def test_every_instruction_of_exported_networks_is_known(
    target: str, text: str, tmp_path: Path
) -> None:
    graph = ag.parse(text)
    lowered = compiler.lower(graph, target_named(target))
    files = export(lowered, initial_weights(graph), tmp_path)
    made = certify(files.archive)
    wrong = [f for f in made.failures if f.reason not in set(REFUSED) - {UNKNOWN}]
    # A long wait calls what the caller of a library with multiplications may name.
    assert [(f.function, f.reason) for f in wrong] == [("barrier", UNKNOWN_PLACE)]
    assert not made.undefined
    if not target.startswith("x86"):
        return
    if files.shared is not None:
        shared = certify(files.shared)
        assert [f.reason for f in shared.failures] == [f.reason for f in made.failures]
    counted = {f.symbol: f.products for f in census(lowered).functions if f.nodes and f.counts}
    found = {f.name: sum(f.counts[k] for k in PRODUCTS) for f in made.functions}
    assert counted and counted.items() <= found.items()


# -- the tables ----------------------------------------------------------------------------------

REFUSALS = {
    "x86-64": "imull mulq mulxq idivl divq vpmulld pmaddubsw vpdpbusd vfmadd231ps fmulp fildl "
    "vpmadd52luq vmulps sqrtss gf2p8mulb pclmulqdq fyl2x aam",
    "aarch64": "bfmmla bfmlalb mul madd msub mneg umull smulh mla mls fmul fmla fmadd sdot usdot "
    "sqdmulh sdiv "
    "fdiv fsqrt smlal2 pmull umaddl fnmul fnmsub sqrdmlah bfdot frobnicate smull2 frecpe smmla",
    "thumb": "muls mul umull mla smlabb udiv sdiv vmul.f32 smuad mls frobnicate",
    "riscv": "mul mulh mulhsu mulhu mulw div divu rem remu remuw c.mul fmul.s fmadd.d fnmsub.s "
    "fdiv.d fsqrt.s vmul.vv frobnicate",
    "wasm": "i32.mul i64.rem_u f32.div f64x2.sqrt i16x8.q15mulr_sat_s i32x4.dot_i16x8_s "
    "i64x2.extmul_low_i32x4_u f32x4.relaxed_madd i32.atomic.load ref.func table.set throw",
}
ALLOWED = {
    "wasm": "i16x8.extadd_pairwise_i8x16_u i8x16.sub_sat_u v128.load32_splat local.tee br_table "
    "i32.select end_loop call_indirect memory.copy i32x4.trunc_sat_f32x4_s f32.reinterpret_i32",
    "x86-64": "leal vpsadbw vpminub vpabsd psubusb shlq cmpl jne movzbl sarl lock pcmpeqb",
    "aarch64": "bfi bfxil svc add subs uabd uabal sabal2 umin cmp b.eq lsl asr csel ldrb str ldp "
    "fabd uaddlv",
    "thumb": "adds subs cmp lsls asrs ldrb strh push pop bne bl bx uxtb rsbs mvns",
    "riscv": "add sub slli srai sltu lbu sb beqz c.addi c.lw c.jr auipc lui mv ret j neg sh",
}


@pytest.mark.parametrize("machine", TABLES)
def test_what_the_tables_refuse_and_allow(machine: str) -> None:
    kind_of = TABLES[machine].kind_of
    assert [m for m in REFUSALS[machine].split() if kind_of(m) not in REFUSED] == []
    assert [m for m in ALLOWED[machine].split() if kind_of(m) in REFUSED] == []
    assert kind_of("") == CONTROL and TABLES["x86-64"].kind_of("lock imulq %rax, (%rdi)") in REFUSED


# -- bytes that are none of this -----------------------------------------------------------------


def planted_bytes(data: bytes, code: bytes, at: int = 0) -> bytes:
    """`data` with its first instructions replaced."""
    section = next(s for s in elf.read_elf(data, "x").sections if s.executable and s.data)
    start = data.index(section.data)
    return data[: start + at] + code + data[start + at + len(code) :]


@pytest.mark.parametrize(
    ("machine", "code"),
    [
        ("x86-64", b"\x06"),
        ("aarch64", b"\xff\xff\xff\xff"),
        ("thumb", b"\xff\xff\xff\xff"),
        ("riscv", b"\xff\xff\xff\xff"),
        ("riscv64", b"\xff\xff\xff\xff"),
    ],
)
def test_bytes_that_do_not_decode_are_refused(machine: str, code: bytes) -> None:
    made = certify_bytes(planted_bytes(compiled(CLEAN, machine), code), "odd.o")
    assert any("first+0x0" in r and "does not decode" in r for r in reasons(made)), reasons(made)


def test_code_outside_of_functions_is_read() -> None:
    """The padding behind a function holds a multiply."""
    data = compiled(CLEAN + PLANTED, "x86-64")
    first = certify_bytes(compiled(CLEAN + PLANTED, "x86-64"), "x.o").functions[0]
    made = certify_bytes(planted_bytes(data, b"\x0f\xaf\xc1", first.size), "x.o")
    assert f".text+{first.size:#x}+0x0: imull %ecx, %eax: address mul/div" in reasons(made)


def test_what_aligns_functions_is_one_row_of_the_table() -> None:
    made = certify_bytes(compiled(CLEAN + PLANTED, "x86-64"), "x.o")
    padding = [f for f in made.functions if f.is_padding]
    assert padding and all(f.name.startswith(".text+") for f in padding)
    names = [line.split("  ")[0] for line in made.render().splitlines()[4:]]
    assert names[:3] == ["first", "second", "(between functions)"]


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"", StorageError, "no ELF file: it begins with nothing"),
        (b"MZ\x90\x00", StorageError, "no ELF file: it begins with 4d 5a 90 00"),
        (b"\x7fELF", StorageError, "damaged or truncated"),
        (b"!<thin>\n", StorageError, "thin archive"),
        (b"!<arch>\nshort", StorageError, "no header of a member at byte 8"),
        (b"!<arch>\n", StorageError, "has no code"),
        (compiled("@x = global i32 5", "riscv"), StorageError, "has no code"),
        (compiled(CLEAN, "aarch64")[:-1], StorageError, "damaged or truncated"),
    ],
)
def test_foreign_and_truncated_files_are_clear_errors(
    data: bytes, error: type[AdderGraphError], said: str
) -> None:
    with pytest.raises(error, match=r'"odd\.o"') as caught:
        certify_bytes(data, "odd.o")
    assert said in str(caught.value) and caught.value.__context__ is None


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (18, 8, "machine 8 with 64 bits"),  # MIPS
        (5, 2, "big-endian"),
        (16, 4, "of type 4"),  # a core dump
        (60, 0, "no section headers"),
    ],
)
def test_other_kinds_of_elf_files_are_refused(offset: int, value: int, said: str) -> None:
    data = bytearray(compiled(CLEAN, "x86-64"))
    data[offset] = value
    with pytest.raises(UnsupportedError, match=said):
        certify_bytes(bytes(data), "other.o")


def test_members_for_several_machines_are_refused() -> None:
    members = [Member(f"{m}.o", [compiled(CLEAN, m)], ()) for m in ("riscv", "thumb")]
    with pytest.raises(
        UnsupportedError, match="several machines \\(riscv of 32 bits, thumb of 32 bits\\)"
    ):
        certify_bytes(joined(members), "both.a")


def test_errors_name_the_member_of_the_archive() -> None:
    broken = Member("broken.o", [compiled(CLEAN, "riscv")[:-1]], ())
    with pytest.raises(StorageError, match=r'"lib\.a\(broken\.o\)" is damaged'):
        certify_bytes(joined([broken]), "lib.a")


def test_a_thumb_file_without_mapping_symbols_is_refused() -> None:
    data = compiled(CLEAN, "thumb").replace(b"$d", b"_d").replace(b"$t", b"_t")
    with pytest.raises(UnsupportedError, match="no mapping symbols"):
        certify_bytes(data, "stripped.o")


def survives(data: bytes) -> None:
    """A certificate or an error of the project, nothing else."""
    try:
        made = certify_bytes(data, "any.o")
    except AdderGraphError:
        return
    assert made.functions and made.render() and made.to_json()


MEMBERS = {m: compiled(CLEAN + PLANTED, m) for m in objects.MACHINES}
FILES = [
    *MEMBERS.values(), *(compiled(NEAR, m) for m in objects.MACHINES),
    joined([Member("a_very_long_name.o", [MEMBERS["thumb"]], ("first",))]),
    linked(b"\xeb\x00\xc3", dynamic=[(5, 0x2000), (0, 0)], relocations=[(0x2000, 8)]),
]  # fmt: skip


@given(st.sampled_from(FILES), st.floats(0, 1))
def test_truncated_files_never_crash(data: bytes, share: float) -> None:
    survives(data[: int(share * len(data))])


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_mutated_files_never_crash(data: bytes, changes: list[tuple[float, int]]) -> None:
    changed = bytearray(data)
    for place, value in changes:
        changed[int(place * len(changed))] = value
    survives(bytes(changed))


@given(st.sampled_from(FILES), st.integers(0, 63), st.integers(0, 255))
def test_mutated_headers_never_crash(data: bytes, place: int, value: int) -> None:
    survives(data[:place] + bytes([value]) + data[place + 1 :])


# -- the file ------------------------------------------------------------------------------------


def test_the_certificate_is_deterministic_json(tmp_path: Path) -> None:
    data = compiled(CLEAN + PLANTED, "thumb")
    made = certify_bytes(data, "x.o")
    assert made.to_json() == certify_bytes(data, "x.o").to_json()
    content = json.loads(made.to_json())
    assert content["multiplication_free"] is False and content["machine"] == "thumb"
    assert content["failures"][0]["function"] == "second"
    assert content["functions"][1]["mnemonics"] == {"adds": 1, "bx": 1, "muls": 1}


def test_names_take_time_and_memory_by_the_size_of_the_file() -> None:
    name = "__" + "mul" * 8000
    code = [elves.Section(".text", b"\xc3", elves.ALLOC | elves.EXEC)]
    helper = elves.made("x86-64", code, [elves.Symbol(name + "!", section=0, kind=0)])
    with within(16 << 20, 4.0):  # it was a regular expression that took the square
        assert certify_bytes(helper, "a.o").multiplication_free
    assert "__mulsi3" in str(
        reasons(certify_bytes(helper.replace(b"__mulmulm", b"__mulsi3\0"), ""))
    )
    # Many symbols whose names are the ends of one long name: 128 KB held 190 MB, 1 MB 12 GB.
    symbols = [elves.Symbol("a" * 60_000), *[elves.Symbol("b", section=0)] * 2500]
    content = bytearray(elves.made("x86-64", code, symbols))
    sections = elf.read_elf(bytes(content), "").sections
    (table,) = (s for s in sections if s.type == elf.SYMTAB)
    first = sections[table.link].data.index(b"aaa")
    for row in range(2500):
        struct.pack_into("<I", content, table.offset + table.entry_size * (row + 2), first + row)
    with within(40 << 20, 10.0), pytest.raises(StorageError, match="its names overlap"):
        certify_bytes(bytes(content), "a.o")


def test_a_path_may_start_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.o").write_bytes(compiled(CLEAN, "riscv"))
    assert certify("~/a.o").file == "a.o"
    with pytest.raises(StorageError, match="must be a path"):
        certify("a\0b")


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.o", tmp_path):
        with pytest.raises(StorageError, match="cannot read"):
            certify(path)


def test_without_capstone_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(compiled(CLEAN, "riscv"))
    code = (
        "import sys; sys.modules['capstone'] = None\n"
        "from addergraph.cli.main import main; main(['certify', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.o")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "pip install 'addergraph[certify]'" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "certificate.json").exists()
