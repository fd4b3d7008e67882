"""The built-in recipes, and how a recipe is found by a word."""

from __future__ import annotations

import os

from ..errors import DataError, nearest
from ..files.storage import read_bytes
from .optimizers import SGD
from .recipe import STATISTICS, Images, Recipe, parse
from .schedules import Cosine

BUILT_IN: dict[str, tuple[str, Recipe]] = {
    "cvpr2020": (
        "CIFAR-10 as in the release of Chen et al. 2020 (main.py of huawei-noah/AdderNet)",
        Recipe(
            epochs=400,
            batch=256,
            data=Images(crop=4, flip=0.5, normalize=STATISTICS),
            schedule=Cosine(0.1, 400),
        ),
    ),
    "digits": (
        "the embedded digits, in seconds",
        Recipe(epochs=30, batch=64, schedule=Cosine(0.1, 30)),
    ),
    "integers": (
        "a trained network on the digits, with the rounding of integers (train --quantize-bits)",
        Recipe(epochs=20, batch=64, schedule=Cosine(0.05, 20)),
    ),
    "quick": (
        "five epochs, to see whether a network learns at all",
        Recipe(
            epochs=5,
            batch=128,
            data=Images(normalize=STATISTICS),
            optimizer=SGD(nesterov=True),
            schedule=Cosine(0.1, 5, warmup=0.5, by_step=True),
        ),
    ),
}


def find(name: str | os.PathLike[str]) -> Recipe:
    """A built-in recipe by name, or the one in a file that ends in .toml.

    Raises StorageError for a file that cannot be read, DataError for what it holds, and for an
    unknown name.
    """
    text = os.fspath(name)
    if text.endswith(".toml"):
        return parse(read_bytes(text), f'"{text}"')
    if text not in BUILT_IN:
        raise DataError(
            f'unknown recipe "{text}"{nearest(text, BUILT_IN)}; known: {", ".join(BUILT_IN)}, '
            "or a file that ends in .toml"
        )
    return BUILT_IN[text][1]
