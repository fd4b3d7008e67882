"""Images and labels in two parts, with the facts that a training needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..ir import Array
from .augment import Normalize

_BLOCK = 1024  # images that the statistics widen to f64 at a time


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images [N,H,W,C] to train and to test on, and their classes i64[N], numbered from 0.

    Images are u8, or f32 where the source was no bytes. `classes` are the names of the classes
    where these are known. `scale x` is a pixel in units of full brightness. The test part may be
    empty. DataError when the parts do not fit together or a label is out of range.
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: tuple[str, ...] | None
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        self._require_part("train", self.x_train, self.y_train)
        self._require_part("test", self.x_test, self.y_test)
        if not len(self.x_train):
            raise DataError(f'data set "{self.name}" has no images to train on')
        if self.x_test.dtype != self.x_train.dtype or self.x_test.shape[1:] != self.shape:
            raise DataError(
                f'data set "{self.name}": images to train on are {self.x_train.dtype} '
                f"{self.shape}, those to test on {self.x_test.dtype} {self.x_test.shape[1:]}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image."""
        return tuple(self.x_train.shape[1:])

    @property
    def class_count(self) -> int:
        """How many classes there are; without names, one more than the largest label."""
        if self.classes is not None:
            return len(self.classes)
        return 1 + max(int(y.max()) for y in (self.y_train, self.y_test) if len(y))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of `scale x` per channel, over all training images.

        In f64 and in two passes; the deviation is that of the population (divided by the count).
        """
        x, channels = self.x_train, self.x_train.shape[-1]
        pixels = x.size // channels

        def blocks_sum(power: int, center: Array) -> Array:
            total = np.zeros(channels)
            for start in range(0, len(x), _BLOCK):
                block = x[start : start + _BLOCK].reshape(-1, channels) * np.float64(self.scale)
                total += ((block - center) ** power).sum(axis=0)
            return np.asarray(total / pixels)

        mean = blocks_sum(1, np.zeros(channels))
        std = np.sqrt(blocks_sum(2, mean))
        return tuple(map(float, mean)), tuple(map(float, std))

    def normalize(self) -> Normalize:
        """Makes each channel of the training images of mean 0 and deviation 1."""
        mean, std = self.statistics()
        flat = [channel for channel, deviation in enumerate(std) if deviation <= 0]
        if flat:
            raise DataError(
                f'data set "{self.name}": channel {flat[0]} has the same value everywhere; '
                "it cannot be scaled to a deviation of 1"
            )
        return Normalize(mean, std, self.scale)

    def _require_part(self, part: str, x: Array, y: Array) -> None:
        where = f'data set "{self.name}", {part} part'
        if x.dtype not in (np.uint8, np.float32) or x.ndim != 4 or 0 in x.shape[1:]:
            raise DataError(
                f"{where}: expected images u8 or f32 [N,H,W,C], found {x.dtype} {x.shape}"
            )
        if y.dtype != np.int64 or y.shape != (len(x),):
            raise DataError(
                f"{where}: expected labels int64 ({len(x)},), found {y.dtype} {y.shape}"
            )
        require_labels(y, None if self.classes is None else len(self.classes), where)


def require_labels(y: Array, classes: int | None, where: str) -> None:
    """DataError that names the first label outside 0..classes-1 (below 0 where that is None)."""
    wrong = (y < 0) if classes is None else (y < 0) | (y >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        expected = "at least 0" if classes is None else f"0 to {classes - 1}"
        raise DataError(
            f"{where}: label {y[row]} of sample {row} is out of range; expected {expected}"
        )
