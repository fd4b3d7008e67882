"""Which grids take the bytes of an image as they are."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.ir import Array
from addergraph.ir.quantization import Quantization
from addergraph.passes.quantize.image import grid_of_bytes, table_of

BYTES = np.arange(256, dtype="f4")
FOUND = Quantization(1 / 255, 0)


def levels(*scales: float, shift: float = 0.0) -> Array:
    return np.stack([np.float32(scale) * (BYTES - np.float32(shift)) for scale in scales])


def test_one_grid_is_that_of_all_channels() -> None:
    alike = grid_of_bytes(levels(1 / 255, 1 / 255), FOUND)
    assert alike is not None and alike.scale == pytest.approx(1 / 255) and alike.zero_point == 0
    assert table_of(levels(1 / 255, 1 / 255), alike, 255) is None
    assert grid_of_bytes(levels(1 / 255, 0.9 / 255), FOUND) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (levels(-1 / 255), "a byte's number falls"),
        (levels(2 / 255), "the steps are coarser than the range needs"),
        (levels(1 / 255, shift=3.5), "zero lies between two bytes"),
        (levels(1 / 255, shift=300.0), "zero is no byte"),
    ],
)
def test_bytes_that_are_no_grid(given: Array, reason: str) -> None:
    assert grid_of_bytes(given, FOUND) is None, reason


def test_other_bytes_are_looked_up() -> None:
    table = table_of(levels(2 / 255), FOUND, 255)
    assert table is not None and table.dtype == np.uint8 and table.shape == (1, 256)
    assert table[0, :4].tolist() == [0, 2, 4, 6] and table[0, 200] == 255
