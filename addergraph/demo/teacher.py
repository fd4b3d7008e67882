"""The network that the page teaches: that of the demo, with places for signs of the user's.

Its body is that of the float network, frozen; its last layer, dense, is new and has more classes
than the data. What the page learns moves that layer alone. Beside the new drawings it is shown some
of the data's images, so that it does not forget the digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data import Dataset
from ..errors import UnsupportedError
from ..ir import Array
from ..layers import Activation, AdderDense, Dense, Flatten, Layer
from ..model import Model
from ..model.device import DeviceTraining
from ..training.optimizers import SGD
from ..training.schedules import Cosine

PLACES = 4  # for new signs
REHEARSED = 20  # images of each class that the page has
EPOCHS, RATE, BATCH = 6, 0.05, 64  # of the new layer, on the data
STEP = DeviceTraining(batch=16, optimizer=SGD(weight_decay=0.0))


@dataclass(frozen=True)
class Teacher:
    """`model` learns in the page; `images` u8[N,8,8,1] and `labels` are what it rehearses."""

    model: Model
    images: Array
    labels: Array

    def content(self) -> dict[str, object]:
        """For the page's script."""
        pixels = self.images.reshape(len(self.images), -1)
        return {"places": PLACES, "images": pixels.tolist(), "labels": self.labels.tolist()}


def teacher_of(model: Model, data: Dataset) -> Teacher:
    """The teacher of a float network that was trained on `data`, from its images.

    UnsupportedError for a network that is no list of layers with one Flatten, and without
    preprocessing.
    """
    known, count = model.preprocessing, data.class_count
    if known is None:
        raise UnsupportedError(
            f'the model "{model.name}" does not say what a pixel is, which the page draws: train '
            "it by addergraph train"
        )
    made = Model(input_shape=model.input_shape, name="taught", seed=model.seed)
    for layer in _body(model.layers):
        made.add(layer)
    made.add(Dense(count + PLACES, name="taught"))
    made.add(Activation("softmax"))
    made.preprocessing = replace(known, classes=None)
    made.weights["taught.f"][...] *= 0.1  # small scores at first
    own = {*made.weights}
    made.weights = made.weights | {n: a for n, a in model.weights.items() if n in own}
    made.freeze("*")
    made.unfreeze("taught")
    made.fit(
        data.x_train, data.y_train, epochs=EPOCHS, batch_size=BATCH, optimizer=STEP.optimizer,
        learning_rate=Cosine(RATE, EPOCHS), verbose=0,
    )  # fmt: skip
    few = np.concatenate([np.flatnonzero(data.y_train == c)[:REHEARSED] for c in range(count)])
    return Teacher(made, np.asarray(data.x_train[few], np.uint8), np.asarray(data.y_train[few]))


def _body(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Up to the vector that the classes are read from."""
    flats = [i for i, layer in enumerate(layers) if isinstance(layer, Flatten)]
    if len(flats) != 1 or any(isinstance(one, Dense | AdderDense) for one in layers[: flats[0]]):
        raise UnsupportedError(
            "the page teaches a network of layers that ends in Flatten and its classes, as those "
            "of the zoo for the digits do"
        )
    return layers[: flats[0] + 1]
