"""NaN, infinities, zeros and denormals in adder layers: the table of docs/design.md, row by row."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import addergraph as ag
from addergraph import ops
from addergraph.codegen.kernels.sparse.sparse_f32 import SparseAdderKernel
from addergraph.errors import RangeWarning
from addergraph.ir import Array, Op
from addergraph.ir.interpreter import run_reference
from addergraph.ir.trace import Tensor
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


@pytest.mark.parametrize(
    "always",
    [
        lambda x, f: ops.relu(ops.adder2d(x, f)),
        lambda x, f: ops.max_pool2d(ops.relu6(ops.adder2d(x, f)), 2),
        lambda x, f: ops.flatten(ops.clip(x, 2.0, 2.0)),
        lambda x, f: ops.minimum(ops.abs(x), -1.0),
        lambda x, f: ops.maximum(ops.adder2d(ops.relu(x), f), 0.0) + 3.0,
        lambda x, f: ops.adder2d(ops.relu(ops.adder2d(x, f)), ops.slice(f, (0,) * 4, (1, 1, 2, 2))),
    ],
)
def test_what_is_constant_for_numbers_lets_nan_through(always: Callable[..., Tensor]) -> None:
    """One rule for the interpreter and compiled code; verification passes the correct program."""
    types = [ag.tensor("f32", shape) for shape in (("N", 4, 4, 2), (2, 2, 2, 2))]
    graph = ag.trace(always, *types, name="always")
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("f4")
    x[0, 1, 2, 0], x[1], x[2, 0, 0, 0] = np.nan, np.nan, np.inf
    f = np.ones((2, 2, 2, 2), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        program = ag.compile(graph)
    (expected,) = run_reference(graph, [x, f], {})[0]
    assert np.isnan(expected[1]).all()
    assert not np.isnan(expected[3]).any()
    np.testing.assert_array_equal(np.isnan(program(x, f)), np.isnan(expected))
    assert ag.verify(graph, program, inputs=[x, f]).ok
