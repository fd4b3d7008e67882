"""Small models of the digits, for the tests of models and their files."""

from __future__ import annotations

from typing import Any

import numpy as np

from addergraph import layers, ops
from addergraph.data import digits
from addergraph.ir import Array
from addergraph.ir.trace import Tensor
from addergraph.model import Model

ENGINES = ("reference", "native")
DATA = digits.load()
X, Y = DATA.x_train[:70], DATA.y_train[:70]


def small_model(**options: Any) -> Model:
    model = Model(**options)
    for layer in (
        layers.Adder(4, 3, padding=1), layers.BatchNorm(), layers.Activation("relu"),
        layers.MaxPool(2), layers.Flatten(), layers.Dense(10), layers.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    return model


def adders_only(shape: tuple[int, int, int] = (5, 5, 2), classes: int = 3) -> Model:
    """For images of about N(0, 1); its batch norm has statistics as training would leave them."""
    model = Model(input_shape=shape, name="tiny", seed=1)
    for layer in (
        layers.Adder(4, kernel_size=3), layers.BatchNorm(), layers.Activation("relu"),
        layers.Flatten(), layers.AdderDense(classes),
    ):  # fmt: skip
        model.add(layer)
    model.weights["bn1.mean"][...] = -20.0
    model.weights["bn1.variance"][...] = 9.0
    return model


def residual(x: Tensor) -> Tensor:
    x = layers.Conv(4, 3, padding=1)(x)
    y = layers.BatchNorm()(layers.Adder(4, 3, padding=1)(x))
    x = layers.AvgPool(2)(layers.Activation("relu")(x + y))
    return layers.Dense(10)(layers.Flatten()(x))


def f32(values: object) -> Array:
    return np.asarray(values, np.float32)


def fit(model: Model, x: object = X, y: object = Y, **options: Any) -> Any:
    defaults: dict[str, Any] = {
        "engine": "reference",
        "verbose": 0,
        "batch_size": 16,
        "learning_rate": 0.05,
    }
    return model.fit(x, y, **(defaults | options))


def same_weights(a: Model, b: Model) -> bool:
    return a.weights.keys() == b.weights.keys() and all(
        np.array_equal(a.weights[k], b.weights[k]) for k in a.weights
    )


def two_ends(image: Tensor, meta: Tensor) -> dict[str, Tensor]:
    """Classes of an image and a size, of both inputs."""
    found = layers.BatchNorm()(layers.Adder(4, kernel_size=3, name="edges")(image))
    found = layers.GlobalAvgPool()(layers.Activation("relu")(found))
    both = ops.concat([found, layers.Dense(3, name="meta")(meta)])
    return {"class": layers.Dense(3, name="head")(both), "size": layers.Dense(1)(both)}


LOSSES = {"class": "cat_cross_entropy", "size": "mean_squared_error"}
SHAPES = {"image": (6, 6, 1), "meta": (4,)}


def of_two_ends(**options: Any) -> Model:
    given: dict[str, Any] = {"loss": LOSSES, "name": "both", "seed": 1}
    return Model(two_ends, **(given | options))


def both_ends(count: int = 40) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and targets by name; the numbers of `meta` say both."""
    random = np.random.default_rng(0)
    meta = f32(random.normal(size=(count, 4)))
    x = {"image": random.integers(0, 256, (count, 6, 6, 1)).astype("u1"), "meta": meta}
    return x, {"class": meta[:, :3].argmax(1), "size": meta[:, 3:] * 2}
