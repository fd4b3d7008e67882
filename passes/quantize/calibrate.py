"""What a float network's values are on calibration data: ranges, and batch norms' statistics.

The network gives, CHUNK samples at a time, those of its values that will be rounded or normalized;
a few numbers are kept of each. So memory does not grow with the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from addergraph.errors import DataError
from addergraph.ir import Array, Graph, Value, walk
from addergraph.ops.pointwise.fake_quantize import Rounding

from .rules import ranged_values

CHUNK = 64  # samples at a time
_SPARSE = 64  # one in so many elements tells about where the ends of all are
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Ends = tuple[float, float]

Report = Callable[[str, int, int], None]
"""Hears how much is done of a stage of the work, and how much that stage is."""


def silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


class Engine(Protocol):
    """What computes: native code or NumPy. Integers and moments have the same bits by both."""

    def program(
        self, graph: Graph, weights: Mapping[str, Array], *, alone: bool = False
    ) -> Callable[[Sequence[Array]], Sequence[Array]]:
        """`graph` with these numbers, for any batch; `alone` where no call comes from `each`."""

    def moments(self, values: Array) -> tuple[Array, Array]:
        """Mean and biased variance, f64[C], of every channel of [...,C], of at least one row: sums
        in f64, of one row after the other."""

    def each(self, function: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
        """`function` of every item, in their order; several may run at once."""


@dataclass
class Moments:
    """Mean and biased variance of each channel, collected by chunks in f64."""

    count: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(()))
    variance: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, count: int, mean: Array, variance: Array) -> None:
        """A chunk of `count` rows; chunks merge by their means, without cancellation."""
        total = self.count + count
        share = count / total
        step = mean - self.mean
        self.variance = (
            (1 - share) * self.variance + share * variance + share * (1 - share) * step**2
        )
        self.mean = self.mean + share * step
        self.count = total


@dataclass(frozen=True)
class Statistics:
    """Of a float network on its calibration data.

    ranges   name of an input, an output or a value that becomes bytes -> the least and the largest
             element, or the quantiles of both ends
    moments  name of a value that a batch norm reads -> its channels' mean and variance
    outputs  the outputs themselves
    stated   name of a value, or filter, that the network was trained with as integers -> which ones
    """

    ranges: Mapping[str, tuple[float, float]]
    moments: Mapping[str, Moments]
    outputs: tuple[Array, ...]
    stated: Mapping[str, Rounding] = field(default_factory=dict)


class _Found(NamedTuple):
    """Of a value on a chunk: its ends, and its moments as `Moments.add` takes them; None where
    nothing asks for them."""

    ends: _Ends | None
    moments: tuple[int, Array, Array] | None


def calibrate(
    graph: Graph,
    weights: Mapping[str, Array],
    samples: Array,
    quantile: float,
    engine: Engine,
    report: Report = silent,
) -> Statistics:
    """Runs `graph` on `samples`. Inputs have their ends; quantiles are means over chunks of 64
    samples, in which a chunk weighs as much as it has.

    DataError, naming the value, where one of those that are looked at becomes NaN or infinite.
    """
    normalized = {n.inputs[0] for n in graph.nodes if n.op.normalizes}
    ranged = {*graph.inputs, *ranged_values(graph)}
    asked = ranged | normalized
    shown = [v for v in walk.computed(graph) if v in asked and v.type.is_open]
    run = engine.program(walk.returning(graph, shown), weights, alone=True)
    ends: dict[Value, list[_Ends]] = {v: [] for v in (*graph.inputs, *shown) if v in ranged}
    moments = {v: Moments() for v in sorted(normalized, key=lambda v: v.name)}
    outputs: list[list[Array]] = [[] for _ in graph.outputs]

    def measured(pair: tuple[Value, Array]) -> _Found:
        value, array = pair
        share = 1.0 if value in graph.inputs else quantile
        return _Found(
            _ends(value, array, share) if value in ranged else None,
            _moments(value, array, engine) if value in normalized else None,
        )

    counts: list[int] = []
    for part in chunks(samples):
        arrays = {graph.inputs[0]: part} | dict(zip(shown, run([part]), strict=True))
        for value, found in zip(arrays, engine.each(measured, arrays.items()), strict=True):
            if found.ends is not None:
                ends[value].append(found.ends)
            if found.moments is not None:
                moments[value].add(*found.moments)
        for kept, v in zip(outputs, graph.outputs, strict=True):
            kept.append(arrays[v].copy())  # the next chunk may come into the same memory
        counts.append(len(part))
        report("calibrating", sum(counts), len(samples))
    return Statistics(
        {
            v.name: _joined(found, counts, v in graph.inputs or quantile == 1)
            for v, found in ends.items()
        },
        {v.name: found for v, found in moments.items()},
        tuple(np.concatenate(parts) for parts in outputs),
    )


def chunks(samples: Array) -> Iterator[Array]:
    """`samples` in parts of CHUNK."""
    for start in range(0, len(samples), CHUNK):
        yield samples[start : start + CHUNK]


def _moments(value: Value, array: Array, engine: Engine) -> tuple[int, Array, Array]:
    mean, variance = engine.moments(array)
    if not np.isfinite(mean).all():
        raise not_finite(value)
    return array.size // array.shape[-1], mean, variance


def _ends(value: Value, array: Array, quantile: float) -> _Ends:
    flat = array.reshape(-1)
    least, most = flat.min(), flat.max()
    if not (math.isfinite(least) and math.isfinite(most)):
        raise not_finite(value)
    if quantile == 1:
        return float(least), float(most)
    return quantiles(flat, quantile, (least, most))


def quantiles(flat: Array, share: float, ends: tuple[np.float32, np.float32]) -> _Ends:
    """`np.quantile(flat, (1 - share, share))`, to the bit, without ordering what lies between.

    At (n - 1) times the share in the order of size, it is interpolated between two neighbours.
    `ends` are the least and the largest element.
    """
    sample, found = np.sort(flat[::_SPARSE]), []
    for part, end in ((1 - share, 0), (share, 1)):
        at = (len(flat) - 1) * part
        first = math.floor(at)
        places = first, min(first + 1, len(flat) - 1)
        limit = _limit(sample, len(flat) - first if end else places[1] + 1, end)
        low, high = _in_order(flat, places, end, limit, ends[end])
        step, rest = high - low, np.float64(at - first)
        found.append(float(low + step * rest if rest < 0.5 else high - step * (1 - rest)))
    return found[0], found[1]


def _limit(sample: Array, count: int, end: int) -> np.float32 | None:
    """What probably lets pass `count` elements at the lower or upper end, and not many more."""
    rank = 2 * count // _SPARSE + 8
    return None if rank >= len(sample) else sample[-1 - rank if end else rank]


def _in_order(
    flat: Array, places: tuple[int, int], end: int, limit: np.float32 | None, last: np.float32
) -> tuple[np.float32, np.float32]:
    """The elements of two places, counted from 0, in the order of size; sought first among those
    from `limit` to the `last` one at that end."""
    if limit is not None:
        beyond = flat >= limit if end else flat <= limit
        passed = int(np.count_nonzero(beyond))
        less = len(flat) - passed if end else 0
        if less <= places[0] and places[1] < less + passed:
            if limit == last:
                return limit, limit
            flat, places = flat[beyond], (places[0] - less, places[1] - less)
    ordered = np.partition(flat, places)
    return ordered[places[0]], ordered[places[1]]


def not_finite(value: Value) -> DataError:
    """What is raised where calibration data make a value NaN or infinite."""
    return DataError(f"{value} is not finite on the calibration data; is the network trained?")


def _joined(pairs: Sequence[_Ends], counts: Sequence[int], whole: bool) -> _Ends:
    least, most = zip(*pairs, strict=True)
    if whole:
        return min(least), max(most)
    mean = np.average(pairs, axis=0, weights=counts)
    return float(mean[0]), float(mean[1])
