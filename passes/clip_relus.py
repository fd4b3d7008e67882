"""What the relus of a float network give on calibration data, and the bounds that follow.

    x -> run the network CHUNK samples at a time, twice: which upper half of an f32's bits the
    quantile has, then which lower half

Numbers from +0.0 up have their bits in the order of their size. So two histograms of the halves of
the bits give the quantile of all values exactly, in memory that does not grow with the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from addergraph.errors import DataError, some
from addergraph.ir import Array, Graph, Node, Value, walk

from .quantize.calibrate import Engine, Report, chunks, not_finite, silent
from .quantize.samples import samples_of

HALF = 1 << 16  # values of half of the bits


class Peak(NamedTuple):
    """Of the results of one relu on the calibration data.

    bound  their quantile, a number of f32
    most   the largest
    above  the share of them that is above the bound
    """

    bound: float
    most: float
    above: float


def relu_peaks(
    graph: Graph,
    weights: Mapping[str, Array],
    relus: Sequence[Node],
    calibration: object,
    quantile: float,
    engine: Engine,
    report: Report = silent,
) -> dict[str, Peak]:
    """The peak of each of `relus`, nodes of `graph`, by name; `quantile` in (0, 1].

    `calibration` holds samples as the graph takes them, and all results of a relu count alike: the
    quantile is `np.quantile` of them, rounded to f32. Raises DataError for samples as
    `samples_of`, results that are not finite, relus that are never above 0, and a quantile at which
    one of them is 0, all named.
    """
    samples = samples_of(graph, calibration)
    shown = [node.outputs[0] for node in relus]
    run = engine.program(walk.returning(graph, shown), weights, alone=True)
    found = {node: _Histogram() for node in relus}

    def each_chunk(step: Callable[[Node, Array], None], stage: str) -> None:
        done = 0
        for part in chunks(samples):
            pairs = zip(relus, run([part]), strict=True)
            engine.each(lambda pair: step(*pair), pairs)
            done += len(part)
            report(stage, done, len(samples))

    each_chunk(lambda node, a: found[node].count(node.outputs[0], a), "counting activations")
    _require_alive([n for n in relus if not found[n].most])
    for histogram in found.values():
        histogram.seek(quantile)
    each_chunk(lambda node, a: found[node].refine(a), "measuring their quantiles")
    peaks = {node: histogram.peak() for node, histogram in found.items()}
    _require_above_zero([n for n, peak in peaks.items() if not peak.bound], quantile)
    return {node.name: peak for node, peak in peaks.items()}


@dataclass
class _Histogram:
    """Of numbers from 0 up: how many there are of each upper half of the bits, and how many of each
    lower half in the upper halves that `seek` asks for."""

    upper: Array = field(default_factory=lambda: np.zeros(HALF // 2, np.int64))
    lower: dict[int, Array] = field(default_factory=dict)
    most: float = 0.0
    ranks: tuple[int, int] = (0, 0)
    rest: np.float64 = field(default_factory=np.float64)

    def count(self, value: Value, array: Array) -> None:
        """The first look at a chunk; DataError where it is not finite."""
        most = float(array.max())
        if not math.isfinite(most):
            raise not_finite(value)
        self.most = max(self.most, most)
        self.upper += np.bincount(_bits(array) >> 16, minlength=HALF // 2)

    def seek(self, quantile: float) -> None:
        """From here on the second look: at (n - 1) times the share in the order of size, the
        quantile is interpolated between two neighbours."""
        total = int(self.upper.sum())
        at = (total - 1) * quantile
        first = math.floor(at)
        self.ranks, self.rest = (first, min(first + 1, total - 1)), np.float64(at - first)
        ends = np.cumsum(self.upper)
        halves = np.searchsorted(ends, self.ranks, side="right")
        self.lower = {int(half): np.zeros(HALF, np.int64) for half in halves}

    def refine(self, array: Array) -> None:
        """The second look at a chunk."""
        bits = _bits(array)
        for half, counts in self.lower.items():
            inside = bits[bits >> 16 == half]
            counts += np.bincount(inside & (HALF - 1), minlength=HALF)

    def peak(self) -> Peak:
        total, (low, high) = int(self.upper.sum()), map(self._at, self.ranks)
        step, rest = high - low, self.rest
        exact = low + step * rest if rest < 0.5 else high - step * (1 - rest)
        bound = np.float32(exact)
        inside = low < bound < high
        above = total - 1 - self.ranks[0] if inside else self._above(bound)
        return Peak(float(bound), self.most, above / total)

    def _at(self, rank: int) -> np.float32:
        """The number of this place, counted from 0, in the order of size."""
        ends = np.cumsum(self.upper)
        half = int(np.searchsorted(ends, rank, side="right"))
        place = rank - int(ends[half] - self.upper[half])
        low = int(np.searchsorted(np.cumsum(self.lower[half]), place, side="right"))
        return np.uint32(half * HALF + low).view(np.float32)

    def _above(self, number: np.float32) -> int:
        """How many are above one that `_at` gave."""
        half, low = divmod(int(number.view(np.uint32)), HALF)
        return int(self.upper[half + 1 :].sum() + self.lower[half][low + 1 :].sum())


def _bits(array: Array) -> Array:
    """Of a relu's results, u32; -0.0 counts as 0.0."""
    flat = np.ascontiguousarray(array, np.float32).reshape(-1)
    return flat.view(np.uint32) & 0x7FFFFFFF


def _named(nodes: Iterable[Node]) -> str:
    return some([node.label for node in nodes])


def _require_alive(dead: Sequence[Node]) -> None:
    if dead:
        raise DataError(
            f"never above 0 on the calibration data: {_named(dead)}. There is no bound for what is "
            "dead: give samples as the network was trained on, or train it (`addergraph diagnose`)"
        )


def _require_above_zero(zero: Sequence[Node], quantile: float) -> None:
    if zero:
        raise DataError(
            f"quantile={quantile:g} of the results is 0 of {_named(zero)}: so bounded, they would "
            "be dead; take a larger quantile"
        )
