"""Groups with channel sums: those of `reduce_sum` to the bit, the same for threads and halos."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.ir import Builder, Halo, Value
from addergraph.ir.types import tensor
from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.binary import Mul, Sub
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.greater import Greater
from addergraph.ops.pointwise.select import Select
from addergraph.ops.reduction.reduce import ReduceSum
from tests.codegen.harness import HERE, RUNS, require_equal, run_call, same_bits
from tests.codegen.kernels.test_pointwise import body_of

SHAPES = [
    (2, 3, 5, 7),
    (4, 9, 11, 16),
    (600, 33),
    (257, 70),
    (1, 5),
    (3, 2, 2, 130),
    (0, 3),
    (2, 0),
]


def gradient(shape: tuple[int, ...]) -> Fused:
    """g = (x > m ? d : 0) is stored, and sum g, sum g (x - m), sum d."""

    def build(b: Builder) -> list[Value]:
        x, d = (b.input(name, tensor("f32", shape)) for name in ("a0", "a1"))
        m = b.input("a2", tensor("f32", shape[-1:]))
        total = ReduceSum(tuple(range(len(shape) - 1)))
        (zero,) = b.add(Full(0.0), [])
        (centred,) = b.add(Sub(), [x, m])
        (on,) = b.add(Greater(), [centred, zero])
        (g,) = b.add(Select(), [on, d, zero])
        (first,) = b.add(total, [g])
        (product,) = b.add(Mul(), [g, centred])
        (second,) = b.add(total, [product])
        (third,) = b.add(total, [d])
        return [g, third, first, second]

    return Fused(body_of(build))


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_and_values(shape: tuple[int, ...], target: str, threads: int) -> None:
    rng = np.random.default_rng(8)
    operands = [
        np.asarray(rng.integers(-8, 9, s).astype(np.float32) / 4)
        for s in (shape, shape, shape[-1:])
    ]
    halos = {0: Halo(1, 1, 1, 1), 3: Halo(0, 1, 2, 1)} if len(shape) == 4 else None
    op = gradient(shape)
    require_equal(op, operands, target, threads, halos=halos)
    require_equal(op, operands, target, threads, in_place=1)


@pytest.mark.parametrize("target", HERE)
def test_bits_are_those_of_sums_alone(target: str) -> None:
    """Magnitudes beyond the 53 bits of the partial sums: there, their order shows in the result."""
    shape, rng = (7, 13, 11, 17), np.random.default_rng(9)
    d = (rng.normal(0, 1, shape) * 10.0 ** rng.uniform(-9, 9, shape)).astype(np.float32)
    d[4:] = -d[:3]
    x, m = rng.normal(0, 1, shape).astype(np.float32), np.zeros(shape[-1], np.float32)
    (alone,) = run_call(ReduceSum((0, 1, 2)), [d], target=target)
    for threads in (1, 2, 3, 7):
        halos = {1: Halo(1, 2, 0, 1)} if threads == 2 else None
        found = run_call(gradient(shape), [x, d, m], target=target, threads=threads, halos=halos)
        assert same_bits(found[1], alone)
        if threads == 1:
            first = found
        assert all(same_bits(a, b) for a, b in zip(found, first, strict=True))
