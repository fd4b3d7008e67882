"""What happens to a batch of images on its way to the network: random changes, then scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .. import border
from ..border import settle
from ..errors import DataError
from ..ir import Array
from ..ir.state import aligned_bytes
from ..settings import integer, require_valid, setting


@dataclass(frozen=True)
class Augment:
    """Random crop after padding with zeros, then a random mirror image; sizes and dtype stay.

    Each image is padded by `padding` zeros on all four sides, and a window of its own size is cut
    out of it at one of the (2 padding + 1)^2 places, all equally likely. Then it is mirrored left
    to right with probability `flip`. The CIFAR recipe of the AdderNet release (and of most
    ResNets) is `Augment(padding=4, flip=0.5)`; the zeros are those of the pixels, so before
    normalisation (black). DataError for a negative padding or a `flip` outside 0..1.
    """

    padding: int = setting(0, least=0)
    flip: float = setting(0.0, least=0, most=1)

    def __post_init__(self) -> None:
        require_valid(self)

    def apply(
        self, x: Array, random: np.random.Generator, whole: int | None = None, first: int = 0
    ) -> Array:
        """New images of `x` [B,H,W,C]: a pure function of `x` and the generator's state.

        Draws B row offsets, B column offsets, then B uniform numbers, whatever the settings are.
        Where `x` are images `first`, `first` + 1, ... of a batch of `whole`, it draws for all of
        these, so that each image is changed as it would be in the whole batch.
        """
        x = border.array("x", x)
        border.plain(np.random.Generator, "random", random)
        if x.ndim != 4 or not x[:1].size:
            raise DataError(f"augmentation takes images [N,H,W,C], found shape {x.shape}")
        count, height, width, channels = x.shape
        drawn = count if whole is None else integer("whole", whole, count)
        first = integer("first", first, 0)
        if first > drawn - count:
            raise DataError(f"first={first}: {count} images from there on are not in {drawn}")
        rows = slice(first, first + count)
        top, left = random.integers(0, 2 * self.padding + 1, size=(2, drawn))[:, rows]
        mirrored = random.random(drawn)[rows] < self.flip
        sides = (self.padding, self.padding)
        padded = np.pad(x, ((0, 0), sides, sides, (0, 0)))
        # Rows of pixels and channels together, so that a copy is one run of bytes a row.
        lines = padded.reshape(count, padded.shape[1], -1)
        windows = sliding_window_view(lines, (height, width * channels), axis=(1, 2))
        y = windows[:, :, ::channels][np.arange(count), top, left].reshape(x.shape)
        y[mirrored] = y[mirrored].take(np.arange(width)[::-1], axis=2)
        return np.asarray(y)


@dataclass(frozen=True)
class Normalize:
    """`y = (scale x - mean) / std` per channel (the last axis), in f32.

    `mean` and `std` are in units of `scale x`: for bytes and the default scale, of 0..1. Computed
    as `a x + b` with `a = scale / std` and `b = -mean / std` rounded to f32 once. DataError for
    unequal lengths, a std that is not above 0, or numbers that are not finite.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        settle(self, where="Normalize: ")
        if not self.mean or len(self.mean) != len(self.std):
            raise DataError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}; "
                "expected one each for every channel"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale))):
            raise DataError(f"{self}: expected finite numbers")
        if min(self.std) <= 0 or self.scale <= 0:
            raise DataError(f"{self}: std and scale must be above 0")

    def coefficients(self) -> tuple[Array, Array]:
        """f32[C] `scale / std` and `-mean / std`."""
        factor = np.asarray([self.scale / s for s in self.std], np.float32)
        offset = np.asarray([-m / s for m, s in zip(self.mean, self.std, strict=True)], np.float32)
        return factor, offset

    def apply(self, x: Array) -> Array:
        """`x` [..., C] as f32, C-contiguous and 64-byte aligned; DataError for other channels."""
        x = border.array("x", x)
        if not x.ndim or x.shape[-1] != len(self.mean):
            raise DataError(
                f"the normalisation has {len(self.mean)} channels, samples have shape {x.shape[1:]}"
            )
        # One row of coefficients as long as an image row: inner loops of 3 would be slow.
        row = x.shape[-2:] if x.ndim > 1 else x.shape
        factor, offset = self.coefficients()
        y = empty_f32(x.shape)
        rows = (*x.shape[: x.ndim - len(row)], math.prod(row))
        flat = y.reshape(rows)
        np.multiply(x.reshape(rows), np.broadcast_to(factor, row).reshape(-1), out=flat)
        flat += np.broadcast_to(offset, row).reshape(-1)
        return y


def empty_f32(shape: tuple[int, ...]) -> Array:
    """An f32 array of unset numbers, C-contiguous and 64-byte aligned."""
    return aligned_bytes(4 * math.prod(shape)).view(np.float32).reshape(shape)
