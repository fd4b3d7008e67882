"""CIFAR-10 and CIFAR-100: colour images of 32x32, in their binary and their python version.

Formats: https://www.cs.toronto.edu/~kriz/cifar.html. A record of the binary version is the label
(CIFAR-100: the coarse, then the fine label), then 1024 red, 1024 green and 1024 blue bytes, row by
row. A file of the python version is a pickled dict with `data` u8[N,3072], in that order of bytes,
and `labels` (CIFAR-100: `fine_labels`), a list of N integers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, StorageError
from ..ir import Array
from .dataset import Dataset, require_labels
from .files import Source, check_counts, check_sums, read_members, read_unpacked
from .pickled import read_pickle

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_PIXELS = 3 * 32 * 32
_COARSE_CLASSES = 20

Part = tuple[Array, Array]


@dataclass(frozen=True)
class Version:
    """The files of one published archive; `parse` makes images and labels of one of them."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    parse: Callable[[bytes, str], Part]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)


def load(name: str, path: Path, verify: bool = False) -> Dataset:
    """`cifar10` or `cifar100` from a published archive, or a folder with it or its files.

    In a folder, its files are looked for first, there and in the subfolder of the archive, the
    binary version first; then the archives. Nothing is unpacked to disk. `verify` asks for the
    published sum of the archive (`files.check_sums`); counts other than the published ones are
    warned of. StorageError for missing or damaged files, DataError for content that is no CIFAR,
    labels out of range, and anything in a pickle but arrays, lists, dicts, text and integers.
    """
    source, versions = _SETS[name]
    version, files = _open(source, versions, path, verify)
    parts = {file: version.parse(data, where) for file, where, data in files}
    x_train, y_train = _joined(parts[file] for file in version.train)
    x_test, y_test = parts[version.test]
    check_counts(source, len(x_train), len(x_test))
    return Dataset(name, x_train, y_train, x_test, y_test, source.classes, channels="rgb")


Files = Iterable[tuple[str, str, bytes]]  # name, what messages call it, content


def _open(
    source: Source, versions: Sequence[Version], path: Path, verify: bool
) -> tuple[Version, Files]:
    if os.path.isfile(path):
        return _archive(source, versions, path, verify)
    for version in versions:
        for folder in (path, path / version.folder):
            if any(os.path.isfile(folder / file) for file in version.files):
                return version, _folder(source, version, folder, verify)
    for version in versions:
        for name in (version.archive, version.archive.removesuffix(".gz")):
            if os.path.isfile(path / name):
                return _archive(source, versions, path / name, verify)
    found = "is a folder without them" if os.path.isdir(path) else "does not exist"
    raise StorageError(
        f"{source.name}: expected {' or '.join(v.archive for v in versions)}, or a folder with one "
        f"of them or with the files of one ({'; or '.join(', '.join(v.files) for v in versions)}); "
        f'"{path}" {found}. Get one of the archives from {source.page} and give its path'
    )


def _folder(source: Source, version: Version, folder: Path, verify: bool) -> Files:
    missing = [file for file in version.files if not os.path.isfile(folder / file)]
    if missing:
        raise StorageError(
            f'{source.name}: folder "{folder}" lacks {", ".join(missing)}; '
            f"they are in {version.archive} from {source.page}"
        )
    if verify:
        check_sums([folder], source, verify)
    paths = [(file, folder / file) for file in version.files]
    return ((file, f'"{path}"', bytes(read_unpacked(path))) for file, path in paths)


def _archive(
    source: Source, versions: Sequence[Version], path: Path, verify: bool
) -> tuple[Version, Files]:
    """The version whose members an archive has, in the published folder or, where somebody packed
    the files again, at its top; its name does not matter, but for the sum."""
    check_sums([path], source, verify)
    places = [(v, at) for at in ("{}/", "") for v in versions]
    found = read_members(path, {at.format(v.folder) + file for v, at in places for file in v.files})
    for version, at in places:
        names = [(file, at.format(version.folder) + file) for file in version.files]
        present = [name for _, name in names if name in found]
        if not present:
            continue
        missing = [name for _, name in names if name not in found]
        if missing:
            raise StorageError(f'"{path}" lacks the members {", ".join(missing)}; get it again')
        return version, (
            (file, f'"{path}", member "{name}"', found.pop(name)) for file, name in names
        )
    raise DataError(
        f'"{path}" is no archive of {source.name}: expected members '
        f"{' or '.join(f'{v.folder}/{v.test}' for v in versions)}"
    )


def _joined(parts: Iterable[Part]) -> Part:
    x, y = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(y)


def _binary(labels: Sequence[int]) -> Callable[[bytes, str], Part]:
    """Records that begin with one label of each of these numbers of classes; the last is used."""

    def parse(data: bytes, where: str) -> Part:
        size = len(labels) + _PIXELS
        if not data or len(data) % size:
            raise StorageError(
                f"{where} has {len(data)} bytes; expected records of {size} bytes "
                f"({len(data) // size} are whole): it is truncated or another format"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, size)
        for column, classes in enumerate(labels):
            require_labels(records[:, column], classes, where)
        y = records[:, len(labels) - 1].astype(np.int64)
        return _images(records[:, len(labels) :]), y

    return parse


def _python(key: str, classes: int) -> Callable[[bytes, str], Part]:
    """A pickled dict whose labels are under `key`."""

    def parse(data: bytes, where: str) -> Part:
        content = read_pickle(data, where)
        missing = [name for name in ("data", key) if name not in content]
        if missing:
            raise DataError(f'{where} lacks "{missing[0]}"; it has {", ".join(content)}')
        x, labels = content["data"], content[key]
        if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != _PIXELS or not len(x):
            found = f"an array {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise DataError(f'{where}: "data" is {found}; expected u8 [N,{_PIXELS}]')
        return _images(x), _labels(labels, len(x), classes, f'{where}, "{key}"')

    return parse


def _labels(labels: Any, count: int, classes: int, where: str) -> Array:
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{where} is no list of integers")
    if len(labels) != count:
        raise DataError(f"{where}: {len(labels)} labels for {count} images")
    y = np.array(labels, dtype=object)  # Python's integers: a label of a broken file may be huge
    require_labels(y, classes, where)
    return y.astype(np.int64)


def _images(planes: Array) -> Array:
    """u8 [N,32,32,3] of rows of 1024 red, 1024 green and 1024 blue bytes."""
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR10 = (
    Source(
        "cifar10",
        _PAGE,
        (
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        50000,
        10000,
        {
            "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
            "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        },
    ),
    (
        Version(
            "cifar-10-binary.tar.gz",
            "cifar-10-batches-bin",
            tuple(f"{name}.bin" for name in _BATCHES),
            "test_batch.bin",
            _binary([10]),
        ),
        Version(
            "cifar-10-python.tar.gz",
            "cifar-10-batches-py",
            _BATCHES,
            "test_batch",
            _python("labels", 10),
        ),
    ),
)  # fmt: skip
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_CIFAR100 = (
    Source(
        "cifar100",
        _PAGE,
        tuple(_CIFAR100_CLASSES.split()),
        50000,
        10000,
        {
            "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
            "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
        },
    ),
    (
        Version(
            "cifar-100-binary.tar.gz",
            "cifar-100-binary",
            ("train.bin",),
            "test.bin",
            _binary([_COARSE_CLASSES, 100]),
        ),
        Version(
            "cifar-100-python.tar.gz",
            "cifar-100-python",
            ("train",),
            "test",
            _python("fine_labels", 100),
        ),
    ),
)
_SETS = {"cifar10": _CIFAR10, "cifar100": _CIFAR100}
