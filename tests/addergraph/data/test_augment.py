"""Random crops and mirror images against a loop over images, and normalisation in f32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.data import Augment, Normalize
from addergraph.errors import DataError
from addergraph.ir import Array


def _one_by_one(x: Array, augment: Augment, random: np.random.Generator) -> Array:
    p, (count, height, width, _) = augment.padding, x.shape
    top, left = random.integers(0, 2 * p + 1, size=(2, count))
    mirrored = random.random(count) < augment.flip
    y = np.zeros_like(x)
    for i in range(count):
        image = np.zeros((height + 2 * p, width + 2 * p, x.shape[3]), x.dtype)
        image[p : p + height, p : p + width] = x[i]
        image = image[top[i] : top[i] + height, left[i] : left[i] + width]
        y[i] = image[:, ::-1] if mirrored[i] else image
    return y


@given(
    shape=st.tuples(st.integers(1, 5), *[st.integers(1, 6)] * 2, st.integers(1, 4)),
    padding=st.integers(0, 5),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(["u1", "f4"]),
)
def test_images_are_those_cropped_one_by_one(
    shape: tuple[int, ...], padding: int, flip: float, seed: int, dtype: str
) -> None:
    x = np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)
    before, augment = x.copy(), Augment(padding, flip)
    y = augment.apply(x, np.random.default_rng(seed))
    assert np.array_equal(y, _one_by_one(x, augment, np.random.default_rng(seed)))
    assert y.dtype == x.dtype and y.flags.c_contiguous
    assert np.array_equal(x, before) and not np.shares_memory(x, y)


def test_every_place_and_both_directions_come_equally_often() -> None:
    x = np.zeros((4000, 3, 3, 1), np.uint8)
    x[:, 1, 1] = 1  # its place in the crop says which crop it was
    y = Augment(padding=1, flip=0.0).apply(x, np.random.default_rng(0))
    places = y.reshape(4000, 9).sum(axis=0)
    assert places.sum() == 4000 and np.abs(places - 4000 / 9).max() < 80  # 4 deviations
    x = np.tile(np.array([[1, 0]], np.uint8), (4000, 1, 1))[..., None]
    mirrored = Augment(flip=0.25).apply(x, np.random.default_rng(0))[:, 0, 1, 0].mean()
    assert abs(mirrored - 0.25) < 0.03


def test_augment_refuses_settings_and_shapes() -> None:
    with pytest.raises(DataError, match=r"padding=-1 must be an integer of at least 0"):
        Augment(padding=-1)
    with pytest.raises(DataError, match=r"padding=True"):
        Augment(padding=True)
    for flip in (-0.1, 1.5, float("nan")):
        with pytest.raises(DataError, match=rf"flip={flip}.*must be at least 0 and at most 1"):
            Augment(flip=flip)
    with pytest.raises(DataError, match=r"images \[N,H,W,C\], found shape \(3, 4\)"):
        Augment(1).apply(np.zeros((3, 4), np.uint8), np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (2, 3), (0, 4, 4, 3), (7, 3, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("top", [255, 16])
def test_normalisation_is_the_formula_to_rounding(
    shape: tuple[int, ...], dtype: type, top: int
) -> None:
    x: Array = np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)
    normalize = Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 1 / top)
    y = normalize.apply(x)
    exact = (x / top - np.array(normalize.mean)) / np.array(normalize.std)
    assert y.dtype == np.float32 and y.flags.c_contiguous
    assert not y.size or y.ctypes.data % 64 == 0
    # a x, b and their sum each round once, and |a x|, |b| stay below 5.1.
    assert np.abs(y - exact).max(initial=0) <= 5.1 * 4 * 2.0**-24
    assert y.shape == shape


def test_the_default_scale_is_that_of_bytes() -> None:
    assert Normalize((0.0,), (1.0,)).apply(np.array([[255]], np.uint8)) == 1.0


def test_normalize_refuses_settings_and_channels() -> None:
    for mean, std, scale, message in [
        ((0.5,), (0.1, 0.1), 1.0, r"mean has 1 numbers and std 2"),
        ((), (), 1.0, r"mean has 0 numbers"),
        ((0.5,), (0.0,), 1.0, r"above 0"),
        ((0.5,), (-1.0,), 1.0, r"above 0"),
        ((0.5,), (0.1,), 0.0, r"above 0"),
        ((float("nan"),), (0.1,), 1.0, r"finite"),
        ((0.5,), (float("inf"),), 1.0, r"finite"),
    ]:
        with pytest.raises(DataError, match=message):
            Normalize(mean, std, scale)
    with pytest.raises(DataError, match=r"has 1 channels, samples have shape \(4, 4, 3\)"):
        Normalize((0.5,), (0.1,)).apply(np.zeros((2, 4, 4, 3), np.uint8))
