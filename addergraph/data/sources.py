"""The front door: a data set by a word and a path, as the command line writes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import border
from ..errors import DataError, nearest
from ..files.storage import user_path
from . import cifar, digits, folder, mnist
from .dataset import Dataset
from .npz import load_npz_dataset

_READERS: dict[str, Callable[[Path, bool], Dataset]] = {
    "mnist": lambda path, verify: mnist.load(mnist.MNIST, path, verify),
    "fashion-mnist": lambda path, verify: mnist.load(mnist.FASHION_MNIST, path, verify),
    "cifar10": lambda path, verify: cifar.load("cifar10", path, verify),
    "cifar100": lambda path, verify: cifar.load("cifar100", path, verify),
    "npz": lambda path, verify: _own(path, verify, load_npz_dataset),
    "folder": lambda path, verify: _own(path, verify, folder.load),
}
_FORMS = ", ".join(("digits", *(f"{name}:PATH" for name in _READERS)))


def load(spec: str, *, verify: bool = False) -> Dataset:
    """The data set that `spec` names; a leading `~` of a path is the home folder.

    * `digits`: embedded;
    * `mnist:FOLDER`, `fashion-mnist:FOLDER`: the four IDX files, packed or not;
    * `cifar10:PATH`, `cifar100:PATH`: an archive, or a folder with it or with its files;
    * `npz:FILE`, or just a path that ends in .npz: arrays `x_train`, `y_train` (or `x`, `y`), and
      if they are there `x_val`, `y_val`, `x_test`, `y_test`, and `classes`;
    * `folder:PATH`: PNG, JPEG, BMP, PPM and PGM images in PATH/CLASS, or in PATH/train/CLASS,
      PATH/val/CLASS and PATH/test/CLASS; with `?size=32x32` behind it brought to a size.

    `verify` compares published packed files with their published MD5 and refuses others; without
    it a different sum is a DataWarning. StorageError says which files are missing, where they
    belong and where they come from, or which are damaged; DataError what is wrong with their
    content or with `spec`.
    """
    spec, verify = border.word("data", spec), border.flag("verify", verify)
    if spec == "digits":
        return digits.dataset()
    name, _, path = spec.partition(":")
    if not path or name not in _READERS:
        if spec.endswith(".npz"):
            return _own(user_path(spec), verify, load_npz_dataset)
        known = ("digits", *_READERS)
        hint = "" if name in known else nearest(name, known)
        if name not in known and spec and os.path.isdir(user_path(spec)):
            hint = f' (a folder of images? say "folder:{spec}")'
        raise DataError(f'data "{spec}"{hint}: expected {_FORMS}, or the path of an .npz file')
    return _READERS[name](user_path(path), verify)


def load_as(spec: str, shape: Sequence[int], how: str | None) -> Dataset:
    """As `load`; images of a folder become those of `shape`, (H, W, C), where `spec` does not say
    otherwise: grey or coloured, and brought to size by `how`, if any."""
    name, _, path = spec.partition(":")
    if name != "folder" or not path:
        return load(spec)
    height, width, channels = shape
    unless = {"size": f"{height}x{width}", "how": how} if how is not None else {}
    if channels in (1, 3):
        unless["channels"] = str(channels)
    return folder.load(user_path(path), unless)


def _own(path: Path, verify: bool, read: Callable[[Path], Dataset]) -> Dataset:
    if verify:
        raise DataError(f'"{path}" cannot be verified: nobody publishes a sum for data of your own')
    return read(path)
