"""What a float network's values are on calibration data: ranges, and batch norms' statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from addergraph.errors import DataError
from addergraph.ir import Array, Graph, Value, walk
from addergraph.ops.pointwise.fake_quantize import Rounding

Execute = Callable[[Graph, Mapping[str, Array], Sequence[Array]], Sequence[Array]]
"""Runs a graph with these weights on these inputs: its outputs."""

CHUNK = 64  # samples at a time


@dataclass
class Moments:
    """Mean and biased variance of each channel, collected by chunks in f64."""

    count: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(()))
    variance: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, values: Array) -> None:
        """Another chunk [...,C]; chunks merge by their means, without cancellation."""
        wide = values.reshape(-1, values.shape[-1]).astype("f8")
        if not len(wide):
            return
        mean, variance, total = wide.mean(0), wide.var(0), self.count + len(wide)
        share = len(wide) / total
        step = mean - self.mean
        self.variance = (
            (1 - share) * self.variance + share * variance + share * (1 - share) * step**2
        )
        self.mean = self.mean + share * step
        self.count = total


@dataclass(frozen=True)
class Statistics:
    """Of a float network on its calibration data.

    ranges   value name -> the least and the largest element, or the quantiles of both ends
    moments  name of a value that a batch norm reads -> its channels' mean and variance
    outputs  the outputs themselves
    stated   name of a value, or filter, that the network was trained with as integers -> which ones
    """

    ranges: Mapping[str, tuple[float, float]]
    moments: Mapping[str, Moments]
    outputs: tuple[Array, ...]
    stated: Mapping[str, Rounding] = field(default_factory=dict)


def calibrate(
    graph: Graph, weights: Mapping[str, Array], samples: Array, quantile: float, execute: Execute
) -> Statistics:
    """Runs `graph` on `samples`. Inputs have their ends; quantiles are means over chunks of 64
    samples, in which a chunk weighs as much as it has.

    DataError, naming the value, where one becomes NaN or infinite.
    """
    computed = [v for v in walk.computed(graph) if v.type.is_open]
    normalized = {n.inputs[0].name for n in graph.nodes if n.op.normalizes}
    probed = walk.returning(graph, computed)
    ends: dict[str, list[tuple[float, float]]] = {v.name: [] for v in (*graph.inputs, *computed)}
    moments = {name: Moments() for name in sorted(normalized)}
    outputs: list[list[Array]] = [[] for _ in graph.outputs]
    for part in chunks(samples):
        arrays = dict(zip(computed, execute(probed, weights, [part]), strict=True))
        arrays[graph.inputs[0]] = part
        for value, array in arrays.items():
            share = quantile if value in computed else 1.0
            ends[value.name].append(_ends(value, array, share))
            if value.name in moments:
                moments[value.name].add(array)
        for kept, v in zip(outputs, graph.outputs, strict=True):
            kept.append(arrays[v])
    counts = [len(part) for part in chunks(samples)]
    return Statistics(
        {v.name: _joined(ends[v.name], counts, quantile) for v in computed}
        | {v.name: _joined(ends[v.name], counts, 1.0) for v in graph.inputs},
        moments,
        tuple(np.concatenate(parts) for parts in outputs),
    )


def chunks(samples: Array) -> Iterator[Array]:
    """`samples` in parts of CHUNK."""
    for start in range(0, len(samples), CHUNK):
        yield samples[start : start + CHUNK]


def _ends(value: Value, array: Array, quantile: float) -> tuple[float, float]:
    least, most = float(array.min()), float(array.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise DataError(f"{value} is not finite on the calibration data; is the network trained?")
    if quantile < 1:
        least, most = (float(q) for q in np.quantile(array, (1 - quantile, quantile)))
    return least, most


def _joined(
    pairs: Sequence[tuple[float, float]], counts: Sequence[int], quantile: float
) -> tuple[float, float]:
    least, most = zip(*pairs, strict=True)
    if quantile < 1:
        mean = np.average(pairs, axis=0, weights=counts)
        return float(mean[0]), float(mean[1])
    return min(least), max(most)
