"""lookup: a load for each byte.

    Y[..., c] = table[c, X[..., c]]

The bytes of a channel's table are 256 apart from the next one's, so no address takes a product; 0
apart where there is one for all.
Axes before the channels are merged wherever both layouts allow it; threads share the rows of
pixels, or the pixels of the only row. Buffers may have halos, which nobody touches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from addergraph.ir.types import u8
from addergraph.ops.movement.lookup import BYTES, Lookup

from ..emit.builder import Emitter, Index
from . import Kernel, kernel
from ._nest import merge_axes
from .cut import pieces

UNROLL = 4  # channels of a pixel in one step: those of an image, mostly


@kernel(Lookup)
class LookupKernel(Kernel):
    """A loop over pixels, whose channels are unrolled in steps of UNROLL."""

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (x, tables), (y,), (source, table) = self.call.inputs, self.call.outputs, inputs
        apart = BYTES if tables.shape[0] > 1 else 0
        *leading, channels = y.shape
        if 0 in y.shape:
            return
        sizes, strides = merge_axes(leading, [x.strides[:-1], y.strides[:-1]])
        *rows, run = sizes
        steps = [s[-1] for s in strides]

        def pixel(_: Index, places: list[Any]) -> list[Any]:
            for first, count in pieces(e, channels, UNROLL):
                here = [e.at(p, first) for p in places]
                self._channels(e, count, here, e.at(table, e.mul(first, apart)), apart)
            # Moved, not computed anew: without a multiplier a product is several instructions.
            return [e.at(p, step) for p, step in zip(places, steps, strict=True)]

        with e.loop(*(e.share(math.prod(rows)) if rows else (0, 1))) as item:
            start, stop = (0, run) if rows else e.share(run)
            here = [*(e.split(item, rows) if rows else []), start]
            places = [
                e.at(p, e.dot(here, s)) for p, s in zip((source, *outputs), strides, strict=True)
            ]
            e.carry(start, stop, 1, places, pixel)

    def _channels(self, e: Emitter, count: int, places: list[Any], table: Any, apart: int) -> None:
        """`count` channels of a pixel, from where `table` begins with the first one's."""
        read, write = places
        for c in range(count):
            byte = e.b.zext(e.load(e.at(read, c), u8), e.word)
            e.store(e.load(e.at(e.at(table, byte), c * apart), u8), e.at(write, c), u8)
