"""What the loop nest of `dense.py` asks of a dtype: how the sums of a register tile are made."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from ...emit.builder import F32, I32, Emitter, Index, Register, vector
from ...targets.target import Target
from ..schedule import Tile, ceil_div, steps_together
from .geometry import Geometry
from .packing import DensePacking
from .terms import ByteTerm, FloatTerm, SplitTerm

GROUPS = 3  # of steps taken together, in one loop body at most
CHAINS = 4  # sums that terms are added to in turns, by a core that works in order
TERMS_TO_COME = 3  # that it has made and not added yet
AHEAD = 3  # steps whose filters of f32 such a core loads before the first of them is needed


class Steps(ABC):
    """The reduction of a register tile, on a filter packed for it.

    term           what is summed
    lanes          output channels in one register of results; a pixel has `tile.vectors` of them
    packing        of the filter
    unroll_budget  tile updates of one vector emitted in one straight line at most
    """

    term: ByteTerm | FloatTerm
    lanes: int
    packing: DensePacking
    unroll_budget: ClassVar[int]

    def __init__(self, g: Geometry, target: Target, tile: Tile) -> None:
        self.g, self.target, self.tile = g, target, tile

    @classmethod
    @abstractmethod
    def choose_tile(cls, g: Geometry, target: Target) -> Tile:
        """The tile that the model of `schedule.py` expects to be the fastest."""

    @abstractmethod
    def emit(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, taps: tuple[Index, Index]
    ) -> list[Register]:
        """The sums of a tile, [pixel][vector].

        x         the first tap of the tile's first pixel
        offsets   bytes from there to that of each pixel
        filters   the packed block
        taps      first and last + 1 of the kernel rows to add up; of the others, all in the
                  padding, the sums are known
        """

    def unroll(self, pixels: int, run: int) -> int:
        """Steps in one loop body: enough to hide the loop, few enough that LLVM keeps their order.

        With several vectors a step has broadcasts in registers. LLVM would load those of many steps
        at once, and spill accumulators for it.
        """
        most = (
            self.target.several_steps
            if self.tile.vectors > 1
            else max(1, self.unroll_budget // pixels)
        )
        return min(run, most) if run else 1

    # -- several steps at once -------------------------------------------------------------------

    @property
    def together(self) -> int:
        """Steps whose numbers of a pixel come by one instruction."""
        return steps_together(self.target, self.packing.vectors) if self.term.joins_steps else 1

    def joined(
        self, e: Emitter, x: Any, offsets: Sequence[int], filters: Any, steps: int,
        acc: list[Register],
    ) -> tuple[list[Register], int]:  # fmt: skip
        """The sums after as many of `steps` as can be taken `together`, and how many these are.

        A step has 4 bytes of a pixel, at `x` and the `offsets`, and one row of the packed filter.
        """
        many = self.together
        groups = steps // many if many > 1 else 0
        body = next((n for n in range(GROUPS, 1, -1) if groups % n == 0), 1)

        def several(k: Index, acc: list[Register]) -> list[Register]:
            xs, fs = e.at(x, e.mul(k, 4)), e.at(filters, e.mul(k, self.packing.step_bytes))
            turns = _Turns(e, self.term, acc, self.target.machine.in_order)
            starts = [e.at(xs, offset) for offset in offsets]
            pixels = [[e.at(x, 4 * many * group) for x in starts] for group in range(body)]
            for group in range(body):
                first = group * many * self.packing.step_bytes
                self._emit_group(e, pixels[group], fs, first, turns)
            return turns.sums()

        return e.carry(0, groups * many, body * many, acc, several), groups * many

    def _emit_group(
        self, e: Emitter, pixels: Sequence[Any], filters: Any, first: int, turns: _Turns
    ) -> None:
        """The terms of `together` steps: of a few pixels all steps, then of the next ones."""
        many, vectors, term = self.together, self.packing.vectors, self.term
        floats = isinstance(term, FloatTerm)
        loaded = vector(F32 if floats else I32, self.target.lanes)
        kind = loaded if isinstance(term, FloatTerm) else term.bytes_type(self.target)
        size = self.target.vector_bytes
        taps: list[Register] = []

        def load_taps(steps: int) -> None:
            for i in range(len(taps), steps * vectors):
                place = e.at(filters, first + size * i)
                taps.append(e.b.load(place, typ=kind, align=4 if floats else 1))

        in_order = self.target.machine.in_order
        ahead = AHEAD if in_order and floats else many
        if ahead >= many:
            load_taps(many)
        count = ceil_div(CHAINS, vectors) if in_order else 1
        for start in range(0, len(pixels), count):
            here = range(start, min(start + count, len(pixels)))
            runs = {p: e.broadcast_run(pixels[p], many, loaded) for p in here}
            load_taps(min(many, ahead))
            e.keep_order()
            for step, p in itertools.product(range(many), here):
                if len(taps) < min(many, step + ahead) * vectors:
                    load_taps(min(many, step + ahead))
                one = runs[p][step]
                if isinstance(term, ByteTerm):
                    one = term.pixel(e, e.b.bitcast(one, kind))
                for v in range(vectors):
                    turns.add(p * vectors + v, one, taps[step * vectors + v])


class _Turns:
    """Sums to which terms are added, each one some terms later where the core works in order."""

    def __init__(
        self, e: Emitter, term: ByteTerm | FloatTerm, acc: Sequence[Register], in_order: bool
    ) -> None:
        self.e, self.term, self.acc = e, term, list(acc)
        self.split = term if in_order and isinstance(term, SplitTerm) else None
        self.to_come: deque[tuple[int, Register]] = deque()

    def add(self, number: int, x: Register, f: Register) -> None:
        if self.split is None:
            self.acc[number] = self.term.added(self.e, x, f, self.acc[number])
            return
        if len(self.to_come) == TERMS_TO_COME:
            self._finish(self.split)
        self.to_come.append((number, self.split.made(self.e, x, f)))

    def _finish(self, term: SplitTerm) -> None:
        number, made = self.to_come.popleft()
        self.acc[number] = term.summed(self.e, self.acc[number], made)

    def sums(self) -> list[Register]:
        while self.split is not None and self.to_come:
            self._finish(self.split)
        return self.acc
