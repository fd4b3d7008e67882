"""Whether each network of the zoo learns with the default recipe, from 8x8 to 64x64.

    python -m benchmarks.learns                              # minutes; --all: hours
    python -m benchmarks.learns --data cifar10:~/data --images 6400

Images are drawn: each class is a pattern of 4x4 squares, under noise. A network learns where its
loss on held-out images is below 0.8 of that of guessing, ln T for T classes, after one epoch of
`train`'s default recipe, or, where 40 steps are too few, in a run of six, which the table says.
Prints a markdown table; ends with status 1 where one does not learn.
Networks with a layer that is provably dead, as the deck's first relu, are shown and not judged.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

import numpy as np

from addergraph import Model, compiler, zoo
from addergraph.cli.commands.train import Training
from addergraph.data import Dataset, load
from addergraph.errors import DataError, DataWarning, RangeWarning, ShapeError
from addergraph.training.recipes import Recipe, find

SIZES, CHANNELS, CLASSES = (8, 16, 28, 32, 48, 64), (1, 3), (2, 10, 100)
SOME = ((8, 1, 10), (8, 3, 100), (16, 3, 2), (28, 1, 10), (32, 3, 10), (48, 1, 100), (64, 3, 2))
SAMPLES, OF_EACH_CLASS, HELD_OUT, SQUARES = 2560, 40, 512, 4
LEARNED = 0.8  # of the loss of guessing
EPOCHS = (1, 6)  # of runs, each from the beginning, until one learns


def drawn(size: int, channels: int, classes: int) -> Dataset:
    """Images u8 of `classes` patterns, as many of each."""
    rng = np.random.default_rng([size, channels, classes])
    patterns = rng.uniform(40, 215, (classes, SQUARES, SQUARES, channels))
    whole = patterns.repeat(size // SQUARES, 1).repeat(size // SQUARES, 2)
    count = max(SAMPLES, OF_EACH_CLASS * classes)
    y = rng.permutation(np.arange(count + HELD_OUT) % classes)
    noise = rng.normal(0, 30, (len(y), size, size, channels)).astype(np.float32)
    x = np.clip(whole[y] + noise, 0, 255).astype(np.uint8)
    return Dataset(
        f"{size}x{size}x{channels}, {classes} classes", x[:count], y[:count], x[count:], y[count:],
        tuple(map(str, range(classes))),
    )  # fmt: skip


def shortened(data: Dataset, images: int) -> Dataset:
    """The first images to train on, and some to test."""
    some = np.random.default_rng(0).permutation(len(data.x_test))[:HELD_OUT]
    return replace(
        data, x_train=data.x_train[:images], y_train=data.y_train[:images],
        x_test=data.x_test[some], y_test=data.y_test[some],
    )  # fmt: skip


def row(name: str, data: Dataset, recipe: Recipe, threads: int | None) -> tuple[str, bool]:
    """A line of the table, and whether it is as it should be."""
    start, chance = time.perf_counter(), math.log(data.class_count)
    try:
        model = zoo.build(name, data.shape, data.class_count)
    except ShapeError:
        return f"| {name} | {data.name} | | | | takes no such images |", True
    dead, loss, epochs = bool(compiler.findings(model.graph(training=False))), math.inf, 0
    try:
        for epochs in EPOCHS[:1] if dead else EPOCHS:
            model = zoo.build(name, data.shape, data.class_count)
            loss = loss_of(model, data, replace(recipe, epochs=epochs), threads)
            if loss < LEARNED * chance:
                break
    except DataError as error:  # it diverges
        return f"| {name} | {data.name} | {epochs} | | {chance:.3f} | {error} |", False
    learned = loss < LEARNED * chance
    said = "provably dead" if dead else "learns" if learned else "DOES NOT LEARN"
    seconds = time.perf_counter() - start
    numbers = f"{epochs} | {loss:.3f} | {chance:.3f}"
    return f"| {name} | {data.name} | {numbers} | {said}, {seconds:.0f} s |", learned or dead


def loss_of(model: Model, data: Dataset, recipe: Recipe, threads: int | None) -> float:
    """That of held-out images behind a run of this recipe."""
    model.fit(
        data.x_train, data.y_train, **recipe.arguments(), threads=threads, verbose=0,
        normalize=recipe.data.normalization(data),
    )  # fmt: skip
    return model.evaluate(data.x_test, data.y_test, threads=threads)["loss"]


def datasets(arguments: argparse.Namespace) -> Iterator[Dataset]:
    if arguments.data is not None:
        yield shortened(load(arguments.data), arguments.images)
        return
    every: Iterable[tuple[int, int, int]] = itertools.product(SIZES, CHANNELS, CLASSES)
    for size, channels, classes in every if arguments.all else SOME:
        yield drawn(size, channels, classes)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(zoo.NETWORKS), metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every size, channels and classes")
    parser.add_argument("--data", help="a data set in place of drawn images, as of `train`")
    parser.add_argument("--images", type=int, default=6400, help="of --data, to train on")
    parser.add_argument("--threads", type=int, help="all processors unless given")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", RangeWarning)
    warnings.simplefilter("ignore", DataWarning)
    default = next(f.default for f in fields(Training) if f.name == "recipe")
    recipe = find(str(default))
    print("| network | images | epochs | loss | of guessing | |\n|---|---|---:|---:|---:|---|")
    failed = 0
    for data in datasets(arguments):
        for name in arguments.networks:
            line, fine = row(name, data, recipe, arguments.threads)
            print(line, flush=True)
            failed += not fine
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
