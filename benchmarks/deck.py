"""The slide deck's experiment on real images: its network with an adder layer and a convolution.

    python -m benchmarks.deck --data cifar10:FOLDER          # 20 epochs, batch 16, rate 0.001
    python -m benchmarks.deck --data digits --epochs 2       # seconds, to try it

Three networks, each with an adder layer in front and with a convolution in its place: the listing
as it is written, whose relu follows the layer; the same with the batch norm before the relu, as
`check` advises; and this one with a learning rate that falls from 0.1 along a cosine. Interrupted,
the same command goes on: each run has a checkpoint in the output folder, and models that are there
are not trained again.

Prints a markdown table of test accuracy and seconds of training, and writes it and the curves of
the loss into the output folder. Ends with status 1 where the adder layer behind a batch norm ends
more than LOST below the convolution at that rate, or the listing as it is written learns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addergraph import Model, layers
from addergraph.data import Dataset, load
from addergraph.diagnostics import pictures, plots
from addergraph.errors import DataWarning, RangeWarning
from addergraph.files.storage import atomic_write
from addergraph.training.schedules import cosine
from addergraph.zoo.form import Form
from addergraph.zoo.small import deck

LOST = 0.02
FRONTS = ("adder", "convolution")
SLOW, FAST = 0.001, 0.1


@dataclass(frozen=True)
class Run:
    """A row of the table."""

    what: str
    norm_first: bool  # before the relu, not behind the pooling
    falls: bool  # the rate, from FAST along a cosine; else SLOW throughout


RUNS = (
    Run("as written", False, False),
    Run("batch norm before the relu", True, False),
    Run("the same, rate from 0.1 along a cosine", True, True),
)


def network(front: str, norm_first: bool, data: Dataset) -> Model:
    """The listing of the zoo, its first layer of this kind, its batch norm in one of two places."""
    adder, relu, pool, norm, *head = deck(Form(len(data.classes), "adder", "adder"))
    first = adder if front == "adder" else layers.Conv(8, kernel_size=3, padding=1)
    model = Model(input_shape=data.shape)
    for layer in (first, *([norm, relu, pool] if norm_first else [relu, pool, norm]), *head):
        model.add(layer)
    return model


def trained(run: Run, front: str, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy, seconds and the curves; from the output folder, where they are there."""
    folder = options.output / f"{RUNS.index(run)}-{front}"
    known = folder / "result.json"
    if known.exists():
        return dict(json.loads(known.read_text()))
    print(f"{run.what}, {front}", file=sys.stderr, flush=True)
    model = network(front, run.norm_first, data)
    start = time.perf_counter()
    with warnings.catch_warnings():
        for said in (RangeWarning, DataWarning):  # as it is written, it is dead
            warnings.simplefilter("ignore", said)
        history = model.fit(
            data.x_train, data.y_train, data.x_test, data.y_test, epochs=options.epochs,
            batch_size=options.batch, seed=options.seed,
            learning_rate=cosine(FAST, options.epochs) if run.falls else SLOW,
            checkpoint=folder, resume=True,
        ).history  # fmt: skip
    found = {
        "accuracy": model.evaluate(data.x_test, data.y_test)["accuracy"],
        "seconds": time.perf_counter() - start,
        "history": {name: [float(v) for v in values] for name, values in history.items()},
    }
    atomic_write(known, json.dumps(found).encode())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/deck"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    pictures.require_picture(options.output / "curves.png")
    data = load(options.data)
    found = {run: {front: trained(run, front, data, options) for front in FRONTS} for run in RUNS}
    lines = [
        "| | adder | convolution | seconds, adder | convolution |",
        "|---|---:|---:|---:|---:|",
    ]
    for run, of in found.items():
        values = [f"{r['accuracy']:.4f}" for r in of.values()]
        values += [f"{r['seconds']:.0f}" for r in of.values()]
        lines.append(f"| {run.what} | {' | '.join(values)} |")
    print("\n".join(lines))
    atomic_write(options.output / "table.md", ("\n".join(lines) + "\n").encode())
    curves = {
        f"{front}, {run.what}": r["history"] for run, of in found.items() for front, r in of.items()
    }
    pictures.save(plots.plot_curves(curves), options.output / "curves.png")
    last = found[RUNS[-1]]
    guessing = float(np.max(np.bincount(data.y_test)) / len(data.y_test))
    lost = last["convolution"]["accuracy"] - last["adder"]["accuracy"]
    return int(lost > LOST or found[RUNS[0]]["adder"]["accuracy"] > 2 * guessing)


if __name__ == "__main__":
    sys.exit(main())
