"""Sizes, strides and packed filters of the contractions: what their kernels share as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...emit.builder import Emitter, Index
from .. import Operand
from .terms import Term

CHANNEL_BLOCK = 8  # part of the result's definition, like the next: not of a target
SUM_LANES = 8  # virtual lanes of the channel sums


@dataclass(frozen=True)
class Geometry:
    """Sizes and byte strides of one layer as a windowed contraction; its gradients read them, too.

    term             what is summed, see `terms.py`
    samples          images; 1 for a dense layer, whose rows are those of one image of width 1, so
                     that tiles run over them (`rows_as_samples` is the other view)
    height, width    of the output
    image            rows and columns of the input, padding aside
    kernel, stride, dilation, pad    rows and columns each; `pad` is above and to the left
    inputs, outputs  channels of one of the `groups`
    x, y             bytes between samples, rows and columns of the input and of the output
    """

    term: Term
    samples: int
    height: int
    width: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    groups: int
    inputs: int
    outputs: int
    x: tuple[int, int, int]
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
    def taps_adjoin(self) -> bool:
        """Whether the inputs of all taps of a kernel row are one run of memory, in the order (j, k)
        of the filter. Groups, dilation and gaps after pixels (`plan.layout_with_halo`) part them.
        """
        pixel = self.inputs * self.term.number.itemsize
        return self.kernel[1] == 1 or (self.dilation[1] == 1 and self.x[2] == pixel)

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


def geometry(term: Term, op: Any, x: Operand, f: Operand, y: Operand) -> Geometry:
    """The geometry of a layer with input x, filter f and output y.

    `op` is the layer's or that of one of its gradients: both have its stride, padding and so on.
    """
    strides = image_strides(x), image_strides(y)
    if len(f.shape) == 2:
        rows, one = x.shape[0], (1, 1)
        return Geometry(
            term, 1, rows, 1, (rows, 1), one, one, one, (0, 0), 1, *f.shape, *strides
        )  # fmt: skip
    i, j, inputs, made = f.shape
    n, h, w, _ = y.shape
    return Geometry(
        term, n, h, w, (x.shape[1], x.shape[2]), (i, j), op.stride, op.dilation,
        (op.padding[0], op.padding[2]), op.groups, inputs, made // op.groups, *strides,
    )  # fmt: skip


def rows_as_samples(g: Geometry) -> Geometry:
    """The layer of one image of width 1, each of whose rows is a sample of one pixel."""
    x, y = ((rows, 0, 0) for _, rows, _ in (g.x, g.y))
    return replace(g, samples=g.height, height=1, image=(1, 1), x=x, y=y)


def image_strides(operand: Operand) -> tuple[int, int, int]:
    """Bytes between samples, rows and columns of an NHWC tensor, or of a matrix of rows."""
    s = operand.strides
    return (s[0], s[1], s[2]) if len(s) == 4 else (0, s[0], 0)


def filter_row(e: Emitter, f: Operand, row: Index) -> Index:
    """Bytes to row number `row` of a filter seen as a matrix [(i, j, k), T].

    Its buffer may have a halo: the filter of one layer can be another one's image.
    """
    if f.layout.dense:
        return e.mul(row, f.strides[-2])
    return e.dot(e.split(row, f.shape[:-1]), f.strides[:-1])
