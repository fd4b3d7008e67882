"""From the bytes of an image to those of the first layer's grid: docs/preprocessing.md.

Known here is `levels`, f32[C,256]: the real number that each byte becomes in each channel.
"""

from __future__ import annotations

import numpy as np

from addergraph.ir import Array
from addergraph.ir.quantization import Quantization

IMAGE_BITS = 8
PIXEL = Quantization(1.0)  # a byte as such
_COARSER = 1.05  # than the range needs: a grid whose steps are larger by more is not taken
_ROUND = 1e-3  # steps by which a byte may stand for another number than its level


def grid_of_bytes(levels: Array, found: Quantization) -> Quantization | None:
    """The grid on which each byte is its own integer, in all channels; None where there is none,
    or where its steps are coarser than those of `found`, the grid of the values' range."""
    first, last = levels[:, 0].astype("f8"), levels[:, -1].astype("f8")
    if (levels != levels[0]).any() or last[0] <= first[0]:
        return None
    scale = (last[0] - first[0]) / (levels.shape[1] - 1)
    zero_point = -first[0] / scale
    whole = round(zero_point)
    if scale > _COARSER * found.scale or abs(zero_point - whole) > _ROUND or not 0 <= whole <= 255:
        return None
    return Quantization(float(scale), whole)


def table_of(levels: Array, known: Quantization, top: int) -> Array | None:
    """u8[C,256], the integer of each byte on the grid `known`; None where it is the byte itself."""
    table = known.quantized(levels, 0, top).astype(np.uint8)
    if top == 255 and (table == np.arange(256)).all():
        return None
    return table
