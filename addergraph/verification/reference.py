"""Programs against what NumPy says and rounding explains (`ir/rounding.py`).

An element's own deviation in few draws may be small by chance, so a failure is one that CONFIRM
draws leave: an error of a third of the standard deviation passes them with a chance of 2^-80.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..ir import Array, Graph
from ..ir.rounding import SLACK, Rounded, deviations

DRAWS = 4
CONFIRM = 36
FEWEST = 16  # elements from which an output that hardly varies is worth a word
STILL = 0.95  # the share of its elements that do not change, from which it hardly varies


@dataclass(frozen=True)
class Difference:
    """One element of an output that differs: its sample and index, and both values."""

    sample: int
    index: tuple[int, ...]
    native: float
    reference: float

    def __str__(self) -> str:
        place = ",".join(map(str, self.index))
        return (
            f"sample {self.sample} at [{place}]: native {self.native:.9g}, "
            f"reference {self.reference:.9g}"
        )


@dataclass(frozen=True)
class OutputReport:
    """One output over all samples.

    error, allowed   of the element whose error takes the largest share of what it is allowed;
                     where nothing differs, 0 and the most that an element is allowed
    different        how many of the `elements` differ in value at all
    scale            the largest magnitude of the reference
    worst            the element of that error; None where nothing differs
    """

    name: str
    error: float
    allowed: float
    different: int
    elements: int
    scale: float
    worst: Difference | None

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed

    @property
    def share(self) -> float:
        """Of the bound that the error takes; inf for an error where none is allowed."""
        if self.allowed:
            return self.error / self.allowed
        return math.inf if self.error else 0.0

    def __str__(self) -> str:
        head = f"{'ok  ' if self.ok else 'FAIL'} %{self.name}: "
        if not self.elements:
            return head + "no elements"
        values = f"values up to {self.scale:.3g}"
        if not self.ok:
            return (
                f"{head}error {self.error:.3g}, allowed {self.allowed:.3g}, {values}; "
                f"{self.different:,} of {self.elements:,} elements differ\n       {self.worst}"
            )
        if not self.different:
            return f"{head}all {self.elements:,} elements are equal, {values}"
        return (
            f"{head}the largest error, {self.error:.3g}, is within its bound, {self.allowed:.3g}; "
            f"{values}"
        )


class Variation:
    """Whether a value depends on the sample: of each element, whether it ever changed."""

    def __init__(self) -> None:
        self._elements = self._rows = 0
        self._first: Array | None = None
        self._moving: Array = np.zeros(0, bool)

    def add(self, value: Array, counted: bool) -> None:
        """`counted`: whether the leading axis counts samples; otherwise `value` is one."""
        rows = value if counted else value[None]
        if not value.size:
            return
        if self._first is None:
            self._first, self._moving = rows[0], np.zeros(rows.shape[1:], bool)
        self._elements += value.size
        self._rows += len(rows)
        self._moving = self._moving | (rows != self._first).any(0)

    @property
    def still(self) -> bool:
        """Nearly every element is the same for every sample."""
        seen = self._rows > 1 and self._elements >= FEWEST
        return seen and float(self._moving.mean()) <= 1 - STILL


class Total:
    """Collects one output over several calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error = self.allowed = self.scale = 0.0
        self.different = self.elements = 0
        self.worst: Difference | None = None
        self.variation = Variation()
        self._ratio = -1.0  # of error to allowed

    def add(self, native: Array, reference: Array, spread: Array, first: int) -> None:
        """One call, whose samples count from `first`; `spread` is the deviation in the draws."""
        if not reference.size:
            return
        differs, errors, allowed, ratios = _judged(native, reference, spread)
        finite = reference[np.isfinite(reference)].astype("f8")
        self.scale = max(self.scale, float(np.abs(finite).max(initial=0.0)))
        self.different += int(differs.sum())
        self.elements += reference.size
        worst = int(ratios.argmax())
        if ratios.flat[worst] == 0:
            worst = int(allowed.argmax())
        found = float(ratios.flat[worst]), float(allowed.flat[worst])
        if found > (self._ratio, self.allowed if self._ratio == 0 else np.inf):
            self._ratio, self.allowed = found
            self.error = float(errors.flat[worst])
            self.worst = _difference(native, reference, worst, first) if self._ratio else None

    @property
    def failed(self) -> bool:
        return self._ratio > 1

    def report(self) -> OutputReport:
        return OutputReport(
            self.name, self.error, self.allowed, self.different, self.elements, self.scale,
            self.worst,
        )  # fmt: skip


