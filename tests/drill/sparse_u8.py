"""Planted bugs in the sparse kernel of bytes: its tile, lists, planes and tail."""

from __future__ import annotations

from .mutant import Mutant, tests_of

KERNELS = "codegen/kernels/sparse"
CUT, LISTS = f"{KERNELS}/_cut.py", f"{KERNELS}/_u8_lists.py"
PLANES, KERNEL = f"{KERNELS}/_u8_planes.py", f"{KERNELS}/sparse_u8.py"
PATCHES = f"{KERNELS}/_patches.py"


def sparse(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_sparse_adder_u8.py", *names)


MUTANTS = (
    Mutant(
        "bytes by eights may have a sum above 255", LISTS,
        "if largest <= MOST_BYTE:", "if largest <= 2 * MOST_BYTE:",
        sparse("test_bytes_of_every_size_can_be_packed"),
    ),
    Mutant(
        "bytes by fours may have a sum above 255", LISTS,
        "over = dealt.sum(0) > MOST_BYTE", "over = dealt.sum(0) > 2 * MOST_BYTE",
        sparse("test_bytes_of_every_size_can_be_packed"),
    ),
    Mutant(
        "sums of 16 bits go on until the list after the one that overflows them", LISTS,
        "flush = running + after > MOST_WORD", "flush = running > MOST_WORD",
        sparse("test_bytes_of_every_size_can_be_packed[255]"),
    ),
    Mutant(
        "later i32 sums replace the first", LISTS,
        "FIRST * (flush & (flushed == 0))", "FIRST * flush",
        sparse("test_bytes_of_every_size_can_be_packed[255]"),
    ),
    Mutant(
        "filters with several i32 sums share one place", LISTS,
        "return flags, np.where(flushed > 1, own, 0)", "return flags, 0 * own",
        sparse("test_bytes_of_every_size_can_be_packed[255]"),
    ),
    Mutant(
        "the upper byte of a word stays in the sums of even pixels", LISTS,
        "e.b.sub(every, e.b.shl(odd, constant(odd.type, 8)))", "e.b.add(every, odd)",
        sparse("test_layers[same]"),
    ),
    Mutant(
        "single entries are left out", LISTS,
        "(alone, saturated, 1)", "(saturated, saturated, 1)",
        sparse("test_bytes_of_every_size_can_be_packed[255]"),
    ),
    Mutant(
        "saturated taps of a pair's second channel are those of the first", LISTS,
        "(first + 2 * second)", "(first + second)",
        sparse("test_saturated_taps[same]"),
    ),
    Mutant(
        "the last saturated tap of a list is left out", LISTS,
        "e.carry(0, count, 1, [*acc",
        "e.carry(1, count, 1, [*acc",
        sparse("test_saturated_taps[same]"),
    ),
    Mutant(
        "the odd pixels of saturated taps are not added", PLANES,
        "made.append([word, e.b.lshr(word, constant(word.type, 8))])",
        "made.append([word, e.b.lshr(word, constant(word.type, 9))])",
        sparse("test_saturated_taps[same]"),
    ),
    Mutant(
        "a pair of channels adds its first alone", PLANES,
        "made.append([e.b.add(a, b) for a, b in zip(*made, strict=True)])",
        "made.append([e.b.or_(a, a) for a, b in zip(*made, strict=True)])",
        sparse("test_saturated_taps[same]"),
    ),
    Mutant(
        "what saturated taps add is not made", KERNEL,
        "with e.when(self.lists.emit_any_saturated(e, inputs[self.operands[1]])):",
        "with e.when(e.less(1, 0)):",
        sparse("test_saturated_taps[same]"),
    ),
    Mutant(
        "the fifth place of eight is that of the first", LISTS,
        "e.b.load(e.at(record, at), typ=I64, align=8)", "e.b.load(record, typ=I64, align=8)",
        sparse("test_bytes_of_every_size_can_be_packed[63]"),
    ),
    Mutant(
        "neighbours of a patch read neighbours of the input in strided layers", CUT,
        "row * down * self.row_bytes + column * right * self.vector_bytes",
        "row * self.row_bytes + column * self.vector_bytes",
        sparse("test_layers[strided_pairs]"),
    ),
    Mutant(
        "patches start as if layers had no stride", PATCHES,
        "self._offsets((n, sh * h, sw * w))", "self._offsets((n, h, w))",
        sparse("test_layers[strided_pairs]"),
    ),
    Mutant(
        "the last band is not moved back", PATCHES,
        "return min(band * self.rows, self.g.height - self.rows)", "return band * self.rows",
        sparse("test_layers[same]", "test_layers[tails]"),
    ),
    Mutant(
        "the last chunk is moved back by one too many", PATCHES,
        "self.g.width - self.columns)", "self.g.width - self.columns - 1)",
        sparse("test_patches_and_strips_that_do_not_fit"),
    ),
    Mutant(
        "rows that two strips have are written twice", PLANES,
        "e.loop(strip.written_rows, tile.strip_rows)", "e.loop(0, tile.strip_rows)",
        sparse("test_patches_and_strips_that_do_not_fit"),
    ),
    Mutant(
        "the last output channels are those of the strip's first thread only", PLANES,
        "with e.when(e.less(whole, strip.end)):", "with e.when(e.less(strip.begin, 1)):",
        sparse("test_patches_and_strips_that_do_not_fit"),
    ),
    Mutant(
        "every byte of a result of i32 is its lowest", KERNEL,
        "[_byte(e, value, number) for value in made]", "[_byte(e, value, 0) for value in made]",
        sparse("test_sums_as_they_are[same]"),
    ),
    Mutant(
        "a residual's bytes are those of the next pixel", KERNEL,
        "_byte(e, word, c) for n", "_byte(e, word, 3 - c) for n",
        sparse("test_a_residual_of_bytes[same]"),
    ),
)  # fmt: skip
