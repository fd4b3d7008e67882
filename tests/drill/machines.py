"""Planted bugs in what knows machines: the certificate's readers and tables, and small targets."""

from __future__ import annotations

from .mutant import Mutant, tests_of

ELF, DISASSEMBLY = "codegen/inspect/elf.py", "codegen/inspect/disassembly.py"
INSTRUCTIONS = "codegen/inspect/instructions.py"
FLOW, VISIBLE = "codegen/inspect/flow.py", "codegen/inspect/visible.py"
LIMITS, INDICES, MODULE = (
    "codegen/inspect/limits.py",
    "codegen/emit/indices.py",
    "codegen/emit/module.py",
)


def certificate(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/test_certificate.py", *names)


def refusals(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/test_certificate_refusals.py", *names)


def strict(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/test_strict.py", *names)


PLANTS = certificate("test_a_planted_multiply_is_named_with_its_place")
SECTIONS = certificate("test_code_in_sections_of_other_names_is_read")
CALLS = certificate(
    "test_calls_must_stay_inside_the_archive",
    "test_a_multiply_by_a_library_call_is_found_where_there_is_no_instruction",
)
FAR = certificate(
    "test_calls_through_an_address_are_found", "test_a_call_of_risc_v_in_two_parts_is_found"
)
NEAR = certificate("test_calls_inside_the_file_are_no_calls_of_the_data_outside")
UNDECODED = certificate("test_bytes_that_do_not_decode_are_refused")
OUTSIDE = certificate("test_code_outside_of_functions_is_read")
TABLES = certificate("test_what_the_tables_refuse_and_allow")
WORDS = strict(
    "test_index_arithmetic_of_machines_without_a_multiplier",
    "test_whole_programs_for_machines_without_a_multiplier",
)
FLOATS = strict("test_floats_are_refused_where_there_are_no_instructions_for_them")
LIBRARY = strict("test_a_call_of_a_library_is_named_with_its_nodes")
REACH = strict("test_what_32_bit_indices_do_not_reach_is_refused")


def modules(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/test_wasm_certificate.py", *names)


MUTANTS = (
    Mutant(
        "a table that is exported counts as one's own",
        "codegen/inspect/certificate.py",
        "i.to < imported or i.to in shown",
        "i.to < imported",
        modules("test_what_others_could_change_is_refused"),
    ),
    Mutant(
        "functions of elsewhere are not told of a module",
        "codegen/inspect/certificate.py",
        "for i in module.imported(wasm.FUNCTION)",
        "for i in module.imported(wasm.TABLE)",
        modules("test_what_others_could_change_is_refused"),
    ),
    Mutant(
        "products count as sums in modules",
        INSTRUCTIONS,
        r'(MULTIPLY, r"N mul | i16x8',
        r'(ADD, r"N mul | i16x8',
        modules("test_each_product_is_found_and_nothing_else_is_refused"),
    ),
    Mutant(
        "sums of 16 bits overflow in WebAssembly",
        "codegen/targets/wasm.py",
        "short_sums=64",
        "short_sums=256",
        tests_of("codegen/test_wasm.py", "test_the_largest_distances"),
    ),
    Mutant(
        "what a condition of Thumb-2 leaves out has no successor",
        FLOW,
        "                if left:\n",
        "                if False:\n",
        refusals("test_other_machines"),
    ),
    Mutant(
        "a place that is not the caller's is as good once it is pushed",
        FLOW,
        "self.saved = self.register and saves[1] is not None",
        "self.saved = saves[1] is not None",
        refusals("test_other_machines"),
    ),
    Mutant(
        "steps of sums that are numbers are unrolled, and spill",
        "codegen/kernels/forward/dense_u8.py",
        "super().unroll(pixels, run) if self.target.bytes_unrolled else 1",
        "super().unroll(pixels, run)",
        tests_of("codegen/kernels/test_whole_sums.py"),
    ),
    Mutant(
        "only the section .text is read",
        DISASSEMBLY,
        "if not section.executable or not section.data:",
        'if section.name != ".text" or not section.data:',
        SECTIONS,
    ),
    Mutant(
        "code outside of functions is not read",
        DISASSEMBLY,
        "if any(section.data[position:start]):",
        "if False:",
        OUTSIDE,
    ),
    Mutant(
        "bytes that do not decode are passed over",
        DISASSEMBLY,
        "if position < last:",
        "if position > last:",
        UNDECODED,
    ),
    Mutant(
        "compressed instructions of RISC-V are not decoded",
        DISASSEMBLY,
        "file.flags & _RISCV_COMPRESSED",
        "file.flags & 0",
        PLANTS,
    ),
    Mutant(
        "undefined symbols are none",
        ELF,
        'return self.section == 0 and self.name != ""',
        "return False",
        CALLS,
    ),
    Mutant(
        "relocations without addends are not read",
        ELF,
        "if section.type in (REL, RELA) and",
        "if section.type == RELA and",
        CALLS,
    ),
    Mutant(
        "a multiply of RISC-V counts as an addition",
        INSTRUCTIONS,
        '(MULTIPLY, r"C mul(h|',
        '(ADD, r"C mul(h|',
        TABLES,
    ),
    Mutant(
        "instructions that multiply and add are passed over on AArch64",
        INSTRUCTIONS,
        '(FMA, r"f?n?m(add|sub) |',
        '(ADD, r"f?n?m(add|sub) |',
        TABLES,
    ),
    Mutant(
        "fields of bits are products on AArch64",
        INSTRUCTIONS,
        "bf(dot|mmla|mlal[bt]?)",
        r"bf\w+",
        TABLES,
    ),
    Mutant(
        "unknown instructions are allowed",
        INSTRUCTIONS,
        "REFUSED = (*PRODUCTS, ADDRESS_MULTIPLY, UNKNOWN)",
        "REFUSED = (*PRODUCTS, ADDRESS_MULTIPLY)",
        TABLES,
    ),
    Mutant(
        "calls through registers are not looked at",
        FLOW,
        "return self.pair(piece, before, i) if paired else UNKNOWN_PLACE",
        'return self.pair(piece, before, i) if paired else ""',
        refusals("test_other_machines"),
    ),
    Mutant(
        "a far call of RISC-V counts as one inside the file",
        FLOW,
        "if self.inside(piece, i) or any(r.type not in patches.CALLS for r in named):",
        "if self.inside(piece, i):",
        FAR,
    ),
    Mutant(
        "a near call of RISC-V counts as one through an address",
        FLOW,
        "return self.go(piece, i, named, before.offset + distance)",
        "return self.go(piece, i, named, 0) if named else UNKNOWN_PLACE",
        NEAR,
    ),
    Mutant(
        "a jump into an instruction passes",
        FLOW,
        'return "" if place in self.starts else',
        'return "" if place not in self.inner else',
        refusals("test_a_transfer_that_does_not_end_in_what_was_decoded"),
    ),
    Mutant(
        "a weak definition counts as the one that is called",
        FLOW,
        "if symbol.binding == elf.WEAK:",
        "if symbol.binding == elf.WEAK and not symbol.name:",
        refusals("test_a_weak_definition_in_another_member_is_not_the_one_that_is_called"),
    ),
    Mutant(
        "relocations of any type may be in code",
        "codegen/inspect/patches.py",
        "return i.size == _size(file, r) and any(",
        "return i.size == _size(file, r) or any(",
        refusals("test_relocations_that_make_other_instructions"),
    ),
    Mutant(
        "intermediate code of -flto is passed over",
        VISIBLE,
        "if _HIDDEN.fullmatch(section.name):",
        "if _HIDDEN.match(section.name) is None and section.name is None:",
        refusals("test_sections_that_hide_or_change_code"),
    ),
    Mutant(
        "segments may load other bytes than the sections show",
        VISIBLE,
        "inside and section.offset == s.offset + shift:",
        "inside:",
        refusals("test_what_a_loader_would_see_otherwise"),
    ),
    Mutant(
        "the flags of a segment of 32 bits stand where those of 64 bits do",
        ELF,
        "kind, offset, address, _, size, memory, flags, _ = row",
        "kind, flags, offset, address, _, size, memory, _ = row",
        refusals("test_a_linked_file_of_32_bits"),
    ),
    Mutant(
        "a COMDAT group of data alone is refused",
        VISIBLE,
        "if code and words[0] & _COMDAT:",
        "if words[0] & _COMDAT:",
        refusals("test_groups_of_data_or_of_this_file_alone_replace_no_code"),
    ),
    Mutant(
        "a second symbol index is passed over",
        "codegen/export/archive.py",
        "if name in _INDEX and not before:",
        "if name in _INDEX and len(content) < 5:",
        refusals("test_every_byte_of_an_archive_is_accounted_for"),
    ),
    Mutant(
        "helpers of libraries are not looked for",
        LIMITS,
        "if r.symbol.undefined and",
        "if not r.symbol.undefined and",
        LIBRARY,
    ),
    Mutant(
        "floats pass where there are no instructions for them",
        LIMITS,
        "found = [] if target.floats else",
        "found = [] if not target.floats else",
        FLOATS,
    ),
    Mutant(
        "any size fits 32-bit indices",
        LIMITS,
        "most = 1 << (target.word - 1)",
        "most = 1 << 63",
        REACH,
    ),
    Mutant(
        "indices have 64 bits on every machine",
        INDICES,
        "return ir.IntType(self.target.word)",
        "return ir.IntType(64)",
        WORDS,
    ),
    Mutant(
        "pointers are 8 bytes apart on every machine",
        MODULE,
        "slot * self.e.target.pointer_bytes",
        "slot * 8",
        WORDS,
    ),
)
