"""The instructions of WebAssembly 2.0 without references: names and operands by their opcodes.

Order and spelling are those of the specification's index of instructions
(https://webassembly.github.io/spec/core/appendix/index-instructions.html). An operand is a letter:

    u  a u32        s  an s32         S  an s64         b  the type of a block
    c  a function   T  a table
    m  alignment and offset           l  a lane         t  labels of a table, then one more
    0  a byte that is zero            4, 8, F  so many bytes, F being 16
"""

from __future__ import annotations

from collections.abc import Iterator

NUMERIC, VECTOR = 0xFC, 0xFD  # opcodes before a second one
_COMPARED = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
_FLOATS_COMPARED = "eq ne lt gt le ge"
_INTEGERS = (
    "clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr"
)
_FLOATS = "abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign"
_SATURATING = "trunc_sat_f32_s trunc_sat_f32_u trunc_sat_f64_s trunc_sat_f64_u"
_EXTENDS = "extend_low_{0}_s extend_high_{0}_s extend_low_{0}_u extend_high_{0}_u"
_PRODUCTS = "extmul_low_{0}_s extmul_high_{0}_s extmul_low_{0}_u extmul_high_{0}_u"
_SHIFTS = "shl shr_s shr_u"
_VECTOR_FLOATS = "abs neg - sqrt add sub mul div min max pmin pmax"

