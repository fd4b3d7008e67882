"""Gradients against PyTorch's autograd in f64; skipped where PyTorch is not installed.

Every layer that multiplies, pools, normalizes or decides, natively; and `reference_resnet.py`,
which the parity of adder layers rests on, as a whole network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from addergraph import compiler, layers, ops
from addergraph.ir import Array
from addergraph.ir.state import initial_weights
from addergraph.ir.trace import Tensor, trace
from addergraph.ir.types import TensorType, f32
from addergraph.layers import Layer
from tests.addergraph.training.parity import batches, deviations, resnet20
from tests.addergraph.training.reference_resnet import BLOCKS, Resnet20

torch: Any = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
F: Any = torch.nn.functional

TOLERANCE = 1e-5
IMAGE, ROW = (6, 9, 8, 12), (6, 40)

Weights = dict[str, Any]  # name -> f64 tensor of PyTorch


class Case(NamedTuple):
    """Layers of ours, and the same on PyTorch's NCHW tensors with weights in our layout."""

    made: list[Layer]
    torch: Callable[[Any, Weights], Any]
    shape: tuple[int, ...] = IMAGE


def conv(x: Any, w: Weights, name: str = "conv1", **options: Any) -> Any:
    return F.conv2d(x, w[f"{name}.f"].permute(3, 2, 0, 1), w.get(f"{name}.b"), **options)


def dense(x: Any, w: Weights, name: str = "dense1") -> Any:
    return F.linear(x, w[f"{name}.f"].T, w.get(f"{name}.b"))


def norm(x: Any, w: Weights, name: str = "bn1") -> Any:
    return F.batch_norm(x, None, None, w[f"{name}.gamma"], w[f"{name}.beta"], training=True)


def residual(x: Any, w: Weights) -> Any:
    y = norm(conv(x, w, "block1.conv1", padding=1), w, "block1.bn1")
    return F.relu(y + conv(x, w, "block1.conv2"))


def network(x: Any, w: Weights) -> Any:
    y = F.max_pool2d(F.relu(norm(conv(x, w, padding=1), w)), 2)
    return dense(y.permute(0, 2, 3, 1).flatten(1), w)


CASES = {
    "conv": Case([layers.Conv(16, 3)], conv),
    "conv, stride and padding": Case(
        [layers.Conv(20, 3, stride=2, padding=1, bias=True)],
        lambda x, w: conv(x, w, stride=2, padding=1),
    ),
    "conv, uneven window": Case(
        [layers.Conv(10, (3, 2), stride=(1, 2), padding=(2, 1))],
        lambda x, w: conv(x, w, stride=(1, 2), padding=(2, 1)),
    ),
    "conv, padding on one side": Case(
        [layers.Conv(10, 3, stride=2, padding=(0, 1, 1, 0))],
        lambda x, w: conv(F.pad(x, (1, 0, 0, 1)), w, stride=2),
    ),
    "conv, dilation": Case(
        [layers.Conv(16, 3, padding=2, dilation=2)],
        lambda x, w: conv(x, w, padding=2, dilation=2),
    ),
    "conv, groups": Case(
        [layers.Conv(18, 3, padding=1, groups=3)], lambda x, w: conv(x, w, padding=1, groups=3)
    ),
    "conv, depthwise": Case(
        [layers.Conv(12, 3, stride=2, padding=1, groups=12)],
        lambda x, w: conv(x, w, stride=2, padding=1, groups=12),
    ),
    "conv, 1x1 of stride 2": Case([layers.Conv(32, 1, 2)], lambda x, w: conv(x, w, stride=2)),
    "dense": Case([layers.Dense(13)], dense, ROW),
    "batch norm of images": Case([layers.BatchNorm()], norm),
    "batch norm of rows": Case([layers.BatchNorm()], norm, ROW),
    "relu": Case([layers.Activation("relu")], lambda x, w: F.relu(x)),
    "softmax": Case([layers.Activation("softmax")], lambda x, w: F.softmax(x, 1), ROW),
    "max pool": Case(
        [layers.MaxPool(3, stride=2, padding=1)], lambda x, w: F.max_pool2d(x, 3, 2, 1)
    ),
    "max pool behind relu, where zeros tie": Case(
        [layers.Activation("relu"), layers.MaxPool(2)], lambda x, w: F.max_pool2d(F.relu(x), 2)
    ),
    "average pool": Case(
        [layers.AvgPool(3, stride=2, padding=1)], lambda x, w: F.avg_pool2d(x, 3, 2, 1)
    ),
    "global average pool": Case([layers.GlobalAvgPool()], lambda x, w: x.mean((2, 3))),
    "flatten": Case([layers.Flatten()], lambda x, w: x.permute(0, 2, 3, 1).flatten(1)),
    "residual": Case(
        [
            layers.Residual(
                [layers.Conv(16, 3, padding=1), layers.BatchNorm()], [layers.Conv(16, 1)]
            ),
            layers.Activation("relu"),
        ],
        residual,
    ),
    "network": Case(
        [
            layers.Conv(16, 3, padding=1), layers.BatchNorm(), layers.Activation("relu"),
            layers.MaxPool(2), layers.Flatten(), layers.Dense(10),
        ],
        network,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layer_and_its_gradients(name: str) -> None:
    case = CASES[name]

    def ours(x: Tensor) -> Tensor:
        for layer in case.made:
            x = layer(x)
        return x

    graph = trace(ours, TensorType(f32, case.shape), name="layers", training=True)
    rng = np.random.default_rng(0)
    weights = {
        name: (a + 0.5 * rng.normal(size=a.shape)).astype(np.float32)
        for name, a in initial_weights(graph).items()
    }
    x = rng.normal(size=case.shape).astype(np.float32)
    trained = [p.name for p in graph.parameters if p.trainable]
    assert len(graph.outputs) == 1
    upstream = rng.normal(size=graph.outputs[0].type.sizes).astype(np.float32)

    (y,) = compiler.compile(graph, weights=weights).run([x])
    gradients = compiler.compile(compiler.grad(graph, ["x", *trained]), weights=weights)
    found = dict(zip(["x", *trained], gradients.run([x, upstream]), strict=True))

    x64 = torch.from_numpy(_channels_first(x)).double().requires_grad_()
    w64 = {name: torch.from_numpy(weights[name]).double().requires_grad_() for name in trained}
    y64 = case.torch(x64, w64)
    y64.backward(torch.from_numpy(_channels_first(upstream)).double())
    expected = {name: w.grad.numpy() for name, w in w64.items()}
    expected |= {"x": _channels_last(x64.grad.numpy())}
    found["y"], expected["y"] = y, _channels_last(y64.detach().numpy())
    assert {n: d for n, d in deviations(found, expected).items() if not d <= TOLERANCE} == {}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ops.softmax_cross_entropy, lambda z, p: F.cross_entropy(z, p)),
        (ops.mean_squared_error, lambda z, p: F.mse_loss(z, p)),
    ],
    ids=["softmax_cross_entropy", "mean_squared_error"],
)
def test_a_loss_and_its_gradient(
    ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Any, Any], Any]
) -> None:
    def loss(predicted: Tensor, targets: Tensor) -> Tensor:
        return ops.reduce_mean(ours(predicted, targets), (0,))

    rng = np.random.default_rng(0)
    predicted = 5 * rng.normal(size=(32, 10)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[rng.integers(10, size=32)]
    rows = TensorType(f32, predicted.shape)
    graph = trace(loss, rows, rows)
    (value,) = compiler.compile(graph).run([predicted, targets])
    gradient = compiler.compile(compiler.grad(graph, ["predicted"]))
    (found,) = gradient.run([predicted, targets, np.float32(1)])

    predicted64 = torch.from_numpy(predicted).double().requires_grad_()
    expected = theirs(predicted64, torch.from_numpy(targets).double())
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=TOLERANCE)
    assert deviations({"": found}, {"": predicted64.grad.numpy()})[""] <= TOLERANCE


