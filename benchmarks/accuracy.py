"""Test accuracy on the digits: adder networks, the same with convolutions, and the sign gradient.

    python -m benchmarks.accuracy              # five seeds each

Every network trains for 60 epochs in batches of 64 by SGD with momentum 0.9, a cosine learning rate
from 0.1 and label smoothing 0.1 (without it the deck's network, by convolutions too, learns its
images by heart and stays below 0.985). `deck` is the slide deck's network with a batch norm before
its first relu; without one an adder's output, never positive, leaves nothing behind it. Prints a
markdown table; ends with status 1 where a mean is below 0.985, the sign gradient's aside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from addergraph import Model, layers, zoo
from addergraph.data import digits
from addergraph.training.schedules import cosine

EPOCHS, BATCH, SMOOTHING, REQUIRED = 60, 64, 0.1, 0.985
FULL_PRECISION, SIGN = "full_precision", "sign"


def deck(first: layers.Layer, seed: int) -> Model:
    """The deck's listing with `first` and a batch norm behind it."""
    model = Model(input_shape=(8, 8, 1), name="deck", seed=seed)
    for layer in (
        first,
        layers.BatchNorm(),
        layers.Activation("relu"),
        layers.MaxPool(pool_size=2),
        layers.BatchNorm(),
        layers.Flatten(),
        layers.Dense(64),
        layers.Activation("relu"),
        layers.Dense(10),
        layers.Activation("softmax"),
    ):
        model.add(layer)
    return model


ADDERS: dict[str, Callable[[int], Model]] = {
    "deck": lambda seed: deck(layers.Adder(8, 3, padding=1, eta=0.1), seed),
    "small-adder": lambda seed: zoo.build("small-adder", seed=seed),
    "all-adder": lambda seed: zoo.build("all-adder", seed=seed),
}
CONVOLUTIONS: dict[str, Callable[[int], Model]] = {
    "deck, conv": lambda seed: deck(layers.Conv(8, 3, padding=1), seed),
    "small-conv": lambda seed: zoo.build("small-conv", seed=seed),
}


def accuracies(
    make: Callable[[int], Model], gradient: str, seeds: int, threads: int | None
) -> list[float]:
    """Of one training a seed, which draws the weights and the order of the images."""
    data, found = digits.load(), []
    for seed in range(seeds):
        model = make(seed)
        model.fit(
            data.x_train, data.y_train, epochs=EPOCHS, batch_size=BATCH, verbose=0, seed=seed,
            learning_rate=cosine(0.1, EPOCHS), label_smoothing=SMOOTHING, gradient=gradient,
            threads=threads,
        )  # fmt: skip
        found.append(model.evaluate(data.x_test, data.y_test, threads=threads)["accuracy"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="all processors unless given")
    arguments = parser.parse_args()
    rows = [
        *((name, FULL_PRECISION, make) for name, make in ADDERS.items()),
        *((name, "", make) for name, make in CONVOLUTIONS.items()),
        *((name, SIGN, make) for name, make in ADDERS.items()),
    ]
    print(f"test accuracy on the digits, {arguments.seeds} seeds, {EPOCHS} epochs\n")
    heads = ("network", "gradient of adder layers", "mean", "deviation", "least", "most")
    print(f"| {' | '.join(heads)} |\n|---|---|---:|---:|---:|---:|")
    low = []
    for name, gradient, make in rows:
        used = gradient or FULL_PRECISION  # of adder layers, where there are none
        found = np.array(accuracies(make, used, arguments.seeds, arguments.threads))
        numbers = (found.mean(), found.std(), found.min(), found.max())
        cells = " | ".join(f"{number:.4f}" for number in numbers)
        print(f"| {name} | {gradient} | {cells} |", flush=True)
        if gradient != SIGN and found.mean() < REQUIRED:
            low.append(name)
    if low:
        print(f"below {REQUIRED} in the mean: {', '.join(low)}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
