"""`addergraph predict`."""

from __future__ import annotations

import itertools
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...data.folder import Losses, image_files
from ...data.images import STRETCH, WAYS, bring, not_read, read_image
from ...data.npz import read_npy, read_npz
from ...data.preprocessing import Preprocessing
from ...errors import DataError, DataWarning, StorageError, UnsupportedError
from ...files.storage import user_path
from ...ir import Array
from ...settings import NOTHING, like, setting
from ...tables import columns, padded, printable, shortened
from ...training.settings import Fit
from .. import options as shared
from .classifier import Classifier
from .images import require_same_way
from .source import Source, open_trained

BATCH = 256  # images that are in memory together, if they take no more than this
BATCH_BYTES = 64 << 20
WIDTH = 80  # columns of a line, where it can be
_NAME = 24  # columns of a class' name


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The options of the command."""

    file: str = shared.file("MODEL")
    images: Sequence[str] = setting(NOTHING, place=True, many=True, metavar="IMAGE|FOLDER...")
    top: int = setting(3, "Classes that are shown of each image.", least=1)
    how: str | None = setting(
        None,
        "How images of another size are brought to size.",
        kind=str,
        choices=WAYS,
        unset=f"what the model file says, or {STRETCH}",
    )
    json: bool = setting(False, "Print one JSON document: of each image its file and classes.")
    engine: str = shared.engine()
    threads: int | None = like(Fit, "threads")


class Answer(NamedTuple):
    """What is said of one image: number and probability of its classes, the first the likeliest;
    `size` is its own height and width."""

    file: str
    size: tuple[int, ...]
    classes: list[tuple[int, float]]


def predict(options: Prediction) -> bool:
    """Prints the likeliest classes of each image; whether all images could be read. The others are
    named on stderr. Images are read, answered and forgotten batch by batch."""
    source = open_trained(options.file)
    reader = _Reader(source, options.how)
    classifier = Classifier(source, options.engine, options.threads)
    show = _Document() if options.json else _Lines(reader.size, reader.how)
    images = reader.images(options.images)
    most = max(1, min(BATCH, BATCH_BYTES // int(np.prod(reader.shape))))
    while batch := list(itertools.islice(images, most)):
        answers = classifier.answers(np.stack([one.pixels for one in batch]))
        classifier.require_scores(answers, len(batch))
        if answers.ndim != 2:
            raise UnsupportedError(f'"{options.file}" answers with class numbers, no probabilities')
        show.names = show.names or source.class_names(answers.shape[1])
        probabilities = classifier.probabilities(answers)
        order = np.argsort(-answers.astype(np.float64), axis=1, kind="stable")[:, : options.top]
        show.batch(
            [
                Answer(one.file, one.size, [(int(i), float(p[i])) for i in best])
                for one, best, p in zip(batch, order, probabilities, strict=True)
            ]
        )
    show.end()
    return not reader.refused


class _Image(NamedTuple):
    file: str
    size: tuple[int, ...]
    pixels: Array


class _Reader:
    """Images as a network takes them."""

    def __init__(self, source: Source, how: str | None) -> None:
        self.shape = tuple(int(d) for d in source.graph.inputs[0].type.shape[1:])
        self.known, self.refused = _required(source), 0
        if how is not None and self.known.resize is not None:
            require_same_way(source.file, self.known, f"--how {how}", how)
        self.how = how or self.known.resize or STRETCH
        self._told = False
        if len(self.shape) != 3:
            raise DataError(f'"{source.file}" takes samples {self.shape}, no images [H,W,C]')
        self._no_files: str | None = None  # why it takes arrays alone
        if self.known.dtype != "u8":
            self._no_files = "real numbers as pixels"
        elif self.shape[2] not in (1, 3):
            self._no_files = f"images of {self.shape[2]} channels"
        self._file = source.file

    @property
    def size(self) -> tuple[int, ...]:
        """(height, width)."""
        return self.shape[:2]

    def images(self, paths: Sequence[str]) -> Iterator[_Image]:
        """Those of all files and folders; what cannot be read is named on stderr and counted."""
        for path in paths:
            try:
                files: Sequence[Path] = _files(user_path(path))
            except (StorageError, DataError) as error:
                self._refuse(error)
                continue
            for file in files:
                try:
                    yield from self._read(file)
                except (StorageError, DataError) as error:
                    self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        self.refused += 1
        print(f"error: {printable(str(error))}", file=sys.stderr)

    def _read(self, file: Path) -> Iterator[_Image]:
        if file.suffix in (".npy", ".npz"):
            yield from self._samples(file)
            return
        if self._no_files is not None:
            raise UnsupportedError(
                f'"{self._file}" takes {self._no_files}, which no image file has: give arrays '
                "(.npy, or .npz with an array x)"
            )
        image = read_image(file, self.shape[2])
        size, pixels = image.shape[:2], bring(image, (self.shape[0], self.shape[1]), self.how)
        self._warn_of_brighter(file, pixels)
        yield _Image(str(file), size, pixels[..., ::-1] if self.known.channels == "bgr" else pixels)

    def _samples(self, file: Path) -> Iterator[_Image]:
        """Images of an array [N,H,W,C] or [H,W,C], as the network takes them; one channel needs no
        axis."""
        x = read_npy(file) if file.suffix == ".npy" else read_npz(file, "x")[0]
        for shape in (x.shape, (*x.shape, 1)):
            if shape == self.shape:
                x = x.reshape(1, *shape)
            if shape[1:] == self.shape:
                x = x.reshape(shape)
        if x.shape[1:] != self.shape or x.dtype.kind not in "biuf":
            raise DataError(
                f'"{file}" holds {x.dtype} {x.shape}; expected images {("N", *self.shape)}'
            )
        pixels = self.known.pixels(x, f'"{file}"')
        for number, image in enumerate(pixels):
            yield _Image(f"{file}[{number}]", self.size, image)

    def _warn_of_brighter(self, file: Path, pixels: Array) -> None:
        """A DataWarning, once, for an image that is brighter than white was in training."""
        scale = self.known.normalize.scale
        if self._told or not 1 / 255 < scale < 1 or pixels.max() * scale <= 1:
            return
        self._told = True
        warnings.warn(
            f'"{file}" has pixels up to {pixels.max()}; "{self._file}" was trained on images whose '
            f"white is {1 / scale:.4g}",
            DataWarning,
            stacklevel=2,
        )


def _required(source: Source) -> Preprocessing:
    if source.preprocessing is not None:
        return source.preprocessing
    again = "quantize a model that does"
    if source.quantized is None:
        again = "addergraph train writes models that do; in Python, assign model.preprocessing"
    raise DataError(f'"{source.file}" does not say what a pixel is: {again}')


def _files(path: Path) -> list[Path]:
    """A file itself, of a folder its images; DataError for one without."""
    if not os.path.isdir(path):
        return [path]
    strange = Losses()
    found = [path / name for name in image_files(path, strange)]
    if not found:
        raise DataError(f'"{path}" has no images{not_read(strange.ends)}')
    return found


# --- what is printed ------------------------------------------------------------------------------


class _Lines:
    """A line an image where it fits, else one for the file and others for the classes."""

    def __init__(self, size: tuple[int, ...], how: str) -> None:
        self.names: list[str] = []
        self._size, self._how, self._told = size, how, False

    def batch(self, answers: Sequence[Answer]) -> None:
        other = next((one for one in answers if one.size != self._size), None)
        if other is not None and not self._told:
            self._told = True
            print(
                f"images of another size are brought to {_by(self._size)} by {self._how}, the "
                f"first is\n{printable(other.file)}, {_by(other.size)} (height x width)"
            )
        names = [shortened(printable(name), _NAME) for name in self.names]
        shown = {i for one in answers for i, _ in one.classes}
        width = max(columns(names[i]) for i in shown)
        files = [printable(one.file) for one in answers]
        room = WIDTH - len(answers[0].classes) * (width + 10)
        widest = max((columns(file) for file in files if columns(file) <= room), default=0)
        for file, one in zip(files, answers, strict=True):
            cells = [f"{padded(names[i], width)} {100 * p:5.1f} %" for i, p in one.classes]
            if columns(file) <= room:
                print("  ".join([padded(file, widest), *cells]))
                continue
            print(file)
            a_row = max(1, WIDTH // (width + 10))
            for start in range(0, len(cells), a_row):
                print("  " + "  ".join(cells[start : start + a_row]))

    def end(self) -> None:
        """Nothing is left."""


class _Document:
    """One JSON document, written as it comes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._between = "["

    def batch(self, answers: Sequence[Answer]) -> None:
        for one in answers:
            print(self._between + json.dumps(self._entry(one)), end="")
            self._between = ",\n "

    def end(self) -> None:
        print("]" if self._between != "[" else "[]")

    def _entry(self, one: Answer) -> dict[str, Any]:
        classes = [
            {"class": self.names[i], "index": i, "probability": p if np.isfinite(p) else None}
            for i, p in one.classes
        ]
        return {"file": one.file, "size": list(one.size), "classes": classes}


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
