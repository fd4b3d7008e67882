"""Gradient kernels of contractions between guard pages: exact data bit for bit, any data in bounds.

They multiply, so on general data their bits are the same for any threads and halos on one target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from addergraph.ir import Array, Halo, Op
from addergraph.ir.types import tensor
from addergraph.ops.contraction._contraction import Windowed
from addergraph.ops.contraction.adder2d import Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.adder_dense import AdderDenseGradFilter, AdderDenseGradInput
from addergraph.ops.contraction.conv2d import Conv2d, Conv2dGradFilter, Conv2dGradInput
from tests.codegen.harness import HERE, run_call, same_bits
from tests.codegen.kernels.layers import (
    LAYERS,
    MATRICES,
    THREADS,
    WIDE,
    Layer,
    U,
    real,
    whole,
)  # fmt: skip

pytestmark = pytest.mark.thinned(2)

GRADIENTS: dict[str, type[Windowed]] = {
    "adder2d_grad_input": Adder2dGradInput,
    "adder2d_grad_filter": Adder2dGradFilter,
    "conv2d_grad_input": Conv2dGradInput,
    "conv2d_grad_filter": Conv2dGradFilter,
}


def gradient(name: str, layer: Layer) -> Op:
    shaped: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    attributes: dict[str, Any] = {
        "conv2d_grad_input": {"input_size": layer.x[1:3]},
        "conv2d_grad_filter": {"kernel_size": layer.f[:2]},
    }
    return GRADIENTS[name](*shaped, **attributes.get(name, {}))


def triple(layer: Layer, draw: Any, seed: int) -> tuple[Array, Array, Array]:
    """The upstream gradient, the input and the filter of a layer."""
    rng = np.random.default_rng(seed)
    forward = Conv2d(layer.stride, layer.padding, layer.dilation, layer.groups)
    (y,) = forward.infer(tensor("f32", layer.x), tensor("f32", layer.f))
    return draw(rng, y.sizes), draw(rng, layer.x), draw(rng, layer.f)


def operands(name: str, g: Array, x: Array, f: Array) -> list[Array]:
    return {"conv2d_grad_input": [g, f], "conv2d_grad_filter": [g, x]}.get(name, [g, x, f])


def require_exact(op: Op, arrays: Sequence[Array], start: int, halos: Sequence[int]) -> None:
    """`halos`: the operands and results (counted through) that may carry one."""
    (expected,) = op.reference(*arrays)
    for k, target in enumerate(HERE):
        wide = halos_of(halos, k + start)
        threads = THREADS[(k + start) % len(THREADS)]
        (found,) = run_call(op, arrays, target=target, threads=threads, halos=wide)
        assert same_bits(found, expected), f"{op}, {target}, {threads}: {found} is not {expected}"


def halos_of(numbers: Sequence[int], turn: int) -> dict[int, Halo]:
    """Every second one of these operands and results has a halo."""
    return {number: WIDE for i, number in enumerate(numbers) if (i + turn) % 2}


def turn_of(layer: str, name: str) -> int:
    return list(LAYERS).index(layer) + list(GRADIENTS).index(name)


# -- exact data ----------------------------------------------------------------------------------


@pytest.mark.thinned(5)
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_have_the_bits_of_the_reference_on_exact_data(layer: str, name: str) -> None:
    op, arrays = gradient(name, LAYERS[layer]), operands(name, *triple(LAYERS[layer], whole, 1))
    require_exact(op, arrays, turn_of(layer, name), range(len(arrays) + 1))


@pytest.mark.parametrize("op", [AdderDenseGradInput(), AdderDenseGradFilter()], ids=repr)
@pytest.mark.parametrize("name", MATRICES)
def test_dense_gradients_have_the_bits_of_the_reference_on_exact_data(name: str, op: Op) -> None:
    rng, (x, f) = np.random.default_rng(2), MATRICES[name]
    arrays = [whole(rng, (x[0], f[1])), whole(rng, x), whole(rng, f)]
    require_exact(op, arrays, list(MATRICES).index(name), ())


@pytest.mark.parametrize("name", ["adder2d_grad_filter", "conv2d_grad_filter"])
def test_sums_over_several_chunks_of_samples(name: str) -> None:
    """Partial sums of 512 outputs: 9 samples of 16 x 16 are several chunks and a rest."""
    layer = Layer((9, 16, 16, 2), (3, 3, 2, 3), padding=(1, 1, 1, 1))
    op, arrays = gradient(name, layer), operands(name, *triple(layer, whole, 3))
    require_exact(op, arrays, 0, (0, 1))


# -- general data --------------------------------------------------------------------------------


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("layer", ["tails", "dilated", "grouped", "strided"])
def test_bits_depend_on_the_target_alone(layer: str, name: str) -> None:
    numbers = triple(LAYERS[layer], real, 4)
    op, arrays = gradient(name, LAYERS[layer]), operands(name, *numbers)
    terms, magnitude = bound(op, *numbers)
    for k, target in enumerate(HERE):
        # As on exact data, so that these kernels are compiled already.
        wide = halos_of(range(len(arrays) + 1), k + turn_of(layer, name))
        (first,) = run_call(op, arrays, target=target, halos=wide)
        for threads in (2, 3, 7):
            halos = {} if threads == 3 else wide
            (found,) = run_call(op, arrays, target=target, threads=threads, halos=halos)
            assert same_bits(found, first)
        error = np.abs(first - total(op, *numbers, lambda g, a: g * a))
        assert (error <= terms * U / (1 - terms * U) * magnitude).all()
        assert error.max() > 0  # otherwise the data say nothing about rounding


def bound(op: Any, g: Array, x: Array, f: Array) -> tuple[int, Array]:
    """(roundings of one result at most, the sum of the magnitudes of its terms)."""
    to_input = op.name.endswith("input")
    terms = f.size // f.shape[2] if to_input else g[..., 0].size
    return terms + 4, total(op, g, x, f, lambda g, a: np.abs(g) * np.abs(a))


def total(op: Any, g: Array, x: Array, f: Array, term: Any) -> Array:
    """The gradient by its definition, in float64, where `term` multiplies; x and -f apart."""
    g, x, f = (a.astype("f8") for a in (g, x, f))
    adder, window = op.name.startswith("adder"), op.window_of(f.shape[:2])
    taken, made = f.shape[2], f.shape[3] // op.groups
    dx, df = window.pad(np.zeros_like(x)), np.zeros_like(f)
    taps = window.taps(window.pad(x), g.shape[1:3])
    for (i, j, tap), (_, _, into) in zip(taps, window.taps(dx, g.shape[1:3]), strict=True):
        for q in range(op.groups):
            channels = slice(q * taken, (q + 1) * taken)
            filters = slice(q * made, (q + 1) * made)
            one, upstream = tap[..., channels, None], g[..., None, filters]
            other = f[i, j, :, filters]
            factor = np.clip(other - one, -1, 1) if adder else other
            into[..., channels] += term(upstream, factor).sum(-1)
            df[i, j, :, filters] += term(upstream, one).sum((0, 1, 2))
            if adder:
                df[i, j, :, filters] += term(upstream, -other).sum((0, 1, 2))
    result: Array = window.crop(dx) if op.name.endswith("input") else df
    return result


# -- special values ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", HERE)
def test_the_clip_of_the_input_gradient_keeps_nan_and_signs(target: str) -> None:
    layer = Layer((1, 1, 9, 1), (1, 1, 1, 1))
    x = np.array([np.nan, np.inf, -np.inf, 5, -5, 0.5, -0.0, 1, -1], np.float32)
    arrays = [np.ones((1, 1, 9, 1), np.float32), x.reshape(1, 1, 9, 1)]
    (found,) = run_call(
        gradient("adder2d_grad_input", layer),
        [*arrays, np.zeros((1, 1, 1, 1), np.float32)],
        target=target,
    )
    expected = np.array([np.nan, -1, 1, -1, 1, -0.5, 0, -1, 1], np.float32)
    assert same_bits(found.reshape(-1), expected)


@pytest.mark.parametrize("name", GRADIENTS)
def test_nan_in_the_upstream_gradient_reaches_the_result(name: str) -> None:
    layer = LAYERS["same"]
    arrays = operands(name, *triple(layer, whole, 5))
    arrays[0][0, 2, 2, 1] = np.nan
    op = gradient(name, layer)
    (expected,) = op.reference(*arrays)
    assert np.isnan(expected).any() and not np.isnan(expected).all()
    for target in HERE:
        (found,) = run_call(op, arrays, target=target)
        assert same_bits(found, expected)


@pytest.mark.parametrize("layer", ["pointwise", "strided"])
def test_nan_in_input_or_filter_reaches_the_input_gradient(layer: str) -> None:
    """Also where the clip instruction loses it. These layers have no taps outside the output."""
    g, x, f = triple(LAYERS[layer], whole, 6)
    f.flat[f.size // 3] = np.nan
    f.flat[-1] = np.nan
    x[0, -1, 0, 0] = x[0, 0, 0, -1] = np.nan
    op = gradient("adder2d_grad_input", LAYERS[layer])
    (expected,) = op.reference(g, x, f)
    assert np.isnan(expected).any() and not np.isnan(expected).all()
    for k, target in enumerate(HERE):
        (found,) = run_call(op, [g, x, f], target=target, threads=1 + k % 3)
        assert same_bits(found, expected)
