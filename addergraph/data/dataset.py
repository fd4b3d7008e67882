"""Images and labels in three parts, with the facts that a training run needs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace

import numpy as np

from .. import border, display
from ..errors import DataError, DataWarning
from ..ir import Array
from ..settings import integer
from ..tables import Table
from .augment import Normalize
from .preprocessing import Preprocessing, of_images

BYTE = 1 / 255  # of full brightness: one step of a byte
_PARTS = ("train", "test", "val")
_SHOWN = 20  # classes in a notebook
_BLOCK = 64  # images that the statistics widen to f64 at a time


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images [N,H,W,C] to train, to test and to validate on, and their classes i64[N] from 0.

    Images are u8, or f32 where the source was no bytes. `classes` are the names of the classes
    where these are known. `scale x` is a pixel in units of full brightness. The test and the
    validation part may be empty; the one says how good a network is, the other which epoch is the
    best, and no image is in both. `channels`: "rgb" or "bgr" where the source says which; `resize`:
    how they were brought to their size ("stretch", "crop", "pad"), where they were. `files_train`,
    `files_test` and `files_val`: the file of each image, where each has its own; else empty.

    DataError when the parts do not fit together, a label is out of range, labels are ids (of the
    numbers from 0 fewer than half are used) or bytes look like images in NCHW; a DataWarning for a
    class without samples, or one that the validation part alone has.
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: tuple[str, ...] | None
    scale: float = BYTE
    x_val: Array = field(default_factory=lambda: np.zeros(0))
    y_val: Array = field(default_factory=lambda: np.zeros(0))
    channels: str = ""
    resize: str | None = None
    files_train: tuple[str, ...] = ()
    files_test: tuple[str, ...] = ()
    files_val: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"):
            array = border.array(f'data set "{self.name}", {name}', getattr(self, name))
            if name.endswith("_val") and array.shape == (0,):
                array = getattr(self, name.replace("val", "train"))[:0]
            object.__setattr__(self, name, array)
        border.settle(self, where="Dataset: ")
        self._require_part("train", self.x_train, self.y_train)
        self._require_part("test", self.x_test, self.y_test)
        self._require_part("val", self.x_val, self.y_val)
        if self.classes is None:
            labels = np.concatenate([self.y_train, self.y_test, self.y_val])
            _require_classes_used(labels, f'data set "{self.name}"')
        if not len(self.x_train):
            raise DataError(f'data set "{self.name}" has no images to train on')
        for does, x in (("test", self.x_test), ("validate", self.x_val)):
            if x.dtype != self.x_train.dtype or x.shape[1:] != self.shape:
                raise DataError(
                    f'data set "{self.name}": images to train on are {self.x_train.dtype} '
                    f"{self.shape}, those to {does} on {x.dtype} {x.shape[1:]}"
                )
        for label in np.setdiff1d(self.y_val, self.y_train)[:1]:
            name = label if self.classes is None else f'"{self.classes[label]}"'
            warnings.warn(
                f'data set "{self.name}": class {name} has images to validate on and none to train '
                "on: no network can learn it",
                DataWarning,
                stacklevel=3,
            )

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return (
            f'<Dataset "{self.name}": {size} {self.x_train.dtype}, {self.class_count} classes; '
            f"{len(self.x_train):,} images to train, {len(self.x_val):,} to validate, "
            f"{len(self.x_test):,} to test>"
        )

    def _repr_html_(self) -> str:
        """Images of each class, and the first of them."""
        names = self.classes or tuple(map(str, range(self.class_count)))
        parts = (self.y_train, self.y_val, self.y_test)
        counts = zip(*(np.bincount(y, minlength=len(names)) for y in parts), strict=True)
        rows = [(name, *(f"{n:,}" for n in row)) for name, row in zip(names, counts, strict=True)]
        heads = ("class", "to train", "to validate", "to test")
        firsts = (np.flatnonzero(self.y_train == label)[:1] for label in range(_SHOWN))
        images = [
            display.image(self._visible(self.x_train[i]), names[self.y_train[i]])
            for first in firsts for i in first
        ]  # fmt: skip
        left = len(rows) - _SHOWN
        more = display.text(f"and {left} classes more") if left > 0 else ""
        counted = display.table(Table(heads, rows[:_SHOWN], heads[:1]))
        return f"{display.head(self)}<div>{''.join(images)}</div>{counted}{more}"

    def _visible(self, image: Array) -> Array:
        """As grey, or red, green, blue: u8[H,W,1 or 3]."""
        shown = image if image.shape[-1] == 3 else image[..., :1]
        shown = shown[..., ::-1] if self.channels == "bgr" else shown
        with np.errstate(invalid="ignore", over="ignore"):
            return np.nan_to_num(np.clip(255 * self.scale * shown, 0, 255)).round().astype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of one image."""
        return tuple(self.x_train.shape[1:])

    @property
    def class_count(self) -> int:
        """How many classes there are; without names, one more than the largest label."""
        if self.classes is not None:
            return len(self.classes)
        return 1 + max(int(y.max()) for y in (self.y_train, self.y_test, self.y_val) if len(y))

    def split(self, validation: float = 0.1, seed: int = 0) -> Dataset:
        """The same set with that share of its training part as its validation part.

        By class: of n images, `n validation` rounded to the nearest integer, but at least 1 and at
        most n - 1; the only image of a class stays. Those of class c are drawn by
        `np.random.default_rng([seed, c])`, so that other classes do not matter; both parts keep the
        order of the training part. DataError for a share outside 0 to 1, where there is a
        validation part, and where no class has two images.
        """
        share, seed = border.number("validation", validation), integer("seed", seed, 0)
        if not 0 < share < 1:
            raise DataError(f"validation={share:g} must be a share above 0 and below 1")
        if len(self.x_val):
            raise DataError(
                f'data set "{self.name}" has {len(self.x_val)} images to validate on already: use '
                "them, without a split"
            )
        held_out = np.zeros(len(self.y_train), bool)
        for label in np.unique(self.y_train):
            (own,) = np.nonzero(self.y_train == label)
            count = min(len(own) - 1, max(1, round(share * len(own))))
            held_out[np.random.default_rng([seed, label]).permutation(own)[:count]] = True
        if not held_out.any():
            raise DataError(
                f'data set "{self.name}" has one image of each class to train on: none is left to '
                "validate on"
            )
        named = list(zip(self.files_train, held_out, strict=False))  # none, or one for each
        files, files_val = (tuple(f for f, held in named if held == val) for val in (False, True))
        x, y = (a[~held_out] for a in (self.x_train, self.y_train))
        x_val, y_val = (a[held_out] for a in (self.x_train, self.y_train))
        with warnings.catch_warnings():  # what there was to say of its labels is said
            warnings.simplefilter("ignore", DataWarning)
            return replace(
                self, x_train=x, y_train=y, x_val=x_val, y_val=y_val, files_train=files,
                files_val=files_val,
            )  # fmt: skip

    def calibration(self, count: int) -> Array:
        """At most `count` images to train on, to see values of a network on: the first ones; where
        the images of each class stand together, as those of folders do, evenly spaced ones, since
        the first would be of one class."""
        count = integer("count", count, 1)
        runs = 1 + int(np.count_nonzero(np.diff(self.y_train)))
        if count >= len(self.x_train) or runs > np.unique(self.y_train).size:
            return self.x_train[:count]
        return self.x_train[np.arange(count) * len(self.x_train) // count]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of `scale x` per channel, over all training images.

        In f64 and in two passes; the deviation is that of the population (divided by the count).
        """
        x, channels = self.x_train, self.x_train.shape[-1]
        rows = x.reshape(len(x), -1)  # sums of whole images, because sums of 3 numbers are slow

        def mean_power(power: int, center: Array) -> Array:
            total = np.zeros(rows.shape[1])
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK].astype(np.float64)
                block -= np.resize(center, total.shape)
                total += (block**power).sum(axis=0)
            sums = total.reshape(-1, channels).sum(axis=0)
            return np.asarray(sums / (x.size // channels))

        center = mean_power(1, np.zeros(channels))
        mean, std = self.scale * center, self.scale * np.sqrt(mean_power(2, center))
        return tuple(map(float, mean)), tuple(map(float, std))

    def normalize(self) -> Normalize:
        """Makes each channel of the training images of mean 0 and deviation 1."""
        axes = (0, 1, 2)
        flat = self.x_train.min(axis=axes) == self.x_train.max(axis=axes)
        if flat.any():
            raise DataError(
                f'data set "{self.name}": channel {flat.argmax()} has the same value everywhere; '
                "it cannot be scaled to a deviation of 1"
            )
        mean, std = self.statistics()
        return Normalize(mean, std, self.scale)

    def preprocessing(self, normalize: Normalize | None = None) -> Preprocessing:
        """What a network has to know of these images: that they are `normalize`d (as they are
        stored unless given), their dtype, channels and classes, and how they come to their size."""
        made = of_images(self.x_train, normalize, self.channels)
        return replace(made, classes=self.classes, resize=self.resize)

    def like(self, known: Preprocessing) -> Dataset:
        """These images with their channels in the order of a network, and their labels numbered as
        it numbers the classes of these names. What nobody named stays as it is, and labels do where
        the network does not know all of the classes."""
        made = self
        if {self.channels, known.channels} == {"rgb", "bgr"}:
            parts = {f"x_{part}": getattr(self, f"x_{part}")[..., ::-1] for part in _PARTS}
            made = replace(made, channels=known.channels, **parts)
        theirs = known.classes
        if not self.classes or not theirs or self.classes == theirs:
            return made
        if not set(self.classes) <= set(theirs):
            return made
        numbers = np.array([theirs.index(name) for name in self.classes])
        labels = {f"y_{part}": numbers[getattr(self, f"y_{part}")] for part in _PARTS}
        return replace(made, classes=theirs, **labels)

    def _require_part(self, part: str, x: Array, y: Array) -> None:
        words = "validation" if part == "val" else part
        where = f'data set "{self.name}", {words} part'
        if x.dtype not in (np.uint8, np.float32) or x.ndim != 4 or 0 in x.shape[1:]:
            raise DataError(
                f"{where}: expected images u8 or f32 [N,H,W,C], found {x.dtype} {x.shape}"
            )
        border.require_nhwc(f"x_{part}", x)
        if y.dtype != np.int64 or y.shape != (len(x),):
            raise DataError(
                f"{where}: expected labels int64 ({len(x)},), found {y.dtype} {y.shape}"
            )
        require_labels(y, None if self.classes is None else len(self.classes), where)
        files = getattr(self, f"files_{part}")
        if files and len(files) != len(x):
            raise DataError(f"{where}: {len(files)} names of files for {len(x)} images")


def require_labels(y: Array, classes: int | None, where: str) -> None:
    """DataError that names the first label outside 0..classes-1 (below 0 where that is None)."""
    wrong = (y < 0) if classes is None else (y < 0) | (y >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        expected = "at least 0" if classes is None else f"0 to {classes - 1}"
        raise DataError(
            f"{where}: label {y[row]} of sample {row} is out of range; expected {expected}"
        )


def _require_classes_used(y: Array, what: str) -> None:
    """Says it where labels do not use all classes from 0 to the largest: a DataWarning for a few,
    DataError where fewer than half have a sample, since these are no class numbers but ids."""
    used = np.unique(y)
    if not used.size or used[0] < 0 or used[-1] < used.size:
        return
    count = int(used[-1]) + 1
    unused = next((at for at, label in enumerate(used.tolist()) if at != label), used.size)
    message = (
        f"{what}: {used.size} labels from {used[0]} to {used[-1]} make {count} classes, of which "
        f"class {unused} has no sample"
    )
    if 2 * used.size < count:
        raise DataError(
            f"{message}: these are ids; number them, as np.unique(y, return_inverse=True)[1] does"
        )
    hint = "; if they count from 1, store y - 1" if used[0] == 1 else ""
    warnings.warn(f"{message}{hint}", DataWarning, stacklevel=5)
