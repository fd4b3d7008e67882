"""The form of a network: which of its layers add, which multiply."""

from __future__ import annotations

from dataclasses import dataclass

from .. import layers
from ..border import settle
from ..errors import GraphError, nearest
from ..layers import Layer

KINDS = ("adder", "conv")
CENTERED = "centered"  # adder layers whose channels lose their mean


@dataclass(frozen=True)
class Form:
    """What a network is built from.

        classes      answers of the last layer
        body         kind of the layers between the first and the last: "adder", "conv", "centered"
        first, last  kinds of these two; the authors' release keeps both "conv"

    Raises GraphError for another kind.
    """

    classes: int
    body: str
    first: str = "conv"
    last: str = "conv"

    def __post_init__(self) -> None:
        settle(self, GraphError, where="Form: ")
        for name in ("body", "first", "last"):
            kind = getattr(self, name)
            known = (*KINDS, CENTERED) if name == "body" else KINDS
            if kind not in known:
                raise GraphError(
                    f'{name}="{kind}" is no kind of layer{nearest(str(kind), known)}; '
                    f"expected {' or '.join(known)}"
                )


def image_layer(
    kind: str,
    channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    name: str | None = None,
) -> Layer:
    """A layer of `kind` on images, without bias: a batch norm follows."""
    if kind == "conv":
        return layers.Conv(channels, kernel_size, stride, padding, name=name)
    center = kind == CENTERED
    return layers.Adder(channels, kernel_size, stride, padding, center=center, name=name)


def vector_layer(kind: str, outputs: int, *, bias: bool = False, name: str | None = None) -> Layer:
    """A layer of `kind` on vectors: what a 1x1 layer is on an image of one pixel."""
    layer = layers.Dense if kind == "conv" else layers.AdderDense
    return layer(outputs, bias=bias, name=name)


def normalized(layer: Layer, norm: str, activation: str) -> list[Layer]:
    """`layer`, batch norm and relu, the two of these names."""
    return [layer, layers.BatchNorm(name=norm), layers.Activation("relu", name=activation)]


def entry(layer: Layer) -> list[Layer]:
    """The first layer with its batch norm and relu."""
    return normalized(layer, "first_bn", "first_act")


def head(form: Form, *, bias: bool = False) -> list[Layer]:
    """The last layer and the batch norm on its logits, as in the authors' release."""
    last = vector_layer(form.last, form.classes, bias=bias, name="last")
    return [last, layers.BatchNorm(name="last_bn")]
