"""What the sparse kernels do with strips: how work items are shared out, and where results go.

A strip is some rows of every patch of a vector (`_patches.py`). REGIONS strips at most are worked
on at once, each in scratch memory of its own; threads beyond that get no work.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ...emit.builder import Emitter, Index
from ..forward.tail import ForwardContraction, Place
from ..schedule import SPARSE
from ._cut import Cut, Region

REGIONS = 8


@dataclass(frozen=True)
class Strip:
    """One work item: rows h to h + strip_rows - 1 of the patches of samples n, n + 1, ...

    The last strip of a patch and the last samples of a batch are moved back. What is computed again
    there is not written: the first `written_rows` rows and `written_samples` samples.

    Of the kernel's `shares` of the output channels it has those from number `begin` up to `end`.
    """

    group: Index
    n: Index
    h: Index
    written_samples: Index
    written_rows: Index
    begin: Index
    end: Index


class StripKernel(ForwardContraction):
    """A kernel that works strip by strip."""

    kind = SPARSE

    @property
    @abstractmethod
    def tile(self) -> Cut: ...

    @property
    def sections(self) -> dict[Any, int]:
        """Bytes of each part of a strip's scratch memory: of the tile and what the tail wants."""
        return {**self.tile.sections}

    @property
    def region_bytes(self) -> int:
        return sum(self.sections.values())

    @abstractmethod
    def emit_item(
        self, e: Emitter, strip: Strip, inputs: Sequence[Any], y: Any, region: Region
    ) -> None:
        """The results of one strip, with scratch memory `region`."""

    @property
    def shares(self) -> int:
        """How many threads may share a strip, each with some of its output channels."""
        return 1

    @property
    def regions(self) -> int:
        return min(REGIONS, self.tile.items * self.shares)

    @property
    def workspace(self) -> int:
        return self.regions * self.region_bytes

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        active, shares = e.minimum(e.threads, self.regions), self.shares
        count = self.tile.items * shares
        with e.when(e.less(e.thread, active)):
            low = e.div(e.mul(count, e.thread), active)
            high = e.div(e.mul(count, e.add(e.thread, 1)), active)
            base = e.at(workspace, e.mul(e.thread, self.region_bytes))
            last = e.div(e.add(high, shares - 1), shares)
            with e.loop(e.div(low, shares), last) as item, e.loop(0, self.g.groups) as group:
                first = e.mul(item, shares)
                begin = e.maximum(e.sub(low, first), 0) if shares > 1 else 0
                end = e.minimum(e.sub(high, first), shares) if shares > 1 else 1
                strip = self._strip(e, item, group, begin, end)
                self.emit_item(e, strip, inputs, outputs[0], Region(e, base, self.sections))

    def _strip(self, e: Emitter, item: Index, group: Index, begin: Index, end: Index) -> Strip:
        patches, rows = self.tile.patches, self.tile.strip_rows
        several, number = e.split(item, (patches.sample_groups, self.tile.strips))
        sample, row = e.mul(several, patches.samples), e.mul(number, rows)
        n = e.minimum(sample, self.g.samples - patches.samples)
        h = e.minimum(row, patches.rows - rows)
        return Strip(group, n, h, e.sub(sample, n), e.sub(row, h), begin, end)

    def place_of(self, e: Emitter, strip: Strip, lane: int, row: Index, column: Index) -> Place:
        """Where pixel (row, column) of a lane is, counted as for `each_lane`."""
        sample, band, chunk = self.tile.patches.place(lane)
        h = e.add(e.add(strip.h, row), self.tile.patches.top(band))
        w = e.add(column, self.tile.patches.left(chunk))
        return Place(strip.group, 0, e.add(strip.n, sample), h, w)

    @contextmanager
    def each_lane(
        self, e: Emitter, strip: Strip, row: Index, column: Index
    ) -> Iterator[tuple[Index, Place]]:
        """A loop over the lanes whose pixel (row, column) is to be written: (lane, its place).

        `row` counts the strip's rows, from strip.written_rows on, and `column` those of a patch.
        """
        patches, g = self.tile.patches, self.g
        with ExitStack() as stack:
            sample = stack.enter_context(e.loop(strip.written_samples, patches.samples))
            band = stack.enter_context(e.loop(0, patches.bands))
            chunk = stack.enter_context(e.loop(0, patches.chunks))
            inside = e.add(strip.h, row)
            first, left = e.mul(band, patches.rows), e.mul(chunk, patches.columns)
            h = e.add(e.minimum(first, g.height - patches.rows), inside)
            w = e.add(e.minimum(left, g.width - patches.columns), column)
            if patches.bands * patches.rows > g.height:
                stack.enter_context(e.when(e.b.not_(e.less(h, first))))
            if patches.chunks * patches.columns > g.width:
                stack.enter_context(e.when(e.b.not_(e.less(w, left))))
            lane = e.add(e.mul(e.add(e.mul(sample, patches.bands), band), patches.chunks), chunk)
            yield lane, Place(strip.group, 0, e.add(strip.n, sample), h, w)
