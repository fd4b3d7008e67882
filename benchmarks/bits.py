"""Test accuracy of a trained model as integers of 8, 6, 5 and 4 bits, and after training for them.

    python -m benchmarks.bits MODEL.safetensors --data cifar10:FOLDER
    python -m benchmarks.bits MODEL.safetensors --data cifar10:FOLDER --epochs 2 --bits 5 4

Each row is one number of bits of activations and filters (the image keeps 8): the int8 model as it
is, requantized by shifts and by multiplications, and with `--epochs` the same after so many epochs
of quantization-aware training of the whole training part, at a rate that falls from --rate along a
cosine. Calibration: the first --calibration training images. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

import addergraph as ag
from addergraph import Model
from addergraph.data import Augment, Dataset, load
from addergraph.training.schedules import cosine

BITS = (8, 6, 5, 4)
FACTORS = ("shift", "multiply")


def accuracy(model: Model, data: Dataset, images: np.ndarray, bits: int, factors: str) -> float:
    made = ag.quantize(model, images, bits=bits, requantize=factors)
    program = ag.compile(made)
    (scores,) = program.run([data.x_test if made.preprocessing else made.inputs(data.x_test)])
    program.close()
    return float((scores.argmax(1) == data.y_test).mean())


def row(model: Model, data: Dataset, bits: int, options: argparse.Namespace) -> Iterator[str]:
    images = data.x_train[: options.calibration]
    sources = [model]
    if options.epochs:
        aware = ag.quantization_aware(model, images, bits=bits)
        aware.fit(
            data.x_train, data.y_train, epochs=options.epochs, batch_size=options.batch, verbose=0,
            learning_rate=cosine(options.rate, options.epochs), seed=options.seed,
            augment=Augment(padding=4, flip=0.5),
        )  # fmt: skip
        sources.append(aware)
    for source in sources:
        for factors in FACTORS:
            yield f"{accuracy(source, data, images, bits, factors):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="as of `addergraph train`")
    parser.add_argument("--bits", type=int, nargs="+", default=BITS)
    parser.add_argument("--calibration", type=int, default=1024, help="images")
    parser.add_argument("--epochs", type=int, default=0, help="of quantization-aware training")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data, model = load(options.data), Model.load(options.model)
    found = model.evaluate(data.x_test, data.y_test)["accuracy"]
    trainings = ("", f", {options.epochs} epochs of QAT") if options.epochs else ("",)
    heads = [f"{factors}{training}" for training in trainings for factors in FACTORS]
    print(f"{options.model}: {found:.4f} of {len(data.x_test):,} test images in f32\n")
    print(f"| bits | {' | '.join(heads)} | s |\n|---:|{'---:|' * (len(heads) + 1)}")
    for bits in options.bits:
        start = time.perf_counter()
        cells = " | ".join(row(model, data, bits, options))
        print(f"| {bits} | {cells} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
