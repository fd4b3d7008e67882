"""Memory that training ResNet-20 takes, held against PyTorch's convolutions.

    python -m benchmarks.training_memory            # batch 128, two threads, ten steps

Each run is a process of its own: it imports everything, makes its images, notes what is resident
(VmRSS of /proc/self/status), then makes the network, trains, and notes the largest and the last
value. What counts is the growth, so that neither the size of a library nor the data does. Ours runs
twice: compiling everything, and with the compiled step in the cache. PyTorch keeps its tensors in
either layout. Ends with status 1 where our growth is more than 1.2 times the smaller of PyTorch's.
Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REQUIRED = 1.2
Step = Callable[[int], object]


def resident(field: str) -> float:
    """A line of /proc/self/status, in MB of 1e6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"/proc/self/status has no {field}")


def images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    return x, np.eye(10, dtype=np.float32)[rng.integers(10, size=batch)]


# -- in a process of their own ---------------------------------------------------------------------


def measured(batch: int, threads: int, steps: int, prepare: Callable[..., Step]) -> None:
    """Prints the growth of this process from its imports on, as JSON."""
    x, targets = images(batch)
    Path("/proc/self/clear_refs").write_text("5")  # the largest value so far is the present one
    before = resident("VmRSS")
    step = prepare(x, targets, threads)
    for number in range(steps):
        step(number)
    found = {"before": before, "last": resident("VmRSS") - before}
    print(json.dumps(found | {"largest": resident("VmHWM") - before}))


def ours(network: str) -> Callable[..., Step]:
    from addergraph import zoo

    for module in ("llvmlite.binding", "addergraph.codegen.run.jit", "addergraph.passes.pipeline"):
        importlib.import_module(module)  # what compiling imports

    def prepare(x: np.ndarray, targets: np.ndarray, threads: int) -> Step:
        step = zoo.build(network).train_step(len(x), threads=threads)
        return lambda number: step.run([x], [targets], 0.1)

    return prepare


def theirs(layout: str) -> Callable[..., Step]:
    import torch

    def prepare(x: np.ndarray, targets: np.ndarray, threads: int) -> Step:
        torch.set_num_threads(threads)
        form = getattr(torch, layout)
        network = torch_resnet20().to(memory_format=form)
        inputs = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form)
        labels = torch.from_numpy(targets.argmax(1))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

        def step(number: int) -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()

        return step

    return prepare


def torch_resnet20() -> Any:
    """Convolutions where `resnet20` has adders; batch norms and shortcuts as there."""
    from torch import nn

    def unit(inputs: int, outputs: int, size: int, stride: int) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            first, second = unit(inputs, outputs, 3, stride), unit(outputs, outputs, 3, 1)
            self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
            changes = stride != 1
            self.skip = nn.Sequential(*(unit(inputs, outputs, 1, stride) if changes else []))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.body(x) + self.skip(x))

    blocks, inputs = [], 16
    for stage in range(3):
        for block in range(3):
            outputs = 16 << stage
            blocks.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10, bias=False)]
    first = [*unit(3, 16, 3, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *blocks, *pool, nn.BatchNorm1d(10))


# -- the comparison --------------------------------------------------------------------------------


def run(what: str, name: str, cache: str, options: argparse.Namespace) -> dict[str, float]:
    count = str(options.threads)
    command = [sys.executable, __file__, "--measure", what, "--name", name]
    for option in ("batch", "threads", "steps"):
        command += [f"--{option}", str(getattr(options, option))]
    done = subprocess.run(
        command,
        env={**os.environ, "ADDERGRAPH_CACHE": cache, "OMP_NUM_THREADS": count},
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the process of {name} ended with status {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as cache:
        rows = [
            ("ours, adder", run("ours", "resnet20", cache, options)),
            ("ours, adder, compiled before", run("ours", "resnet20", cache, options)),
            ("ours, conv", run("ours", "resnet20-conv", cache, options)),
            ("PyTorch, conv, channels last", run("theirs", "channels_last", cache, options)),
            ("PyTorch, conv, channels first", run("theirs", "contiguous_format", cache, options)),
        ]
    print(
        f"ResNet-20, batch {options.batch}, {options.threads} threads, {options.steps} steps; MB "
        "that the process grew from its imports on\n"
    )
    print("| training | imported | largest | last |\n|---|---:|---:|---:|")
    for name, found in rows:
        cells = " | ".join(f"{found[key]:.0f}" for key in ("before", "largest", "last"))
        print(f"| {name} | {cells} |")
    ratios = {}
    for key in ("largest", "last"):
        ratios[key] = max(f[key] for _, f in rows[:2]) / min(f[key] for _, f in rows[3:])
    print(
        f"\nours (adder, the larger) to PyTorch (the smaller): {ratios['largest']:.2f} at the "
        f"largest, {ratios['last']:.2f} at the end; required: at most {REQUIRED}"
    )
    return 1 if max(ratios.values()) > REQUIRED else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--measure", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is None:
        return compare(options)
    prepare = ours(options.name) if options.measure == "ours" else theirs(options.name)
    measured(options.batch, options.threads, options.steps, prepare)
    return 0


if __name__ == "__main__":
    sys.exit(main())
