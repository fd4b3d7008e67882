"""Layers with a filter for each channel: the bits of the dense kernel, on lanes of channels."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from addergraph.codegen.kernels import Call, Family, kernel_for
from addergraph.codegen.kernels.forward.choice import candidates, expected_choice
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.forward.depthwise import DepthwiseKernel
from addergraph.codegen.kernels.gradient.depthwise import (
    DepthwiseFilterGradient,
    DepthwiseInputGradient,
)
from addergraph.codegen.kernels.gradient.filter import FilterGradientKernel
from addergraph.codegen.kernels.gradient.input import InputGradientKernel
from addergraph.codegen.kernels.schedule import DENSE, DEPTHWISE, Choice
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array, Builder, Graph, Op
from addergraph.ir.types import TensorType, f32
from addergraph.ops.contraction.adder2d import Adder2d, Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.conv2d import Conv2dGradFilter, Conv2dGradInput
from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.binary import Add, Mul
from addergraph.ops.pointwise.relu import Relu
from tests.codegen.harness import HERE, make_call, run_call, same_bits
from tests.codegen.kernels.layers import FORMS, THREADS, WIDE, Layer, real, whole

pytestmark = pytest.mark.thinned(3)

CHANNELS = (2, 3, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 70)


def layer_of(channels: int, random: Random) -> Layer:
    """Strides, dilation and uneven padding; some windows lie in the padding."""
    size = (random.choice((1, 2, 3, 5)), random.choice((1, 2, 3, 5, 9)))
    dilation = (random.choice((1, 1, 2)), random.choice((1, 1, 3)))
    top, bottom, left, right = (random.randint(0, 3) for _ in range(4))
    padding = top, bottom, left, right
    sides = [
        max(random.randint(1, 9), (k - 1) * d + 1 - sum(padding[2 * a : 2 * a + 2]))
        for a, (k, d) in enumerate(zip(size, dilation, strict=True))
    ]
    return Layer(
        (random.choice((1, 2)), *sides, channels), (*size, 1, channels),
        (random.choice((1, 1, 2, 3)), random.choice((1, 1, 2, 3))), padding, dilation, channels,
    )  # fmt: skip


def way(random: Random, number: int) -> dict[str, object]:
    return {
        "target": HERE[number % len(HERE)],
        "threads": THREADS[number % len(THREADS)],
        "halos": random.choice(({}, {0: WIDE}, {2: WIDE}, {1: WIDE})),
        "constant": random.choice(((), (1,))),
        "family": DepthwiseKernel,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_f32_has_the_bits_of_the_reference_and_of_the_dense_kernel(
    channels: int, form: str
) -> None:
    random, rng = Random(f"{channels} {form}"), np.random.default_rng(channels)
    layer, minimum = layer_of(channels, random), form == "minimum"
    op = layer.op(form)
    exact, any_data = (
        [draw(rng, layer.x, nonnegative=minimum), draw(rng, layer.f)] for draw in (whole, real)
    )
    for number in range(channels, channels + 2):
        run = way(random, number)
        (found,) = run_call(op, exact, **run)  # type: ignore[arg-type]
        assert same_bits(found, op.reference(*exact)[0]), (layer, run)
        (found,) = run_call(op, any_data, **run)  # type: ignore[arg-type]
        (dense,) = run_call(op, any_data, target=run["target"], family=DenseKernel)  # type: ignore[arg-type]
        assert same_bits(found, dense), (layer, run)


@pytest.mark.parametrize("form", ["direct", "product"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_bytes_are_exact(channels: int, form: str) -> None:
    random, rng = Random(f"{channels} {form}"), np.random.default_rng(channels)
    layer = layer_of(channels, random)
    x = rng.integers(0, 256, layer.x).astype(np.uint8)
    f = rng.integers(0, 256, layer.f).astype(np.uint8)
    operands: list[Array] = [x, f if form == "direct" else f.view(np.int8)]
    operands.append(rng.integers(-(2**31), 2**31, channels).astype(np.int32))
    op = layer.op(form)
    for number in range(channels, channels + 2):
        run = way(random, number)
        (found,) = run_call(op, operands, **run | {"halos": {}})  # type: ignore[arg-type]
        assert same_bits(found, op.reference(*operands)[0]), (layer, run)


@pytest.mark.parametrize("taps", [(1, 257), (2, 129)])
def test_sums_at_the_end_of_16_bits(taps: tuple[int, int]) -> None:
    """257 distances of 255 are 65,535; one more is not."""
    x = np.full((1, *taps, 20), 255, np.uint8)
    f = np.zeros((*taps, 1, 20), np.uint8)
    (found,) = run_call(Adder2d(groups=20), [x, f], family=DepthwiseKernel)
    assert found.tolist() == [[[[-255 * taps[0] * taps[1]] * 20]]]


def test_special_values_are_those_of_the_dense_kernel() -> None:
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38, 1.0, -1.0]
    f = np.array(special * 10, np.float32).reshape(1, 1, 1, 100)
    x = np.repeat(np.array(special, np.float32), 10).reshape(1, 1, 1, 100)
    for minimum, given in ((False, x), (True, np.where(x < 0, np.float32(2), x))):
        op = Adder2d(groups=100, input_nonnegative=minimum, padding=(0, 0, 1, 0))
        for target in HERE:
            found, dense = (
                run_call(op, [given, f], target=target, family=kernel)[0]
                for kernel in (DepthwiseKernel, DenseKernel)
            )
            assert same_bits(found, dense), target


def fused(layer: Layer, op: Op) -> Graph:
    """A bias, a scale and a shift of each channel, a residual of the result's shape, relu."""
    builder = Builder("body")
    types = [TensorType(f32, layer.x), TensorType(f32, layer.f), TensorType(f32, layer.f[-1:])]
    (y,) = op.infer(*types)
    x, f, b, scale, rest = (builder.input(f"a{k}", t) for k, t in enumerate([*types, types[2], y]))
    (v,) = builder.add(op, [x, f, b], "v0")
    (v,) = builder.add(Mul(), [v, scale], "v1")
    (v,) = builder.add(Add(), [v, rest], "v2")
    return builder.finish(builder.add(Relu(), [v], "v3"))


