"""MNIST and Fashion-MNIST: grey images of 28x28 in ten classes, in four IDX files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import DataError, StorageError
from ..ir import Array
from .dataset import Dataset, require_labels
from .files import Source, check_counts, check_sums
from .idx import read_idx

_SIDE = 28


# The sums are those torchvision checks (torchvision/datasets/mnist.py); those of Fashion-MNIST
# are also in its README.
MNIST = Source(
    "mnist",
    "http://yann.lecun.com/exdb/mnist/ (copy: https://ossci-datasets.s3.amazonaws.com/mnist/)",
    tuple("0123456789"),
    60000,
    10000,
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)
FASHION_MNIST = Source(
    "fashion-mnist",
    "https://github.com/zalandoresearch/fashion-mnist",
    (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    60000,
    10000,
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)  # fmt: skip


def load(source: Source, folder: Path, verify: bool = False) -> Dataset:
    """The data set from the four files in `folder`, each as published or unpacked.

    `verify` asks for the published sums (`files.check_sums`); counts other than the published ones
    are warned of. StorageError for missing or damaged files, DataError for files of another kind,
    labels out of range, or unequal counts.
    """
    paths = _paths(source, folder)
    check_sums(paths, source, verify)
    x_train, y_train = _part(source, *paths[:2])
    x_test, y_test = _part(source, *paths[2:])
    check_counts(source, len(x_train), len(x_test))
    return Dataset(source.name, x_train, y_train, x_test, y_test, source.classes)


def _paths(source: Source, folder: Path) -> list[Path]:
    """The files, in the order of `source.md5`; the published form first."""
    found = []
    for name in source.md5:
        # Published with hyphens; unpacked from other mirrors, "train-images.idx3-ubyte".
        names = (name, name.removesuffix(".gz"))
        choices = [folder / n for n in (*names, *(n.replace("-idx", ".idx") for n in names))]
        found += [path for path in choices if os.path.isfile(path)][:1]
    if len(found) == len(source.md5):
        return found
    present = {path.name.removesuffix(".gz").replace(".idx", "-idx") for path in found}
    missing = [name for name in source.md5 if name.removesuffix(".gz") not in present]
    raise StorageError(
        f'{source.name}: folder "{folder}" lacks {", ".join(missing)} (or the same without .gz); '
        f"get them from {source.page} and put them there"
    )


def _part(source: Source, images: Path, labels: Path) -> tuple[Array, Array]:
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if x.shape[1:] != (_SIDE, _SIDE):
        raise DataError(f'"{images}": images are {x.shape[1:]}; expected ({_SIDE}, {_SIDE})')
    if len(x) != len(y):
        raise DataError(f'"{images}" has {len(x)} images, "{labels}" {len(y)} labels')
    require_labels(y, len(source.classes), f'"{labels}"')
    return x[..., None], y.astype(np.int64)
