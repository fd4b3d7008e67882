"""An observer of the road from graph to code: whether each pass keeps what the graph means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from addergraph.errors import VerificationError
from addergraph.ir import Array, Parameter, Value
from addergraph.ir.interpreter import run_reference
from addergraph.ir.types import f32
from addergraph.passes.lowering import Lowering


def meaning(
    at: Lowering, inputs: Sequence[Array], weights: Mapping[str, Array]
) -> tuple[Sequence[Array], Mapping[str, Array]]:
    """Outputs and updates for the inputs and weights of `at.source`, by the reference."""
    if at.setup is not None:
        raw = {p.name: weights[p.name] for p in at.setup.parameters}
        made, _ = run_reference(at.setup, [], raw)
        weights = {**weights, **{v.name: a for v, a in zip(at.setup.outputs, made, strict=True)}}
    known = {p.name: weights[p.name] for p in at.main.parameters}
    if at.batched is None:
        return run_reference(at.main, inputs, known)
    flags, own = at.batched[: len(inputs)], at.batched[len(inputs) :]
    found = []
    count = max(len(x) for x, open in zip(inputs, flags, strict=True) if open)
    for start in range(0, count, at.samples):
        one = slice(start, start + at.samples)
        row = [x[one] if open else x for x, open in zip(inputs, flags, strict=True)]
        found.append(run_reference(at.main, row, known)[0])
    results = zip(zip(*found, strict=True), own, strict=True)
    return [np.concatenate(rows) if open else rows[0] for rows, open in results], {}


@dataclass(frozen=True)
class Compare:
    """Observer: interprets what was before a pass or step, and after, on random data.

    With `exact` the data are small integers times 2^-2, on which short sums, products and
    comparisons do not round, and results have to be equal; otherwise data are normal and an element
    may differ by `tolerance` times the largest magnitude of its tensor (at least `tolerance`).
    Parameters that start at one (variances, scales) get positive numbers. An open batch is
    `batch`. NaN equals NaN, and -0.0 equals 0.0.
    Raises VerificationError, naming the pass and the output or update.
    """

    tolerance: float = 1e-4
    exact: bool = False
    seed: int = 0
    batch: int = 3

    def __call__(self, name: str, before: Lowering, after: Lowering, seconds: float) -> None:
        rng = np.random.default_rng(self.seed)
        inputs = [self._sample(rng, v) for v in before.source.inputs]
        weights = {p.name: self._sample(rng, p) for p in before.source.parameters}
        old, old_updates = meaning(before, inputs, weights)
        new, new_updates = meaning(after, inputs, weights)
        for v, x, y in zip(before.main.outputs, old, new, strict=True):
            self._require_equal(f'pass "{name}" changed output {v}', x, y)
        for parameter, x in old_updates.items():
            what = f'pass "{name}" changed the update of %{parameter}'
            self._require_equal(what, x, new_updates[parameter])

    def _sample(self, rng: np.random.Generator, value: Value) -> Array:
        type = value.type.bind(self.batch)
        small = rng.integers(-8, 9, type.sizes)
        if type.dtype != f32:
            return np.abs(small).astype(type.dtype.numpy)
        drawn = small / 4 if self.exact else rng.normal(size=type.sizes)
        if isinstance(value, Parameter) and value.init.kind == "ones":
            drawn = np.abs(drawn) + 1  # a variance, or a scale
        return drawn.astype(np.float32)

    def _require_equal(self, what: str, x: Array, y: Array) -> None:
        finite = np.abs(x[np.isfinite(x)])
        largest = float(finite.max()) if finite.size else 0.0
        allowed = 0.0 if self.exact else self.tolerance * max(1.0, largest)
        if not np.allclose(y, x, rtol=0.0, atol=allowed, equal_nan=True):
            difference = np.nanmax(np.abs(x.astype("f8") - y.astype("f8")))
            raise VerificationError(
                f"{what}: results differ by up to {difference:g}, expected at most {allowed:g} "
                f"(random data of seed {self.seed})"
            )
