"""Where the boxes of a graph stand in a picture, and how the lines between them run.

Layered drawing (Sugiyama, Tagawa, Toda, 1981): each vertex stands in a row below all that it reads;
a line that passes rows has a point in each; the order in a row is that of the neighbours' means, as
long as crossings get fewer; the place in a row is the least squares fit to the neighbours' places,
in that order. The longest path through the graph is one straight line.
"""

from __future__ import annotations

import math
from bisect import bisect, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

SWEEPS = 8  # of ordering and of placing; few pictures change after the fourth
APART, LANE = 22.0, 11.0  # pixels between boxes, and between lines
STIFF, SPINE = 8.0, 1e6  # weights against 1: lines that pass rows are straight, the spine even more


@dataclass
class Spot:
    """A box, or (`width` 0) the point of a line in a row that it passes."""

    row: int
    width: float = 0.0
    height: float = 0.0
    above: list[int] = field(default_factory=list)  # spots that lines come from
    below: list[int] = field(default_factory=list)
    x: float = 0.0  # of its middle
    y: float = 0.0


@dataclass(frozen=True)
class Line:
    """From one result of a box to all boxes that read it: pairs of spots."""

    source: int
    steps: tuple[tuple[int, int], ...]


Reads = Sequence[tuple[int, Sequence[int]]]
"""Results: the box that has it, and those that read it."""


def place(
    rows: Sequence[int], sizes: Sequence[tuple[float, float]], lines: Reads
) -> tuple[list[Spot], list[Line]]:
    """Spots of the boxes, in their order, followed by those of the lines' points; and the lines.

    rows   of the boxes, by `rows_of`
    sizes  their widths and heights
    """
    spots = [Spot(row, *size) for row, size in zip(rows, sizes, strict=True)]
    spine = _longest(len(sizes), lines)
    made = [_routed(spots, source, readers) for source, readers in lines]
    for a, b in sorted({step for line in made for step in line.steps}):
        spots[a].below.append(b)
        spots[b].above.append(a)
    order: list[list[int]] = [[] for _ in range(max(rows, default=-1) + 1)]
    for number, spot in enumerate(spots):
        order[spot.row].append(number)
    order = _ordered(spots, order)
    _across(spots, order, spine)
    _down(spots, order)
    return spots, made


def rows_of(count: int, lines: Reads) -> list[int]:
    """The row of each box, which stand in an order in which none reads a later one.

    Just below the lowest that a box reads; just above its first reader where that makes the
    lines shorter, since fewer come in than go out.
    """
    read: list[list[int]] = [[] for _ in range(count)]
    readers: list[list[int]] = [[] for _ in range(count)]
    results = [0] * count
    for source, targets in lines:
        results[source] += bool(targets)
        readers[source] += targets
        for target in targets:
            read[target].append(source)
    rows = [0] * count
    for box in range(count):
        rows[box] = max((rows[other] + 1 for other in read[box]), default=0)
    for box in reversed(range(count)):
        if results[box] > len(set(read[box])):
            rows[box] = min(rows[other] for other in readers[box]) - 1
    return rows


def _longest(count: int, lines: Reads) -> set[int]:
    """The boxes of the longest path."""
    behind: list[tuple[int, int]] = [(0, -1)] * count  # boxes behind it, and the next of them
    readers: list[list[int]] = [[] for _ in range(count)]
    for source, targets in lines:
        readers[source] += targets
    for box in reversed(range(count)):
        longest = max(((behind[other][0], -other) for other in readers[box]), default=None)
        if longest is not None:
            behind[box] = (longest[0] + 1, -longest[1])
    path, box = set(), max(range(count), key=lambda one: behind[one][0], default=-1)
    while box >= 0:
        path.add(box)
        box = behind[box][1]
    return path


def _routed(spots: list[Spot], source: int, readers: Sequence[int]) -> Line:
    """The line, whose readers share its points in the rows that it passes."""
    first, last = spots[source].row, max((spots[r].row for r in readers), default=0)
    trunk = [source]
    for row in range(first + 1, last):
        trunk.append(len(spots))
        spots.append(Spot(row))
    ends = ((trunk[spots[r].row - first - 1], r) for r in dict.fromkeys(readers))
    return Line(source, (*pairwise(trunk), *ends))


def _ordered(spots: Sequence[Spot], order: list[list[int]]) -> list[list[int]]:
    """The order with the fewest crossings that the sweeps meet."""
    best, fewest = order, _crossings(spots, order)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        order = _swept(spots, order, down=sweep % 2 == 0)
        found = _crossings(spots, order)
        if found < fewest:
            best, fewest = order, found
    return best


def _swept(spots: Sequence[Spot], order: list[list[int]], *, down: bool) -> list[list[int]]:
    """Each row sorted by the mean place of its neighbours in the row before."""
    rank = _ranks(order)
    for row in order if down else order[::-1]:
        means = {}
        for spot in row:
            near = spots[spot].above if down else spots[spot].below
            means[spot] = sum(rank[n] for n in near) / len(near) if near else rank[spot]
        for place, spot in enumerate(sorted(row, key=means.__getitem__)):
            rank[spot] = (place + 0.5) / len(row)
    return [sorted(row, key=rank.__getitem__) for row in order]


def _ranks(order: Iterable[Sequence[int]]) -> dict[int, float]:
    """Each spot's place in its row, 0 to 1."""
    return {spot: (i + 0.5) / len(row) for row in order for i, spot in enumerate(row)}


