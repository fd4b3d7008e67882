"""Steps of ResNet-20 with adders, held against PyTorch's with convolutions: training, inference.

    python -m benchmarks.training_step          # from the project's folder; batch 64, two threads
    taskset -c 0 python -m benchmarks.training_step --threads 1

Each competitor is a process of its own, and they take turns: a row holds the best and the median of
all turns, in milliseconds, and the last column the ratio of bests to PyTorch's faster layout. A
training step is forward, backward and update (SGD with momentum and weight decay; ours with the
adaptive learning rate); inference is one batch in evaluation form. Beside ours stands what its
kernels would take at their peaks: the terms of every adder layer, forward, of its input gradient
and of its filter gradient, each over the peak of its instructions in registers, measured in the
same run. Then thirty epochs of the digits network, as `benchmarks/training.py`, beside the same
epochs of PyTorch. Ends with status 1 where training ResNet-20 takes more than 1.1 times PyTorch's
best, inference more than 1.0 times, or the digits more than 1.25 times.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LIMITS = {"training": 1.1, "inference": 1.0, "digits": 1.25}
DIGITS = {"resnet20": "small-adder", "resnet20-conv": "small-conv"}
TURNS, RUNS = 6, 4
Work = dict[str, Callable[[], object]]


def images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    return x, np.eye(10, dtype=np.float32)[rng.integers(10, size=batch)]


# -- in a process of their own ---------------------------------------------------------------------


def ours(network: str, batch: int, threads: int) -> Work:
    import addergraph as ag
    from addergraph import zoo
    from benchmarks.training import train

    x, targets = images(batch)
    model = zoo.build(network)
    program = ag.compile(model, batch=batch, threads=threads)
    step = zoo.build(network).train_step(batch, threads=threads)
    return {
        "training": lambda: step.run([x], [targets], 0.01),
        "inference": lambda: program(x),
        "digits": lambda: train(0, threads, DIGITS[network]),
    }


def theirs(layout: str, batch: int, threads: int) -> Work:
    import torch

    from benchmarks.training_memory import torch_resnet20

    torch.set_num_threads(threads)
    form = getattr(torch, layout)
    network = torch_resnet20().to(memory_format=form)
    frozen = torch_resnet20().eval().to(memory_format=form)
    x, targets = images(batch)
    inputs = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form)
    labels = torch.from_numpy(targets.argmax(1))
    step = functools.partial(_torch_step, network, _sgd(network), inputs, labels)

    def infer() -> object:
        with torch.inference_mode():
            return frozen(inputs)

    return {"training": step, "inference": infer, "digits": functools.partial(_digits, form)}


def _sgd(network: Any) -> Any:
    import torch

    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def _torch_step(network: Any, optimizer: Any, inputs: Any, labels: Any) -> None:
    import torch

    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(inputs), labels).backward()
    optimizer.step()


def _digits(form: Any) -> None:
    """The epochs of `benchmarks/training.py`, of convolutions."""
    import torch
    from torch import nn

    from addergraph.data import digits
    from benchmarks.training import BATCH, EPOCHS

    data, rng = digits.load(), np.random.default_rng(0)
    x = torch.from_numpy(np.asarray(data.x_train, np.float32)).permute(0, 3, 1, 2)
    y = torch.from_numpy(np.asarray(data.y_train, np.int64))
    made: list[Any] = []
    for number, (inputs, outputs) in enumerate(((1, 16), (16, 32), (32, 64), (64, 64))):
        made += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        made += [nn.MaxPool2d(2)] if number in (1, 2) else []
    network = nn.Sequential(*made, nn.Flatten(), nn.Linear(256, 10)).to(memory_format=form)
    optimizer = _sgd(network)
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            batch = x[rows].contiguous(memory_format=form)
            _torch_step(network, optimizer, batch, y[rows])


def serve(name: str, batch: int, threads: int) -> None:
    """A line asks for runs of one kind of work; a line answers with their seconds."""
    made = ours(name, batch, threads) if "resnet" in name else theirs(name, batch, threads)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        kind, runs = json.loads(line)
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            made[kind]()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


# -- the comparison --------------------------------------------------------------------------------


class Competitor:
    """A process that is measured in turns."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.training_step", "--serve", name]
        command += ["--batch", str(options.batch), "--threads", str(options.threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
        )  # fmt: skip
        self.seconds: dict[str, list[float]] = {kind: [] for kind in LIMITS}
        self._answer()

    def run(self, kind: str, runs: int) -> None:
        assert self._process.stdin is not None
        print(json.dumps([kind, runs]), file=self._process.stdin, flush=True)
        self.seconds[kind] += self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process ended; its message is above")
        return json.loads(line)


def at_the_peaks(options: argparse.Namespace) -> float:
    """Seconds of a training step's adder terms, at the peaks of their instructions."""
    from addergraph import compiler, zoo
    from addergraph.ops.contraction.adder2d import Adder2d

    graph = zoo.build("resnet20").graph(training=True, batch=options.batch)
    # A term is two additions: |x - f|, and its sum.
    terms = sum(
        node.op.cost([v.type for v in node.inputs]).additions / 2
        for node in graph.nodes
        if isinstance(node.op, Adder2d)
    )
    forms = ("minimum", "clip", "product")
    return sum(terms / compiler.measure_peak(f, threads=options.threads) / 1e9 for f in forms)


def compare(options: argparse.Namespace) -> int:
    rows = {
        "ours, adder": Competitor("resnet20", options),
        "ours, conv": Competitor("resnet20-conv", options),
        "PyTorch, conv, channels last": Competitor("channels_last", options),
        "PyTorch, conv, channels first": Competitor("contiguous_format", options),
    }
    failed = False
    print(f"ResNet-20, batch {options.batch}, {options.threads} threads\n")
    for kind, limit in LIMITS.items():
        turns, runs = (2, 1) if kind == "digits" else (TURNS, RUNS)
        for turn in range(turns + 1):  # the first warms up
            for one in rows.values():
                one.run(kind, runs)
                if not turn:
                    one.seconds[kind].clear()
        best = {name: min(one.seconds[kind]) for name, one in rows.items()}
        peer = min(seconds for name, seconds in best.items() if name.startswith("PyTorch"))
        print(f"| {kind} | best ms | median ms | ratio |\n|---|---:|---:|---:|")
        for name, one in rows.items():
            median = np.median(one.seconds[kind]) * 1e3
            print(f"| {name} | {best[name] * 1e3:.1f} | {median:.1f} | {best[name] / peer:.2f} |")
        print(f"\nrequired of the adder network: at most {limit}\n")
        failed |= best["ours, adder"] > limit * peer
    print(f"adder layers of a training step at their peaks: {at_the_peaks(options) * 1e3:.1f} ms")
    return int(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is None:
        return compare(options)
    serve(options.serve, options.batch, options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
