"""Sums of f32 terms: all input channels of a tap, one after the other, in one fixed order.

Blocks of CHANNEL_BLOCK input channels in sequence (all channels where there is one tap), within a
block (i, j, k). The order is part of the result's definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...emit.builder import Emitter, Index, Register
from ...targets.target import Target
from ..schedule import Tile, contraction_tile
from .geometry import Geometry
from .packing import DensePacking, Loop, Step
from .steps import Steps
from .terms import FloatTerm


def float_packing(g: Geometry, lanes: int, vectors: int) -> DensePacking:
    """The filter in the order of summation."""

    def channels(count: int) -> Loop:
        """Every tap of so many input channels."""
        return Loop(g.kernel[0] * g.kernel[1], g.inputs, (Loop(count, 1, (Step(1),)),))

    whole, rest = divmod(g.inputs, g.channel_block)
    blocks = Loop(whole, g.channel_block, (channels(g.channel_block),), in_rows=True)
    return DensePacking(g, 1, lanes, vectors, (blocks, channels(rest)))


class FloatSteps(Steps):
    """Steps of f32: one row of the packed filter, broadcast numbers of the pixels."""

    term: FloatTerm
    unroll_budget = 64

    def __init__(self, g: Geometry, target: Target, tile: Tile) -> None:
        super().__init__(g, target, tile)
        assert isinstance(g.term, FloatTerm)
        self.term = g.term
        self.lanes = target.lanes
        self.packing = float_packing(g, target.lanes, tile.vectors)

    @classmethod
    def choose_tile(cls, g: Geometry, target: Target) -> Tile:
        together = g.term.joins_steps
        return contraction_tile(target, g.height, g.width, g.outputs, together=together)

    def emit(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, taps: tuple[Index, Index]
    ) -> list[Register]:
        """Accumulators [pixel][vector] over channel blocks, each over (i, j, k) in order."""
        g, size = self.g, self.g.channel_block
        accumulators = [e.number(0.0, self.target.lanes)] * (len(offsets) * self.tile.vectors)
        block_bytes = 4 * g.kernel[0] * g.kernel[1] * size * self.packing.width
        whole = g.inputs // size

        def over_blocks(b: Index, acc: list[Register]) -> Sequence[Register]:
            channels, packed = e.at(x, e.mul(b, 4 * size)), e.at(filters, e.mul(b, block_bytes))
            return self._emit_block(e, channels, offsets, packed, size, taps, acc)

        accumulators = e.carry(0, whole, 1, accumulators, over_blocks)
        if g.inputs % size:
            rest_x, rest_f = e.at(x, 4 * whole * size), e.at(filters, whole * block_bytes)
            accumulators = self._emit_block(
                e, rest_x, offsets, rest_f, g.inputs % size, taps, accumulators
            )
        return accumulators

    def _emit_block(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, size: int,
        taps: tuple[Index, Index], accumulators: list[Register],
    ) -> list[Register]:  # fmt: skip
        """Adds the terms of `size` input channels, over (i, j, k) in order."""
        g, vectors, lanes = self.g, self.tile.vectors, self.target.lanes
        contiguous = g.dilation[1] == 1 and g.x[2] == 4 * size
        columns, run = (1, g.kernel[1] * size) if contiguous else (g.kernel[1], size)
        step_bytes = 4 * self.packing.width

        def over_rows(i: Index, outer: list[Register]) -> Sequence[Register]:
            x_row = e.at(x, e.mul(i, g.dilation[0] * g.x[1]))
            f_row = e.at(filters, e.mul(i, columns * run * step_bytes))

            def over_columns(j: Index, middle: list[Register]) -> Sequence[Register]:
                x_run = e.at(x_row, e.mul(j, g.dilation[1] * g.x[2]))
                f_run = e.at(f_row, e.mul(j, run * step_bytes))

                def update(k: Index, u: int, acc: list[Register]) -> list[Register]:
                    xs, fs = e.at(x_run, e.mul(k, 4)), e.at(f_run, e.mul(k, step_bytes))
                    taps = [
                        e.load(e.at(fs, u * step_bytes + 4 * lanes * v), lanes=lanes)
                        for v in range(vectors)
                    ]
                    for p, offset in enumerate(offsets):
                        one = e.splat(e.load(e.at(xs, offset + 4 * u)), lanes)
                        for v in range(vectors):
                            a = p * vectors + v
                            acc[a] = self.term.added(e, one, taps[v], acc[a])
                    if vectors > 1 or not self.target.least_magnitude:
                        e.keep_order()
                    return acc

                middle, done = self.joined(e, x_run, offsets, f_run, run, middle)
                x_run, f_run = e.at(x_run, 4 * done), e.at(f_run, done * step_bytes)
                rest = run - done
                return e.unrolled(rest, self.unroll(len(offsets), rest), middle, update)

            return e.carry(0, columns, 1, outer, over_columns)

        return e.carry(*taps, 1, accumulators, over_rows)
