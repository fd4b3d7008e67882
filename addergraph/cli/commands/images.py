"""The images of `--data` as a network shall see them."""

from __future__ import annotations

from pathlib import Path

from ...data import Dataset, Normalize, load
from ...data.npz import load_npz_samples
from ...files.storage import user_path
from ...ir import Array
from ...training.recipes import Images


def normalized(images: Array, data: Dataset, normalize: str) -> Array:
    """`images` of `data`, normalized as a recipe's `normalize` says."""
    chosen = Images(normalize=normalize).normalization(data)
    return images if chosen is None else chosen.apply(images)


def samples(spec: str, normalize: str) -> Array:
    """The images to train on of `spec`, normalized; of an archive with an array `x` and no labels,
    this array as it is: what the network takes.
    """
    path = spec.removeprefix("npz:")
    if Path(path).suffix == ".npz":
        given = load_npz_samples(user_path(path))
        if given is not None:
            return given
    data = load(spec)
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
