"""Does a rewritten graph mean what the original means? Asked of the interpreter."""

from __future__ import annotations

import numpy as np

from addergraph.ir import Array, Graph, Value
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.types import f32

SPECIAL = (0.0, -0.0, 1.0, -1.5, 3.0, np.inf, -np.inf, np.nan)


def require_same_bits(before: Graph, after: Graph, seed: int = 0, special: bool = True) -> None:
    """Outputs and updates are bit-equal (any NaN equals any NaN); an open batch is 3.

    `special` data hold zeros of both signs, infinities and NaN; others small integers.
    """
    (old, old_updates), (new, new_updates) = _run_both(before, after, seed, special)
    for x, y in zip(old, new, strict=True):
        _require_equal(x, y)
    assert old_updates.keys() == new_updates.keys()
    for name, x in old_updates.items():
        _require_equal(x, new_updates[name])


Results = tuple[tuple[Array, ...], dict[str, Array]]


def _run_both(before: Graph, after: Graph, seed: int, special: bool) -> tuple[Results, Results]:
    check(after)
    rng = np.random.default_rng(seed)
    inputs = [draw(rng, v, special) for v in before.inputs]
    weights = {p.name: draw(rng, p, special) for p in before.parameters}
    kept = {p.name: weights[p.name] for p in after.parameters}
    return run_reference(before, inputs, weights), run_reference(after, inputs, kept)


def draw(rng: np.random.Generator, value: Value, special: bool = False) -> Array:
    """A random array of the type of `value`."""
    sizes = value.type.bind(3).sizes
    if value.type.dtype == f32 and special:
        return rng.choice(SPECIAL, sizes).astype(np.float32)
    small = rng.integers(-3, 4, sizes)
    return (small if value.type.dtype.name in ("f32", "i32") else abs(small)).astype(
        value.type.dtype.numpy
    )


def _require_equal(x: Array, y: Array) -> None:
    np.testing.assert_array_equal(x, y)
    if x.dtype == np.float32:
        number = ~np.isnan(x)
        np.testing.assert_array_equal(np.signbit(x[number]), np.signbit(y[number]))
