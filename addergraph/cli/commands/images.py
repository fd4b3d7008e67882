"""The images of `--data` as what a command takes them for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ...data import Dataset, Normalize, Preprocessing, load
from ...data.npz import load_npz_samples
from ...data.preprocessing import as_stored
from ...data.sources import load_as
from ...errors import DataError, DataWarning, some
from ...files.storage import user_path
from ...ir import Array
from ...model import Model
from ...settings import setting
from ...training.recipes import BRIGHTNESS, NONE, STATISTICS, Images
from .source import Source

HeldOut = tuple[Array | None, Array | None]  # images and classes


def normalize_option() -> Any:
    """`--normalize` of commands that read a network: for those that do not say it themselves."""
    return setting(
        None,
        "How pixels enter a network that does not say it: as 0..1 (brightness), of mean 0 and "
        "deviation 1 (statistics), as stored (none).",
        kind=str,
        choices=(BRIGHTNESS, STATISTICS, NONE),
        unset="what the model file says",
    )


def entering(
    source: Source, images: Array, data: Dataset, normalize: str | None, *, judged: bool = False
) -> Array:
    """`images` of `data` as `source` takes them: as they are where it knows what a pixel is, else
    by `normalize`.

    Real numbers enter as they are unless `normalize` says otherwise. DataError where it is missing
    for bytes, contradicts what the file says, or would take the
    statistics of the very images that are to be `judged`.
    """
    known = source.preprocessing
    chosen = None if normalize is None else Images(normalize=normalize).normalization(data)
    if known is not None:
        if normalize is not None:
            _require_same(source.file, known, normalize, chosen or as_stored(data.shape[-1]))
        return images
    fits = tuple(source.graph.inputs[0].type.shape[1:]) == data.shape
    if normalize is None and (images.dtype != np.uint8 or not fits):  # the network will say so
        return images
    if normalize is None:
        raise DataError(
            f'"{source.file}" does not say what a pixel is: give --normalize as it was trained '
            f"({BRIGHTNESS}, {STATISTICS}, {NONE})"
        )
    if normalize == STATISTICS and judged and images is data.x_train:
        raise DataError(
            "--normalize statistics would be those of the images to evaluate, not those of the "
            "training images: give data with both parts, or a model file that has the statistics"
        )
    if chosen is not None:
        return chosen.apply(images)
    return images if source.model is None else images.astype(np.float32)


def _require_same(file: str, known: Preprocessing, option: str, chosen: Normalize) -> None:
    if not known.is_close(chosen):
        here = Preprocessing(chosen, known.dtype, classes=known.classes)
        raise DataError(
            f'--normalize {option} contradicts "{file}": by the option, {here}; by the file, '
            f"{known}. Leave the option out"
        )


def load_for(source: Source, spec: str) -> Dataset:
    """The data set, with images of other sizes and channels brought to the network's as its file
    says."""
    known = source.preprocessing
    shape = tuple(int(d) for d in source.graph.inputs[0].type.shape[1:])
    return load(spec) if known is None else load_like(known.resize, shape, spec)


def load_to_train(trained: Model | None, spec: str) -> Dataset:
    """As `load_for`, of a model file; of a new network (None), as the data are."""
    if trained is None or trained.preprocessing is None:
        return load(spec)
    return load_like(trained.preprocessing.resize, trained.input_shape, spec)


def load_like(resize: str | None, shape: tuple[int, ...], spec: str) -> Dataset:
    """The data set, with images brought to (H, W, C), to its size in this way, if any."""
    return load_as(spec, shape, resize) if len(shape) == 3 else load(spec)


def matched(source: Source, data: Dataset) -> Dataset:
    """`data` with the channel order and the class numbers of the network. DataWarning where it
    tells other classes than `data` has; what the file does not say is not compared. DataError for
    images of another shape, and for those that were brought to size in another way."""
    known = source.preprocessing
    data = data if known is None else data.like(known)
    if known is not None and None not in (known.resize, data.resize):
        require_same_way(source.file, known, f'how={data.resize} of "{data.name}"', data.resize)
    shape = tuple(source.graph.inputs[0].type.shape[1:])
    if shape != data.shape:
        raise DataError(
            f'"{source.file}" takes samples of shape {shape}, those of "{data.name}" have shape '
            f"{data.shape}: give the data that it was trained for, as --data folder:PATH"
        )
    if known is not None and known.classes and data.classes and known.classes != data.classes:
        _warn(
            f'"{source.file}" tells the classes {some(known.classes)}; "{data.name}" has '
            f"{some(data.classes)}: classes are compared by their numbers, which mean other things"
        )
    model = source.model
    if model is None:
        return data
    answers = [*model.output_shapes.values()]
    scores = answers[0][-1] if len(answers) == 1 and answers[0] else 1
    if scores > 1 and scores != data.class_count:
        _warn(f'"{source.file}" tells {scores} classes, the data have {data.class_count}')
    return data


def require_same_way(file: str, known: Preprocessing, option: str, way: str | None) -> None:
    """DataError where an option that brings images to size contradicts the file."""
    if way != known.resize:
        raise DataError(
            f'{option} contradicts "{file}", which was trained on images that were brought to '
            f"size by {known.resize}: leave it out, or say {known.resize}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=3)


def held_out(data: Dataset) -> HeldOut:
    """The images to validate on, with their classes; those to test on where there are none."""
    if len(data.x_val):
        return data.x_val, data.y_val
    return (data.x_test, data.y_test) if len(data.x_test) else (None, None)


def samples(spec: str, normalize: str | None, source: Source, count: int) -> Array:
    """The images of `samples_and_data`."""
    return samples_and_data(spec, normalize, source, count)[0]


def samples_and_data(
    spec: str, normalize: str | None, source: Source, count: int
) -> tuple[Array, Dataset | None]:
    """At most `count` images to train on of `spec` (`Dataset.calibration`), as `source` takes them,
    and the data set that has them; of an archive with an array `x` and no labels, the first of this
    array as they are, and None."""
    path = spec.removeprefix("npz:")
    if Path(path).suffix == ".npz":
        given = load_npz_samples(user_path(path))
        if given is not None:
            return given[:count], None
    data = load_for(source, spec)
    data = matched(source, data)
    return entering(source, data.calibration(count), data, normalize), data