@pytest.mark.parametrize("channels", [5, 16, 37])
def test_tails(channels: int) -> None:
    layer = Layer((2, 6, 7, channels), (3, 3, 1, channels), padding=(1, 1, 1, 1), groups=channels)
    op, rng = layer.op("minimum"), np.random.default_rng(channels)
    body = fused(layer, op)
    arrays = [whole(rng, v.type.sizes, nonnegative=k == 0) for k, v in enumerate(body.inputs)]

    def family(call: Call) -> DepthwiseKernel:
        return DepthwiseKernel(call, body)

    for number, target in enumerate(HERE):
        for place in (None, 4):
            (found,) = run_call(
                Fused(body), arrays, target=target, threads=THREADS[number % 4], family=family,
                in_place=place,
            )  # fmt: skip
            assert same_bits(found, Fused(body).reference(*arrays)[0]), target


@pytest.mark.parametrize("kind", ["adder", "conv"])
@pytest.mark.parametrize("channels", [2, 8, 17, 48, 70])
def test_gradients_have_the_bits_of_the_kernels_of_all_layers(channels: int, kind: str) -> None:
    random, rng = Random(f"{channels} {kind}"), np.random.default_rng(channels)
    for number in range(channels, channels + 3):
        layer = layer_of(channels, random)
        shaped = (layer.stride, layer.padding, layer.dilation, layer.groups)
        (y,) = layer.op("direct").infer(TensorType(f32, layer.x), TensorType(f32, layer.f))
        whole_of, real_of = (
            [draw(rng, shape) for shape in (y.sizes, layer.x, layer.f)] for draw in (whole, real)
        )
        ops: list[tuple[Op, tuple[int, ...], Family]] = [
            (Adder2dGradInput(*shaped), (0, 1, 2), InputGradientKernel),
            (Adder2dGradFilter(*shaped), (0, 1, 2), FilterGradientKernel),
        ]
        size, kernel = (layer.x[1], layer.x[2]), (layer.f[0], layer.f[1])
        if kind == "conv":
            ops = [
                (Conv2dGradInput(*shaped, input_size=size), (0, 2), InputGradientKernel),
                (Conv2dGradFilter(*shaped, kernel_size=kernel), (0, 1), FilterGradientKernel),
            ]
        for op, read, general in ops:
            exact, any_data = ([all_of[k] for k in read] for all_of in (whole_of, real_of))
            run = way(random, number) | {"constant": (), "family": kernel_for}
            (found,) = run_call(op, exact, **run)  # type: ignore[arg-type]
            assert same_bits(found, op.reference(*exact)[0]), (layer, op, run)
            (found,) = run_call(op, any_data, **run)  # type: ignore[arg-type]
            target = run["target"]
            (expected,) = run_call(op, any_data, target=target, family=general)  # type: ignore[arg-type]
            assert same_bits(found, expected), (layer, op, run)


