"""fake_quantize_filter: the bits of the reference on any shape, target, number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.ops.pointwise.fake_quantize import FakeQuantizeFilter
from tests.codegen.harness import RUNS, require_equal

SHAPES: list[tuple[int, ...]] = [
    (3, 3, 5, 7),
    (3, 3, 16, 33),
    (1, 1, 1, 1),
    (700, 10),  # rows in chunks
    (5003, 1),  # lanes along the rows
    (2, 130),
    (1, 19),
    (0, 4),
    (3, 0),
]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits(shape: tuple[int, ...], target: str, threads: int) -> None:
    rng = np.random.default_rng(3)
    f = (rng.normal(size=shape) * rng.lognormal(0, 9, shape[-1])).astype(np.float32)
    for width in (2, 4, 8):
        require_equal(FakeQuantizeFilter(width), [f], target, threads)
    require_equal(FakeQuantizeFilter(3), [f], target, threads, in_place=0 if f.size else None)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_ties_and_special_values(target: str, threads: int) -> None:
    op = FakeQuantizeFilter(5)
    scale = np.random.default_rng(4).lognormal(-3, 5, 18)
    ties = (scale * np.arange(-op.end, op.end + 0.5, 0.5)[:, None]).astype(np.float32)
    ties[:, 3], ties[:, 4], ties[5, 5], ties[6, 6] = 0.0, -0.0, np.nan, -np.inf
    ties[:, 7] = 1e-45 * np.sign(ties[:, 7])
    ties[:, 8] = 3.4e38 * np.sign(ties[:, 8])
    near = [np.nextafter(ties, np.float32(end)) for end in (np.inf, -np.inf)]
    for f in (ties, *near):
        require_equal(op, [f], target, threads)
