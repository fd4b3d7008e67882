"""A training step of ResNet-20 in PyTorch with our adder layer, held against two others.

    taskset -c 0 python -m benchmarks.torch_layer      # from the project's folder; one thread
    python -m benchmarks.torch_layer --threads 2
    python -m benchmarks.torch_layer --clock cpu       # one thread on a machine that is busy

* At batch 16 the same network with the layer as the authors describe it: columns of the image by
  `unfold`, |x - w| for all pairs in one broadcast tensor, summed; the gradients likewise.
* At batch 64 AdderGraph's own training step, one compiled program; ours in both layouts of memory.

Networks and images are the same in all rows: forward, cross-entropy, backward, SGD with momentum
and weight decay. Competitors take turns in one process; a row holds the best of all turns in
milliseconds. Ends with status 1 where ours is less than 60 times as fast as the broadcast layer, or
takes more than 1.5 times AdderGraph's own step in `channels_last` memory. Needs
`pip install addergraph[torch]`.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

FASTER, AS_OURS = 60.0, 1.5
SMALL, LARGE = 16, 64
LAYOUTS = ("contiguous_format", "channels_last")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Step = Callable[[], object]


def broadcast_layer() -> Any:
    """The class of the layer that holds a tensor of all pairs: [T, K, P] for T filters of K taps
    and the P windows of a batch."""
    import torch
    from torch import nn

    class Distances(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, columns: Any, rows: Any) -> Any:
            ctx.save_for_backward(columns, rows)
            return (columns[None] - rows[:, :, None]).abs().sum(1).neg()

        @staticmethod
        def backward(ctx: Any, g: Any) -> tuple[Any, Any]:
            columns, rows = ctx.saved_tensors
            by_rows = ((columns[None] - rows[:, :, None]) * g[:, None]).sum(2)
            scale = math.sqrt(rows.numel()) / (5 * by_rows.norm().clamp(min=1e-12))
            by_columns = ((rows[:, :, None] - columns[None]).clamp(-1, 1) * g[:, None]).sum(0)
            return by_columns, by_rows * scale

    class Broadcast(nn.Module):  # type: ignore[misc]
        def __init__(
            self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0
        ) -> None:
            super().__init__()
            self.stride, self.padding = stride, padding
            self.adder = nn.Parameter(torch.randn(outputs, inputs, size, size))

        def forward(self, x: Any) -> Any:
            filters, size = len(self.adder), self.adder.shape[-1]
            spread = nn.functional.unfold(x, size, padding=self.padding, stride=self.stride)
            windows = spread.permute(1, 0, 2)  # taps, samples, places
            y = Distances.apply(windows.flatten(1), self.adder.flatten(1))
            rows = (x.shape[2] + 2 * self.padding - size) // self.stride + 1
            return y.view(filters, len(x), rows, -1).transpose(0, 1)

    return Broadcast


def resnet20(adder: Any) -> Any:
    """The authors' topology, with their names: the first and the last layer are convolutions, a
    batch norm follows each layer; `adder(inputs, outputs, size, stride=, padding=)`."""
    from torch import nn

    def unit(inputs: int, outputs: int, size: int, stride: int) -> list[Any]:
        layer = adder(inputs, outputs, size, stride=stride, padding=size // 2)
        return [layer, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = unit(inputs, outputs, 3, stride)
            self.conv2, self.bn2 = unit(outputs, outputs, 3, 1)
            self.downsample = nn.Sequential(
                *(unit(inputs, outputs, 1, stride) if inputs != outputs else [])
            )
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            y += self.downsample(x)
            return self.relu(y)

    class ResNet20(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            self.relu = nn.ReLU(inplace=True)
            for number, inputs in ((1, 16), (2, 16), (3, 32)):
                outputs = 16 << (number - 1)
                first = Block(inputs, outputs, 2 if inputs != outputs else 1)
                stage = nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(2)))
                self.add_module(f"layer{number}", stage)
            self.avgpool = nn.AvgPool2d(8, stride=1)
            self.fc, self.bn2 = nn.Conv2d(64, 10, 1, bias=False), nn.BatchNorm2d(10)

        def forward(self, x: Any) -> Any:
            x = self.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            x = self.bn2(self.fc(self.avgpool(x)))
            return x.view(x.size(0), -1)

    return ResNet20()


def images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    return x, np.eye(10, dtype=np.float32)[rng.integers(10, size=batch)]


def torch_step(adder: Any, batch: int, layout: str = "contiguous_format") -> Step:
    import torch

    network = resnet20(adder).to(memory_format=getattr(torch, layout))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, targets = images(batch)
    inputs = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(targets.argmax(1))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    return step


def own_step(batch: int, threads: int) -> Step:
    from addergraph import zoo

    x, targets = images(batch)
    step = zoo.build("resnet20").train_step(batch, threads=threads)
    return functools.partial(step, x, targets, 0.01)


def bests(
    steps: dict[str, Step], turns: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Milliseconds: the best of `turns` of each, one after the other, after one that warms up."""
    found = dict.fromkeys(steps, math.inf)
    for turn in range(turns + 1):
        for name, step in steps.items():
            start = clock()
            step()
            seconds = clock() - start
            found[name] = min(found[name], 1e3 * seconds) if turn else math.inf
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        parser.error("the CPU time of a process adds up its threads': --clock cpu takes one")
    clock = CLOCKS[options.clock]
    import torch

    from addergraph.torch import Adder2d

    torch.set_num_threads(options.threads)
    setting = f"{options.threads} threads, {options.clock} time, PyTorch {torch.__version__}"
    print(f"ResNet-20, a training step, {setting}\n")
    slow = bests({"broadcast": torch_step(broadcast_layer(), SMALL)}, 2, clock)
    ours = bests({"ours": torch_step(Adder2d, SMALL)}, options.turns, clock)
    faster = slow["broadcast"] / ours["ours"]
    steps = {layout: torch_step(Adder2d, LARGE, layout) for layout in LAYOUTS}
    large = bests(steps | {"own": own_step(LARGE, options.threads)}, options.turns, clock)
    longer = large["channels_last"] / large["own"]
    print("| step | batch | best ms |\n|---|---:|---:|")
    print(f"| PyTorch, broadcast layer | {SMALL} | {slow['broadcast']:.0f} |")
    print(f"| PyTorch, addergraph.torch.Adder2d | {SMALL} | {ours['ours']:.1f} |")
    for layout in LAYOUTS:
        print(f"| PyTorch, addergraph.torch.Adder2d, {layout} | {LARGE} | {large[layout]:.1f} |")
    print(f"| AdderGraph's own | {LARGE} | {large['own']:.1f} |")
    print(f"\n{faster:.0f} times as fast as the broadcast layer; required: {FASTER:.0f}")
    print(f"{longer:.2f} times AdderGraph's own step; required: at most {AS_OURS}")
    return int(faster < FASTER or longer > AS_OURS)


if __name__ == "__main__":
    sys.exit(main())