def beyond(native: Array, reference: Array, spread: Array) -> bool:
    """Whether any element differs by more than it is allowed."""
    return bool(reference.size) and bool((_judged(native, reference, spread)[3] > 1).any())


def _judged(native: Array, reference: Array, spread: Array) -> tuple[Array, Array, Array, Array]:
    """Of each element: whether it differs, by how much, what it is allowed, and their ratio.

    An error is inf where one of both is not finite. What is not f32 and changes in a draw may be
    anything: a comparison or an index that rounding decides.
    """
    differs = (native != reference) & ~(np.isnan(native) & np.isnan(reference))
    if reference.dtype == np.float32:
        errors = np.where(differs, deviations(native, reference, np.inf), 0.0)
        allowed = SLACK * spread
    else:
        errors = (differs & (spread == 0)).astype("f8")
        allowed = np.zeros(reference.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(errors == 0, 0.0, errors / allowed)
    return differs, errors, allowed, ratios


def _difference(native: Array, reference: Array, at: int, first: int) -> Difference:
    index = tuple(int(i) for i in np.unravel_index(at, reference.shape))
    sample = first + (index[0] if index else 0)
    return Difference(sample, index, float(native[index]), float(reference[index]))


class Reference(Rounded):
    """What NumPy says, to compare programs with."""

    def compare(self, totals: Sequence[Total], native: Sequence[Array], first: int = 0) -> None:
        """Adds the outputs of a call, whose samples count from `first`, to a total each.

        DataError for outputs that are not of this graph: broadcasting would compare them all the
        same.
        """
        expected, given = ([(a.shape, str(a.dtype)) for a in x] for x in (self.outputs, native))
        if given != expected:
            raise DataError(
                f'the program does not give what graph "{self.graph.name}" does: found '
                f"{_shown(given)}, expected {_shown(expected)}; compile it from this graph"
            )
        pairs = list(zip(totals, native, self.outputs, strict=True))
        spreads = self.spread(DRAWS)
        if any(
            beyond(found, y, s)
            for (total, found, y), s in zip(pairs, spreads, strict=True)
            if not total.failed
        ):
            spreads = self.spread(CONFIRM)
        declared = self._declared.outputs
        for (total, found, y), s, v in zip(pairs, spreads, declared, strict=True):
            total.add(found, y, s, first)
            total.variation.add(y, v.type.is_open)  # then the leading axis counts samples

    def values(self) -> dict[str, Array]:
        """Every value by name."""
        return {v.name: a for v, a in self.known.items()}

    def note(self, variations: Mapping[str, Variation]) -> None:
        """Adds the values of these names to what is known of their variation."""
        for declared, (v, value) in zip(self._declared.values(), self.known.items(), strict=True):
            if v.name in variations:
                variations[v.name].add(value, declared.type.is_open)

    def blocks(self, opened: Graph, samples: int) -> list[dict[str, Array]]:
        """Every value by name, for each block of so many samples of `opened`, which is this graph
        with an open batch; of all there are where it has none. The last block is never smaller."""
        own = {v.name for v in opened.values() if v.type.is_open}
        if not own:
            return [self.values()]
        count = next(len(a) for name, a in self.values().items() if name in own)
        return [
            {n: a[s : s + samples] if n in own else a for n, a in self.values().items()}
            for s in (min(first, count - samples) for first in range(0, count, samples))
        ]


def _shown(outputs: Sequence[tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{dtype}{list(shape)}" for shape, dtype in outputs) or "nothing"
