"""Embedded digits, and reading a user's own archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from addergraph.data import digits, load_npz
from addergraph.errors import DataError, StorageError


def test_digits_have_the_stated_shapes_types_and_range() -> None:
    d = digits.load()
    assert d.x_train.shape == (1437, 8, 8, 1) and d.x_test.shape == (360, 8, 8, 1)
    assert d.y_train.shape == (1437,) and d.y_test.shape == (360,)
    assert d.x_train.dtype == np.float32 and d.y_train.dtype == np.int64
    assert d.x_train.min() == 0.0 and d.x_train.max() == 1.0
    assert np.array_equal(d.x_train * 16, np.round(d.x_train * 16))


def test_the_split_is_stratified_and_disjoint() -> None:
    d = digits.load()
    train, test = np.bincount(d.y_train), np.bincount(d.y_test)
    assert len(train) == len(test) == digits.CLASSES
    assert np.abs(test - (train + test) * 360 / 1797).max() < 1
    everything = np.concatenate([d.x_train, d.x_test]).reshape(1797, -1)
    assert everything.sum() * 16 == 561718  # the sum of all pixels of the source
    assert len(np.unique(everything, axis=0)) == 1797  # so no image is in both parts


def test_the_split_is_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    source = datasets.load_digits()
    train, test = selection.train_test_split(
        np.arange(1797), test_size=360, stratify=source.target, random_state=0
    )
    d = digits.load()
    assert np.array_equal(d.y_train, source.target[train])
    assert np.array_equal(d.x_test[..., 0] * 16, source.images[test])


def test_load_npz_gives_what_was_saved(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), np.array([0, 1, 2])
    np.savez_compressed(tmp_path / "mine.npz", x=x, y=y)
    loaded_x, loaded_y = load_npz(tmp_path / "mine.npz")
    assert np.array_equal(loaded_x, x) and loaded_x.dtype == np.uint8
    assert np.array_equal(loaded_y, y)


def test_load_npz_names_what_is_missing(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match=r'no array "x".*images, y.*np.savez'):
        load_npz(tmp_path / "mine.npz")


def test_load_npz_refuses_different_lengths(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(DataError, match=r"\(3, 2\).*\(4,\).*one label for each"):
        load_npz(tmp_path / "mine.npz")


def test_load_npz_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.array([object()], dtype=object), y=np.zeros(1))
    with pytest.raises(DataError, match=r"mine\.npz"):
        load_npz(tmp_path / "mine.npz")


def test_load_npz_refuses_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"holds one array"):
        load_npz(tmp_path / "mine.npy")


def test_load_npz_refuses_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read"):
        load_npz(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "mine.npz", x=np.ones((50, 4)), y=np.zeros(50))
    data = bytearray((tmp_path / "mine.npz").read_bytes())
    (tmp_path / "short.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageError, match=r"short\.npz"):
        load_npz(tmp_path / "short.npz")
    data[400] ^= 4  # inside the numbers of x: the archive's CRC notices
    (tmp_path / "flipped.npz").write_bytes(data)
    with pytest.raises(StorageError, match=r"flipped\.npz"):
        load_npz(tmp_path / "flipped.npz")
