"""Planted bugs in the layers that networks are built of."""

from __future__ import annotations

from .mutant import Mutant, tests_of

DROPOUT, PADDING = "codegen/kernels/dropout.py", "addergraph/layers/_padding.py"


def layer(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/test_layers_more.py", *names)


def dropout(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/test_dropout.py", *names)


def depthwise(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_depthwise.py", *names)


FORWARD = "codegen/kernels/forward/depthwise.py"
GRADIENT = "codegen/kernels/gradient/depthwise.py"
MUTANTS = (
    Mutant(
        "the odd zero of same is above", PADDING,
        "return total // 2, total - total // 2", "return total - total // 2, total // 2",
        layer("test_same_is_the_least_padding"),
    ),
    Mutant(
        "same forgets the dilation", PADDING, "(kernel - 1) * dilation + 1", "kernel",
        layer("test_same_is_the_least_padding"),
    ),
    Mutant(
        "machine code leaves out other elements than NumPy", DROPOUT,
        "ir.Constant(I64, 1)", "ir.Constant(I64, 0)",
        tests_of(
            "codegen/kernels/test_dropout.py", "test_every_target_keeps_the_same_elements"
        ),
    ),
    Mutant(
        "every step leaves out the same elements", "addergraph/layers/dropout.py",
        "ops.add(steps, 1, ", "ops.add(steps, 0, ",
        dropout("test_gradients_are_those_of_the_elements_that_stay"),
    ),
    Mutant(
        "dropouts of one seed are alike", "addergraph/layers/dropout.py",
        'f"{self.seed} {name}"', 'f"{self.seed}"',
        dropout("test_inference_has_no_trace_of_it"),
    ),
    Mutant(
        "a checkpoint of another rate is resumed", "addergraph/training/prepare.py",
        "if n.op.training_only]\n    decided", "if False]\n    decided",
        dropout("test_a_resumed_run_has_the_bits_of_an_uninterrupted_one"),
    ),
    Mutant(
        "depthwise sums of bytes wrap at 16 bits", FORWARD,
        "255 * self.g.steps < 1 << 16", "True",
        depthwise("test_sums_at_the_end_of_16_bits"),
    ),
    Mutant(
        "the last vector of a depthwise layer reads beyond the image", FORWARD,
        "self.e.load(pointer, number, self.lanes, self.active)",
        "self.e.load(pointer, number, self.lanes)",
        depthwise("test_f32_has_the_bits_of_the_reference_and_of_the_dense_kernel"),
    ),
    Mutant(
        "a depthwise gradient is not clipped", GRADIENT,
        "e.clip_unit(e.b.fsub(f, xs[c]), keeps_nan=True)", "e.b.fsub(f, xs[c])",
        depthwise("test_gradients_of_special_values"),
    ),
    Mutant(
        "a depthwise gradient is not corrected by the filter", GRADIENT,
        "e.b.fsub(value, e.b.fmul(f, totals[-1]))", "value",
        depthwise("test_gradients_have_the_bits_of_the_kernels_of_all_layers"),
    ),
    Mutant(
        "the odd rows of a strided depthwise gradient take the even ones' taps", GRADIENT,
        "e.add(e.mul(m, row.tap_step), row.first_tap)", "e.mul(m, row.tap_step)",
        depthwise("test_gradients_have_the_bits_of_the_kernels_of_all_layers"),
    ),
    Mutant(
        "depthwise layers run on one lane", "codegen/kernels/forward/choice.py",
        "        return Choice(DEPTHWISE)  # no", "        pass  # no",
        depthwise("test_where_it_serves"),
    ),
)  # fmt: skip