def test_gradients_of_special_values() -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38], np.float32)
    f = np.tile(special, 8).reshape(1, 1, 1, 64)
    x = np.repeat(special, 8).reshape(1, 1, 1, 64)
    g = np.ones((1, 1, 1, 64), np.float32)
    for op, general in (
        (Adder2dGradInput(groups=64), InputGradientKernel),
        (Adder2dGradFilter(groups=64), FilterGradientKernel),
    ):
        for target in HERE:
            one, other = (
                run_call(op, [g, x, f], target=target, family=family)[0]
                for family in (kernel_for, general)
            )
            assert same_bits(one, other), (op, target)


def test_which_layers_have_gradients_of_their_own() -> None:
    f, x = np.zeros((3, 3, 1, 6), np.float32), np.zeros((1, 5, 5, 6), np.float32)
    g = np.zeros((1, 3, 3, 6), np.float32)
    for op, own in (
        (Adder2dGradInput(groups=6), DepthwiseInputGradient),
        (Adder2dGradFilter(groups=6), DepthwiseFilterGradient),
    ):
        assert isinstance(kernel_for(make_call(op, [g, x, f])), own)
    dense = np.zeros((3, 3, 6, 6), np.float32)
    made = kernel_for(make_call(Adder2dGradInput(), [g, x, dense]))
    assert isinstance(made, InputGradientKernel)


def test_no_samples_have_no_results_and_a_gradient_of_zeros() -> None:
    x, g = np.zeros((0, 5, 5, 20), np.float32), np.zeros((0, 3, 3, 20), np.float32)
    f = np.ones((3, 3, 1, 20), np.float32)
    runs: list[tuple[Op, list[Array]]] = [
        (Adder2d(groups=20), [x, f]),
        (Adder2dGradInput(groups=20), [g, x, f]),
        (Adder2dGradFilter(groups=20), [g, x, f]),
    ]
    for op, arrays in runs:
        (found,) = run_call(op, arrays, family=kernel_for)
        assert same_bits(found, op.reference(*arrays)[0]), op


def choices(layer: Layer, target: str, dtype: Any = np.float32) -> tuple[Choice, set[str]]:
    arrays: list[Array] = [np.zeros(shape, dtype) for shape in (layer.x, layer.f)]
    call = make_call(layer.op("direct"), arrays, target=target, constant=(1,))
    return expected_choice(call), {choice.kind for choice in candidates(call)}


def test_where_it_serves() -> None:
    deep = Layer((1, 5, 5, 6), (3, 3, 1, 6), groups=6)
    for dtype in (np.float32, np.uint8):
        best, known = choices(deep, "x86-64-v3", dtype)
        assert best == Choice(DEPTHWISE) and DENSE in known
        assert Choice.parse(str(best)) == best
    others = (
        Layer((1, 5, 5, 6), (3, 3, 1, 12), groups=6), Layer((1, 5, 5, 6), (3, 3, 2, 3), groups=3),
        Layer((1, 5, 5, 1), (3, 3, 1, 1)),
    )  # fmt: skip
    assert all(DEPTHWISE not in choices(layer, "x86-64-v3")[1] for layer in others)
    assert target_named("thumbv6m").lanes == 1
    assert DEPTHWISE not in choices(deep, "thumbv6m", np.uint8)[1]
