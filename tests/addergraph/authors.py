"""The authors' residual networks once more, independently: PyTorch's names, NCHW, f64 in NumPy.

`state(...)` draws a state dict with the names of their release; `logits` computes the network from
it, or, with `calibrate`, first sets every running statistic to that of the batch, so that what
reaches the logits varies as in a trained network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from addergraph.ir import Array

State = dict[str, Array]
Distance = Callable[[Array, Array], Array]  # columns [P,K], filters [T,K] -> [P,T]


class Topology(NamedTuple):
    blocks: tuple[int, ...]
    width: int
    bottleneck: bool
    imagenet: bool
    classes: int


RESNET20 = Topology((3, 3, 3), 16, False, False, 10)
RESNET18 = Topology((2, 2, 2, 2), 64, False, True, 1000)
RESNET50 = Topology((3, 4, 6, 3), 64, True, True, 1000)


class Block(NamedTuple):
    prefix: str
    layers: tuple[tuple[int, int, int, int], ...]  # inputs, outputs, kernel size, stride
    shortcut: bool


def blocks(net: Topology) -> Iterator[Block]:
    inputs = net.width
    for stage, count in enumerate(net.blocks):
        width = net.width * 2**stage
        outputs = 4 * width if net.bottleneck else width
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            if net.bottleneck:
                layers = ((inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1))
            else:
                layers = ((inputs, width, 3, stride), (width, width, 3, 1))  # type: ignore[assignment]
            yield Block(f"layer{stage + 1}.{block}", layers, stride == 2 or inputs != outputs)
            inputs = outputs


def state(net: Topology, seed: int = 0, body: str = "adder") -> State:
    """Random weights: N(0, 1) adders, small products, batch norms around the identity."""
    rng = np.random.default_rng(seed)
    made: State = {}

    def filters(key: str, *shape: int, scale: float = 1.0) -> None:
        made[key] = (scale * rng.normal(size=shape)).astype(np.float32)

    def norm(key: str, channels: int) -> None:
        made[f"{key}.weight"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)
        made[f"{key}.bias"] = rng.normal(0, 0.3, channels).astype(np.float32)
        made[f"{key}.running_mean"] = np.zeros(channels, np.float32)
        made[f"{key}.running_var"] = np.ones(channels, np.float32)
        made[f"{key}.num_batches_tracked"] = np.array(7)

    size = 7 if net.imagenet else 3
    filters("conv1.weight", net.width, 3, size, size, scale=0.2)
    norm("bn1", net.width)
    for block in blocks(net):
        for number, (inputs, outputs, kernel, _) in enumerate(block.layers, 1):
            filters(f"{block.prefix}.conv{number}.{body}", outputs, inputs, kernel, kernel)
            norm(f"{block.prefix}.bn{number}", outputs)
        if block.shortcut:
            outputs = block.layers[-1][1]
            filters(f"{block.prefix}.downsample.0.{body}", outputs, block.layers[0][0], 1, 1)
            norm(f"{block.prefix}.downsample.1", outputs)
    filters("fc.weight", net.classes, block.layers[-1][1], 1, 1, scale=0.1)
    if net.imagenet:
        filters("fc.bias", net.classes)
    norm("bn2", net.classes)
    return made


def l1(columns: Array, filters: Array) -> Array:
    """-sum_k |X[p,k] - F[t,k]|, filter by filter."""
    return np.stack([-np.abs(columns - f).sum(1) for f in filters], axis=1)


def product(columns: Array, filters: Array) -> Array:
    return np.asarray(columns @ filters.T)


class Network:
    """The forward pass; `adder` computes the layers of the body."""

    def __init__(self, net: Topology, weights: State, adder: Distance = l1) -> None:
        self.net, self.weights, self.adder = net, weights, adder
        self.calibrating = False

    def calibrate(self, x: Array) -> None:
        """Running statistics become those of the batch `x` [N,3,H,W]."""
        self.calibrating = True
        self.logits(x)
        self.calibrating = False

    def logits(self, x: Array) -> Array:
        """[N,3,H,W] -> [N,classes]."""
        stem = (2, 3) if self.net.imagenet else (1, 1)
        x = self.windowed(x.astype(np.float64), "conv1.weight", *stem)
        x = np.maximum(self.norm(x, "bn1"), 0)
        if self.net.imagenet:
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            x = _windows(padded, 3, 2).max(axis=(4, 5))
        for block in blocks(self.net):
            x = self.block(x, block)
        x = self.windowed(x.mean(axis=(2, 3), keepdims=True), "fc.weight", 1, 0)
        if self.net.imagenet:
            x = x + self.weights["fc.bias"][:, None, None]
        return np.asarray(self.norm(x, "bn2")[:, :, 0, 0])

    def block(self, x: Array, block: Block) -> Array:
        y = x
        for number, (*_, kernel, stride) in enumerate(block.layers, 1):
            y = self.windowed(y, f"{block.prefix}.conv{number}.adder", stride, kernel // 2)
            y = self.norm(y, f"{block.prefix}.bn{number}")
            if number < len(block.layers):
                y = np.maximum(y, 0)
        if block.shortcut:
            stride = max(layer[3] for layer in block.layers)
            x = self.windowed(x, f"{block.prefix}.downsample.0.adder", stride, 0)
            x = self.norm(x, f"{block.prefix}.downsample.1")
        return np.asarray(np.maximum(x + y, 0))

    def windowed(self, x: Array, key: str, stride: int, padding: int) -> Array:
        f = self.weights[key].astype(np.float64)
        sides = (padding, padding)
        windows = _windows(np.pad(x, ((0, 0), (0, 0), sides, sides)), f.shape[2], stride)
        n, _, h, w = windows.shape[:4]
        columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)
        distance = self.adder if key.endswith(".adder") else product
        y = distance(columns, f.reshape(len(f), -1))
        return np.asarray(y.reshape(n, h, w, -1).transpose(0, 3, 1, 2))

    def norm(self, x: Array, key: str) -> Array:
        if self.calibrating:
            mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
            self.weights[f"{key}.running_mean"] = mean.astype(np.float32)
            self.weights[f"{key}.running_var"] = variance.astype(np.float32)
        fields = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (
            self.weights[f"{key}.{f}"].astype(np.float64)[:, None, None] for f in fields
        )
        return np.asarray((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta)


def _windows(x: Array, size: int, stride: int) -> Array:
    """[N,C,H,W] -> [N,C,OH,OW,size,size]."""
    found = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return found[:, :, ::stride, ::stride]
