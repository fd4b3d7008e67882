"""The images of `--data` as a network shall see them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...data import Dataset, Normalize, load
from ...data.npz import load_npz_samples
from ...errors import DataWarning
from ...files.storage import user_path
from ...ir import Array
from ...model import Model
from ...quantization import Quantized
from ...training.recipes import Images


def normalized(images: Array, data: Dataset, normalize: str) -> Array:
    """`images` of `data`, normalized as a recipe's `normalize` says."""
    chosen = Images(normalize=normalize).normalization(data)
    return images if chosen is None else chosen.apply(images)


def warn_of_others(
    file: str, network: Model | Quantized | None, data: Dataset, normalize: str
) -> None:
    """DataWarning for images that enter otherwise than those that `network` was trained on, or show
    other classes; what the file does not say is not compared.
    """
    if network is None:
        return
    graph = network.inference_graph()
    if graph.inputs[0].type.shape[1:] != data.shape:  # the network will say so
        return
    trained, here = network.seen, data.seen(Images(normalize=normalize).normalization(data))
    if trained.normalize is not None and not _is_close(trained.normalize, here.normalize):
        _warn(
            f'"{file}" was trained on images that {_shown(trained.normalize)}; these '
            f"{_shown(here.normalize)}: give --normalize as it was trained"
        )
    if trained.classes and here.classes and trained.classes != here.classes:
        _warn(
            f'"{file}" tells the classes {_some(trained.classes)}; "{data.name}" has '
            f"{_some(here.classes)}: numbers of classes that mean other things are compared"
        )
    answers = graph.outputs[0].type
    scores = answers.shape[-1] if answers.rank > 1 else 1
    if scores != 1 and scores != data.class_count:
        _warn(f'"{file}" tells {scores} classes, the data have {data.class_count}')


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=3)


def _is_close(a: Normalize, b: Normalize | None) -> bool:
    """Whether full brightness and none become about the same numbers."""
    if b is None or len(a.mean) != len(b.mean):
        return False
    ours, theirs = ((np.array([[0.0], [n.scale]]) - n.mean) / n.std for n in (a, b))
    return bool(np.allclose(ours, theirs, rtol=0.01, atol=0.01))


def _shown(normalize: Normalize | None) -> str:
    assert normalize is not None  # `Dataset.seen` says it
    mean, std = (", ".join(f"{v:.4g}" for v in n) for n in (normalize.mean, normalize.std))
    return f"enter as (brightness * {normalize.scale:.4g} - ({mean})) / ({std})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def samples(spec: str, normalize: str, file: str, model: Model | None) -> Array:
    """The images to train on of `spec`, normalized, for the network in `file`; of an archive with
    an array `x` and no labels, this array as it is: what the network takes.
    """
    path = spec.removeprefix("npz:")
    if Path(path).suffix == ".npz":
        given = load_npz_samples(user_path(path))
        if given is not None:
            return given
    data = load(spec)
    warn_of_others(file, model, data, normalize)
    return normalized(data.x_train, data, normalize)


def entering(normalize: Normalize | None) -> str:
    """What a pixel becomes, which whoever runs the network has to do as well."""
    if normalize is None:
        return "pixels enter as they are stored"
    scale = f"pixel * {normalize.scale:g}"
    if not any(normalize.mean) and set(normalize.std) == {1.0}:
        return f"pixels enter as {scale}"
    mean, std = (
        ", ".join(f"{v:.4f}" for v in values) for values in (normalize.mean, normalize.std)
    )
    return f"pixels enter as ({scale} - mean) / std, mean {mean}, std {std}"
