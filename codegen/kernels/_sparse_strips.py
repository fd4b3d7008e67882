"""What the sparse kernels do with strips: threads, scratch memory, and the loops over channels.

A strip is some output rows of a sample, or of as many samples as a vector has lanes. REGIONS strips
at most are worked on at once, each in scratch memory of its own; threads beyond that get no work.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from ..builder import Emitter, Index
from ..schedule import ceil_div
from ._forward import ForwardContraction, Place, Tail
from ._geometry import CHANNEL_BLOCK
from ._sparse_lists import SparseKernel
from ._sparse_tile import StripTile

REGIONS = 8

Rows = tuple[Index, Index]  # of a strip: input rows, output rows


class Cut(Protocol):
    """What sharing out strips needs to know of a tile."""

    @property
    def strips(self) -> int:
        """Strips of one sample."""


class StripKernel(ForwardContraction):
    """A kernel that works strip by strip."""

    @property
    @abstractmethod
    def tile(self) -> Cut: ...

    @property
    @abstractmethod
    def samples_of_strip(self) -> int: ...

    @property
    @abstractmethod
    def rows_of_strip(self) -> int: ...

    @property
    @abstractmethod
    def region_bytes(self) -> int:
        """Scratch memory of a strip."""

    @abstractmethod
    def emit_item(self, e: Emitter, place: Place, inputs: Sequence[Any], y: Any, base: Any) -> None:
        """The results of one strip of one group, with scratch memory at `base`."""

    @property
    def sample_groups(self) -> int:
        return ceil_div(self.g.samples, self.samples_of_strip)

    @property
    def regions(self) -> int:
        return min(REGIONS, self.sample_groups * self.tile.strips)

    @property
    def workspace(self) -> int:
        return self.regions * self.region_bytes

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        if 0 in self.call.outputs[0].shape:
            return
        tile = self.tile
        active = e.minimum(e.threads, self.regions)
        count = self.sample_groups * tile.strips
        with e.when(e.less(e.thread, active)):
            low = e.div(e.mul(count, e.thread), active)
            high = e.div(e.mul(count, e.add(e.thread, 1)), active)
            base = e.at(workspace, e.mul(e.thread, self.region_bytes))
            with e.loop(low, high) as item, e.loop(0, self.g.groups) as group:
                several, strip = e.split(item, (self.sample_groups, tile.strips))
                first = e.mul(several, self.samples_of_strip)
                place = Place(group, 0, first, e.mul(strip, self.rows_of_strip))
                self.emit_item(e, place, inputs, outputs[0], base)


class FloatStripKernel(StripKernel, SparseKernel):
    """What both f32 kernels do with a strip."""

    @property
    @abstractmethod
    def tile(self) -> StripTile: ...

    @property
    def rows_of_strip(self) -> int:
        return self.tile.strip_rows

    @property
    def region_bytes(self) -> int:
        return self.tile.region_bytes

    @abstractmethod
    def region(self, e: Emitter, base: Any) -> Any:
        """Pointers to the sections of a strip's scratch memory."""

    @abstractmethod
    def emit_strip(self, e: Emitter, place: Place, x: Any, packed: Any, region: Any) -> None:
        """Partial sums and window sums."""

    @abstractmethod
    def emit_input(
        self, e: Emitter, place: Place, x: Any, region: Any, number: Index, size: int, rows: Rows
    ) -> None:
        """Transposes channels number * tile.channels to number * tile.channels + size - 1."""

    @abstractmethod
    def emit_block(
        self, e: Emitter, place: Place, packed: Any, region: Any, inside: Index, size: int,
        rows: Rows,
    ) -> None:  # fmt: skip
        """Sums and lists of one channel block, number `inside` of those transposed."""

    @abstractmethod
    def emit_outputs(
        self, e: Emitter, tail: Tail, planes: Any, sum_f: Any, y: Any, region: Any, active: int
    ) -> None:
        """The strip's outputs, for one vector of channels of which `active` exist."""

    def emit_item(self, e: Emitter, place: Place, inputs: Sequence[Any], y: Any, base: Any) -> None:
        x, packed = (inputs[i] for i in self.operands[:2])
        region = self.region(e, base)
        self.emit_strip(e, place, x, packed, region)
        self._emit_tail(e, place, inputs, packed, y, region)

    def emit_channels(
        self, e: Emitter, place: Place, x: Any, packed: Any, region: Any, rows: Rows
    ) -> None:
        """The partial sums of a strip over all channels."""
        size = self.tile.channels
        whole, rest = divmod(self.g.inputs, size)
        with e.loop(0, whole) as number:
            self._emit_blocks(e, place, (x, packed), region, number, size, rows)
        if rest:
            self._emit_blocks(e, place, (x, packed), region, whole, rest, rows)

    def _emit_blocks(
        self, e: Emitter, place: Place, pointers: tuple[Any, Any], region: Any, number: Index,
        size: int, rows: Rows,
    ) -> None:  # fmt: skip
        """Some whole channel blocks, or what is left at the end."""
        x, packed = pointers
        self.emit_input(e, place, x, region, number, size, rows)
        first = e.mul(number, self.tile.channels // CHANNEL_BLOCK)
        whole, rest = divmod(size, CHANNEL_BLOCK)
        with e.loop(0, whole) as inside:
            at = place.in_block(e.add(first, inside))
            self.emit_block(e, at, packed, region, inside, CHANNEL_BLOCK, rows)
        if rest:
            at = place.in_block(e.add(first, whole))
            self.emit_block(e, at, packed, region, whole, rest, rows)

    def _emit_tail(
        self, e: Emitter, place: Place, inputs: Sequence[Any], packed: Any, y: Any, region: Any
    ) -> None:
        """Partial sums back to NHWC, through the tail."""
        g, lanes = self.g, self.lanes
        blocks, rest = ceil_div(g.outputs, lanes), g.outputs % lanes
        sums = e.at(packed, self.sums_offset)
        with e.loop(0, blocks) as block:
            channel = e.mul(block, lanes)
            of_group = e.add(e.mul(place.group, blocks), block)
            sum_f = e.at(sums, e.mul(of_group, 4 * lanes))
            planes = e.at(region.partial, e.mul(channel, self.tile.partial_bytes))
            for active, here in e.partial(block, g.outputs // lanes, rest, lanes):
                if not active:
                    continue
                with here:
                    tail = Tail(self, e, inputs, place, channel)
                    self.emit_outputs(e, tail, planes, sum_f, y, region, active)
