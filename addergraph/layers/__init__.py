"""Layers: called on a symbolic tensor, they append ops and create named parameters.

A layer is a frozen dataclass of plain attributes, so a model file can describe it. Within one
trace layers are numbered from 1 by kind (`adder1`, `bn1`, `adder2`), their nodes carry these
names and their parameters extend them (`adder1.f`, `bn1.gamma`); the same network therefore gets
the same names in its training and its inference graph. A layer object that is called twice in
one trace shares its parameters.

    x = layers.Adder(16, kernel_size=3, padding=1)(x)
    x = layers.Activation("relu")(layers.BatchNorm()(x))

Weights start as N(0, 1) in adder layers (as the authors' release) and as He normal, N(0, 2 / K)
for K inputs of one output, where a layer multiplies (conv, dense); biases start at zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from .. import habits
from ..errors import UnknownNameError, nearest
from .base import Layer
from .batch_norm import BatchNorm
from .dense import AdderDense, Dense
from .depthwise import DepthwiseAdder, DepthwiseConv, SeparableAdder, SeparableConv
from .dropout import Dropout
from .joins import Add, Concatenate
from .plain import (
    ACTIVATIONS,
    Activation,
    AvgPool,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Reshape,
    Softmax,
    UpSampling,
    ZeroPadding,
)  # fmt: skip
from .residual import Residual
from .windowed import Adder, Adder1d, Conv, Conv1d

__all__ = [
    "ACTIVATIONS", "LAYERS", "Activation", "Add", "Adder", "Adder1d", "AdderDense", "AvgPool",
    "BatchNorm", "Concatenate", "Conv", "Conv1d", "Dense", "DepthwiseAdder", "DepthwiseConv",
    "Dropout", "Flatten", "FullyConnected", "GlobalAvgPool", "Layer", "MaxPool", "Reshape",
    "Residual", "SeparableAdder", "SeparableConv", "Softmax", "UpSampling", "ZeroPadding",
    "adder_layer", "batch_norm_layer", "unknown_layer",
]  # fmt: skip

LAYERS: dict[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        Activation, Add, Adder, Adder1d, AdderDense, AvgPool, BatchNorm, Concatenate, Conv, Conv1d,
        Dense, DepthwiseAdder, DepthwiseConv, Dropout, Flatten, GlobalAvgPool, MaxPool, Reshape,
        Residual, SeparableAdder, SeparableConv, Softmax, UpSampling, ZeroPadding,
    )
}  # fmt: skip
for _layer in LAYERS.values():
    _layer.__setattr__ = Layer._keep  # type: ignore[method-assign, assignment]


# The names of the original slide deck: the one table of second names in the project.
batch_norm_layer = BatchNorm
FullyConnected = Dense


def adder_layer(*, adaptive_eta: float | None = 0.2, **attributes: Any) -> Adder:
    """`Adder`, whose `eta` the deck calls `adaptive_eta`."""
    return Adder(eta=adaptive_eta, **attributes)


def unknown_layer(name: str) -> NoReturn:
    """UnknownNameError with the nearest name."""
    known = [*LAYERS, "adder_layer", "batch_norm_layer", "FullyConnected"]
    hint = f" (here it is {habits.LAYERS[name]})" if name in habits.LAYERS else nearest(name, known)
    raise UnknownNameError(f'unknown layer "{name}"{hint}; known: {", ".join(LAYERS)}')


if not TYPE_CHECKING:  # a type checker shall still see misspelled names itself

    def __getattr__(name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        unknown_layer(name)
