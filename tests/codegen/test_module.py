"""Whole programs: what their kernels share and what each has of its own."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph import compiler
from addergraph.ir.interpreter import run_reference
from addergraph.ir.text import parse


def test_equal_calls_share_code_and_keep_their_own_filters() -> None:
    graph = parse(
        """graph twins(%x: f32[N,4,4,3]) params(%f: f32[3,3,3,3], %g: f32[3,3,3,3]) {
          %a = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3]
          %b = adder2d(%x, %g) padding=(1,1,1,1) : f32[N,4,4,3]
          return %a, %b
        }"""
    )
    rng = np.random.default_rng(1)
    x, f, g = (
        rng.integers(-9, 10, shape).astype(np.float32)
        for shape in ((2, 4, 4, 3), (3, 3, 3, 3), (3, 3, 3, 3))
    )
    program = compiler.compile(graph, weights={"f": f, "g": g}, cache=False)
    kernels = program.built.facts.kernels
    assert kernels["a"] == kernels["b"]
    expected, _ = run_reference(graph, [x], {"f": f, "g": g})
    for found, one in zip(program.run([x]), expected, strict=True):
        np.testing.assert_array_equal(found, one)


@pytest.mark.parametrize(
    "op",
    [
        "pad({}) before=(1,0) after=(0,0) value={} : f32[3,3]",
        "clip({}) lo={} hi=1 : f32[2,3]",
    ],
)
def test_zeros_of_two_signs_have_kernels_of_their_own(op: str) -> None:
    graph = parse(
        f"""graph g(%x: f32[2,3], %y: f32[2,3]) {{
        %a = {op.format("%x", "0")}
        %b = {op.format("%y", "-0")}
        return %a, %b }}"""
    )
    data = [np.full((2, 3), -1.0, np.float32)] * 2
    a, b = compiler.compile(graph, weights={}, cache=False).run(data)
    assert not np.signbit(a[0]).any() and np.signbit(b[0]).all()


def test_no_kernel_starts_before_its_operands_are_there() -> None:
    """Transposed after every step, each thread needs at once what the others have just computed."""
    lines, last = [], "x"
    for i in range(12):
        lines += [
            f"%p{i} = matmul(%{last}, %f) : f32[64,64]",
            f"%t{i} = transpose(%p{i}) permutation=(1,0) : f32[64,64]",
        ]
        last = f"t{i}"
    body = "\n".join([*lines, f"return %{last}"])
    graph = parse(f"graph chain(%x: f32[64,64]) params(%f: f32[64,64]) {{\n{body}\n}}")
    rng = np.random.default_rng(2)
    x = rng.integers(-9, 10, (64, 64)).astype(np.float32)
    f = np.eye(64, dtype=np.float32)[rng.permutation(64)]
    expected, _ = run_reference(graph, [x], {"f": f})
    for threads in (2, 3, 5):
        program = compiler.compile(graph, weights={"f": f}, threads=threads, cache=False)
        for _ in range(20):
            np.testing.assert_array_equal(program.run([x])[0], expected[0])
