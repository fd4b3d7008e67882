"""What the pixels of an image are, and the numbers that a network takes for them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import border
from ..errors import DataError, DataWarning, StorageError, nearest
from ..files import records
from ..ir import Array
from .augment import Normalize
from .images import WAYS

PIXELS = ("u8", "f32")
ORDERS = {"grey": 1, "rgb": 3, "bgr": 3, "other": None}  # name -> channels
_LEVELS = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Preprocessing:
    """From the images that people have to what a network computes with: docs/preprocessing.md.

        y[n,h,w,c] = (scale x[n,h,w,c] - mean[c]) / std[c]      (see `Normalize`)

    normalize  scale, mean and std of that equation, of the training images
    dtype      of a pixel: "u8", 0..255, or "f32"
    channels   what they are, in this order: "grey", "rgb", "bgr", or "other"
    classes    names of the classes, in the order of the scores; None where nobody named them
    resize     how images of another size are brought to that of the network: "stretch", "crop" or
               "pad" (`data.images.bring`); None where nobody said
    input      the name of the input that images enter by; None for the only one, or the only one
               whose samples have three axes

    DataError without `normalize`, for another dtype, order or resize, an order of another number
    of channels, or two classes of one name.
    """

    normalize: Normalize = None  # type: ignore[assignment]  # refused below, by an error of ours
    dtype: str = "u8"
    channels: str = "other"
    classes: tuple[str, ...] | None = None
    resize: str | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        if self.normalize is None:
            raise DataError(
                "Preprocessing: normalize is missing; expected a Normalize(mean, std, scale), or "
                "data.normalize() of a Dataset"
            )
        border.settle(self, where="Preprocessing: ")
        for what, found, known in (
            ("dtype", self.dtype, PIXELS),
            ("channels", self.channels, ORDERS),
            ("resize", self.resize, WAYS),
        ):
            if found is not None and found not in known:
                raise DataError(
                    f'Preprocessing: {what}="{found}"{nearest(found, known)}; expected '
                    f"{', '.join(known)}"
                )
        names = self.classes or ()
        doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if doubled:
            raise DataError(
                f"Preprocessing: {border.shown(doubled[0])} is the name of "
                f"{names.count(doubled[0])} classes; names must differ"
            )
        expected = ORDERS[self.channels]
        if expected not in (None, self.depth):
            raise DataError(
                f'Preprocessing: "{self.channels}" are {expected} channels, normalize has '
                f"{self.depth}"
            )

    @property
    def depth(self) -> int:
        """Channels of a pixel."""
        return len(self.normalize.mean)

    def input_of(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """The input of a network, whose samples have these shapes, that images enter by; DataError
        where that is left open, or its samples do not have these channels last."""
        name = image_input(shapes, self.input)
        if name is None:
            raise DataError(
                f"the preprocessing does not say which of the inputs {', '.join(shapes)} takes the "
                "images: declare Preprocessing(..., input=NAME)"
            )
        if (shape := shapes[name])[-1] != self.depth:
            raise DataError(
                f"the preprocessing has {self.depth} channels, samples have shape {shape}"
            )
        return name

    def pixels(self, x: Array, what: str = "x") -> Array:
        """`x` as the dtype of a pixel; DataError where they cannot be pixels.

        Numbers of another dtype are bytes where they are whole numbers of 0..255.
        """
        if self.dtype == "f32" and x.dtype == np.uint8:
            raise DataError(
                f"{what}: this model takes real numbers as pixels, found bytes: give the images as "
                "those were that it was trained on"
            )
        if self.dtype == "f32":
            return x.astype(np.float32, copy=False)
        if x.dtype == np.uint8:
            return x
        with np.errstate(invalid="ignore"):
            bytes_ = np.clip(x, 0, 255).astype(np.uint8)
        if np.array_equal(bytes_, x):
            if x.max(initial=0) == 1:
                warnings.warn(
                    f"{what}: these {x.dtype} images have pixels 0 and 1 alone, of 255: where 1 is "
                    "white, give 255 times as much",
                    DataWarning,
                    stacklevel=4,
                )
            return bytes_
        hint = (
            "; they look normalized already: give the images as they are"
            if x.size and np.abs(x).max() < 32
            else ""
        )
        raise DataError(
            f"{what}: this model takes pixels as bytes, whole numbers of 0..255, found {x.dtype} "
            f"from {x.min():.4g} to {x.max():.4g}{hint}"
        )

    def apply(self, x: Array) -> Array:
        """Pixels [...,C] as the network takes them, f32."""
        return self.normalize.apply(x)

    def levels(self) -> Array | None:
        """f32[C,256]: what each byte becomes in each channel; None where pixels are no bytes."""
        if self.dtype != "u8":
            return None
        return self.apply(np.repeat(_LEVELS[:, None], self.depth, axis=1)).T

    def __str__(self) -> str:
        n = self.normalize
        steps = f"pixel * {n.scale:.6g}" if n.scale != 1 else "pixel"
        if any(n.mean) or set(n.std) != {1.0}:
            mean, std = (", ".join(f"{v:.4f}" for v in numbers) for numbers in (n.mean, n.std))
            steps = f"({steps} - mean) / std, mean {mean}, std {std}"
        names = "" if self.channels == "other" else f"{self.channels} "
        where = "" if self.input is None else f" of {self.input}"
        resized = "" if self.resize is None else f"; images of another size: {self.resize}"
        return f"{self.dtype} {names}pixels{where} enter as {steps}{resized}"

    def is_close(self, other: Normalize) -> bool:
        """Whether a pixel becomes about the same number by `other`."""
        if len(other.mean) != self.depth:
            return False
        ends = np.array([[0.0], [255.0 if self.dtype == "u8" else 1 / self.normalize.scale]])
        ours, theirs = ((ends * n.scale - n.mean) / n.std for n in (self.normalize, other))
        return bool(np.allclose(ours, theirs, rtol=0.01, atol=0.01))


def as_stored(channels: int) -> Normalize:
    """Numbers enter as they are."""
    return Normalize((0.0,) * channels, (1.0,) * channels, 1.0)


def image_input(shapes: Mapping[str, Sequence[object]], said: str | None = None) -> str | None:
    """The input of a network, whose samples have these shapes, that takes images: what `said`
    names; the only one; the only one whose samples have three axes. None where that tells none of
    them, DataError for an unknown name."""
    if said is not None and said not in shapes:
        raise DataError(
            f'preprocessing: input="{said}"{nearest(said, shapes)}; expected {", ".join(shapes)}'
        )
    images = [name for name, shape in shapes.items() if len(shapes) == 1 or len(shape) == 3]
    return said or (images[0] if len(images) == 1 else None)


def of_images(x: Array, normalize: Normalize | None, channels: str = "") -> Preprocessing:
    """That of samples [N,...,C], which enter as they are stored unless `normalize` says otherwise.
    Where nobody said, one channel of an image is its grey level, and three are red, green, blue."""
    usual = {1: "grey", 3: "rgb"}.get(x.shape[-1], "other") if x.ndim == 4 else "other"
    dtype = "u8" if x.dtype == np.uint8 else "f32"
    return Preprocessing(normalize or as_stored(x.shape[-1]), dtype, channels or usual)


def declared_by(network: object) -> Preprocessing | None:
    """What a model or an int8 model says of its pixels; a graph says nothing."""
    known: Preprocessing | None = border.plain(
        Preprocessing | None, "preprocessing", getattr(network, "preprocessing", None)
    )
    return known


ENTRY = "preprocessing"
"""Of the metadata of model files."""
LATER = ("resize", "input")  # fields that the first files do not have


def entry(known: Preprocessing | None) -> dict[str, str]:
    """The entry of a model file's metadata; none where nothing is known."""
    if known is None:
        return {}
    return {ENTRY: json.dumps(encoded(known), sort_keys=True)}


def encoded(known: Preprocessing) -> dict[str, Any]:
    """As JSON has it; what older files do not know where it is said."""
    made = records.encode(known) | {"normalize": records.encode(known.normalize)}
    return {key: value for key, value in made.items() if key not in LATER or value is not None}


def from_entry(metadata: Mapping[str, str]) -> Preprocessing | None:
    """What `entry` wrote; StorageError for a damaged one, DataError for numbers out of range."""
    if ENTRY not in metadata:
        return None
    found = dict.fromkeys(LATER) | records.json_object(metadata[ENTRY], ENTRY)
    values = records.read(Preprocessing, found, ENTRY, error=StorageError, complete=True)
    if not isinstance(normalize := values["normalize"], dict):
        raise StorageError(f"normalize in {ENTRY} is no object")
    read = records.read(Normalize, normalize, ENTRY, error=StorageError, complete=True)
    return Preprocessing(**values | {"normalize": Normalize(**read)})
