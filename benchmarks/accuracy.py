"""Test accuracy on the digits: adder networks, the same with convolutions, and the sign gradient.

    python benchmarks/accuracy.py              # five seeds each
    python benchmarks/accuracy.py --sign       # also adder layers with the sign gradient

Every network trains for 30 epochs in batches of 64 by SGD with momentum 0.9 and a cosine learning
rate from 0.1. `deck` is the slide deck's network with a batch norm before its first relu; without
one an adder's output, never positive, leaves nothing behind it. Prints a markdown table; ends with
status 1 where a mean with the paper's gradients, or with convolutions, is below 0.985.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from addergraph import Model, layers, zoo
from addergraph.data import digits
from addergraph.training.schedules import cosine

EPOCHS, BATCH, REQUIRED = 30, 64, 0.985


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
    make: Callable[[int], Model], seeds: int, threads: int | None, options: dict[str, Any]
) -> list[float]:
    """Of one training a seed, which draws the weights and the order of the images."""
    data, found = digits.load(), []
    for seed in range(seeds):
        model = make(seed)
        model.fit(
            data.x_train, data.y_train, epochs=EPOCHS, batch_size=BATCH, verbose=0, seed=seed,
            learning_rate=cosine(0.1, EPOCHS), threads=threads, **options,
        )  # fmt: skip
        found.append(model.evaluate(data.x_test, data.y_test, threads=threads)["accuracy"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sign", action="store_true", help="add rows with the sign gradient")
    parser.add_argument("--threads", type=int, help="all processors unless given")
    arguments = parser.parse_args()
    rows: list[tuple[str, str, Callable[[int], Model], dict[str, Any]]] = []
    rows += [(name, "full precision", make, {}) for name, make in ADDERS.items()]
    rows += [(name, "of the product", make, {}) for name, make in CONVOLUTIONS.items()]
    if arguments.sign:
        rows += [(name, "sign", make, {"gradient": "sign"}) for name, make in ADDERS.items()]
    print(f"test accuracy on the digits, {arguments.seeds} seeds, {EPOCHS} epochs\n")
    print("| network | gradient | mean | deviation | least | most |\n|---|---|---:|---:|---:|---:|")
    low = []
    for name, gradient, make, options in rows:
        found = np.array(accuracies(make, arguments.seeds, arguments.threads, options))
        numbers = (found.mean(), found.std(), found.min(), found.max())
        cells = " | ".join(f"{number:.4f}" for number in numbers)
        print(f"| {name} | {gradient} | {cells} |", flush=True)
        if gradient != "sign" and found.mean() < REQUIRED:
            low.append(name)
    if low:
        print(f"below {REQUIRED} in the mean: {', '.join(low)}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
