"""NaN, infinities, zeros and denormals in adder layers: the table of docs/design.md, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from addergraph.codegen.kernels.sparse.sparse_f32 import SparseAdderKernel
from addergraph.ir import Array, Op
from addergraph.ops.contraction.adder2d import Adder2d, Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.adder_dense import (
    AdderDense,
    AdderDenseGradFilter,
    AdderDenseGradInput,
)
from tests.codegen.harness import HERE, run_call, same_bits

DESIGN = Path(__file__).parents[3] / "docs" / "design.md"
COLUMNS = ["x", "f", "exact form", "min form", "dX, of g = 1", "dF, of g = 1"]
SAMPLES, PIXELS, CHANNELS = 16, 20, 17  # whole vectors and a rest


class Row(NamedTuple):
    x: float
    f: float
    exact: float
    minimum: float
    dx: float
    df: float


def rows() -> list[Row]:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DESIGN.read_text().split("### Special values")[1].split("\n#")[0].splitlines()
        if line.startswith("|")
    ]
    assert lines[0] == COLUMNS
    return [Row(*map(float, line)) for line in lines[2:]]


ROWS = rows()


def numbers(column: str) -> Array:
    return np.array([getattr(row, column) for row in ROWS], np.float32)


def taps(image: bool) -> tuple[Array, Array]:
    """One channel in and out for each row of the table, in groups; (x, f)."""
    count = len(ROWS)
    x = np.broadcast_to(numbers("x"), (SAMPLES, 1, PIXELS, count) if image else (SAMPLES, count))
    f = np.broadcast_to(numbers("f"), (1, 1, 1, count))
    return x.copy(), f.copy()


def require(found: Array, column: str, target: str, threads: int = 1) -> None:
    expected = np.broadcast_to(numbers(column), found.shape).astype(np.float32)
    assert same_bits(found, expected), (target, found.reshape(-1, len(ROWS))[0], expected)


@pytest.mark.parametrize("target", HERE)
def test_grouped_images(target: str) -> None:
    """Every row is a group of its own."""
    x, f = taps(True)
    for op, column in (
        (Adder2d(groups=len(ROWS)), "exact"),
        (Adder2d(groups=len(ROWS), input_nonnegative=True), "minimum"),
    ):
        for constant in ((), (1,)):
            (found,) = run_call(op, [x, f], target=target, threads=2, constant=constant)
            require(found, column, target)
    g = np.ones_like(x)
    (dx,) = run_call(Adder2dGradInput(groups=len(ROWS)), [g, x, f], target=target, threads=3)
    require(dx, "dx", target)
    one = [a[:1, :, :1] for a in (g, x)]
    (df,) = run_call(Adder2dGradFilter(groups=len(ROWS)), [*one, f], target=target)
    require(df, "df", target)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"x={row.x},f={row.f}")
def test_dense_and_sparse(row: Row, target: str) -> None:
    """Every row alone, in all lanes; the compiled kernels are the same for all rows."""
    x, f = np.full((SAMPLES, 1), row.x, "f4"), np.full((1, CHANNELS), row.f, "f4")
    images = np.full((SAMPLES, 1, PIXELS, 1), row.x, "f4")
    filters = f.reshape(1, 1, 1, CHANNELS)
    ones = np.ones((SAMPLES, CHANNELS), "f4")
    wanted: list[tuple[Op, list[Array], float, dict[str, Any]]] = [
        (AdderDense(), [x, f], row.exact, {}),
        (AdderDense(input_nonnegative=True), [x, f], row.minimum, {}),
        (AdderDenseGradInput(), [ones[:, :1], x, f[:, :1]], row.dx, {}),
        (AdderDenseGradFilter(), [ones[:1], x[:1], f], row.df, {}),
    ]
    options: dict[str, Any] = {"constant": (1,), "family": SparseAdderKernel}
    wanted.append((Adder2d(input_nonnegative=True), [images, filters], row.minimum, options))
    for op, arrays, expected, options in wanted:
        (found,) = run_call(op, arrays, target=target, **options)
        assert same_bits(found, np.full_like(found, expected)), (op, options, found)
