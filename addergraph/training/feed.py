"""Batches of all inputs of a network."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from ..data.preprocessing import Preprocessing, image_input
from ..errors import DataError
from ..ir import Array
from .settings import Fit

if TYPE_CHECKING:
    from ..data import Loader
    from ..data.loader import Part

Batch = tuple[list[Array], Array]


class Feed:
    """f32 batches of `inputs`, samples by name: of images as a `Loader` makes them by the settings,
    of the others the rows of the same samples, as they are. `part`: which rows of a batch this
    process takes.

    DataError where the settings change images, and nobody says which input takes them.
    """

    def __init__(
        self,
        inputs: Mapping[str, Array],
        known: Preprocessing | None,
        settings: Fit,
        part: Part | None = None,
    ) -> None:
        from ..data import Loader

        self.inputs, self.part = inputs, part
        image = image_of(inputs, known)
        if image is None and (settings.augment or settings.normalize):
            what = "augment" if settings.augment else "normalize"
            raise DataError(
                f"{what}= is for images, and nothing says which of the inputs {', '.join(inputs)} "
                "takes them: assign model.preprocessing = Preprocessing(..., input=NAME)"
            )
        self.image = image or next(iter(inputs))
        self.loader: Loader = Loader(
            inputs[self.image],
            batch_size=settings.batch_size,
            seed=settings.seed,
            shuffle=settings.shuffle,
            augment=settings.augment,
            normalize=settings.normalize,
        )

    def __len__(self) -> int:
        """Steps an epoch."""
        return len(self.loader)

    def epoch(
        self, number: int, first_step: int = 0, *, whole: bool = False
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch, in the order of the inputs, each with its sample numbers; of
        each the part of this process, unless `whole` ones are wanted."""
        part = None if whole else self.part
        with closing(self.loader.epoch(number, first_step, part)) as batches:
            for x, index in batches:
                rows = ((x if n == self.image else a[index]) for n, a in self.inputs.items())
                yield [np.asarray(one, np.float32) for one in rows], index


def image_of(inputs: Mapping[str, Array], known: Preprocessing | None) -> str | None:
    """The input that takes images, as far as its preprocessing or its shape tells."""
    shapes = {name: array.shape[1:] for name, array in inputs.items()}
    return image_input(shapes, None if known is None else known.input)
