"""The table of networks, and how one is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import border
from ..errors import GraphError, nearest
from ..ir.attributes import integer
from ..layers import Layer
from ..model import Model
from .form import CENTERED, Form
from .mobilenet import mobilenet_small
from .resnet import ResNet
from .small import deck, small
from .stacks import lenet5_bn, vgg_small

Shape = tuple[int, ...]
DIGITS: Shape = (8, 8, 1)
MNIST: Shape = (28, 28, 1)
CIFAR: Shape = (32, 32, 3)
IMAGENET: Shape = (224, 224, 3)


@dataclass(frozen=True)
class Network:
    """A description in one line, what makes the layers of a form, and the defaults of `build`.

    `fixed`: the layers are one listing, for which `first` and `last` mean nothing.
    """

    description: str
    layers: Callable[[Form], Sequence[Layer]]
    input_shape: Shape
    classes: int = 10
    body: str = "adder"
    first: str = "conv"
    last: str = "conv"
    fixed: bool = False


def _both(
    name: str,
    description: str,
    layers: Callable[[Form], Sequence[Layer]],
    input_shape: Shape,
    classes: int = 10,
) -> dict[str, Network]:
    """The adder form as `name`, the convolutional one as `name-conv`."""
    conv = f"{name} with convolutions in place of adders, to compare with"
    return {
        name: Network(description, layers, input_shape, classes),
        f"{name}-conv": Network(conv, layers, input_shape, classes, body="conv"),
    }


_RESNET20 = ResNet((3, 3, 3), 16)
_RESNET32 = ResNet((5, 5, 5), 16)
_RESNET18 = ResNet((2, 2, 2, 2), 64, imagenet=True)
_RESNET50 = ResNet((3, 4, 6, 3), 64, bottleneck=True, imagenet=True)

NETWORKS: dict[str, Network] = {
    "small-adder": Network(
        "conv 16 | adder 32 | pool | adder 64 | pool | adder 64 | dense", small, DIGITS
    ),
    "all-adder": Network(
        "small-adder with adders first and last as well",
        small, DIGITS, first="adder", last="adder",
    ),
    "small-conv": Network(
        "small-adder with convolutions only, to compare with", small, DIGITS, body="conv"
    ),
    "small-adder-centered": Network(
        "small-adder for few taps (train --sparsity): adders subtract the mean of their channels",
        small, DIGITS, body=CENTERED,
    ),
    "deck": Network(
        "the slide deck's listing; its first relu is provably zero", deck, DIGITS, fixed=True
    ),
    **_both("lenet5_bn", "LeNet-5 with batch norm, for 28x28 images", lenet5_bn, MNIST),
    **_both("vgg_small", "six 3x3 layers of 128 to 512 channels", vgg_small, CIFAR),
    **_both(
        "mobilenet_small", "6 blocks of depthwise and 1x1 layers, 64 to 256 channels",
        mobilenet_small, CIFAR,
    ),
    **_both("resnet20", "9 residual blocks of 16 to 64 channels", _RESNET20, CIFAR),
    "resnet20-centered": Network(
        "resnet20 for few taps (train --sparsity): adders subtract the mean of their channels",
        _RESNET20, CIFAR, body=CENTERED,
    ),
    **_both("resnet32", "15 residual blocks of 16 to 64 channels", _RESNET32, CIFAR),
    **_both("resnet18", "8 residual blocks of 64 to 512 channels", _RESNET18, IMAGENET, 1000),
    **_both("resnet50", "16 bottlenecks of 256 to 2048 channels", _RESNET50, IMAGENET, 1000),
}  # fmt: skip


def network_named(name: str) -> Network:
    """The entry of NETWORKS; GraphError with the nearest name for an unknown one."""
    if name not in NETWORKS:
        onnx = "; addergraph import makes a model file of an ONNX model" * name.endswith(".onnx")
        known = ", ".join(NETWORKS)
        raise GraphError(f'unknown network "{name}"{nearest(name, NETWORKS)}{onnx}; known: {known}')
    return NETWORKS[name]


def build(
    name: str,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    seed: int = 0,
    *,
    first: str | None = None,
    last: str | None = None,
) -> Model:
    """The untrained network called `name`.

        input_shape, classes  of the network's usual data set, unless given
        first, last           kind of the first and last layer, "adder" or "conv"; those of the
                              table unless given. "adder" twice makes a network of adders only

    The networks of the digits answer with probabilities (softmax), all others with logits. Raises
    GraphError, with the nearest name, for an unknown network or kind, ShapeError, naming the layer,
    where images of `input_shape` do not fit.
    """
    name = border.word("network", name, GraphError)
    first, last = (
        border.plain(str | None, "first, last", end, GraphError) for end in (first, last)
    )
    network = network_named(name)
    if network.fixed and (first, last) != (None, None):
        raise GraphError(f'network "{name}" is one listing: first= and last= do not apply to it')
    count = network.classes if classes is None else integer(name, "classes", classes, 1)
    form = Form(count, network.body, first or network.first, last or network.last)
    shape = network.input_shape if input_shape is None else input_shape
    model = Model(input_shape=shape, name=name.replace("-", "_"), seed=seed)
    for layer in network.layers(form):
        model.add(layer)
    model.graph(training=False)  # refuses images that do not fit
    return model
