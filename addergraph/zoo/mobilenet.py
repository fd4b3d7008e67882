"""A network of depthwise and 1x1 layers for small images, after MobileNet.

Blocks are those of Howard et al., arXiv:1704.04861, fig. 3: a 3x3 layer with a filter for each
channel, then a 1x1 layer across channels, each with batch norm and relu. Images of 32x32 are halved
three times, where those of 224x224 are halved five times; there are fewer blocks and channels. The
first and the last layer multiply, as in the AdderNet release.
"""

from __future__ import annotations

from .. import layers
from ..layers import Layer
from .form import Form, entry, head, image_layer, normalized

FIRST = 32  # channels of the first layer
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 2))  # channels, stride


def mobilenet_small(form: Form) -> list[Layer]:
    """3x3 to 32 channels, six blocks of 64 to 256 channels, the mean of all pixels, the classes."""
    made = entry(image_layer(form.first, FIRST, 3, padding=1, name="first"))
    depthwise = layers.DepthwiseConv if form.body == "conv" else layers.DepthwiseAdder
    for number, (channels, stride) in enumerate(BLOCKS, 1):
        name = f"block{number}"
        deep = depthwise(3, stride, 1, name=f"{name}.depthwise")
        wide = image_layer(form.body, channels, 1, name=f"{name}.pointwise")
        made += normalized(deep, f"{name}.bn1", f"{name}.act1")
        made += normalized(wide, f"{name}.bn2", f"{name}.act2")
    return [*made, layers.GlobalAvgPool(name="pool"), *head(form)]
