"""Bugs in what a pixel is, in Python and in C, in whether a run learns, and in networks built again
from files."""

from __future__ import annotations

from .mutant import Mutant, tests_of

MUTANTS = (
    Mutant(
        "an int8 network forgets what a pixel is",
        "addergraph/model/quantization.py",
        "return replace(made, preprocessing=known)",
        "return made",
        tests_of("addergraph/test_preprocessing.py", "test_the_int8_model_takes_the_same_bytes"),
    ),
    Mutant(
        "bytes whose channels differ are taken for the grid's own",
        "passes/quantize/image.py",
        "if (levels != levels[0]).any() or",
        "if",
        tests_of("passes/test_quantize_image.py", "test_one_grid_is_that_of_all_channels"),
    ),
    Mutant(
        "normalized numbers are taken for pixels",
        "addergraph/data/preprocessing.py",
        "if np.array_equal(bytes_, x):",
        "if True:",
        tests_of("addergraph/test_preprocessing.py", "test_what_can_be_no_pixels_is_refused"),
    ),
    Mutant(
        "a contradictory normalization is let pass",
        "addergraph/training/prepare.py",
        "and not known.is_close(given):",
        "and False:",
        tests_of("addergraph/test_preprocessing.py", "test_fit_says_what_it_was_trained_on"),
    ),
    Mutant(
        "a dead network is not named",
        "addergraph/training/stalled.py",
        "min(losses) < CLOSE * constant:",
        "True:",
        tests_of("addergraph/training/test_stalled.py", "test_the_layer_that_died_is_named_once"),
    ),
    Mutant(
        "a training form is guessed",
        "addergraph/model/replay.py",
        "return made if _structure(again) == _structure(training) else None",
        "return made",
        tests_of("addergraph/test_model_file.py", "test_a_training_form_of_its_own_is_not_guessed"),
    ),
    Mutant(
        "a question mark in a name may begin a trigraph",
        "codegen/export/header.py",
        r'ord("?"): r"\?", ',
        "",
        tests_of("codegen/test_images.py", "test_names_of_any_kind_reach_the_program"),
    ),
    Mutant(
        "the example program gives a network of bgr pixels red first",
        "codegen/export/example.py",
        '(order == "bgr")',
        "0",
        tests_of("codegen/test_images.py", "test_headers_of_pictures"),
    ),
    Mutant(
        "the example program gives a grey picture's bytes to one pixel after another",
        "codegen/export/example.py",
        "$x[got / 3];",
        "$x[got % (BYTES / 3)];",
        tests_of("codegen/test_images.py", "test_a_grey_picture_has_three_equal_channels"),
    ),
    Mutant(
        "the example program reads pictures of another height",
        "codegen/export/example.py",
        "height != ${M}_IMAGE_HEIGHT",
        "height < 0",
        tests_of("codegen/test_images.py", "test_what_is_no_picture_of_this_size_is_refused"),
    ),
    Mutant(
        "a library forgets how images come to size",
        "codegen/export/interface.py",
        "order, resize = known.channels, known.resize",
        "order, resize = known.channels, None",
        tests_of("codegen/test_images.py", "test_the_header_says_how_images_came_to_size"),
    ),
    Mutant(
        "a compiled model forgets its images",
        "addergraph/compiler/programs.py",
        "return Program(built, require_weights(graph, weights), None, threads, known, widen)",
        "return Program(built, require_weights(graph, weights), None, threads, None, widen)",
        tests_of(
            "codegen/test_images.py", "test_pictures_and_their_bytes_have_the_class_of_predict"
        ),
    ),
    Mutant(
        "the library of several inputs says nothing of images",
        "codegen/export/interface.py",
        "taker = image_input(shapes, known.input if len(shapes) > 1 else None)",
        "taker = None if len(shapes) > 1 else graph.inputs[0].name",
        tests_of("addergraph/test_several_ends.py", "test_compiling_verifying_and_exporting"),
    ),
)
