"""Sizes and strides of the forward layer, as its two gradient kernels see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...emit.builder import Emitter, Index
from .. import Operand

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class LayerShape:
    """Sizes of the forward layer, dense layers as 1x1 windows over one row per sample."""

    samples: int
    image: tuple[int, int]  # input height and width
    output: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    groups: int
    inputs: int  # of one group
    outputs: int


def pixel_strides(operand: Operand) -> Triple:
    """Bytes between samples, rows and columns."""
    s = operand.strides
    return (s[0], s[1], s[2]) if len(s) == 4 else (s[0], 0, 0)


def filter_row(e: Emitter, f: Operand, row: Index) -> Index:
    """Bytes to row number `row` of a filter seen as a matrix [(i, j, k), T].

    Its buffer may have a halo: the filter of one layer can be another one's image.
    """
    if f.layout.dense:
        return e.mul(row, f.strides[-2])
    return e.dot(e.split(row, f.shape[:-1]), f.strides[:-1])


def layer_shape(op: Any, g: Operand, x: tuple[int, ...], f: tuple[int, ...]) -> LayerShape:
    if len(f) == 2:
        one = (1, 1)
        return LayerShape(g.shape[0], one, one, one, one, one, (0, 0), 1, f[0], f[1])
    return LayerShape(
        g.shape[0], (x[1], x[2]), (g.shape[1], g.shape[2]), (f[0], f[1]), op.stride, op.dilation,
        (op.padding[0], op.padding[2]), op.groups, f[2], f[3] // op.groups,
    )  # fmt: skip
