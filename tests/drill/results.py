"""Planted bugs in what people see: a network's answers, help texts."""

from __future__ import annotations

from .mutant import Mutant, tests_of

PREDICT = "addergraph/cli/commands/predict.py"

MUTANTS = (
    Mutant(
        "rows and columns of a confusion are exchanged", "addergraph/diagnostics/mistakes.py",
        "labels.astype(np.int64) * count + predicted.astype(np.int64)",
        "predicted.astype(np.int64) * count + labels.astype(np.int64)",
        tests_of(
            "addergraph/diagnostics/test_mistakes.py",
            "test_every_count_is_that_of_a_loop",
        ),
    ),
    Mutant(
        "the softmax of probabilities is shown", "addergraph/cli/commands/classifier.py",
        "if CatCrossEntropy().finishes(source.graph):", "if False:",
        tests_of("addergraph/test_cli_predict.py", "test_the_likeliest_classes_of_a_folder"),
    ),
    Mutant(
        "integers are taken for logits", "addergraph/cli/commands/classifier.py",
        "answers if source.quantized is None else source.quantized.outputs(answers)", "answers",
        tests_of(
            "addergraph/test_cli_predict.py",
            "test_of_an_int8_network_the_logits_are_dequantized",
        ),
    ),
    Mutant(
        "a network of bgr pixels gets rgb", PREDICT, 'self.known.channels == "bgr"', "False",
        tests_of(
            "addergraph/test_cli_predict.py",
            "test_sizes_and_channels_are_brought_to_those_of_the_network",
        ),
    ),
    Mutant(
        "help texts keep to themselves what happens without an option",
        "addergraph/cli/options.py", "unsaid and one.unset", "False",
        tests_of(
            "addergraph/test_cli_help.py",
            "test_each_option_says_what_it_does_and_what_happens_without_it",
        ),
    ),
    Mutant(
        "boxes of a picture stand on each other", "addergraph/report/layered.py",
        "return (a.width + b.width) / 2 + between", "return between",
        tests_of(
            "addergraph/test_drawing.py", "test_boxes_do_not_overlap_and_lines_pass_beside_them"
        ),
    ),
    Mutant(
        "a name becomes part of the picture's markup", "addergraph/report/drawing.py",
        "name = escape(printable(graph.name))", "name = printable(graph.name)",
        tests_of("addergraph/test_drawing.py", "test_names_are_text"),
    ),
    Mutant(
        "a notebook runs what a class is called", "addergraph/display.py",
        '{escape(printable(cell))}</{tag}>', '{printable(cell)}</{tag}>',
        tests_of("addergraph/test_display.py", "test_tables_and_text_are_escaped"),
    ),
    Mutant(
        "how images come to size is forgotten", PREDICT,
        "how or self.known.resize or STRETCH", "how or STRETCH",
        tests_of(
            "addergraph/test_cli_predict.py",
            "test_sizes_and_channels_are_brought_to_those_of_the_network",
        ),
    ),
    Mutant(
        "images are rounded to the grid of other pixels", "addergraph/model/predictor.py",
        "if same or self._weights is None:", "if True:",
        tests_of(
            "addergraph/test_preprocessing.py",
            "test_a_model_that_rounds_images_keeps_what_they_are",
        ),
    ),
    Mutant(
        "a lucky epoch is taken for validation by chance", "addergraph/training/stalled.py",
        "min(_lucky(targets), share + 0.1 * (1 - share))", "_lucky(targets)",
        tests_of("addergraph/training/test_stalled.py", "test_what_counts_as_validation_by_chance"),
    ),
    Mutant(
        "an option may be NaN", "addergraph/cli/options.py",
        "not math.isfinite(number)", "math.isinf(number)",
        tests_of("addergraph/test_cli_help.py", "test_each_number_is_finite"),
    ),
)  # fmt: skip
