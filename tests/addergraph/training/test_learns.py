"""The default rate fits layers of any width: nothing dies because images are large."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.errors import DataError
from addergraph.ir import Array
from addergraph.training import SGD, Adam
from addergraph.training.optimizers import Optimizer

CLASSES = 4


def wide(inputs: int) -> tuple[Model, Array, Array]:
    """A network whose first layer has so many inputs, as an image behind a flatten, and samples of
    four classes, as a relu leaves them."""
    rng = np.random.default_rng(0)
    y = np.arange(256) % CLASSES
    x = rng.normal(size=(CLASSES, inputs))[y] + rng.normal(size=(256, inputs))
    model = Model(input_shape=(inputs,))
    model.add(layers.Dense(16))
    model.add(layers.Activation("relu"))
    model.add(layers.Dense(CLASSES))
    return model, np.maximum(x, 0).astype(np.float32), y


def accuracy(inputs: int, optimizer: Optimizer, learning_rate: float) -> float:
    model, x, y = wide(inputs)
    history = model.fit(
        x, y, epochs=2, learning_rate=learning_rate, optimizer=optimizer, engine="reference",
        verbose=0,
    )  # fmt: skip
    return history.history["accuracy"][-1]


@pytest.mark.parametrize("inputs", [64, 4096])
def test_the_default_rate_fits_any_width(inputs: int) -> None:
    assert accuracy(inputs, SGD(), 0.1) > 0.9


def test_without_the_width_it_dies() -> None:
    assert accuracy(4096, SGD(fan_in=float("inf")), 0.1) < 0.5


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_only_wide_matrices_move_slower(kind: type[Optimizer]) -> None:
    """By half of the inputs, half as far: the whole step, for Adam, too."""
    moved = []
    for fan_in in (64.0, 32.0):
        model, x, y = wide(64)
        before = {name: array.copy() for name, array in model.weights.items()}
        optimizer = kind(weight_decay=0.1, fan_in=fan_in)
        model.fit(
            x[:8], y[:8], batch_size=8, learning_rate=0.01, optimizer=optimizer,
            engine="reference", verbose=0,
        )  # fmt: skip
        moved.append({name: model.weights[name] - before[name] for name in before})
    whole, half = moved
    for name, factor in {"dense1.f": 0.5, "dense1.b": 1.0, "dense2.f": 1.0}.items():
        np.testing.assert_allclose(half[name], factor * whole[name], rtol=1e-3, atol=1e-7)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"SGD: fan_in=0\.0 must be a number above 0"):
        SGD(fan_in=0.0)
