"""Planted bugs in the kernel of adder2d on bytes, and in the rule that keeps its sums exact."""

from __future__ import annotations

from .mutant import Mutant, tests_of

U8 = "codegen/kernels/forward/dense_u8.py"
FOREIGN = "codegen/test_rounded_selftest.py"
TERMS, PACKING = "codegen/kernels/forward/terms.py", "codegen/kernels/forward/packing.py"


def u8(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_adder_u8.py", *names)


MUTANTS = (
    Mutant(
        "sums of 16 bits saturate", TERMS,
        "65535 // (8 * 255)", "65535 // (4 * 255)",
        u8("test_sums_of_16_bits_do_not_overflow"),
    ),
    Mutant(
        "all rows of a kernel go into sums of 16 bits that hold one", U8,
        "KERNEL if self.g.kernel[0] * row <= most", "KERNEL if row <= most",
        u8("test_sums_of_16_bits_do_not_overflow"),
    ),
    Mutant(
        "sums of bytes wrap at 16 bits", U8,
        "return e.b.shuffle_vector(*halves, even)",
        "low = ir.Constant(even.type, [0xFFFF] * self.lanes)\n"
        "        return e.b.and_(e.b.shuffle_vector(*halves, even), low)",
        u8("test_sums_beyond_16_bits"),
    ),
    Mutant(
        "sums of bytes may exceed 32 bits", "addergraph/ops/contraction/_contraction.py",
        "U8_TERMS = (2**31 - 1) // 255", "U8_TERMS = (2**32 - 1) // 255",
        tests_of("addergraph/ops/test_adder2d.py"),
    ),
    Mutant(
        "the bytes at the end of a run are dropped", U8,
        "        if not rest:\n            return acc\n        words",
        "        if rest < 8:\n            return acc\n        words",
        u8("test_runs_of_every_length[9]", "test_runs_of_every_length[3]"),
    ),
    Mutant(
        "a rest of one byte behind whole steps counts the byte before it too", U8,
        'kept = (bytes(step - rest) + b"\\xff" * rest)',
        'kept = (bytes(step - max(2, rest)) + b"\\xff" * max(2, rest))',
        u8("test_runs_of_every_length[9]", "test_runs_of_every_length[17]"),
    ),
    Mutant(
        "a rest without whole steps misses its last odd byte", U8,
        "for size in (8, 4, 2, 1):", "for size in (8, 4, 2):",
        u8("test_runs_of_every_length[1]", "test_runs_of_every_length[3]"),
    ),
    Mutant(
        "a rest of eight bytes without whole steps of sixteen is dropped", U8,
        "for size in (8, 4, 2, 1):", "for size in (4, 2, 1):",
        tests_of("test_campaign_targets.py", "test_runs_that_fill_no_register"),
    ),
    Mutant(
        "the pieces of a rest stand first", U8,
        "at = ir.IntType(8 * step), step - rest", "at = ir.IntType(8 * step), 0",
        u8("test_runs_of_every_length[1]", "test_runs_of_every_length[3]"),
    ),
    Mutant(
        "a filter packed beforehand has its rest first", PACKING,
        "[NO_ROW] * (unit - self.rows) + list(range(self.rows))",
        "list(range(self.rows)) + [NO_ROW] * (unit - self.rows)",
        u8("test_runs_of_every_length[3]", "test_every_number_of_channels[9]"),
    ),
    Mutant(
        "a filter packed beforehand is padded with 1", PACKING,
        "padded = np.zeros((rows + 1,", "padded = np.ones((rows + 1,",
        u8("test_runs_of_every_length[3]", "test_every_number_of_channels[9]"),
    ),
    Mutant(
        "a filter packed by the kernel has its rest first", PACKING,
        "shift = constant(made, 8 * (self.unit - count + b))", "shift = constant(made, 8 * b)",
        u8("test_runs_of_every_length[3]", "test_every_number_of_channels[9]"),
    ),
    Mutant(
        "the last step of a packed run misses a byte", U8,
        "Step(rest)", "Step(rest - 1)",
        u8("test_runs_of_every_length[3]", "test_every_number_of_channels[9]"),
    ),
    Mutant(
        "a row's sums packed by the kernel are those of its last part", PACKING,
        "totals = self._emit_part(e, part, source, e.add(row, rows), here, totals)",
        "none = [self.term.none(e.target, self.lanes)] * len(totals)\n"
        "            totals = self._emit_part(e, part, source, e.add(row, rows), here, none)",
        u8("test_kernel_rows_beyond_the_image"),
    ),
    Mutant(
        "kernel rows above the image count as 0", U8,
        "e.carry(0, first, 1, start, row_sums)", "e.carry(first, first, 1, start, row_sums)",
        u8("test_kernel_rows_beyond_the_image"),
    ),
    Mutant(
        "the first kernel row that is left out is counted again", U8,
        "lambda acc: e.carry(first, last, 1, acc, over_rows)",
        "lambda acc: e.carry(e.maximum(e.sub(first, 1), 0), last, 1, acc, over_rows)",
        u8("test_kernel_rows_beyond_the_image"),
    ),
    Mutant(
        "one kernel row too many is left out below the image", U8,
        "first, last = e.minimum(taps[0], g.kernel[0]), taps[1]",
        "first, last = e.minimum(taps[0], g.kernel[0]), e.sub(taps[1], 1)",
        u8("test_layers", "test_kernel_rows_beyond_the_image"),
    ),
    Mutant(
        "kernel rows beyond the image are read when there are more than the filter has", U8,
        "e.minimum(taps[0], g.kernel[0])", "taps[0]",
        u8("test_kernel_rows_beyond_the_image"),
    ),
    Mutant(
        "dilated columns are taken for one run of bytes", "codegen/kernels/forward/geometry.py",
        "(self.dilation[1] == 1 and self.x[2] == pixel)", "(self.x[2] == pixel)",
        u8("test_runs_of_every_length[3]", "test_layers[dilated]"),
    ),
    Mutant(
        "distances without psadbw are signed", TERMS,
        "e.b.sub(e.b.zext(x, acc.type), e.b.zext(f, acc.type))",
        "e.b.sub(e.b.sext(x, acc.type), e.b.sext(f, acc.type))",
        u8("test_ends_of_the_range"),
    ),
    Mutant(
        "distances in ARM's registers wrap at 8 bits", TERMS,
        "return e.b.sub(e.call(\"umax\", x, f), e.call(\"umin\", x, f))", "return e.b.sub(x, f)",
        tests_of(FOREIGN, "test_sums_of_bytes_are_exact_on_other_machines"),
    ),
    Mutant(
        "halos of bytes hold the middle of their range", "codegen/kernels/movement.py",
        "Access(e.at(pointer, offset), operand.type.dtype, strides), 0.0)",
        "Access(e.at(pointer, offset), operand.type.dtype, strides),"
        " 128.0 * (operand.type.dtype.name == 'u8'))",
        u8("test_a_network_of_bytes"),
    ),
    Mutant(
        "pixels with a gap between them are read as if there were none",
        "codegen/kernels/forward/geometry.py",
        "(self.dilation[1] == 1 and self.x[2] == pixel)", "(self.dilation[1] == 1)",
        u8("test_layers", "test_pixels_with_a_gap_between_them"),
    ),
)  # fmt: skip
