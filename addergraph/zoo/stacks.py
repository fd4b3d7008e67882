"""Networks without shortcuts: LeNet-5 with batch norm, VGG-small.

Both are named in Chen et al., CVPR 2020 (arXiv:1912.13200), whose release has no code for them.
Every layer is followed by batch norm, the logits included.
"""

from __future__ import annotations

from .. import layers
from ..layers import Layer
from .form import Form, entry, head, image_layer, normalized, vector_layer

VGG_CHANNELS = (128, 128, 256, 256, 512, 512)


def lenet5_bn(form: Form) -> list[Layer]:
    """LeCun et al., Proc. IEEE 86(11), 1998, with relu and max pooling: 5x5 layers of 6, 16 and 120
    channels, vectors of 84 and of the classes. The first layer pads by 2, so that images of 28x28
    give the 28x28 results that LeNet-5 has from images of 32x32.
    """
    return [
        *entry(image_layer(form.first, 6, 5, padding=2, name="first")),
        layers.MaxPool(2, name="pool1"),
        *normalized(image_layer(form.body, 16, 5, name="conv2"), "bn2", "act2"),
        layers.MaxPool(2, name="pool2"),
        *normalized(image_layer(form.body, 120, 5, name="conv3"), "bn3", "act3"),
        layers.Flatten(name="flatten"),
        *normalized(vector_layer(form.body, 84, name="dense4"), "bn4", "act4"),
        *head(form),
    ]


def vgg_small(form: Form) -> list[Layer]:
    """3x3 layers of 128, 128, 256, 256, 512 and 512 channels, a max pool after every second, then
    the classes: VGG-small as in Zhang et al., LQ-Nets, arXiv:1807.10029.
    """
    made = entry(image_layer(form.first, VGG_CHANNELS[0], 3, padding=1, name="first"))
    for number, channels in enumerate(VGG_CHANNELS[1:], 2):
        layer = image_layer(form.body, channels, 3, padding=1, name=f"conv{number}")
        made += normalized(layer, f"bn{number}", f"act{number}")
        if number % 2 == 0:
            made.append(layers.MaxPool(2, name=f"pool{number // 2}"))
    return [*made, layers.Flatten(name="flatten"), *head(form)]
