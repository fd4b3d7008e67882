"""Value ranges: interval arithmetic and the forward walk that bounds every value of a graph.

A range speaks of the non-NaN elements of a tensor. `check` uses it to re-derive
`input_nonnegative`; the `ranges` pass uses it to choose kernels and to find dead code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .walk import evaluate

if TYPE_CHECKING:
    from .graph import Graph, Node


@dataclass(frozen=True)
class Interval:
    """A closed range [lo, hi] that holds every non-NaN element of a tensor."""

    lo: float = -math.inf
    hi: float = math.inf

    @property
    def nonnegative(self) -> bool:
        return self.lo >= 0

    @property
    def constant(self) -> bool:
        return self.lo == self.hi and math.isfinite(self.lo)

    def hull(self, other: Interval) -> Interval:
        """The smallest range that holds both."""
        return Interval(min(self.lo, other.lo), max(self.hi, other.hi))

    def __neg__(self) -> Interval:
        return Interval(-self.hi, -self.lo)

    def __add__(self, other: Interval) -> Interval:
        return Interval(_number(self.lo + other.lo, -math.inf), _number(self.hi + other.hi))

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        ends = [_number(a * b, 0.0) for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Interval(min(ends), max(ends))

    def total(self, count: int) -> Interval:
        """The range of an f32 sum of `count` such elements, in any order of summation.

        Rounding is monotone, so the sum lies between those of `count` times `lo` and of `count`
        times `hi`. These are within `count` roundings (2^-24 each) of the products; the factor
        has twice that, which also covers a rounding of each element or of a mean. Signs are exact.
        """
        if not count:
            return Interval(0.0, 0.0)
        slack = 1 + count * 2.0**-23
        lo, hi = self.lo * count, self.hi * count
        return Interval(lo * slack if lo < 0 else lo / slack, hi * slack if hi > 0 else hi / slack)

    def clip(self, lo: float, hi: float) -> Interval:
        return Interval(min(max(self.lo, lo), hi), max(min(self.hi, hi), lo))


def _number(value: float, otherwise: float = math.inf) -> float:
    """`value`, or `otherwise` for the NaN that inf - inf and 0 * inf give."""
    return otherwise if math.isnan(value) else value


ANY = Interval()
NONNEGATIVE = Interval(0.0, math.inf)


def value_ranges(
    graph: Graph,
    inputs: Sequence[Interval] | None = None,
    parameters: Mapping[str, Interval] | None = None,
) -> dict[str, Interval]:
    """The range of every value of `graph`, by name, from each op's `interval` rule.

    `inputs` are the ranges of the graph's inputs where they are known, as for a fused body;
    `parameters` those of its parameters, by name, where their numbers are.
    """

    def step(node: Node, ranges: list[Interval]) -> Sequence[Interval]:
        return node.op.interval(ranges, [v.type for v in node.inputs])

    given = [ANY] * len(graph.inputs) if inputs is None else inputs
    numbers = parameters or {}
    held = [numbers.get(p.name, ANY) for p in graph.parameters]
    known = evaluate(graph, [*given, *held], step)
    return {v.name: range for v, range in known.items()}
