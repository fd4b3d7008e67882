"""Residual networks: ResNet-20 and -32 for small images, ResNet-18 and -50 for ImageNet.

Topology of the authors' release, github.com/huawei-noah/AdderNet (resnet20.py, resnet50.py; 18 and
32 follow the same two patterns): the first and the last layer multiply, a batch norm follows every
layer, the logits and the 1x1 shortcuts included, and the relu comes after the sum. Blocks are those
of He et al., arXiv:1512.03385; a bottleneck has its stride in the 3x3 layer.

Layers are called first, first_bn, stage1.block0.conv1, stage1.block0.bn1, ..., stage1.block0.skip,
stage1.block0.skip_bn, last, last_bn, in the adder form and in the convolutional one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import layers
from ..layers import Layer
from .form import Form, entry, head, image_layer, normalized

EXPANSION = 4  # channels of a bottleneck's result over those of its 3x3 layer


@dataclass(frozen=True)
class ResNet:
    """Callable: the layers for a form.

    blocks      of each stage; every stage but the first halves the image
    channels    of the first stage's 3x3 layers; each stage doubles them
    bottleneck  blocks of 1x1, 3x3, 1x1 instead of 3x3, 3x3
    imagenet    a first layer of 7x7 with stride 2 and a max pool, and a bias in the last layer
    """

    blocks: Sequence[int]
    channels: int
    bottleneck: bool = False
    imagenet: bool = False

    def __call__(self, form: Form) -> list[Layer]:
        made = self._entry(form)
        inputs = self.channels
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}.block{block}"
                made += self._block(form.body, inputs, self.channels << stage, stride, name)
                inputs = self._outputs(self.channels << stage)
        return [*made, layers.GlobalAvgPool(name="pool"), *head(form, bias=self.imagenet)]

    def _entry(self, form: Form) -> list[Layer]:
        if not self.imagenet:
            return entry(image_layer(form.first, self.channels, 3, padding=1, name="first"))
        first = image_layer(form.first, self.channels, 7, stride=2, padding=3, name="first")
        return [*entry(first), layers.MaxPool(3, 2, 1, name="first_pool")]

    def _outputs(self, channels: int) -> int:
        return channels * EXPANSION if self.bottleneck else channels

    def _block(self, kind: str, inputs: int, channels: int, stride: int, name: str) -> list[Layer]:
        """The residual layer and its relu; the shortcut is a layer only where shapes change."""
        outputs = self._outputs(channels)
        shortcut: list[Layer] = []
        if stride != 1 or inputs != outputs:
            skip = image_layer(kind, outputs, 1, stride=stride, name="skip")
            shortcut = [skip, layers.BatchNorm(name="skip_bn")]
        body = (
            _bottleneck(kind, channels, stride)
            if self.bottleneck
            else _basic(kind, channels, stride)
        )
        relu = f"{name}.act{3 if self.bottleneck else 2}"
        return [
            layers.Residual(body, shortcut, name=name),
            layers.Activation("relu", name=relu),
        ]


def _basic(kind: str, channels: int, stride: int) -> list[Layer]:
    first = image_layer(kind, channels, 3, stride=stride, padding=1, name="conv1")
    second = image_layer(kind, channels, 3, padding=1, name="conv2")
    return [*normalized(first, "bn1", "act1"), second, layers.BatchNorm(name="bn2")]


def _bottleneck(kind: str, channels: int, stride: int) -> list[Layer]:
    reduce = image_layer(kind, channels, 1, name="conv1")
    middle = image_layer(kind, channels, 3, stride=stride, padding=1, name="conv2")
    expand = image_layer(kind, EXPANSION * channels, 1, name="conv3")
    return [
        *normalized(reduce, "bn1", "act1"),
        *normalized(middle, "bn2", "act2"),
        expand,
        layers.BatchNorm(name="bn3"),
    ]
