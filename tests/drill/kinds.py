"""Planted bugs in how the sparse kernel of f32 tells the kinds of taps apart."""

from __future__ import annotations

from .mutant import Mutant, tests_of

LISTS = "codegen/kernels/sparse/_f32_lists.py"
CHOICE, LOWERED = "codegen/kernels/forward/choice.py", "codegen/emit/lowered.py"


def kinds(*names: str) -> tuple[str, ...]:
    return tests_of("codegen/kernels/test_kinds_adder.py", *names)


MUTANTS = (
    Mutant(
        "taps that need a minimum are added as they are", LISTS,
        ".sum(0).min(initial=len(values))", ".sum(0).max(initial=0)",
        kinds("test_exact_data_has_the_bits_of_the_reference[same]"),
    ),
    Mutant(
        "saturated taps begin where those with a minimum do", LISTS,
        "heads[number, 1] += with_minimum * self.step_bytes", "heads[number, 1] += 0",
        kinds("test_exact_data_has_the_bits_of_the_reference[same]"),
    ),
    Mutant(
        "saturated taps keep their place in a list", LISTS,
        "return rows[np.argsort(column[rows] >= self.top, kind=\"stable\")]", "return rows",
        kinds("test_exact_data_has_the_bits_of_the_reference[same]"),
    ),
    Mutant(
        "a packed filter does not know its bound", "codegen/kernels/sparse/sparse_f32.py",
        "FloatLists(chosen, taps.top)", "FloatLists(chosen)",
        kinds("test_the_order_of_a_sum_is_the_one_of_the_page"),
    ),
    Mutant(
        "the length of a list, and so a sum's order, is the target's choice",
        "codegen/kernels/sparse/_f32_choice.py",
        "for channels in (KIND_CHANNELS,) if kinds else _channels(patches.g):",
        "for channels in _channels(patches.g):",
        kinds("test_the_filter_alone_decides"),
    ),
    Mutant(
        "a measured choice changes the order of sums", CHOICE,
        "measured = None if _by_kinds(dense) else call.choice", "measured = call.choice",
        kinds("test_the_filter_alone_decides"),
    ),
    Mutant(
        "lists of one channel tell kinds", "codegen/kernels/sparse/_f32_choice.py",
        "and (g.inputs, g.outputs) != (1, 1)", "",
        kinds("test_all_kernels_of_a_depthwise_layer_give_the_same_bits"),
    ),
    Mutant(
        "of two layers with one filter the second has the bound", LOWERED,
        "max(tops.get(value, 0.0), ranges[x.name].hi)", "ranges[x.name].hi",
        kinds("test_a_filter_of_two_layers_has_the_larger_bound"),
    ),
    Mutant(
        "taps below the bound count as saturated", LOWERED,
        "above, saturated = filter > 0, filter >= top", "above, saturated = filter > 0, filter > 0",
        kinds("test_what_counts_as_saturated"),
    ),
)  # fmt: skip
