"""Two networks that learn from C, and the digits that they learn from:

    python examples/device/export.py build
    make -C examples/device BUILD=$PWD/build
    build/learn_digits build            # from scratch
    build/add_class build               # a class that the network has never seen

build/learn    an untrained network: the whole of it learns
build/more     one that knows the digits 0 to 8, with a place for the 9: its last layer learns
build/*.bin    samples: 64 bytes of pixels and a label, int32_t
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import Model, layers
from addergraph.data import digits
from addergraph.data.preprocessing import Preprocessing
from addergraph.model.device import DeviceTraining
from addergraph.training import SGD, Cosine

NEW = 9
RULE = SGD(weight_decay=5e-4)


def network(preprocessing: Preprocessing, classes: int) -> Model:
    """Adders but for the first and the last layer; 32 KB of weights."""
    model = Model(input_shape=(8, 8, 1), name="digits", preprocessing=preprocessing)
    for layer in (
        layers.Conv(16, kernel_size=3, padding=1, bias=False, name="first"),
        layers.BatchNorm(name="bn1"),
        layers.Activation("relu", name="act1"),
        layers.Adder(16, kernel_size=3, padding=1, name="adder2"),
        layers.BatchNorm(name="bn2"),
        layers.Activation("relu", name="act2"),
        layers.MaxPool(2, name="pool2"),
        layers.Adder(32, kernel_size=3, padding=1, name="adder3"),
        layers.BatchNorm(name="bn3"),
        layers.Activation("relu", name="act3"),
        layers.MaxPool(2, name="pool3"),
        layers.Flatten(name="flatten"),
        layers.Dense(classes, name="last"),
    ):
        model.add(layer)
    return model


def knowing_nine_classes(preprocessing: Preprocessing, x: np.ndarray, y: np.ndarray) -> Model:
    """A network that was trained on the digits but the 9, with a tenth score that nothing taught.

    All is frozen but the last layer, whose weights for the nine classes stay.
    """
    model = network(preprocessing, NEW)
    model.preprocessing = None  # it names ten classes
    known = y != NEW
    entering = preprocessing.apply(x)
    model.fit(
        entering[known], y[known], epochs=15, batch_size=64, learning_rate=Cosine(0.1, 15),
        optimizer=RULE, verbose=0,
    )  # fmt: skip
    made = model.with_classes(NEW + 1)
    for name in ("last.f", "last.b"):
        made.weights[name][...] = 0.0
        made.weights[name][..., :NEW] = model.weights[name]
    made.preprocessing = preprocessing
    made.freeze("*")
    made.unfreeze("last")
    return made


def write_samples(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Records of pixels and label, little-endian."""
    records = np.zeros(len(x), [("pixels", np.uint8, 64), ("label", "<i4")])
    records["pixels"], records["label"] = x.reshape(len(x), 64), y
    records.tofile(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="host")
    parser.add_argument("--batch", type=int, default=16, help="samples of a step")
    options = parser.parse_args()
    data = digits.dataset()
    known = data.preprocessing(data.normalize())
    step = DeviceTraining(batch=options.batch, optimizer=RULE)
    common = {"target": options.target, "train": step, "overwrite": True}
    ag.export(network(known, 10), options.folder / "learn", name="learn", **common)
    more = knowing_nine_classes(known, data.x_train, data.y_train)
    ag.export(more, options.folder / "more", name="more", **common)
    write_samples(options.folder / "train.bin", data.x_train, data.y_train)
    write_samples(options.folder / "test.bin", data.x_test, data.y_test)


if __name__ == "__main__":
    main()
