"""`addergraph evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data import Dataset
from ...diagnostics import Confusion, Mistake, confusion, pictures, worst_mistakes
from ...diagnostics.mistake_plots import plot_confusion, plot_mistakes
from ...diagnostics.mistakes import MOST_CLASSES, worst_of
from ...errors import DataError
from ...files import storage
from ...ir import Array
from ...settings import like, setting
from ...training.settings import Fit
from .. import options as shared
from .classifier import Classifier
from .images import entering, load_for, matched, normalize_option
from .source import Source, open_trained

SHEET = 24  # images of the worst mistakes
NUMBERS = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The options of the command."""

    file: str = shared.file("MODEL")
    weights: str | None = shared.weights()
    data: str = shared.data()
    normalize: str | None = normalize_option()
    engine: str = shared.engine()
    threads: int | None = like(Fit, "threads")
    output: str | None = setting(
        None,
        "Write confusion.png, mistakes.png (the images with the highest wrong probabilities) and "
        "evaluation.json there.",
        short="-o",
        metavar="FOLDER",
        unset="print only",
    )


def evaluate(options: Evaluation) -> None:
    """Prints how many images get their class, of a model that is trained on them the loss, and
    what is confused with what; writes pictures and numbers; refuses a bad folder before."""
    folder = None if options.output is None else pictures.folder_for(options.output)
    source = open_trained(options.file, options.weights)
    data = matched(source, load_for(source, options.data))
    images, labels, files, part = _held_out(data)
    entered = entering(source, images, data, options.normalize, judged=True)
    classifier = Classifier(source, options.engine, options.threads)
    seen = _Seen(classifier, labels, data, files)
    found = _measured(options, seen, entered, labels)
    where = f"{options.file} on {options.data}, {len(images):,} {part} images"
    print(f"{where}: {', '.join(f'{name} {value:.4f}' for name, value in found.items())}")
    if seen.confusion is not None:
        print(f"\n{seen.confusion}")
    if folder is not None:
        facts = {"file": options.file, "data": options.data, "part": part, "images": len(images)}
        _write(folder, where, facts | found, seen, _visible(source, data, images[seen.worst]))


def _measured(options: Evaluation, seen: _Seen, images: Array, labels: Array) -> dict[str, float]:
    """Loss and accuracy of a model, the accuracy of other networks; `seen` sees all answers."""
    model = seen.classifier.source.model
    if model is not None:
        observe = seen.add if len(model.output_shape) == 1 and model.output_shape[0] > 1 else None
        return model.evaluate(
            images, labels, engine=options.engine, threads=options.threads, observe=observe
        )
    for rows, answers in seen.classifier.in_blocks(images):
        seen.add(rows, answers)
    return {"accuracy": seen.right / len(labels)}


class _Seen:
    """What a network has said so far of images whose classes are known."""

    def __init__(
        self, classifier: Classifier, labels: Array, data: Dataset, files: Sequence[str]
    ) -> None:
        self.classifier, self.labels, self.data, self.files = classifier, labels, data, files
        self.right = 0
        self.confusion: Confusion | None = None  # of more than MOST_CLASSES there is none
        self.mistakes: list[Mistake] = []

    @property
    def worst(self) -> list[int]:
        """The images of the worst mistakes."""
        return [one.sample for one in self.mistakes]

    @property
    def worst_files(self) -> list[str]:
        """Their files; none where the images have none of their own."""
        return [self.files[sample] for sample in self.worst] if self.files else []

    def add(self, rows: slice, answers: Array) -> None:
        """The answers to the images of these rows; GraphError or DataError where they do not tell
        the classes that there are."""
        labels = self.labels[rows]
        self.classifier.require_scores(answers, len(labels))
        scored = answers.ndim == 2
        count = answers.shape[1] if scored else 1 + max(int(answers.max()), int(self.labels.max()))
        if int(labels.max()) >= count:
            raise DataError(
                f'"{self.classifier.source.file}" has {count} classes, the images have labels up '
                f"to {int(self.labels.max())}"
            )
        predicted = answers.argmax(axis=1) if scored else answers
        self.right += int(np.count_nonzero(predicted == labels))
        if scored:
            probabilities = self.classifier.probabilities(answers)[
                np.arange(len(labels)), predicted
            ]
            found = worst_mistakes(labels, predicted, probabilities, SHEET, rows.start)
            self.mistakes = worst_of([*self.mistakes, *found], SHEET)
        if count <= MOST_CLASSES:
            told = confusion(
                labels, predicted, self.classifier.source.class_names(count, self.data.classes)
            )
            self.confusion = told if self.confusion is None else self.confusion + told


def _visible(source: Source, data: Dataset, images: Array) -> tuple[Array, float]:
    """Images with their channels as red, green and blue, and the pixel that is white."""
    known = source.preprocessing
    if known is not None and known.channels == "bgr":
        images = images[..., ::-1]
    white = 1 / data.scale
    return images, white if images.dtype == np.uint8 else max(white, float(images.max(initial=0)))


def _write(
    folder: Path,
    where: str,
    facts: dict[str, object],
    seen: _Seen,
    visible: tuple[Array, float],
) -> None:
    """The pictures and the numbers of an evaluation."""
    figures = {}
    if seen.confusion is not None:
        labels = seen.confusion.labels()
        figures["confusion.png"] = plot_confusion(seen.confusion, where)
        images, white = visible
        figures["mistakes.png"] = plot_mistakes(
            images, seen.mistakes, labels, where, white, seen.worst_files
        )
        facts |= seen.confusion.numbers()
    mistakes = [one._asdict() for one in seen.mistakes]
    for one, file in zip(mistakes, seen.worst_files, strict=False):
        one["file"] = file
    facts["mistakes"] = mistakes
    for name, figure in figures.items():
        pictures.save(figure, folder / name)
    storage.atomic_write(folder / NUMBERS, json.dumps(facts).encode())
    for name in (*figures, NUMBERS):
        print(f"wrote {folder / name}")


def _held_out(data: Dataset) -> tuple[Array, Array, Sequence[str], str]:
    """The images to test on, their classes and files; all there are where no part is held out."""
    if len(data.x_test):
        return data.x_test, data.y_test, data.files_test, "test"
    if len(data.x_val):
        return data.x_val, data.y_val, data.files_val, "validation"
    return data.x_train, data.y_train, data.files_train, "training"