def _channels_first(a: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(a, -1, 1))


def _channels_last(a: Array) -> Array:
    return np.moveaxis(a, 1, -1)


# -- the reference of the parity tests -------------------------------------------------------------


def adder(x: Any, f: Any, stride: int) -> Any:
    """The distance, with the paper's gradients as those of two other functions of the difference.

    -(x - f)^2 / 2 has the filter gradient x - f; minus the Huber function has the input gradient
    clip(f - x, -1, 1).
    """
    size = f.shape[0]
    columns = F.unfold(x, size, padding=size // 2, stride=stride)[:, None]  # [N,1,K,P]
    filters = f.permute(3, 2, 0, 1).reshape(1, f.shape[3], -1, 1)
    columns, filters = torch.broadcast_tensors(columns, filters)
    value = -(columns - filters).abs().sum(2).detach()
    for_filter = -0.5 * (columns.detach() - filters).square().sum(2)
    for_input = -F.huber_loss(columns, filters.detach(), reduction="none", delta=1.0).sum(2)
    surrogate = for_filter + for_input
    y = value + surrogate - surrogate.detach()
    rows = (x.shape[2] - 1) // stride + 1
    return y.reshape(*y.shape[:2], rows, -1)


def logits(x: Any, w: Weights) -> Any:
    """The authors' ResNet-20 on NCHW."""

    def block(x: Any, name: str, stride: int, has_skip: bool) -> Any:
        y = F.relu(norm(adder(x, w[f"{name}.conv1.f"], stride), w, f"{name}.bn1"))
        y = norm(adder(y, w[f"{name}.conv2.f"], 1), w, f"{name}.bn2")
        if has_skip:
            x = norm(adder(x, w[f"{name}.skip.f"], stride), w, f"{name}.skip_bn")
        return F.relu(x + y)

    x = F.relu(norm(conv(x, w, "first", padding=1), w, "first_bn"))
    for b in BLOCKS:
        x = block(x, b.name, b.stride, b.has_skip)
    return norm(dense(x.mean((2, 3)), w, "last"), w, "last_bn")


def test_the_reference_network_over_two_steps() -> None:
    model, rate = resnet20(size=8), 0.1
    reference = Resnet20(model.weights)
    names = list(reference.velocities)
    w = {n: torch.from_numpy(model.weights[n]).double().requires_grad_() for n in names}
    optimizer = torch.optim.SGD(w.values(), lr=rate, momentum=0.9, weight_decay=5e-4)
    for x, targets in batches(2, batch=4, size=8):
        found = reference.step(x, targets, rate)
        optimizer.zero_grad()
        images = torch.from_numpy(_channels_first(x)).double()
        loss = F.cross_entropy(logits(images, w), torch.from_numpy(targets.argmax(1)))
        loss.backward()
        assert found.loss == pytest.approx(loss.item(), rel=1e-10)
        gradients = {n: p.grad.numpy() for n, p in w.items()}
        assert max(deviations(found.gradients, gradients).values()) <= 1e-9
        for n, p in w.items():
            if n.endswith(".f") and n not in ("first.f", "last.f"):
                p.grad *= 0.2 * p.numel() ** 0.5 / p.grad.norm()
        optimizer.step()
        weights = {n: p.detach().numpy() for n, p in w.items()}
        assert max(deviations(reference.weights, weights).values()) <= 1e-9
