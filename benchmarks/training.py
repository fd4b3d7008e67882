"""Thirty epochs on the digits, natively: seconds and test accuracy.

    python -m benchmarks.training            # one and two threads, seed 0
    python -m benchmarks.training --seeds 5

The network is conv16 | adder32 | pool | adder64 | pool | adder64 (3x3, batch norm and relu) |
dense; batch 64, SGD with momentum 0.9, cosine learning rate from 0.1. Compilation is part of the
time.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from addergraph.data import digits
from addergraph.training.schedules import cosine
from addergraph.zoo import build

EPOCHS, BATCH = 30, 64


def train(seed: int, threads: int, network: str = "small-adder") -> tuple[float, float]:
    """(seconds, test accuracy) of one training."""
    data = digits.load()
    model = build(network, (8, 8, 1), 10, seed)
    start = time.perf_counter()
    model.fit(
        data.x_train, data.y_train, epochs=EPOCHS, batch_size=BATCH, verbose=0, seed=seed,
        learning_rate=cosine(0.1, EPOCHS), threads=threads,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return seconds, model.evaluate(data.x_test, data.y_test)["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    seeds = parser.parse_args().seeds
    for threads in (1, 2):
        runs = [train(seed, threads) for seed in range(seeds)]
        seconds, accuracy = np.array(runs).T
        print(
            f"{threads} thread{'s' * (threads > 1)}: {seconds.min():.2f} s (best), "
            f"{np.median(seconds):.2f} s (median of {seeds}); test accuracy "
            f"{accuracy.mean():.4f} in the mean, {accuracy.min():.4f} at least"
        )


if __name__ == "__main__":
    main()
