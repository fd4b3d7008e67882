"""What a call costs, and what a second thread brings.

    python -m benchmarks.threads                 # 1 and 2 threads
    python -m benchmarks.threads --threads 4

The call of a network that computes next to nothing shows the overhead; then come the demo's network
on 64 images, as an open batch (threads share samples) and bound (threads share the inside of each
kernel), and its training step. Thread counts take turns within one run, and the best of many calls
counts: the figures to compare are the ratios."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import addergraph as ag
from addergraph import ops
from addergraph.data import digits
from addergraph.ir import Graph
from addergraph.zoo import build

BATCH = 64
Case = Callable[[int], Callable[[], object]]  # threads -> call


def best(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """Seconds of the fastest call of each, in turns of a few milliseconds."""
    least, end = [np.inf] * len(calls), time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for position, call in enumerate(calls):
            until = time.perf_counter() + 0.01
            while (start := time.perf_counter()) < until:
                call()
                least[position] = min(least[position], time.perf_counter() - start)
    return least


def network(graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray) -> Case:
    def case(threads: int) -> Callable[[], object]:
        program = ag.compile(graph, weights=weights, threads=threads)
        return lambda: program(x)

    return case


def training(threads: int) -> Callable[[], object]:
    data = digits.load()
    model = build("small-adder", (8, 8, 1), 10, 0)
    step = model.train_step(BATCH, threads=threads)
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]
    return lambda: step(x, y, 1e-6)


def cases() -> dict[str, Case]:
    tiny = ag.trace(ops.relu, ag.tensor("f32", ("N", 4)))
    model = build("small-adder", (8, 8, 1), 10, 0)
    graph, x = model.graph(training=False), digits.load().x_train[:BATCH]
    ones = np.ones((64, 4), np.float32)
    return {
        "tiny, open batch": network(tiny, {}, ones),
        "tiny, bound": network(tiny.bind(64), {}, ones),
        f"small-adder, {BATCH} images, open": network(graph, model.weights, x),
        f"small-adder, {BATCH} images, bound": network(graph.bind(BATCH), model.weights, x),
        f"its training step, {BATCH} images": training,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    given = parser.parse_args()
    print(f"{'us a call':34} {'1 thread':>10} {f'{given.threads} threads':>10} {'ratio':>7}")
    for name, case in cases().items():
        one, more = best([case(1), case(given.threads)], given.seconds)
        print(f"{name:34} {1e6 * one:10.1f} {1e6 * more:10.1f} {one / more:7.2f}")


if __name__ == "__main__":
    main()
