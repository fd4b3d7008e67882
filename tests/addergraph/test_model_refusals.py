"""Model: what fit and predict refuse of data and settings, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from addergraph import layers
from addergraph.errors import DataError, GraphError
from addergraph.ir import Array
from addergraph.model import Model
from tests.addergraph.models import X, Y, fit, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")


def _with(array: Array, index: Any, value: float) -> Array:
    changed = array.astype(np.float64)
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X[:0], Y[:0], "x is empty"),
        (_with(X, (3, 1, 1, 0), np.nan), Y, "sample 3 holds nan"),
        (_with(X, (5, 0, 0, 0), -np.inf), Y, "sample 5 holds -inf"),
        (_with(X, (5, 0, 0, 0), 1e300), Y, "sample 5 holds inf"),
        (X.astype(complex), Y, "real numbers, found an array of complex128"),
        (np.array([["a"]]), Y[:1], "expected real numbers"),
        (X[..., 0], Y, r"x\[..., None\]"),
        (X[0], Y[:8], r"a single sample is x\[None\]"),
        (X[:, :4], Y, r"samples have shape \(4, 8, 1\), the model takes \(8, 8, 1\)"),
        (X, Y[:5], r"expected 70 rows.*\(5,\)"),
        (X, _with(Y, 7, 10).astype(int), "label 10 in row 7 .* 10 classes, labels are 0 to 9"),
        (X, _with(Y, 2, -1).astype(int), "label -1 in row 2"),
        (X, _with(Y, 2, 1.5), "label 1.5 in row 2"),
        (X, _with(Y, 2, np.nan), "label nan in row 2"),
        (X, np.eye(9)[Y % 9], r"\(70, 10\), found \(70, 9\)"),
        (X, np.eye(10)[Y] * 2, "row 0 is neither one-hot nor probabilities"),
        (X, _with(np.eye(10)[Y], (4, 0), np.nan), "row 4 holds NaN"),
        (X, np.array(["a"] * 70), "expected real numbers"),
        (X, 3, "expected 70 rows"),
    ],
)
def test_bad_training_data_is_named(x: Array, y: object, said: str) -> None:
    model = small_model(input_shape=(8, 8, 1))
    before = {k: v.copy() for k, v in model.weights.items()}
    with pytest.raises(DataError, match=said):
        fit(model, x, y)
    assert all(np.array_equal(before[k], v) for k, v in model.weights.items())


def test_channels_first_images_get_a_hint() -> None:
    model = Model(input_shape=(8, 8, 3))
    model.add(layers.Adder(2, 3))
    with pytest.raises(DataError, match=r"transpose\(0, 2, 3, 1\)"):
        model.predict(np.zeros((2, 3, 8, 8)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"x_val": X}, "both x_val and y_val"),
        ({"x_val": X[:0], "y_val": Y[:0]}, "x_val is empty"),
        ({"x_val": X[:2], "y_val": [1, 12]}, "y_val: label 12 in row 1"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"learning_rate": -1.0}, "learning rate of epoch 1 is -1.0"),
        ({"learning_rate": "fast"}, "learning rate of epoch 1 is 'fast'"),
        ({"learning_rate": lambda e: float("inf")}, "is inf"),
        ({"learning_rate": float("nan")}, "learning rate of epoch 1 is nan"),
        ({"learning_rate": 0.0}, "is 0 in all 1 epochs: nothing would be learned"),
        ({"learning_rate": lambda e: 0.1 - e, "epochs": 3}, "learning rate of epoch 2 is -0.9"),
        ({"patience": -1}, "patience=-1"),
        ({"optimizer": "sgd"}, r"optimizer='sgd': expected a description of one, such as .*SGD"),
        ({"augment": 3}, "augment=3: expected None or addergraph.data.Augment"),
        ({"normalize": True}, "normalize=True: expected None or addergraph.data.Normalize"),
        ({"resume": True}, "need checkpoint="),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit(small_model(), **options)


def test_an_unknown_engine_suggests_the_nearest() -> None:
    with pytest.raises(GraphError, match='mean "native"'):
        fit(small_model(), engine="naive")
    with pytest.raises(GraphError, match='mean "reference"'):
        small_model(input_shape=(8, 8, 1)).predict(X, engine="referense")
