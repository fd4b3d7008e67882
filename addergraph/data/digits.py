"""Handwritten digits, embedded: 1797 grey images of 8x8 (ATTRIBUTION.md beside this file)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..ir import Array
from .dataset import Dataset
from .npz import read_npz

CLASSES = 10


class Digits(NamedTuple):
    """Images f32[N,8,8,1] in 0..1 and labels i64[N] in 0..9: 1437 to train, 360 to test."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array

    def __repr__(self) -> str:
        return (
            f"<Digits: {len(self.x_train):,} images 8x8x1 to train, {len(self.x_test):,} to test>"
        )


def dataset() -> Dataset:
    """The digits with their fixed, stratified split, as bytes 0..16; no download."""
    path = Path(__file__).with_name("digits.npz")
    images, labels, train, test = read_npz(path, "images", "labels", "train", "test")
    x, y = images[..., None], labels.astype(np.int64)
    names = tuple(str(digit) for digit in range(CLASSES))
    return Dataset("digits", x[train], y[train], x[test], y[test], names, scale=1 / 16)


def load() -> Digits:
    """The digits as f32 in 0..1."""
    d = dataset()
    sixteen = np.float32(16)
    return Digits(
        d.x_train.astype(np.float32) / sixteen,
        d.y_train,
        d.x_test.astype(np.float32) / sixteen,
        d.y_test,
    )
