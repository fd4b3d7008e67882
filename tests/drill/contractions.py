"""Planted bugs in the contraction kernels: dense, sparse, and their gradients."""

from __future__ import annotations

from .mutant import Mutant, tests_of

KERNELS = "codegen/kernels"
DENSE, FORWARD = f"{KERNELS}/forward/dense.py", f"{KERNELS}/forward/tail.py"
F32, PACKING = f"{KERNELS}/forward/dense_f32.py", f"{KERNELS}/forward/packing.py"
TERMS, CUT = f"{KERNELS}/forward/terms.py", f"{KERNELS}/cut.py"
SUMS, LISTS = f"{KERNELS}/forward/window_sums.py", f"{KERNELS}/sparse/_f32_lists.py"
TILE = f"{KERNELS}/sparse/_f32_tile.py"
SPARSE_CUT = f"{KERNELS}/sparse/_cut.py"
PATCHES, STRIPS = f"{KERNELS}/sparse/_patches.py", f"{KERNELS}/sparse/_strips.py"
GRAD_FILTER = f"{KERNELS}/gradient/filter.py"
GRAD_INPUT = f"{KERNELS}/gradient/input.py"


def layers(*cases: str) -> tuple[str, ...]:
    name = "test_layers_have_the_bits_of_the_reference_on_exact_data"
    return tests_of("codegen/kernels/test_contraction.py", *(f"{name}[{c}]" for c in cases))


