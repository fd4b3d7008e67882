"""What quantization makes of small random networks with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from random import Random

import numpy as np
from hypothesis import strategies as st

import addergraph as ag
from addergraph import layers, ops
from addergraph.errors import RangeWarning
from addergraph.ir import Graph
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.model.engines import Interpreted
from addergraph.passes.quantize.quantize import quantize
from addergraph.quantization import MULTIPLY, SHIFT, QuantizationSettings
from tests.passes.networks import settled
from tests.strategies import Case

SIDES, CHANNELS = (6, 5, 7, 4), (3, 1, 4, 8, 2)
WIDTHS = (8, 4, 5, 6, 16, 12)


def quantized_cases() -> st.SearchStrategy[Case]:
    """Integer networks from the quantizer, with bytes for their inputs."""
    return st.integers(0, 2**32 - 1).map(quantized_case)


def quantized_case(seed: int) -> Case:
    """The network of this seed."""
    random, rng = Random(seed), np.random.default_rng(seed)
    image = (random.choice(SIDES), random.choice(SIDES), random.choice(CHANNELS))
    graph = network(random, image)
    samples = rng.normal(random.choice((0.0, 1.0)), 1, (24, *image)).astype(np.float32)
    settings = QuantizationSettings(
        bits=random.choice((8, 8, 8, 7, 6, 5, 4)),
        requantize=SHIFT if random.random() < 0.8 else MULTIPLY,
        terms=random.choice((1, 2, 3)),
        quantile=random.choice((0.9997, 1.0)),
        reestimate=random.random() < 0.7,
    )
    made = quantize(graph, settled(graph, samples, seed), samples, settings, Interpreted())
    x = made.inputs(rng.normal(0, 1.5, (random.choice((1, 2, 3, 5)), *image)).astype(np.float32))
    return Case(seed, made.graph, (x,), dict(made.weights))


def network(random: Random, image: tuple[int, ...]) -> Graph:
    """Adder layers with batch norm, shortcuts and pools, and a head."""

    def net(x: Tensor) -> Tensor:
        x = _block(random, x, random.choice(WIDTHS))
        for _ in range(random.randint(0, 2)):
            x = random.choice((_plain, _shortcut, _widened, _pool, _joined, _bordered))(random, x)
        return _head(random, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        return ag.trace(net, TensorType(f32, ("N", *image)), name="net")


def _normed(x: Tensor) -> Tensor:
    return layers.BatchNorm()(x)


def _block(random: Random, x: Tensor, channels: int, stride: int = 1) -> Tensor:
    """An adder layer and its batch norm, whose size is that of x unless it strides."""
    size, dilation = random.choice((3, 3, 1, 5)), random.choice((1, 1, 1, 2))
    groups = random.choice([g for g in (1, 1, 1, 2, 4) if not (channels % g or x.shape[-1] % g)])
    layer = layers.Adder(
        channels, size, stride=stride, padding=size // 2 * dilation, dilation=dilation,
        groups=groups, bias=random.random() < 0.2, center=channels in (6, 12),
    )  # fmt: skip
    return _normed(layer(x))


def _plain(random: Random, x: Tensor) -> Tensor:
    """Without a relu values have both signs, and bytes a zero point."""
    y = _block(random, x, random.choice(WIDTHS), random.choice((1, 1, 2)))
    return _activation(random)(y)


def _activation(random: Random) -> Callable[[Tensor], Tensor]:
    low, high = random.choice((-1.0, 0.0, 0.5)), random.choice((1.0, 2.5))
    others: tuple[Callable[[Tensor], Tensor], ...] = (
        ops.relu6, lambda y: ops.leaky_relu(y, random.choice((0.1, 0.5, 3.0))), ops.tanh,
        ops.sigmoid, lambda y: ops.clip(y, low, high), lambda y: ops.maximum(low, y), lambda y: y,
    )  # fmt: skip
    return ops.relu if random.random() < 0.5 else random.choice(others)


def _joined(random: Random, x: Tensor) -> Tensor:
    """Side by side, or the larger of two."""
    one, other = (_activation(random)(_block(random, x, random.choice(WIDTHS))) for _ in range(2))
    if one.shape == other.shape and random.random() < 0.5:
        return ops.maximum(one, other)
    return ops.concat(random.choice(([one, other], [x, one], [one, x, other])))


def _bordered(random: Random, x: Tensor) -> Tensor:
    """Larger images, or a border around them."""
    if random.random() < 0.5:
        return ops.resize_nearest(x, random.choice(((1, 2), (2, 1))))
    return layers.ZeroPadding(random.choice((1, (0, 1), (1, 0, 0, 2))))(x)


def _shortcut(random: Random, x: Tensor) -> Tensor:
    y = ops.relu(_block(random, x, random.choice(WIDTHS)))
    return ops.relu(_block(random, y, int(x.shape[-1])) + x)


def _widened(random: Random, x: Tensor) -> Tensor:
    """A shortcut with a layer of its own."""
    channels = random.choice(WIDTHS)
    y = ops.relu(_block(random, x, channels))
    shortcut = _normed(layers.Adder(channels, 1, stride=2)(x))
    return ops.relu(_block(random, y, channels, 2) + shortcut)


def _pool(random: Random, x: Tensor) -> Tensor:
    size = random.choice((2, 3))
    if min(int(n) for n in x.shape[1:3]) < size:
        return x
    kind = random.choice((ops.max_pool2d, ops.avg_pool2d))
    return kind(x, size, stride=random.choice((1, 2)), padding=random.choice((0, 1)))


def _head(random: Random, x: Tensor) -> Tensor:
    match random.choice(("dense", "flat", "image")):
        case "dense":
            y = layers.AdderDense(5, bias=random.random() < 0.5)(ops.global_avg_pool(x))
            return _normed(y) if random.random() < 0.5 else y
        case "flat":
            return layers.AdderDense(7)(ops.flatten(x))
        case _:
            return ops.relu(x) if random.random() < 0.5 else x
