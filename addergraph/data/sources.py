"""The front door: a data set by a word and a path, as the command line writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import border
from ..errors import DataError, nearest
from ..files.storage import user_path
from . import cifar, digits, mnist
from .dataset import Dataset
from .npz import load_npz_dataset

_READERS: dict[str, Callable[[Path, bool], Dataset]] = {
    "mnist": lambda path, verify: mnist.load(mnist.MNIST, path, verify),
    "fashion-mnist": lambda path, verify: mnist.load(mnist.FASHION_MNIST, path, verify),
    "cifar10": lambda path, verify: cifar.load("cifar10", path, verify),
    "cifar100": lambda path, verify: cifar.load("cifar100", path, verify),
    "npz": lambda path, verify: _npz(path, verify),
}
_FORMS = ", ".join(("digits", *(f"{name}:PATH" for name in _READERS)))


def load(spec: str, *, verify: bool = False) -> Dataset:
    """The data set that `spec` names; a leading `~` of a path is the home folder.

    * `digits`: embedded;
    * `mnist:FOLDER`, `fashion-mnist:FOLDER`: the four IDX files, packed or not;
    * `cifar10:PATH`, `cifar100:PATH`: an archive, or a folder with it or with its files;
    * `npz:FILE`, or just a path that ends in .npz: arrays `x_train`, `y_train`, and if they are
      there `x_test`, `y_test`; or `x` and `y`, all to train on.

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
            return _npz(user_path(spec), verify)
        known = ("digits", *_READERS)
        hint = "" if name in known else nearest(name, known)
        raise DataError(f'data "{spec}"{hint}: expected {_FORMS}, or the path of an .npz file')
    return _READERS[name](user_path(path), verify)


def _npz(path: Path, verify: bool) -> Dataset:
    if verify:
        raise DataError(f'"{path}" cannot be verified: nobody publishes a sum for an own archive')
    return load_npz_dataset(path)
