"""Small networks for images of about 8x8, such as the embedded digits."""

from __future__ import annotations

from .. import layers
from ..layers import Layer
from .form import Form, image_layer


def small(form: Form) -> list[Layer]:
    """16 | 32 | pool | 64 | pool | 64, each 3x3 with batch norm and relu; then the classes.

    The logits have a batch norm where the last layer is an adder.
    """
    made: list[Layer] = []
    for position, channels in enumerate((16, 32, 64, 64)):
        kind = form.body if position else form.first
        made += [
            image_layer(kind, channels, 3, padding=1),
            layers.BatchNorm(),
            layers.Activation("relu"),
        ]
        if position in (1, 2):
            made.append(layers.MaxPool(pool_size=2))
    head: list[Layer] = [layers.Dense(form.classes)]
    if form.last == "adder":
        head = [layers.AdderDense(form.classes), layers.BatchNorm()]
    return [*made, layers.Flatten(), *head, layers.Activation("softmax")]


def deck(form: Form) -> list[Layer]:
    """The slide deck's listing."""
    return [
        layers.adder_layer(output_channels=8, kernel_size=3, stride=1, padding=1, adaptive_eta=0.1),
        layers.Activation("relu"),
        layers.MaxPool(pool_size=2),
        layers.batch_norm_layer(),
        layers.Flatten(),
        layers.FullyConnected(output_channels=64),
        layers.Activation("relu"),
        layers.FullyConnected(output_channels=form.classes),
        layers.Activation("softmax"),
    ]
