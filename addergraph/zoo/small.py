"""Small networks for images of about 8x8, such as the embedded digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import layers
from ..errors import GraphError, nearest
from ..layers import Layer
from ..model import Model


@dataclass(frozen=True)
class Network:
    """A description in one line, and what makes the layers for a number of classes."""

    description: str
    layers: Callable[[int], Sequence[Layer]]


def _convolution(channels: int) -> Layer:
    return layers.Conv(channels, kernel_size=3, padding=1)


def _adder(channels: int) -> Layer:
    return layers.Adder(channels, kernel_size=3, padding=1)


def _stack(first: Callable[[int], Layer], rest: Callable[[int], Layer]) -> list[Layer]:
    """16 | 32 | pool | 64 | pool | 64, each 3x3 with batch norm and relu."""
    made: list[Layer] = []
    for position, channels in enumerate((16, 32, 64, 64)):
        made += [
            (rest if position else first)(channels),
            layers.BatchNorm(),
            layers.Activation("relu"),
        ]
        if position in (1, 2):
            made.append(layers.MaxPool(pool_size=2))
    return [*made, layers.Flatten()]


def _small_adder(classes: int) -> list[Layer]:
    head = [layers.Dense(classes), layers.Activation("softmax")]
    return [*_stack(_convolution, _adder), *head]


def _all_adder(classes: int) -> list[Layer]:
    head = [layers.AdderDense(classes), layers.BatchNorm(), layers.Activation("softmax")]
    return [*_stack(_adder, _adder), *head]


def _small_conv(classes: int) -> list[Layer]:
    head = [layers.Dense(classes), layers.Activation("softmax")]
    return [*_stack(_convolution, _convolution), *head]


def _deck(classes: int) -> list[Layer]:
    return [
        layers.adder_layer(output_channels=8, kernel_size=3, stride=1, padding=1, adaptive_eta=0.1),
        layers.Activation("relu"),
        layers.MaxPool(pool_size=2),
        layers.batch_norm_layer(),
        layers.Flatten(),
        layers.FullyConnected(output_channels=64),
        layers.Activation("relu"),
        layers.FullyConnected(output_channels=classes),
        layers.Activation("softmax"),
    ]


NETWORKS: dict[str, Network] = {
    "small-adder": Network(
        "conv 16 | adder 32 | pool | adder 64 | pool | adder 64 | dense", _small_adder
    ),
    "all-adder": Network("the same with adders first and last as well", _all_adder),
    "small-conv": Network("the same with convolutions only, to compare with", _small_conv),
    "deck": Network("the slide deck's listing; its first relu is provably zero", _deck),
}


def build(
    name: str, input_shape: Sequence[int] = (8, 8, 1), classes: int = 10, seed: int = 0
) -> Model:
    """The untrained network called `name`; GraphError, with the nearest name, if there is none.

    Raises ShapeError, naming the layer, where images of `input_shape` are too small for it.
    """
    if name not in NETWORKS:
        raise GraphError(
            f'unknown network "{name}"{nearest(name, NETWORKS)}; known: {", ".join(NETWORKS)}'
        )
    model = Model(input_shape=input_shape, name=name.replace("-", "_"), seed=seed)
    for layer in NETWORKS[name].layers(classes):
        model.add(layer)
    return model
