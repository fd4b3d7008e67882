"""The vector of what processes exchange in a step, and its exchange in buckets.

The gradients of the last layers are there first. Where batch norms take the statistics of their
part, its program tells of each bucket of the vector that it is complete (`ops.completed`); with
synchronized statistics the program is cut anyway, and a bucket is complete behind a segment. Its
exchange begins then, while what is left is computed on another thread: all calls of MPI come from
the main one, and MPI moves messages inside of them alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Array
from ..ir.state import aligned_bytes
from .replicas import Exchange, Replicas

LINE = 16  # f32 of a cache line: where a value of the vector may begin
BUCKET = 1 << 18  # bytes, at least, that are exchanged at once: 2 ms at 1 Gbit/s
MOST_BUCKETS = 16  # of a step: starting an exchange takes 0.1 ms


class Vector:
    """f32 values of these shapes, by name, in one contiguous vector that begins at a cache line."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        sizes = {name: int(np.prod(shape, dtype=int)) for name, shape in shapes.items()}
        starts, end = {}, 0
        for name, size in sizes.items():
            starts[name], end = end, end + -(-size // LINE) * LINE
        self.starts, self.size = starts, end
        self.whole = aligned_bytes(4 * end).view(np.float32)
        self.views = {
            name: self.whole[start : start + sizes[name]].reshape(shapes[name])
            for name, start in starts.items()
        }


def spans_of(
    vector: Vector, behind: Mapping[str, int], least: int
) -> dict[int, tuple[slice, frozenset[str]]]:
    """Pieces of the vector that are complete at once, and the names of the values in each, by the
    number of the event behind which they are complete.

    behind  the number of the event, a flag or the end of a segment, that makes each value complete;
            the vector has its values in this order
    least   bytes of a piece; the last one may have less
    """
    found, start, last = {}, 0, max(behind.values())
    for at in range(last + 1):
        end = min((s for p, s in vector.starts.items() if behind[p] > at), default=vector.size)
        if end > start and (at == last or 4 * (end - start) >= least):
            names = frozenset(p for p, s in vector.starts.items() if start <= s < end)
            found[at], start = (slice(start, end), names), end
    return found


@dataclass(frozen=True, eq=False)
class Bucket:
    """A piece of the vector that is exchanged at once.

    span     where it is; `places`: the values in it, by name
    segment  the one behind which it is complete
    flag     the program sets it to 1 when it is complete, which may be earlier; or None
    """

    span: slice
    places: frozenset[str]
    segment: int
    flag: Array | None


class Sending:
    """The exchange of the vectors of one step: bucket by bucket, in one order in all processes.

    A value in a bucket with a flag is written into the vectors by the programs themselves; what
    they cannot write there is in the last bucket, or in one without a flag.
    """

    def __init__(
        self, replicas: Replicas, buckets: Sequence[Bucket], vectors: Sequence[Vector],
        shares: Array, reduced: Vector,
    ) -> None:  # fmt: skip
        self._replicas, self._left = replicas, deque(buckets)
        self._vectors, self._shares, self._reduced = vectors, shares, reduced
        self._begun: list[Exchange] = []
        self._fence = threading.Lock()

    def beside(self, compute: Callable[[], None]) -> None:
        """Computes a segment, while buckets that are complete move."""
        waiting = self._look()
        if self._replicas.size > 1 and waiting:
            self._replicas.during(compute, self._look)
        else:
            compute()

    def _look(self) -> bool:
        """Starts what is complete; whether there is anything left to look for."""
        while self._flag is not None and self._flag[()]:
            with self._fence:  # an acquire: what is read next is what was there before the flag
                self._begin()
        moving = [one for one in self._begun if not one.test()]
        return bool(moving) or self._flag is not None

    @property
    def _flag(self) -> Array | None:
        """That of the next bucket."""
        return self._left[0].flag if self._left else None

    def begin_behind(self, segment: int, complete: Callable[[frozenset[str]], None]) -> None:
        """Starts the buckets that are complete behind a segment, after `complete` of each, which
        copies what programs could not write into the vectors themselves."""
        while self._left and self._left[0].segment == segment:
            complete(self._left[0].places)
            self._begin()

    def _begin(self) -> None:
        bucket = self._left.popleft()
        mine = [one.whole[bucket.span] for one in self._vectors]
        out = self._reduced.whole[bucket.span]
        self._begun.append(self._replicas.begin(mine, self._shares, out))

    def finish(self) -> None:
        """Waits for all."""
        for one in self._begun:
            self._replicas.finish(one)
