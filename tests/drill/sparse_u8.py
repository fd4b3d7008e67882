"""Planted bugs in the sparse kernel of bytes: its tile, lists, planes and tail."""

from __future__ import annotations

from .mutant import Mutant, tests_of

KERNELS = "codegen/kernels"
TILE, LISTS = f"{KERNELS}/_bytes_tile.py", f"{KERNELS}/_bytes_lists.py"
PLANES, KERNEL = f"{KERNELS}/_bytes_planes.py", f"{KERNELS}/sparse_adder_u8.py"


def sparse(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_sparse_adder_u8.py", *names)


MUTANTS = (
    Mutant(
        "a quad's bytes may have a sum above 255", LISTS,
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
        "e.carry(single, high, 1, acc", "e.carry(high, high, 1, acc",
        sparse("test_bytes_of_every_size_can_be_packed[255]"),
    ),
    Mutant(
        "copies of the second row phase start at the first", PLANES,
        "line = e.add(e.mul(row, g.stride[0]), phase)", "line = e.mul(row, g.stride[0])",
        sparse("test_layers[strided_pairs]"),
    ),
    Mutant(
        "every band reads the rows of the first", PLANES,
        "self.h = e.add(place.h, band * tile.band_rows)", "self.h = e.add(place.h, band)",
        sparse("test_layers[bands]"),
    ),
    Mutant(
        "a band's results reach into the next one", PLANES,
        "inside = e.minimum(e.sub(tile.band_rows, place.h), e.sub(tile.g.height, self.h))",
        "inside = e.sub(tile.g.height, self.h)",
        sparse("test_a_residual_of_bytes[bands]"),
    ),
    Mutant(
        "a residual's bytes are those of the next pixel", KERNEL,
        "_byte(e, word, c) for n", "_byte(e, word, 3 - c) for n",
        sparse("test_a_residual_of_bytes[same]"),
    ),
)  # fmt: skip