# (first opcode, prefix of the names, names, operands); "-" is no instruction.
_Rows = tuple[tuple[int, str, str, str], ...]
_PLAIN: _Rows = (
    (0x00, "", "unreachable nop", ""),
    (0x02, "", "block loop if", "b"),
    (0x05, "", "else", ""),
    (0x0B, "", "end", ""),
    (0x0C, "", "br br_if", "u"),
    (0x0E, "", "br_table", "t"),
    (0x0F, "", "return", ""),
    (0x10, "", "call", "c"),
    (0x11, "", "call_indirect", "uT"),
    (0x1A, "", "drop select", ""),
    (0x20, "", "local.get local.set local.tee global.get global.set", "u"),
    (0x28, "", "i32.load i64.load f32.load f64.load", "m"),
    (0x2C, "i32.", "load8_s load8_u load16_s load16_u", "m"),
    (0x30, "i64.", "load8_s load8_u load16_s load16_u load32_s load32_u", "m"),
    (0x36, "", "i32.store i64.store f32.store f64.store", "m"),
    (0x3A, "", "i32.store8 i32.store16 i64.store8 i64.store16 i64.store32", "m"),
    (0x3F, "memory.", "size grow", "0"),
    (0x41, "", "i32.const", "s"),
    (0x42, "", "i64.const", "S"),
    (0x43, "", "f32.const", "4"),
    (0x44, "", "f64.const", "8"),
    (0x45, "i32.", f"eqz {_COMPARED}", ""),
    (0x50, "i64.", f"eqz {_COMPARED}", ""),
    (0x5B, "f32.", _FLOATS_COMPARED, ""),
    (0x61, "f64.", _FLOATS_COMPARED, ""),
    (0x67, "i32.", _INTEGERS, ""),
    (0x79, "i64.", _INTEGERS, ""),
    (0x8B, "f32.", _FLOATS, ""),
    (0x99, "f64.", _FLOATS, ""),
    (0xA7, "i32.", "wrap_i64 trunc_f32_s trunc_f32_u trunc_f64_s trunc_f64_u", ""),
    (0xAC, "i64.", "extend_i32_s extend_i32_u trunc_f32_s trunc_f32_u trunc_f64_s trunc_f64_u", ""),
    (0xB2, "f32.", "convert_i32_s convert_i32_u convert_i64_s convert_i64_u demote_f64", ""),
    (0xB7, "f64.", "convert_i32_s convert_i32_u convert_i64_s convert_i64_u promote_f32", ""),
    (0xBC, "", "i32.reinterpret_f32 i64.reinterpret_f64", ""),
    (0xBE, "", "f32.reinterpret_i32 f64.reinterpret_i64", ""),
    (0xC0, "", "i32.extend8_s i32.extend16_s i64.extend8_s i64.extend16_s i64.extend32_s", ""),
)
_NUMERIC: _Rows = (
    (0, "i32.", _SATURATING, ""),
    (4, "i64.", _SATURATING, ""),
    (8, "", "memory.init", "u0"),
    (9, "", "data.drop", "u"),
    (10, "", "memory.copy", "00"),
    (11, "", "memory.fill", "0"),
)
_VECTOR: _Rows = (
    (0, "v128.", "load load8x8_s load8x8_u load16x4_s load16x4_u load32x2_s load32x2_u", "m"),
    (7, "v128.", "load8_splat load16_splat load32_splat load64_splat store", "m"),
    (12, "", "v128.const i8x16.shuffle", "F"),
    (14, "", "i8x16.swizzle i8x16.splat i16x8.splat i32x4.splat", ""),
    (18, "", "i64x2.splat f32x4.splat f64x2.splat", ""),
    (21, "i8x16.", "extract_lane_s extract_lane_u replace_lane", "l"),
    (24, "i16x8.", "extract_lane_s extract_lane_u replace_lane", "l"),
    (27, "i32x4.", "extract_lane replace_lane", "l"),
    (29, "i64x2.", "extract_lane replace_lane", "l"),
    (31, "f32x4.", "extract_lane replace_lane", "l"),
    (33, "f64x2.", "extract_lane replace_lane", "l"),
    (35, "i8x16.", _COMPARED, ""),
    (45, "i16x8.", _COMPARED, ""),
    (55, "i32x4.", _COMPARED, ""),
    (65, "f32x4.", _FLOATS_COMPARED, ""),
    (71, "f64x2.", _FLOATS_COMPARED, ""),
    (77, "v128.", "not and andnot or xor bitselect any_true", ""),
    (84, "v128.", "load8_lane load16_lane load32_lane load64_lane", "ml"),
    (88, "v128.", "store8_lane store16_lane store32_lane store64_lane", "ml"),
    (92, "v128.", "load32_zero load64_zero", "m"),
    (94, "", "f32x4.demote_f64x2_zero f64x2.promote_low_f32x4", ""),
    (96, "i8x16.", "abs neg popcnt all_true bitmask narrow_i16x8_s narrow_i16x8_u", ""),
    (103, "f32x4.", "ceil floor trunc nearest", ""),
    (107, "i8x16.", f"{_SHIFTS} add add_sat_s add_sat_u sub sub_sat_s sub_sat_u", ""),
    (116, "f64x2.", "ceil floor", ""),
    (118, "i8x16.", "min_s min_u max_s max_u", ""),
    (122, "", "f64x2.trunc i8x16.avgr_u", ""),
    (124, "i16x8.", "extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u", ""),
    (126, "i32x4.", "extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u", ""),
    (128, "i16x8.", "abs neg q15mulr_sat_s all_true bitmask narrow_i32x4_s narrow_i32x4_u", ""),
    (135, "i16x8.", _EXTENDS.format("i8x16"), ""),
    (139, "i16x8.", f"{_SHIFTS} add add_sat_s add_sat_u sub sub_sat_s sub_sat_u", ""),
    (148, "f64x2.", "nearest", ""),
    (149, "i16x8.", "mul min_s min_u max_s max_u - avgr_u", ""),
    (156, "i16x8.", _PRODUCTS.format("i8x16"), ""),
    (160, "i32x4.", "abs neg - all_true bitmask", ""),
    (167, "i32x4.", _EXTENDS.format("i16x8"), ""),
    (171, "i32x4.", f"{_SHIFTS} add - - sub", ""),
    (181, "i32x4.", "mul min_s min_u max_s max_u dot_i16x8_s", ""),
    (188, "i32x4.", _PRODUCTS.format("i16x8"), ""),
    (192, "i64x2.", "abs neg - all_true bitmask", ""),
    (199, "i64x2.", _EXTENDS.format("i32x4"), ""),
    (203, "i64x2.", f"{_SHIFTS} add - - sub", ""),
    (213, "i64x2.", "mul eq ne lt_s gt_s le_s ge_s", ""),
    (220, "i64x2.", _PRODUCTS.format("i32x4"), ""),
    (224, "f32x4.", _VECTOR_FLOATS, ""),
    (236, "f64x2.", _VECTOR_FLOATS, ""),
    (248, "i32x4.", "trunc_sat_f32x4_s trunc_sat_f32x4_u", ""),
    (250, "f32x4.", "convert_i32x4_s convert_i32x4_u", ""),
    (252, "i32x4.", "trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero", ""),
    (254, "f64x2.", "convert_low_i32x4_s convert_low_i32x4_u", ""),
)


def _listed(prefix: int, rows: _Rows) -> Iterator[tuple[tuple[int, int], tuple[str, str]]]:
    for first, start, names, operands in rows:
        for code, name in enumerate(names.split(), first):
            if name != "-":
                yield (prefix, code), (start + name, operands)


# (prefix or 0, opcode) -> name and operands.
OPCODES: dict[tuple[int, int], tuple[str, str]] = {
    code: described
    for prefix, rows in ((0, _PLAIN), (NUMERIC, _NUMERIC), (VECTOR, _VECTOR))
    for code, described in _listed(prefix, rows)
}
