"""Forward contractions: adder2d, conv2d, adder_dense, dense, matmul, with a pointwise tail.

    acc[n,h,w,t] = sum_{i,j,k} term(X[n, s*h + d*i - p, s*w + d*j - p, k], F[i,j,k,t])

The term is |x - f|, x f, or min(x, f) where no x is below 0, of f32 or of bytes: `terms.py` has
them, and what becomes of acc. All are one loop nest, which is put together from a term, from
`Steps` that walk the packed filter in the order of summation (`dense_f32.py`, `dense_u8.py`), and
from the tail (`tail.py`). Output channels are in the vector lanes; a tile of output pixels times
vectors of channels stays in registers while the reduction runs. The input carries its zero padding
as a halo, so there are no borders; terms to which zeros add nothing, or a known sum, leave out
kernel rows that a tile would read from padding alone.

A constant filter is packed in NumPy (`packs`); any other into the workspace by a first phase, both
by `packing.py`. For minima of f32 the first phases also write the channel sums of x, f32[group][n]
[row][column]: blocks of SUM_LANES channels in sequence, each by a fixed tree, whatever the target's
lanes are; and from them the window sums, f32[group][n][h][w], taps in order. So the bits of adders
depend neither on ISA nor on tile nor on threads; products of f32 use FMA where there is one.

Special values of minima: as of distances. A NaN in x or f reaches the result through the
two sums (f+ of NaN is 0); an infinity gives -Inf, or NaN where x and f are both +Inf at one tap;
-0.0 counts as 0. But where 2 sum min, sum x or sum|f| overflows, from 3.4e38 on, the result is an
infinity of either sign or NaN, although the distances themselves may sum to a finite number.

Threads share the grid of groups, blocks, samples and tile rows. The output aliases nothing but a
residual, which the tail reads before it writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from addergraph.ir import Graph
from addergraph.ir.plan import align

from ...emit.builder import Emitter, Index, Register
from .. import Call, Packing
from ..cut import piece, pieces
from ..schedule import DENSE, Tile, ceil_div
from .dense_f32 import FloatSteps
from .dense_u8 import ByteSteps
from .steps import Steps
from .tail import ForwardContraction, Place, Tail
from .terms import MINIMUM, ByteTerm
from .window_sums import emit_window_sums

L1_SHARE, L2_SHARE = 0.5, 0.5859375  # of a cache: filters that stay there beside the images


class DenseKernel(ForwardContraction):
    """Every term of every output. See the module's contract."""

    kind = DENSE

    def __init__(self, call: Call, body: Graph | None = None, tile: Tile | None = None) -> None:
        super().__init__(call, body)
        made = ByteSteps if isinstance(self.g.term, ByteTerm) else FloatSteps
        self.tile = tile or made.choose_tile(self.g, self.target)
        self.steps: Steps = made(self.g, self.target, self.tile)
        self.packing = self.steps.packing

    # -- sizes -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        tile = f"{self.tile.pixels}x{self.width}"
        return f"{self.node_op.name}_{self.g.term.label}_{tile}{self.name_ending}"

    @property
    def lanes(self) -> int:
        return self.steps.lanes

    @property
    def width(self) -> int:
        """Channels of one block."""
        return self.packing.width

    @property
    def blocks(self) -> int:
        return self.packing.blocks

    @property
    def block_bytes(self) -> int:
        """Packed filter of one block."""
        return self.packing.block_bytes

    @property
    def window_sum_bytes(self) -> int:
        pixels = self.g.groups * self.g.samples * self.g.height * self.g.width
        return align(4 * pixels) if self.g.term == MINIMUM else 0

    @property
    def channel_sum_bytes(self) -> int:
        """Channel sums of every pixel that a window reads, where windows have several taps."""
        if self.g.term != MINIMUM or self.g.kernel == (1, 1):
            return 0
        return align(4 * self.g.groups * self.g.samples * math.prod(self.g.read))

    @property
    def sum_bytes(self) -> int:
        return self.window_sum_bytes + self.channel_sum_bytes

    @property
    def workspace(self) -> int:
        return self.sum_bytes + (0 if self.is_constant else align(self.packing.nbytes))

    @property
    def packs(self) -> dict[int, Packing]:
        return {self.operands[1]: self.packing} if self.is_constant else {}

    @property
    def order(self) -> tuple[str, str, str]:
        """The loops over samples, blocks of filters and strips of rows, outermost first.

        What the innermost loops use again should stay in cache: a block's filters in L1 or all
        filters in L2; else a block's filters or a sample, whichever is less to read again.
        """
        g, machine = self.g, self.target.machine
        near, far = L1_SHARE * machine.l1, L2_SHARE * machine.l2
        if self.block_bytes > near and self.blocks * self.block_bytes <= far:
            return "n", "row", "block"
        sample = g.term.number.itemsize * g.inputs * math.prod(g.read)
        if self.block_bytes > near and self.block_bytes > sample:
            return "block", "n", "row"
        return "n", "block", "row"

    # -- emission --------------------------------------------------------------------------------

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        x, f = (inputs[i] for i in self.operands[:2])
        if not self.is_constant:
            raw, f = f, e.at(workspace, self.sum_bytes)
            self.packing.emit(e, self.call.inputs[self.operands[1]], raw, f)
        if self.g.term == MINIMUM:
            sums = e.at(workspace, self.window_sum_bytes)
            emit_window_sums(e, self.g, x, workspace, sums)
        if not self.is_constant or self.g.term == MINIMUM:
            e.barrier()
        g, tile = self.g, self.tile
        at = _Pointers(inputs, x, f, outputs[0], workspace)
        rows = ceil_div(g.height, tile.rows)
        low, high = e.share(g.groups * self.blocks * g.samples * rows)
        with e.loop(low, high) as item:
            sizes = {"n": g.samples, "block": self.blocks, "row": rows}
            group, *indices = e.split(item, (g.groups, *(sizes[k] for k in self.order)))
            n, block, row = (indices[self.order.index(k)] for k in sizes)
            place = Place(group, block, n, e.mul(row, tile.rows))
            for height in piece(e, row, g.height, tile.rows):
                for w, width in pieces(e, g.width, tile.columns):
                    self._emit_tile(e, at, place.at_column(w), height, width)

    def _emit_tile(self, e: Emitter, at: _Pointers, place: Place, rows: int, columns: int) -> None:
        g, number = self.g, self.g.term.number.itemsize
        pixels = [(r, c) for r in range(rows) for c in range(columns)]
        (sh, sw), (xn, xh, xw) = g.stride, g.x
        first = e.dot((place.n, place.h, place.w), (xn, sh * xh, sw * xw))
        first = e.add(first, e.mul(place.group, number * g.inputs))
        start = e.at(at.x, e.sub(first, g.pad[0] * xh + g.pad[1] * xw))
        offsets = [r * sh * xh + c * sw * xw for r, c in pixels]
        block = e.add(e.mul(place.group, self.blocks), place.block)
        filters = e.at(at.f, e.mul(block, self.packing.block_bytes))
        taps = self._row_taps(e, place.h, rows)
        sums = self.steps.emit(e, start, offsets, filters, taps)
        self._emit_results(e, at, place, pixels, sums, block)

    def _emit_results(
        self, e: Emitter, at: _Pointers, place: Place, pixels: Sequence[tuple[int, int]],
        sums: Sequence[Register], block: Index,
    ) -> None:  # fmt: skip
        """The tile's sums, [pixel][vector], through the tail to the output. `block` counts those of
        all groups."""
        g, lanes, vectors, (yn, yh, yw) = self.g, self.lanes, self.tile.vectors, self.g.y
        channel = e.mul(place.block, self.width)
        out = e.dot((place.n, place.h, place.w), (yn, yh, yw))
        dtype = self.call.outputs[0].type.dtype  # a tail may end in a comparison or a cast
        size = dtype.itemsize
        out = e.add(out, e.mul(e.add(e.mul(place.group, g.outputs), channel), size))
        pixel = e.dot((place.group, place.n, place.h, place.w), (
            4 * g.samples * g.height * g.width, 4 * g.height * g.width, 4 * g.width, 4,
        ))  # fmt: skip
        magnitudes = e.at(at.f, e.add(e.mul(block, 4 * self.width), self.packing.filter_bytes))
        tail = Tail(self, e, at.inputs, place, channel)
        for active, here in self._active_counts(e, place.block):
            with here:
                for v in range(ceil_div(active, lanes)):
                    count = min(lanes, active - v * lanes)
                    channels = tail.channels(v, count, magnitudes)
                    for p, (r, c) in enumerate(pixels):
                        into = e.add(out, r * yh + c * yw + size * v * lanes)
                        window = e.at(at.windows, e.add(pixel, 4 * (r * g.width + c)))
                        value = tail.result(sums[p * vectors + v], channels, window)
                        value = tail.apply(value, channels, (r, c), v, count)
                        e.store(value, e.at(at.y, into), dtype, active=count)

    def _active_counts(self, e: Emitter, block: Index) -> list[tuple[int, Any]]:
        """(channels that exist, a context that emits for them): the last block may be partial."""
        last = self.blocks - 1
        partial = self.g.outputs - last * self.width
        if last == 0 or partial == self.width:
            return [(partial, e.always())]
        whole = e.less(block, last)
        return [(self.width, e.when(whole)), (partial, e.when(e.b.not_(whole)))]

    def _row_taps(self, e: Emitter, h: Index, rows: int) -> tuple[Index, Index]:
        """First and last + 1 of the kernel rows that some row of the tile reads inside the image.

        Of minima a padded tap adds +0.0: leaving it out changes no bit, nor does it in products of
        bytes. For distances of bytes `dense_u8.py` adds the sums of such rows. The other terms keep
        all taps: |0 - f| counts, in order, and 0 * f is NaN where f is not finite.
        """
        g = self.g
        count, (stride, step) = g.kernel[0], (g.stride[0], g.dilation[0])
        if not g.term.skips_padding or count == 1:
            return 0, count
        top = e.sub(e.mul(h, stride), g.pad[0])
        above = e.maximum(e.sub(step - 1 - (rows - 1) * stride, top), 0)
        within = e.maximum(e.sub(g.image[0] + step - 1, top), 0)
        return e.div(above, step), e.minimum(e.div(within, step), count)


@dataclass(frozen=True)
class _Pointers:
    inputs: Sequence[Any]  # of the call
    x: Any
    f: Any  # the packed filter
    y: Any
    windows: Any  # sums of x, where the term wants them
