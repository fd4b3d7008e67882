"""Pixels of a haloed buffer that are a multiple of 512 bytes have a gap after each of them: no
kernel may take the pixels of a row for one run of memory."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.ir import Array
from addergraph.ir.op import Halo
from addergraph.ir.plan import layout_with_halo
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32

CHANNELS = 128  # 512 bytes of f32
RNG = np.random.default_rng(0)
X: Array = np.abs(RNG.standard_normal((4, 3, 2, CHANNELS))).astype(np.float32)


def test_such_pixels_have_a_gap() -> None:
    type = TensorType(f32, (1, 3, 2, CHANNELS))
    assert layout_with_halo(type, Halo(1, 1, 1, 1)).gap


@pytest.mark.parametrize("kind", [layers.Adder, layers.Conv])
def test_a_step_of_training(kind: type[layers.Adder] | type[layers.Conv]) -> None:
    model = Model(input_shape=X.shape[1:])
    for stride in (1, 2):
        model.add(layers.Activation("relu"))
        model.add(kind(CHANNELS, 3, stride, 1))
        model.add(layers.BatchNorm())
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    before = {name: array.copy() for name, array in model.weights.items()}
    updates = []
    for engine in ("native", "reference"):
        trained = copy.deepcopy(model)
        trained.train_step(len(X), engine=engine)(X, [0, 1, 2, 0], 0.01)
        updates.append({name: trained.weights[name] - before[name] for name in before})
    for name in (name for name in before if name.endswith(".f")):
        found, expected = (update[name] for update in updates)
        assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected), name


@pytest.mark.parametrize("name", ["adder2d", "max_pool2d", "avg_pool2d"])
def test_windows(name: str) -> None:
    f = RNG.standard_normal((3, 3, CHANNELS, 4)).astype(np.float32)

    def net(x: Tensor, f: Tensor) -> Tensor:
        x = ops.relu(x)
        if name == "adder2d":
            return ops.adder2d(x, f, padding=1)
        pool = ops.max_pool2d if name == "max_pool2d" else ops.avg_pool2d
        return pool(x, 3, stride=1, padding=1)

    x, filters = ag.tensor("f32", X.shape), ag.tensor("f32", f.shape)
    graph = ag.trace(net, x, filters)
    expected = ag.interpret(graph, X, f)
    for threads in (1, 3):
        found = ag.compile(graph, threads=threads)(X, f)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
