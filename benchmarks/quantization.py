"""Test accuracy on the digits of int8 models, with and without quantization-aware training.

    python -m benchmarks.quantization                  # seeds 0 to 4, 8 to 2 bits
    python -m benchmarks.quantization --bits 8 --seeds 1
    python -m benchmarks.quantization --networks resnet20 --bits 4 3 2 --seeds 2

Two networks of adders alone, and two with a convolution first and a dense layer last, are trained
as `benchmarks/accuracy.py` trains (60 epochs in batches of 64, cosine from 0.1, label smoothing
0.1). Each becomes integers as it is; after 20 more epochs in f32 (cosine from 0.05); and after 20
with the rounding of its integers. Calibration: the first 256 training images. Prints markdown
tables, the mean over the seeds and in parentheses the least. Ends with status 1 where the all-adder
network loses more than 0.3 points on average at 8 bits without more training, or more than 0.6 in
strict mode; and where a network that was trained with the rounding has 0.3 points less than as it
was, in the mean over the numbers of bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import Model, layers, zoo
from addergraph.data import digits
from addergraph.ir import Array
from addergraph.layers import Layer
from addergraph.quantization import Quantized
from addergraph.training.schedules import cosine

EPOCHS, RATE = 60, 0.1
TUNING_EPOCHS, TUNING_RATE = 20, 0.05
BATCH, SMOOTHING, CALIBRATION = 64, 0.1, 256
BITS = (8, 6, 5, 4, 3, 2)
ALLOWED = {"multiply": 0.3, "shift": 0.6}  # points at 8 bits, of the all-adder network
WORSE = 0.3  # points that a network trained with the rounding may lose beyond one that is not
FACTORS = ("multiply", "shift")
AS_IS, LONGER, ROUNDED = "", ", fine-tuned in f32", ", QAT"
ROWS = tuple(factors + training for training in (AS_IS, LONGER, ROUNDED) for factors in FACTORS)


def deck(first: Layer, last: Layer, seed: int) -> Model:
    """The slide deck's network with another layer first and last, an adder layer between them, and
    batch norms behind all three: 9,068 parameters, where the all-adder network has 62,980."""
    model = Model(input_shape=(8, 8, 1), name="deck", seed=seed)
    for layer in (
        first,
        layers.BatchNorm(),
        layers.Activation("relu"),
        layers.MaxPool(pool_size=2),
        layers.Flatten(),
        layers.AdderDense(64),
        layers.BatchNorm(),
        layers.Activation("relu"),
        last,
        layers.BatchNorm(),
        layers.Activation("softmax"),
    ):
        model.add(layer)
    return model


NETWORKS: dict[str, Callable[[int], Model]] = {
    "all-adder": lambda seed: zoo.build("all-adder", seed=seed),
    "deck-adder": lambda seed: deck(layers.Adder(8, 3, padding=1), layers.AdderDense(10), seed),
    "small-adder": lambda seed: zoo.build("small-adder", seed=seed),
    "deck-conv": lambda seed: deck(layers.Conv(8, 3, padding=1), layers.Dense(10), seed),
    "resnet20": lambda seed: zoo.build("resnet20", (8, 8, 1), seed=seed),
}
ADDERS_ALONE = ("all-adder", "deck-adder")
USUAL = ("all-adder", "deck-adder", "small-adder", "deck-conv")


def fit(model: Model, epochs: int, rate: float, seed: int, threads: int | None) -> None:
    data = digits.load()
    model.fit(
        data.x_train, data.y_train, epochs=epochs, batch_size=BATCH, verbose=0, seed=seed,
        learning_rate=cosine(rate, epochs), label_smoothing=SMOOTHING, threads=threads,
    )  # fmt: skip


def copied(model: Model) -> Model:
    """A model with numbers of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        model.save(path)
        return Model.load(path)


def points(made: Quantized, strict: bool) -> float:
    """Test accuracy in percent."""
    data = digits.load()
    program = ag.compile(made.graph, weights=made.weights, multiplication_free=strict)
    y: Array = np.asarray(program(made.inputs(data.x_test)))  # type: ignore[operator]
    program.close()
    return 100 * float((y.argmax(1) == data.y_test).mean())


def measure(
    name: str, model: Model, longer: Model, bits: int, seed: int, threads: int | None
) -> list[float]:
    """The accuracies of `ROWS`; networks of adders alone have powers of two in strict mode."""
    images, strict = digits.load().x_train[:CALIBRATION], name in ADDERS_ALONE
    tuned = ag.quantization_aware(model, images, bits=bits)
    fit(tuned, TUNING_EPOCHS, TUNING_RATE, seed, threads)
    found = []
    for source in (model, longer, tuned):
        found.append(points(ag.quantize(source, images, bits=bits, requantize="multiply"), False))
        found.append(points(ag.quantize(source, images, bits=bits), strict))
    return found


def table(
    name: str, seeds: int, all_bits: list[int], threads: int | None
) -> dict[tuple[str, int], float]:
    """Prints the table of one network; the points lost in the mean, by row and bits."""
    data = digits.load()
    plain: list[float] = []
    found: dict[int, list[list[float]]] = {bits: [] for bits in all_bits}
    for seed in range(seeds):
        model = NETWORKS[name](seed)
        fit(model, EPOCHS, RATE, seed, threads)
        accuracy = model.evaluate(data.x_test, data.y_test, threads=threads)["accuracy"]
        plain.append(100 * accuracy)
        longer = copied(model)
        fit(longer, TUNING_EPOCHS, TUNING_RATE, seed, threads)
        for bits in all_bits:
            found[bits].append(measure(name, model, longer, bits, seed, threads))
    print(f"\n{name}, f32: {np.mean(plain):.2f} ({min(plain):.2f})\n")
    print(f"| | {' | '.join(f'{bits} bits' for bits in all_bits)} |")
    print(f"|---|{'---|' * len(all_bits)}")
    lost: dict[tuple[str, int], float] = {}
    for number, row in enumerate(ROWS):
        cells = []
        for bits in all_bits:
            values = [of_seed[number] for of_seed in found[bits]]
            lost[row, bits] = float(np.mean(plain) - np.mean(values))
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f})")
        print(f"| {row} | {' | '.join(cells)} |", flush=True)
    return lost


def too_much(name: str, lost: dict[tuple[str, int], float], all_bits: list[int]) -> Iterator[str]:
    """What a network loses beyond what is allowed, in words."""
    for row, allowed in ALLOWED.items():
        if name == "all-adder" and lost.get((row, 8), 0.0) > allowed:
            yield f"{row} at 8 bits loses {lost[row, 8]:.2f} points"
    for factors in FACTORS:
        without, rounded = (
            float(np.mean([lost[factors + training, bits] for bits in all_bits]))
            for training in (AS_IS, ROUNDED)
        )
        if rounded > without + WORSE:
            yield f"{name}, {factors}: training costs {rounded - without:.2f} points"


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--threads", type=int, help="all processors unless given")
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=USUAL)
    arguments = parser.parse_args()
    print(f"test accuracy on the digits in percent, {arguments.seeds} seeds")
    failed = False
    for name in arguments.networks:
        lost = table(name, arguments.seeds, list(arguments.bits), arguments.threads)
        for message in too_much(name, lost, list(arguments.bits)):
            print(message, file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
