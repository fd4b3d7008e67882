"""Sizes, strides and packed filters of the forward contractions: what their kernels share as data.

The contract is in `dense.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from addergraph.ir import Array
from addergraph.ir.types import u8
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d

from .. import Operand
from ..schedule import ceil_div

DIRECT, MINIMUM, PRODUCT = "direct", "minimum", "product"
BYTES, BYTE_PRODUCT = "bytes", "byte_product"
CHANNEL_BLOCK = 8  # part of the result's definition, like the next: not of a target
SUM_LANES = 8  # virtual lanes of the channel sums


@dataclass(frozen=True)
class Geometry:
    """The loop bounds and byte strides of one windowed contraction; dense layers are 1x1 windows.

    A dense layer's rows are image rows of width 1, so that tiles run over them.
    """

    form: str
    samples: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    groups: int
    inputs: int  # channels of one group
    outputs: int  # channels of one group
    rows_in: int  # of the input, padding aside
    x: tuple[int, int, int]  # bytes between samples, rows, columns
    y: tuple[int, int, int]

    @property
    def steps(self) -> int:
        """Reduction length of one output."""
        return self.kernel[0] * self.kernel[1] * self.inputs

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns between the first and the last tap of a window."""
        rows, columns = ((k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True))
        return rows, columns

    @property
    def read(self) -> tuple[int, int]:
        """Rows and columns of the (padded) input that the windows span."""
        spans = zip((self.height, self.width), self.stride, self.reach, strict=True)
        height, width = ((n - 1) * s + reach + 1 for n, s, reach in spans)
        return height, width

    @property
    def channel_block(self) -> int:
        """Input channels that are summed over all taps before the next ones: see the contract."""
        return CHANNEL_BLOCK if self.kernel != (1, 1) else max(1, self.inputs)


def geometry(op: Any, x: Operand, f: Operand, y: Operand) -> Geometry:
    if isinstance(op, Adder2d | Conv2d):
        i, j, inputs, made = f.shape
        n, h, w, _ = y.shape
        return Geometry(
            _form(op, x), n, h, w, (i, j), op.stride, op.dilation, (op.padding[0], op.padding[2]),
            op.groups, inputs, made // op.groups, x.shape[1], image_strides(x.strides),
            image_strides(y.strides),
        )  # fmt: skip
    rows, (inputs, made) = x.shape[0], f.shape
    return Geometry(
        _form(op, x), 1, rows, 1, (1, 1), (1, 1), (1, 1), (0, 0), 1, inputs, made, rows,
        (0, x.strides[0], 0), (0, y.strides[0], 0),
    )  # fmt: skip


def _form(op: Any, x: Operand) -> str:
    if not isinstance(op, Adder2d | AdderDense):
        return BYTE_PRODUCT if x.type.dtype == u8 else PRODUCT
    if x.type.dtype == u8:
        return BYTES
    return MINIMUM if op.input_nonnegative else DIRECT


def image_strides(strides: tuple[int, ...]) -> tuple[int, int, int]:
    """Bytes between samples, rows and columns of an NHWC tensor."""
    return strides[0], strides[1], strides[2]


def pack_filter(f: Array, g: Geometry, width: int) -> Array:
    """[group][block][step][width] from HWIO (or a [K, T] matrix), channels padded with zeros.

    The steps are in the order of summation, see the module's contract.
    """
    taps = g.kernel[0] * g.kernel[1]
    f = f.reshape(taps, g.inputs, g.groups, g.outputs)
    blocks = ceil_div(g.outputs, width)
    padded = np.zeros((taps, g.inputs, g.groups, blocks * width), np.float32)
    padded[..., : g.outputs] = f
    split = padded.reshape(taps, g.inputs, g.groups, blocks, width).transpose(2, 3, 0, 1, 4)
    starts = range(0, g.inputs, g.channel_block)
    sizes = [min(g.channel_block, g.inputs - k) for k in starts]
    parts = [
        split[:, :, :, k : k + size].reshape(g.groups, blocks, taps * size, width)
        for k, size in zip(starts, sizes, strict=True)
    ]
    return np.concatenate(parts, axis=2) if parts else split.reshape(g.groups, blocks, 0, width)


def pack(f: Array, g: Geometry, width: int) -> Array:
    """The packed filter, followed in the minimum form by the packed sums."""
    packed = pack_filter(f, g, width)
    if g.form != MINIMUM:
        return packed.reshape(-1)
    sums = np.zeros((*packed.shape[:2], width), np.float32)
    for step in range(packed.shape[2]):
        sums += np.abs(packed[:, :, step])
    positive = np.where(packed > 0, packed, np.float32(0))
    return np.concatenate([positive.reshape(-1), sums.reshape(-1)])
