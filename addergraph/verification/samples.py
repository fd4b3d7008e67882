"""The samples of a verification: given ones in calls, or draws that reach what a network can do.

Draws alternate kinds, so that what one leaves dead another brings to life:

    f32       N(0, 1); uniform in [0, 1), as pixels are; N(0, 16^2) and N(0, 1024^2), as sums of
              distances are; N(0, 1) in a tenth of the
              elements and 0 elsewhere; one number of N(0, 1) throughout
    integers  uniform over the whole range of the dtype; 0 to 3; the ends of the range and 0
    bool      both, evenly

Where the range of a value is known, draws keep to it. `matched` draws seek the ends of what a
contraction gives, which sums of independent numbers never come near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import Array, Graph
from ..ir.interpreter import bind_inputs
from ..ir.intervals import ANY, Interval
from ..ir.types import DType, TensorType, f32
from ..ops._elementwise import held

PER_CALL = 16  # samples of one call of the program, at most
PER_CALL_ELEMENTS = 2**24  # of all values of a graph: the reference keeps them and their bounds
REAL_KINDS, WHOLE_KINDS = 6, 3

Call = tuple[list[Array], int]  # the inputs of one call, and how many samples they are


def draw(
    dtype: DType, sizes: tuple[int, ...], kind: int, rng: np.random.Generator, range: Interval = ANY
) -> Array:
    """An array of one kind; any integer names one."""
    if dtype != f32:
        return _whole(held(range, dtype), sizes, kind % WHOLE_KINDS, rng).astype(dtype.numpy)
    real = _real(sizes, kind % REAL_KINDS, rng)
    real = np.abs(real) if range.nonnegative else -np.abs(real) if range.hi <= 0 else real
    return np.clip(real, range.lo, range.hi).astype("f4")


def _real(sizes: tuple[int, ...], kind: int, rng: np.random.Generator) -> Array:
    if kind == 1:
        return rng.random(sizes)
    if kind == 4:
        return np.full(sizes, rng.normal())
    normal = rng.normal(size=sizes)
    if kind == 3:
        return normal * (rng.random(sizes) < 0.1)
    return {2: 16, 5: 1024}.get(kind, 1) * normal


def _whole(range: Interval, sizes: tuple[int, ...], kind: int, rng: np.random.Generator) -> Array:
    lo, hi = int(range.lo), int(range.hi)
    if kind == 1:
        lo, hi = max(lo, min(0, hi)), min(hi, max(3, lo))
    if kind == 2:
        return rng.choice([lo, min(max(0, lo), hi), hi], sizes)
    return rng.integers(lo, hi, sizes, endpoint=True)


def matched(
    type: TensorType, f: Array, kind: int, rng: np.random.Generator, range: Interval, distance: bool
) -> Array:
    """An operand of a contraction that takes one filter of f [..., T] to its largest result, or
    (odd kinds) to its least: equal to the filter or as far off as can be where terms are
    distances, at the ends of the range where they are products.

    Filters [I,J,C,T] are laid side by side, so that every (I, J)-th window has one whole.
    """
    ends = held(range, type.dtype)
    lo, hi = (max(ends.lo, -4.0), min(ends.hi, 4.0)) if type.dtype == f32 else (ends.lo, ends.hi)
    one = f[..., rng.integers(f.shape[-1])].astype("f8")
    if distance:
        middle = (lo + hi) / 2
        made = np.where(one < middle, hi, lo) if kind % 2 else np.clip(one, lo, hi)
    else:
        made = np.where((one > 0) != (kind % 2), hi, lo)
    made = np.clip(made, ends.lo, ends.hi)  # a range may lie beyond 4
    places = [np.arange(n) % m for n, m in zip(type.sizes[1:], made.shape, strict=True)]
    return np.broadcast_to(made[np.ix_(*places)], type.sizes).astype(type.dtype.numpy)


def drawn_calls(
    graph: Graph, samples: int, rng: np.random.Generator, per_call: int | None = None
) -> list[Call]:
    """Random inputs in calls of at most `per_call` samples; of a bound graph, whole batches."""
    per_call = _per_call(graph) if per_call is None else per_call
    sizes = [1] * samples
    if graph.is_open:
        sizes = [min(per_call, samples - start) for start in range(0, samples, per_call)]
    calls, first = [], 0
    for count in sizes:
        drawn = [_drawn(v.type, count, first, k, rng) for k, v in enumerate(graph.inputs)]
        calls.append((drawn, count))
        first += count
    return calls


def _drawn(type: TensorType, count: int, first: int, k: int, rng: np.random.Generator) -> Array:
    """Of input number k, for the samples from `first` on: inputs are not all of the same kind."""
    step, sizes = 2 * k + 1, type.bind(count).sizes
    if not type.is_open:
        return draw(type.dtype, sizes, first * step, rng)
    rows = [draw(type.dtype, sizes[1:], (first + s) * step, rng) for s in range(count)]
    return np.stack(rows) if rows else np.zeros(sizes, type.dtype.numpy)


def given_calls(graph: Graph, inputs: Sequence[object], per_call: int | None = None) -> list[Call]:
    """Given inputs in calls of at most `per_call` samples, where samples are independent."""
    per_call = _per_call(graph) if per_call is None else per_call
    batch, arrays = bind_inputs(graph, inputs)
    if batch is None or not graph.per_sample:
        return [(arrays, 1 if batch is None else batch)]
    return [
        (
            [
                a[start : start + per_call] if v.type.is_open else a
                for v, a in zip(graph.inputs, arrays, strict=True)
            ],
            min(per_call, batch - start),
        )
        for start in range(0, batch, per_call)
    ]


def _per_call(graph: Graph) -> int:
    one = graph.bind(1) if graph.is_open else graph
    elements = sum(v.type.elements for v in one.values())
    return max(1, min(PER_CALL, PER_CALL_ELEMENTS // max(1, elements)))
