"""One training step of the authors' ResNet-20, written again in NumPy and f64, with no op of ours.

Equations of github.com/huawei-noah/AdderNet (adder.py, resnet20.py, main.py) and of the PyTorch
layers that they use: batch norm in training mode, mean cross-entropy, SGD with momentum. Images are
NHWC and filters HWIO; parameters have the names of `addergraph/zoo/resnet.py`.

    network = Resnet20(weights)
    found = network.step(images, labels, 0.1)
    found.loss, found.gradients["first.f"], network.weights["first.f"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from addergraph.ir import Array

ETA, SMALLEST_NORM = 0.2, 1e-12
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
EPSILON, STATISTICS_MOMENTUM = 1e-5, 0.1
ROWS = 4096  # of a matrix that are worked on at a time, so that they stay in cache

Arrays = dict[str, Array]


# -- layers ----------------------------------------------------------------------------------------


def taps(x: Array, f: Array, stride: int) -> Iterator[tuple[int, int, Array]]:
    """(i, j, view [N,OH,OW,C] that tap (i, j) of the filter reads) of an image padded already."""
    rows = (x.shape[1] - f.shape[0]) // stride + 1
    columns = (x.shape[2] - f.shape[1]) // stride + 1
    for i in range(f.shape[0]):
        for j in range(f.shape[1]):
            yield i, j, x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]


def padded(x: Array, padding: int) -> Array:
    return np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def cropped(x: Array, padding: int) -> Array:
    return x[:, padding : x.shape[1] - padding, padding : x.shape[2] - padding]


def matrices(tap: Array) -> list[Array]:
    """The pixels of a tap as matrices of some rows each, [P,C]."""
    flat = tap.reshape(-1, tap.shape[-1])
    return [flat[start : start + ROWS] for start in range(0, len(flat), ROWS)]


def adder(x: Array, f: Array, stride: int, padding: int) -> Array:
    """Minus the distance of every filter to every window; what is outside the image counts as 0."""
    parts: list[Array] = []
    for i, j, tap in taps(padded(x, padding), f, stride):
        if not parts:
            parts = [np.zeros((len(m), f.shape[3])) for m in matrices(tap)]
        for y, m in zip(parts, matrices(tap), strict=True):
            for t in range(f.shape[3]):
                y[:, t] -= np.abs(f[i, j, :, t] - m).sum(1)
        shape = tap.shape[:3]
    return np.concatenate(parts).reshape(*shape, -1)


def adder_gradients(g: Array, x: Array, f: Array, stride: int, padding: int) -> tuple[Array, Array]:
    """(dX, dF): the clipped difference for the image, the plain difference for the filter."""
    x = padded(x, padding)
    dx, df = np.zeros_like(x), np.zeros_like(f)
    into = taps(dx, f, stride)
    upstream = matrices(g)
    total = g.sum((0, 1, 2))
    for (i, j, tap), (_, _, target) in zip(taps(x, f, stride), into, strict=True):
        df[i, j] = np.tensordot(tap, g, axes=((0, 1, 2), (0, 1, 2))) - f[i, j] * total
        moved = []
        for m, up in zip(matrices(tap), upstream, strict=True):
            made = np.zeros_like(m)
            for t in range(f.shape[3]):
                made += np.clip(f[i, j, :, t] - m, -1.0, 1.0) * up[:, t, None]
            moved.append(made)
        target += np.concatenate(moved).reshape(target.shape)
    return cropped(dx, padding), df


def conv(x: Array, f: Array, stride: int, padding: int) -> Array:
    products = [
        np.tensordot(tap, f[i, j], axes=1) for i, j, tap in taps(padded(x, padding), f, stride)
    ]
    return np.asarray(sum(products))


def conv_gradients(g: Array, x: Array, f: Array, stride: int, padding: int) -> tuple[Array, Array]:
    x = padded(x, padding)
    dx, df = np.zeros_like(x), np.zeros_like(f)
    for i, j, tap in taps(x, f, stride):
        df[i, j] = np.tensordot(tap, g, axes=((0, 1, 2), (0, 1, 2)))
    for i, j, target in taps(dx, f, stride):
        target += np.tensordot(g, f[i, j], axes=(3, 1))
    return cropped(dx, padding), df


def cross_entropy(logits: Array, targets: Array) -> tuple[float, Array]:
    """The mean of -log softmax at the target, and its gradient."""
    shifted = logits - logits.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = float(-(targets * log).sum() / len(logits))
    return loss, (np.exp(log) - targets) / len(logits)


# -- the network -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    name: str
    stride: int

    @property
    def has_skip(self) -> bool:
        """Whether the shortcut is a layer: where the stage begins with a smaller image."""
        return self.stride != 1


BLOCKS = tuple(
    Block(f"stage{stage}.block{block}", 2 if stage > 1 and block == 0 else 1)
    for stage in (1, 2, 3)
    for block in range(3)
)


@dataclass(frozen=True)
class Step:
    """What one step found.

    gradients  of the loss with respect to each trained parameter, before the adaptive rate
    flips      activations whose mask was given otherwise than the sign here
    relus      all activations
    """

    loss: float
    gradients: Arrays
    flips: int
    relus: int


class Resnet20:
    """The weights, and the velocity of each that is trained; `step` changes both."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = {name: np.array(a, np.float64) for name, a in weights.items()}
        fixed = (".mean", ".variance")
        self.velocities = {
            name: np.zeros_like(a) for name, a in self.weights.items() if not name.endswith(fixed)
        }

    def step(
        self, x: Array, targets: Array, rate: float, masks: Mapping[str, Array] | None = None
    ) -> Step:
        """x [N,H,W,3], targets one-hot [N,T]. `masks`: by relu, where it lets its input through."""
        self._masks, self._flips, self._relus = masks, 0, 0
        self._inputs: Arrays = {}
        self._let_through: Arrays = {}
        self._gradients: Arrays = {}
        loss, g = cross_entropy(self._forward(x.astype(np.float64)), targets.astype(np.float64))
        self._backward(g)
        self._descend(rate)
        return Step(loss, self._gradients, self._flips, self._relus)

    def _forward(self, x: Array) -> Array:
        x = self._relu(self._norm(self._layer(x, "first", 1), "first_bn"), "first_act")
        for block in BLOCKS:
            x = self._block(x, block)
        self._inputs["pool"] = x
        logits = x.mean((1, 2), keepdims=True)
        return self._norm(self._layer(logits, "last", 1), "last_bn")[:, 0, 0]

    def _backward(self, g: Array) -> None:
        g = self._layer_back(self._norm_back(g[:, None, None], "last_bn"), "last", 1)
        x = self._inputs["pool"]
        g = np.broadcast_to(g / (x.shape[1] * x.shape[2]), x.shape)
        for block in reversed(BLOCKS):
            g = self._block_back(g, block)
        g = np.where(self._let_through["first_act"], g, 0.0)
        self._layer_back(self._norm_back(g, "first_bn"), "first", 1)

    def _block(self, x: Array, block: Block) -> Array:
        name = block.name
        y = self._norm(self._layer(x, f"{name}.conv1", block.stride), f"{name}.bn1")
        y = self._relu(y, f"{name}.act1")
        y = self._norm(self._layer(y, f"{name}.conv2", 1), f"{name}.bn2")
        if block.has_skip:
            x = self._norm(self._layer(x, f"{name}.skip", block.stride), f"{name}.skip_bn")
        return self._relu(y + x, f"{name}.act2")

    def _block_back(self, g: Array, block: Block) -> Array:
        name = block.name
        g = np.where(self._let_through[f"{name}.act2"], g, 0.0)
        skipped = g
        if block.has_skip:
            back = self._norm_back(g, f"{name}.skip_bn")
            skipped = self._layer_back(back, f"{name}.skip", block.stride)
        g = self._layer_back(self._norm_back(g, f"{name}.bn2"), f"{name}.conv2", 1)
        g = np.where(self._let_through[f"{name}.act1"], g, 0.0)
        g = self._layer_back(self._norm_back(g, f"{name}.bn1"), f"{name}.conv1", block.stride)
        return g + skipped

    def _layer(self, x: Array, name: str, stride: int) -> Array:
        """The first and the last layer multiply, the others add; the padding keeps the centre."""
        self._inputs[name] = x
        f = self._filter(name)
        return (conv if _multiplies(name) else adder)(x, f, stride, f.shape[0] // 2)

    def _layer_back(self, g: Array, name: str, stride: int) -> Array:
        f = self._filter(name)
        gradients = conv_gradients if _multiplies(name) else adder_gradients
        dx, df = gradients(g, self._inputs[name], f, stride, f.shape[0] // 2)
        self._gradients[f"{name}.f"] = df.reshape(self.weights[f"{name}.f"].shape)
        return dx

    def _filter(self, name: str) -> Array:
        f = self.weights[f"{name}.f"]
        return f if f.ndim == 4 else f[None, None]

    def _norm(self, x: Array, name: str) -> Array:
        """Normalized by the batch; the running variance moves towards the unbiased one."""
        self._inputs[name] = x
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        for field, batch in (("mean", mean), ("variance", variance * count / (count - 1))):
            running = self.weights[f"{name}.{field}"]
            running += STATISTICS_MOMENTUM * (batch - running)
        gamma, beta = self.weights[f"{name}.gamma"], self.weights[f"{name}.beta"]
        return np.asarray((x - mean) / np.sqrt(variance + EPSILON) * gamma + beta)

    def _norm_back(self, g: Array, name: str) -> Array:
        x, axes = self._inputs[name], (0, 1, 2)
        inverse = 1.0 / np.sqrt(x.var(axes) + EPSILON)
        normal = (x - x.mean(axes)) * inverse
        self._gradients[f"{name}.beta"] = g.sum(axes)
        self._gradients[f"{name}.gamma"] = (g * normal).sum(axes)
        centred = g - g.mean(axes) - normal * (g * normal).mean(axes)
        return np.asarray(self.weights[f"{name}.gamma"] * inverse * centred)

    def _relu(self, x: Array, name: str) -> Array:
        own = x > 0
        mask = own if self._masks is None else self._masks[name]
        self._flips += int(np.count_nonzero(mask != own))
        self._relus += x.size
        self._let_through[name] = mask
        return np.where(mask, x, 0.0)

    def _descend(self, rate: float) -> None:
        """Adaptive rate, then weight decay, then momentum."""
        for name, velocity in self.velocities.items():
            g, p = self._gradients[name], self.weights[name]
            layer = name.removesuffix(".f")
            if layer != name and not _multiplies(layer):
                g = g * ETA * np.sqrt(g.size) / max(float(np.linalg.norm(g)), SMALLEST_NORM)
            velocity *= MOMENTUM
            velocity += g + WEIGHT_DECAY * p
            p -= rate * velocity


def _multiplies(layer: str) -> bool:
    return layer in ("first", "last")
