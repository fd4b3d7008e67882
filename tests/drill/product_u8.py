"""Planted bugs in the kernel of products of bytes, and in the rule that keeps its sums exact."""

from __future__ import annotations

from .mutant import Mutant, tests_of

U8 = "codegen/kernels/forward/terms.py"


def u8(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_product_u8.py", *names)


ENDS = u8("test_ends_of_the_range")
MUTANTS = (
    Mutant(
        "odd bytes of a filter are unsigned", U8,
        "e.b.ashr(f, byte)\n", "e.b.lshr(f, byte)\n", ENDS,
    ),
    Mutant(
        "odd bytes of a pixel are signed", U8,
        "e.b.lshr(x, byte)", "e.b.ashr(x, byte)", ENDS,
    ),
    Mutant(
        "even bytes of a filter are unsigned", U8,
        "e.b.ashr(e.b.shl(f, byte), byte)", "e.b.lshr(e.b.shl(f, byte), byte)", ENDS,
    ),
    Mutant(
        "even bytes of a pixel are signed", U8,
        "e.b.and_(x, constant(pairs, 255))", "e.b.ashr(e.b.shl(x, byte), byte)", ENDS,
    ),
    Mutant(
        "sums of two products wrap at 16 bits", U8,
        "e.b.add(self._pairs(e, *even), self._pairs(e, *odd))",
        "self._pairs(e, e.b.add(e.b.mul(*even), e.b.mul(*odd)), constant(pairs, 1))", ENDS,
    ),
    Mutant(
        "ARM's sums of products are unsigned", U8,
        "e.converted(e.target.signed_pair_sums, made", "e.converted(e.target.pair_sums, made",
        tests_of(
            "codegen/test_rounded_selftest.py", "test_sums_of_bytes_are_exact_on_other_machines"
        ),
    ),
    Mutant(
        "a filter is unsigned where there is no pmaddwd", U8,
        "e.b.sext(f, acc.type)", "e.b.zext(f, acc.type)", ENDS,
    ),
    Mutant(
        "a pixel is signed where there is no pmaddwd", U8,
        "e.b.mul(e.b.zext(x, acc.type)", "e.b.mul(e.b.sext(x, acc.type)", ENDS,
    ),
    Mutant(
        "kernel rows beyond the image count their filter, as for distances", U8,
        "class ByteProduct(ByteTerm):\n", "class ByteProduct(ByteTerm):\n    magnitudes = True\n\n",
        u8("test_layers"),
    ),
    Mutant(
        "sums of products are negated, as those of distances", U8,
        "        return acc\n\n\n@dataclass(frozen=True)\nclass ByteDot",
        "        return e.b.neg(acc)\n\n\n@dataclass(frozen=True)\nclass ByteDot",
        u8("test_matrices"),
    ),
    Mutant(
        "dot products make up for 127 where x lost 128", U8, "128 * super()", "127 * super()",
        ("tests/codegen/test_rounded_selftest.py::test_sums_of_bytes_are_exact_on_other_machines",),
    ),
    Mutant(
        "dot products ask no CPU", "codegen/export/cpu.py", "15 << bit", "15 << 0",
        ("tests/codegen/test_rounded_selftest.py::test_dot_products_ask_the_cpu_first",),
    ),
    Mutant(
        "every level reads the lowest one's weights", "codegen/export/levels.py",
        "e.at(weights, levels[number].offset)", "e.at(weights, 0)",
        ("tests/codegen/test_levels.py::test_every_cpu_gives_the_same_bits",),
    ),
    Mutant(
        "tables of jumps are left to LLVM", "codegen/emit/builder.py",
        """set.add(function.attributes, '"no-jump-tables"="true"')""", "pass",
        ("tests/codegen/test_levels.py::test_other_targets_leave_no_trace",),
    ),
    Mutant(
        "higher levels round products and sums at once", "codegen/targets/x86.py",
        "replace(level, fma=False, beside_others=True)", "replace(level, beside_others=True)",
        ("tests/codegen/test_levels.py::test_every_cpu_gives_the_same_bits",),
    ),
    Mutant(
        "lists of minima serve products", "codegen/kernels/sparse/_u8_choice.py",
        "if g.term != BYTES or taps == 1", "if taps == 1", u8("test_a_tail"),
    ),
    Mutant(
        "sums of products of bytes may exceed 32 bits",
        "addergraph/ops/contraction/_contraction.py",
        "I8_TERMS = (2**31 - 1) // (255 * 128)", "I8_TERMS = (2**31 - 1) // (127 * 128)",
        tests_of("addergraph/ops/test_conv2d.py", "test_sums_of_bytes_fit_i32"),
    ),
)  # fmt: skip
