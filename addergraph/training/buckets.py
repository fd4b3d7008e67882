"""The vector of what processes exchange in a step, and its exchange in buckets.

The gradients of the last layers are there first. Where batch norms take the statistics of their
part, its program tells of each bucket of the vector that it is complete (`ops.completed`); with
synchronized statistics the program is cut anyway, and a bucket is complete behind a segment. Its
exchange begins then, while what is left is computed on another thread: all calls of MPI come from
the main one, and MPI moves messages inside of them alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir import Array
from ..ir.state import aligned_bytes
from .replicas import Exchange, Replicas

LINE = 16  # f32 of a cache line: where a value of the vector may begin
BUCKET = 1 << 18  # bytes, at least, that are exchanged at once: 2 ms at 1 Gbit/s
MOST_BUCKETS = 16  # what starting an exchange takes, 0.1 ms or so, is to be little of the step


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
    vector: Vector, number: Mapping[str, int], least: int
) -> dict[int, tuple[slice, frozenset[str]]]:
    """The vector in pieces of `least` bytes, the last one of what is left, by the largest of the
    numbers of their values; the vector has these in order. With each the names of its values."""
    found, start, last = {}, 0, max(number.values())
    for at in range(last + 1):
        end = min((s for p, s in vector.starts.items() if number[p] > at), default=vector.size)
        if end > start and (at == last or 4 * (end - start) >= least):
            names = frozenset(p for p, s in vector.starts.items() if start <= s < end)
            found[at], start = (slice(start, end), names), end
    return found


@dataclass(frozen=True, eq=False)
class Bucket:
    """A piece of the vector that is exchanged at once.

    span    where it is; `places`: the values in it, by name
    behind  the segment after which it is complete
    flag    where the program says that it is before that; None where it does not say
    """

    span: slice
    places: frozenset[str]
    behind: int
    flag: Array | None


class Sending:
    """The exchange of the vectors of one step: bucket by bucket, in one order in all processes."""

    def __init__(
        self, replicas: Replicas, buckets: Sequence[Bucket], vectors: Sequence[Vector],
        shares: Array, reduced: Vector,
    ) -> None:  # fmt: skip
        self.replicas, self.left = replicas, deque(buckets)
        self._vectors, self._shares, self._reduced = vectors, shares, reduced
        self._under_way: list[Exchange] = []

    def beside(self, compute: Callable[[], None]) -> None:
        """Computes a segment, while buckets that are complete move."""
        told = bool(self.left) and self.left[0].flag is not None
        if self.replicas.size > 1 and (told or self._under_way):
            self.replicas.during(compute, self._look)
        else:
            compute()

    def _look(self) -> None:
        while self.left and self.left[0].flag is not None and self.left[0].flag[()]:
            self.begin()
        for one in self._under_way:
            one.test()

    def due_behind(self, segment: int) -> Iterator[Bucket]:
        """The buckets that are complete behind a segment and not begun; `begin` each of them."""
        while self.left and self.left[0].behind == segment:
            yield self.left[0]

    def begin(self) -> None:
        """Starts the exchange of the next bucket."""
        bucket = self.left.popleft()
        mine = [one.whole[bucket.span] for one in self._vectors]
        out = self._reduced.whole[bucket.span]
        self._under_way.append(self.replicas.begin(mine, self._shares, out))

    def finish(self) -> None:
        """Waits for all."""
        assert not self.left
        for one in self._under_way:
            self.replicas.finish(one)
