"""Planted bugs in what reads data sets and holds images out."""

from __future__ import annotations

from .mutant import Mutant, tests_of


def data(file: str, name: str) -> tuple[str, ...]:
    return tests_of(f"addergraph/data/{file}", name)


MUTANTS = (
    Mutant(
        "a split takes the only image of a class", "addergraph/data/dataset.py",
        "min(len(own) - 1, max(1,", "min(len(own), max(1,",
        data("test_dataset.py", "test_a_split_holds_out_a_share_of_each_class"),
    ),
    Mutant(
        "the best epoch may be that of the test part", "addergraph/cli/commands/train.py",
        "chooses = recipe.keep_best or recipe.patience", "chooses = recipe.patience",
        tests_of("addergraph/test_cli_train.py", "test_train_refuses_to_choose_by_the_test_part"),
    ),
    Mutant(
        "held-out classes are numbered by their own folders", "addergraph/data/folder.py",
        "numbers[called]", "list(own).index(called)",
        data("test_folder.py", "test_parts_share_the_numbers_of_the_training_part"),
    ),
    Mutant(
        "images that lie on a side are turned the other way", "addergraph/data/images.py",
        "Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90",
        "Transpose.ROTATE_90, Transpose.TRANSVERSE, Transpose.ROTATE_270",
        data("test_images.py", "test_images_are_turned_upright"),
    ),
    Mutant(
        "what is transparent shows white", "addergraph/data/images.py",
        "image.size, (0, 0, 0, 255)", "image.size, (255, 255, 255, 255)",
        data("test_images.py", "test_what_is_transparent_is_black"),
    ),
    Mutant(
        "a folder's images keep their channels, whatever a network takes",
        "addergraph/data/sources.py", "if channels in (1, 3):", "if False:",
        tests_of(
            "addergraph/test_cli_predict.py",
            "test_evaluate_and_train_know_how_images_came_to_size",
        ),
    ),
)  # fmt: skip