def dense(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_contraction.py", *names)


def sparse(*cases: str) -> tuple[str, ...]:
    name = "test_exact_data_has_the_bits_of_the_reference"
    return tests_of("codegen/kernels/test_sparse_adder.py", *(f"{name}[{c}]" for c in cases))


def cut(*cases: str) -> tuple[str, ...]:
    name = "test_patches_strips_and_samples_that_do_not_fit"
    return tests_of("codegen/kernels/test_sparse_adder.py", *(f"{name}[{c}]" for c in cases))


def once(*cases: str) -> tuple[str, ...]:
    name = "test_what_is_computed_twice_is_written_once"
    return tests_of("codegen/kernels/test_sparse_adder.py", *(f"{name}[{c}]" for c in cases))


def gradients(*cases: str) -> tuple[str, ...]:
    name = "test_gradients_have_the_bits_of_the_reference_on_exact_data"
    return tests_of("codegen/kernels/test_contraction_grad.py", *(f"{name}[{c}]" for c in cases))


FORWARD_MUTANTS = (
    Mutant(
        "a tail of one column is dropped", CUT,
        "if extent % size:", "if extent % size > 1:",
        layers("grouped-direct", "depthwise-direct"),
    ),
    Mutant(
        "the bottom strip has a whole tile's rows", CUT,
        "        with last:\n            yield rest", "        with last:\n            yield size",
        (
            *layers("same-direct", "depthwise-direct"),
            *dense("test_dense_layers_have_the_bits_of_the_reference_on_exact_data"),
        ),
    ),
    Mutant(
        "the last vector of channels is stored unmasked", DENSE,
        "count = min(lanes, active - v * lanes)", "count = lanes * (active > v * lanes)",
        layers("same-direct", "tails-direct"),
    ),
    Mutant(
        "strides of rows and columns are swapped", DENSE,
        "(sh, sw), (xn, xh, xw) = g.stride, g.x", "(sw, sh), (xn, xh, xw) = g.stride, g.x",
        layers("strided-product"),
    ),
    Mutant(
        "dilation of rows is ignored", F32,
        "e.mul(i, g.dilation[0] * g.x[1])", "e.mul(i, g.x[1])",
        layers("dilated-direct"),
    ),
    Mutant(
        "dilated column taps are taken for contiguous", F32,
        "contiguous = g.dilation[1] == 1 and ", "contiguous = ",
        layers("dilated-direct"),
    ),
    Mutant(
        "every group reads the first group's channels", DENSE,
        "e.mul(place.group, number * g.inputs)", "e.mul(place.group, 0)",
        layers("grouped-direct"),
    ),
    Mutant(
        "a last channel block of one channel is dropped", F32,
        "if g.inputs % size:", "if g.inputs % size > 1:",
        layers("tails-direct"),
    ),
    Mutant(
        "the barrier behind packing is missing", DENSE,
        "if not self.is_constant or self.g.term == MINIMUM:", "if self.g.term == MINIMUM:",
        layers("tails-direct", "same-direct", "dilated-direct", "grouped_blocks-product"),
    ),
    Mutant(
        "the packed order of the last channel block is that of a whole one", F32,
        "(blocks, channels(rest))", "(blocks, channels(g.channel_block))",
        layers("same-product", "tails-product"),
    ),
    Mutant(
        "a filter packed by the kernel keeps values below zero", TERMS,
        'return e.b.select(e.b.fcmp_ordered(">", f, zero), f, zero)', "return f",
        layers("same-minimum", "tails-minimum"),
    ),
    Mutant(
        "a filter packed beforehand keeps values below zero", TERMS,
        "return np.where(f > 0, f, np.float32(0))", "return f",
        layers("same-minimum", "tails-minimum"),
    ),
    Mutant(
        "the stride of rows is 1 in the extent that windows read", f"{KERNELS}/forward/geometry.py",
        "(n - 1) * s + reach + 1", "(n - 1) + reach + 1",
        layers("strided-minimum"),
    ),
    Mutant(
        "integer minima are unsigned", "codegen/emit/builder.py",
        'self.call("smin"', 'self.call("umin"',
        tests_of("codegen/kernels/test_special_values.py", "test_dense_and_sparse"),
    ),
    Mutant(
        "minima of floats are maxima", "codegen/emit/builder.py",
        'fcmp_ordered("<", a, b), a, b)\n        lanes',
        'fcmp_ordered(">", a, b), a, b)\n        lanes',
        tests_of(
            "codegen/test_builder.py", "test_the_minimum_of_non_negative_floats"
        ),
    ),
    Mutant(
        "the sum of x is added", TERMS,
        "e.b.fsub(e.b.fadd(acc, acc), sum_x)", "e.b.fadd(e.b.fadd(acc, acc), sum_x)",
        layers("same-minimum"),
    ),
    Mutant(
        "the bias is added twice", TERMS,
        "return e.b.fadd(value, bias)", "return e.b.fadd(e.b.fadd(value, bias), bias)",
        dense("test_a_bias_is_added_once"),
    ),
    Mutant(
        "every group takes the first group's bias", FORWARD,
        "base = e.mul(e.add(e.mul(self.place.group, k.g.outputs), self.channel), 4)",
        "base = e.mul(self.channel, 4)",
        dense("test_a_bias_is_added_once"),
    ),
    Mutant(
        "the residual is read at the tile's first column", FORWARD,
        "e.add(place.w, pixel[1])", "place.w",
        dense("test_tails[residual-direct]", "test_tails[residual-product]"),
    ),
    Mutant(
        "a filter that the tail reads is packed", FORWARD,
        "self.call.constant - self.tail_reads - {self.operands[0]}", "self.call.constant",
        dense("test_tails_of_square_matrices"),
    ),
    Mutant(
        "operands of the tail are swapped", f"{KERNELS}/pointwise.py",
        "args = [known[v] for v in node.inputs]", "args = [known[v] for v in node.inputs[::-1]]",
        dense("test_tails[scalar-direct]", "test_tails[mask-direct]"),
    ),
    Mutant(
        "the last row of the window sums is missing", SUMS,
        "for i in range(g.kernel[0]):", "for i in range(g.kernel[0] - 1):",
        layers("same-minimum"),
    ),
    Mutant(
        "channel sums leave out a last block of one channel", SUMS,
        "if rest else total", "if rest > 1 else total",
        layers("tails-minimum"),
    ),
    Mutant(
        "channel sums of several pixels are swapped", SUMS,
        "[0, 4, 1, 5, 2, 6, 3, 7]", "[0, 1, 4, 5, 2, 6, 3, 7]",
        layers("wide_rows-minimum"),
    ),
    Mutant(
        "a vector of window sums of stride 2 takes the wrong neighbours", SUMS,
        "range(lanes + 1, 2 * lanes, 2)", "range(lanes, 2 * lanes, 2)",
        layers("wide_strided-minimum"),
    ),
    Mutant(
        "the trees of the channel sums differ between kernels", SUMS,
        "zip(values[:half], values[half:], strict=True)",
        "zip(values[::2], values[1::2], strict=True)",
        tests_of(
            "codegen/kernels/test_sparse_adder.py",
            "test_any_data_has_the_bits_of_the_dense_kernel[batches]",
            "test_any_data_has_the_bits_of_the_dense_kernel[deep]",
        ),
    ),
)  # fmt: skip

SPARSE_MUTANTS = (
    Mutant(
        "lists lose the steps that fill no loop body", LISTS,
        "_whole(max(map(len, kept)) - together, self.tile.unroll)",
        "(max(map(len, kept)) - together) // self.tile.unroll * self.tile.unroll",
        sparse("same", "batch"),
    ),
    Mutant(
        "later channels forget the earlier ones", LISTS,
        "accumulators = e.choose(first, lambda: [zero] * len(sums), start)",
        "accumulators = [zero] * len(sums)",
        cut("bands_and_chunks", "one_row_strips"),
    ),
    Mutant(
        "partial sums stand where sorted filters stood before", LISTS,
        "members * tile.partial_bytes", "np.sort(members) * tile.partial_bytes",
        sparse("deep", "batch"),
    ),
    Mutant(
        "a list of several channel blocks takes the taps of all of them together", LISTS,
        """for block in range(0, size, CHANNEL_BLOCK)
            for i, j, k in np.ndindex(*self.g.kernel, min(CHANNEL_BLOCK, size - block))""",
        """for block in [0]
            for i, j, k in np.ndindex(*self.g.kernel, size)""",
        cut("strips", "samples"),
    ),
    Mutant(
        "a step reads where the one after next does", LISTS,
        "following = self._taps(e, e.at(entry, self.step_bytes))",
        "following = self._taps(e, e.at(entry, 2 * self.step_bytes))",
        sparse("same", "batch"),
    ),
    Mutant(
        "the last columns of a patch have a whole tile's width", CUT,
        "yield whole, extent % size", "yield whole, size",
        cut("bands_and_chunks", "samples"),
    ),
    Mutant(
        "the strides of tiles are those of the input", SPARSE_CUT,
        "return row * down * self.row_bytes + column * right * self.vector_bytes",
        "return row * self.row_bytes + column * self.vector_bytes",
        sparse("strided_pairs", "row_phases"),
    ),
    Mutant(
        "a layer of single taps reads neighbours", TILE,
        "x=(n, rows * h, columns * w)", "x=(n, h, w)",
        sparse("strided_point", "strided_column"),
    ),
    Mutant(
        "columns that a patch reads are one short", PATCHES,
        "return (self.columns - 1) * self.g.stride[1] + self.g.reach[1] + 1",
        "return (self.columns - 1) * self.g.stride[1] + self.g.reach[1]",
        cut("bands_and_chunks", "strips"),
    ),
    Mutant(
        "the last patch is read beyond the image", PATCHES,
        "return min(chunk * self.columns, self.g.width - self.columns)",
        "return chunk * self.columns",
        cut("bands_and_chunks", "idle_lanes"),
    ),
    Mutant(
        "the last samples of a batch are not moved back", STRIPS,
        "n = e.minimum(sample, self.g.samples - patches.samples)", "n = sample",
        (*cut("samples"), *sparse("short_batch", "batches")),
    ),
    Mutant(
        "the last strip of a patch is not moved back", STRIPS,
        "h = e.minimum(row, patches.rows - rows)", "h = row",
        cut("bands_and_chunks", "strips"),
    ),
    Mutant(
        "rows of a strip that is moved back are written twice", STRIPS,
        "return Strip(group, n, h, e.sub(sample, n), e.sub(row, h), begin, end)",
        "return Strip(group, n, h, e.sub(sample, n), 0, begin, end)",
        once("strips", "whole_patches"),
    ),
    Mutant(
        "samples that are moved back are written twice", STRIPS,
        "e.loop(strip.written_samples, patches.samples)", "e.loop(0, patches.samples)",
        once("samples", "groups"),
    ),
    Mutant(
        "rows that two patches have are written by both", STRIPS,
        "if patches.bands * patches.rows > g.height:", "if False:",
        once("bands_and_chunks", "one_row_strips"),
    ),
    Mutant(
        "columns that two patches have are written by both", STRIPS,
        "if patches.chunks * patches.columns > g.width:", "if False:",
        once("bands_and_chunks", "whole_patches"),
    ),
    Mutant(
        "patches that share pixels are written without a look", PATCHES,
        "return self.used == self.lanes and made == (g.samples, g.height, g.width)",
        "return self.used == self.lanes",
        once("bands_and_chunks", "samples"),
    ),
    Mutant(
        "every lane is written at the first one's columns", STRIPS,
        "w = e.add(column, self.tile.patches.left(chunk))", "w = column",
        (*sparse("same", "batch", "batches"), *cut("samples")),
    ),
    Mutant(
        "columns of a square of 8 are exchanged", f"{KERNELS}/transpose.py",
        "pairs = zip(rows[:QUAD], rows[QUAD:], strict=True)",
        "pairs = zip(rows[QUAD:], rows[:QUAD], strict=True)",
        sparse("same", "batch"),
    ),
)  # fmt: skip

GRADIENT_MUTANTS = (
    Mutant(
        "only the last chunk of samples reaches dF", GRAD_FILTER,
        "e.store(e.b.fadd(before, partial[number]), here, active=count)",
        "e.store(partial[number], here, active=count)",
        tests_of(
            "codegen/kernels/test_contraction_grad.py", "test_sums_over_several_chunks_of_samples"
        ),
    ),
    Mutant(
        "the filter's own part of dF is added", GRAD_FILTER,
        "e.b.fsub(e.load(here, lanes=lanes, active=count), correction)",
        "e.b.fadd(e.load(here, lanes=lanes, active=count), correction)",
        gradients("same-adder2d_grad_filter"),
    ),
    Mutant(
        "dilation of columns is ignored in dF", GRAD_FILTER,
        "e.mul(at.j, s.dilation[1] * xw)", "e.mul(at.j, xw)",
        gradients("dilated-conv2d_grad_filter"),
    ),
    Mutant(
        "groups are taken for one run of channels in dF", "codegen/kernels/forward/geometry.py",
        "self.x[2] == pixel)", "self.x[2] == self.groups * pixel)",
        gradients("grouped-adder2d_grad_filter"),
    ),
    Mutant(
        "the gradient of a filter reads over the gaps between pixels",
        GRAD_FILTER,
        "self.segments = 1 if s.taps_adjoin else s.kernel[1]",
        "self.segments = 1 if s.dilation[1] == 1 and s.groups == 1 else s.kernel[1]",
        tests_of("codegen/kernels/test_gaps.py", "test_a_step_of_training"),
    ),
    Mutant(
        "padding is left out of the shift to the first output of dX", GRAD_INPUT,
        "shift = (first + pad - taps[0] * dilation) // stride if taps else 0",
        "shift = (first - taps[0] * dilation) // stride if taps else 0",
        gradients("same-adder2d_grad_input"),
    ),
    Mutant(
        "taps of a dilated and strided layer are skipped in dX", GRAD_INPUT,
        "step = stride // math.gcd(stride, dilation)", "step = stride",
        gradients("strided_dilated-adder2d_grad_input", "strided_dilated-conv2d_grad_input"),
    ),
    Mutant(
        "the clip of dX turns NaN into 1", "codegen/emit/builder.py",
        'self.b.fcmp_ordered("<", one, value)', 'self.b.fcmp_unordered("<", one, value)',
        tests_of(
            "codegen/kernels/test_contraction_grad.py",
            "test_the_clip_of_the_input_gradient_keeps_nan_and_signs",
        ),
    ),
    Mutant(
        "the gradient's halo is one short", "addergraph/ops/_window.py",
        "(extent - 1 + before) // self.stride[axis] - out[axis] + 1",
        "(extent - 1 + before) // self.stride[axis] - out[axis]",
        gradients("same-adder2d_grad_input", "tails-conv2d_grad_input"),
    ),
    Mutant(
        "the input's halo is one short", "addergraph/ops/_window.py",
        "max(0, reach_h - height + 1)", "max(0, reach_h - height)",
        layers("same-direct", "tails-product"),
    ),
)  # fmt: skip

MUTANTS = (*FORWARD_MUTANTS, *SPARSE_MUTANTS, *GRADIENT_MUTANTS)