def _crossings(spots: Sequence[Spot], order: Sequence[Sequence[int]]) -> int:
    rank, count = _ranks(order), 0
    for row in order:
        ends: list[float] = []
        for spot in row:
            new = sorted(rank[other] for other in spots[spot].below)
            count += sum(len(ends) - bisect(ends, end) for end in new)
            for end in new:
                insort(ends, end)
    return count


def _across(spots: list[Spot], order: Sequence[Sequence[int]], spine: set[int]) -> None:
    """Sets each x."""
    for row in order:
        _fit(spots, row, [0.0] * len(row), [1.0] * len(row))
    for sweep in range(2 * SWEEPS):
        down, both = sweep % 2 == 0, sweep >= SWEEPS
        for row in order if down else reversed(order):
            pulls = [_pull(spots, number, down, both) for number in row]
            wanted = [0.0 if n in spine else x for n, (x, _) in zip(row, pulls, strict=True)]
            weights = [SPINE if n in spine else w for n, (_, w) in zip(row, pulls, strict=True)]
            _fit(spots, row, wanted, weights)
    for _ in range(3):  # a straight line makes room for its neighbours
        _straighten(spots, order)


def _pull(spots: Sequence[Spot], number: int, down: bool, both: bool) -> tuple[float, float]:
    """The mean x of the neighbours above, below, or on both sides, and its weight."""
    spot = spots[number]
    near = spot.above if down else spot.below
    near = [*spot.above, *spot.below] if both or not near else near
    if not near:
        return spot.x, 0.1
    weights = [STIFF if _passes(spot, spots[n]) else 1.0 for n in near]
    pulled = sum(w * spots[n].x for w, n in zip(weights, near, strict=True))
    return pulled / sum(weights), sum(weights)


def _passes(a: Spot, b: Spot) -> bool:
    return not (a.width or b.width)


def _gap(a: Spot, b: Spot) -> float:
    """Between the middles of neighbours in a row."""
    between = LANE if _passes(a, b) else APART if a.width and b.width else (APART + LANE) / 2
    return (a.width + b.width) / 2 + between


def spread(wanted: Sequence[float], gaps: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Places at least `gaps` apart, in order: sum of weight (place - wanted)^2 is least.

    Less the gaps that is isotonic regression: neighbours in the wrong order become a block at
    their mean (pool adjacent violators).
    """
    offsets = [0.0, *accumulate(gaps)]
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for want, heavy, offset in zip(wanted, weights, offsets, strict=False):
        mean, many = want - offset, 1
        while blocks and blocks[-1][0] >= mean:
            other, more, others = blocks.pop()
            mean = (mean * heavy + other * more) / (heavy + more)
            heavy, many = heavy + more, many + others
        blocks.append((mean, heavy, many))
    means = [mean for mean, _, many in blocks for _ in range(many)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _fit(
    spots: list[Spot], row: Sequence[int], wanted: Sequence[float], weights: Sequence[float]
) -> None:
    gaps = [_gap(spots[a], spots[b]) for a, b in pairwise(row)]
    for number, x in zip(row, spread(wanted, gaps, weights), strict=True):
        spots[number].x = x


def _straighten(spots: list[Spot], order: Sequence[Sequence[int]]) -> None:
    """Points of a line above each other get one x, in runs as long as there is room for."""
    beside: dict[int, tuple[int, int]] = {}  # the neighbours in the row, -1 for none
    for row in order:
        beside.update(zip(row, zip([-1, *row], [*row[1:], -1], strict=False), strict=True))
    done: set[int] = set()
    for number in (n for row in order for n in row if not spots[n].width):
        if number not in done:
            done.update(_straightened(spots, beside, number))


def _straightened(spots: list[Spot], beside: dict[int, tuple[int, int]], first: int) -> list[int]:
    """The run that begins with this point."""
    run, low, high = [first], *_room(spots, beside, first)
    while True:
        below = [n for n in spots[run[-1]].below if not spots[n].width]
        least, most = _room(spots, beside, below[0]) if below else (high + 1, low)
        if max(low, least) > min(high, most):
            break
        low, high = max(low, least), min(high, most)
        run.append(below[0])
    mean = sum(spots[point].x for point in run) / len(run)
    for point in run:
        spots[point].x = min(max(mean, low), high)
    return run


def _room(
    spots: Sequence[Spot], beside: dict[int, tuple[int, int]], point: int
) -> tuple[float, float]:
    """The least and the largest x beside the neighbours."""
    left, right = beside[point]
    least = spots[left].x + _gap(spots[left], spots[point]) if left >= 0 else -math.inf
    most = spots[right].x - _gap(spots[point], spots[right]) if right >= 0 else math.inf
    return least, max(least, most)  # rounding may take a little of no room


def _down(spots: list[Spot], order: Sequence[Sequence[int]]) -> None:
    """Sets each y: rows as high as their highest box, farther apart where lines lean far."""
    y = 0.0
    for row in order:
        height = max((spots[number].height for number in row), default=0)
        lean = [abs(spots[n].x - spots[b].x) for n in row for b in spots[n].below]
        for number in row:
            spots[number].y = y + height / 2
            spots[number].height = spots[number].height if spots[number].width else height
        y += height + min(26 + max(lean, default=0) / 8, 90)
