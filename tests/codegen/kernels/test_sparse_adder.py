"""The sparse adder between guard pages: the bits of the dense kernel, whatever filters keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from addergraph.codegen.kernels import ALL_KEPT, Call, Family, Kernel
from addergraph.codegen.kernels.forward.choice import forward_contraction
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.sparse.sparse_f32 import SparseAdderKernel
from addergraph.ir import Array, Builder
from addergraph.ir.taps import Taps
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.ops import relu
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.fused import Fused
from tests.codegen.harness import HERE, make_call, run_call, same_bits
from tests.codegen.kernels.cuts import Cut
from tests.codegen.kernels.layers import LAYERS, THREADS, WIDE, Layer, real, whole

pytestmark = pytest.mark.thinned(3)

PADDED = (1, 1, 1, 1)
CASES = {
    **{k: v for k, v in LAYERS.items() if 0 not in (*v.x, *v.f)},
    "several_strips": Layer((2, 40, 37, 9), (3, 3, 9, 5), padding=PADDED),
    "strided_pairs": Layer((1, 13, 19, 10), (3, 3, 10, 18), (2, 2), PADDED),
    "strided_point": Layer((2, 9, 21, 19), (1, 1, 19, 34), (2, 2)),
    "strided_column": Layer((1, 9, 11, 5), (3, 1, 5, 6), (2, 3), (2, 1, 1, 2)),
    "padded_point": Layer((1, 5, 6, 3), (1, 1, 3, 4), (2, 3), (1, 2, 3, 1)),
    "row_phases": Layer((1, 23, 10, 3), (5, 3, 3, 4), (3, 1), (2, 1, 0, 2), (2, 1)),
    "batch": Layer((16, 5, 6, 12), (3, 3, 12, 20), padding=PADDED),
    "short_batch": Layer((15, 4, 17, 9), (3, 3, 9, 5), padding=PADDED),
    "batches": Layer((33, 3, 3, 19), (2, 3, 19, 7), (3, 2), (1, 0, 2, 1)),
    "grouped_batch": Layer((16, 5, 4, 6), (3, 3, 3, 10), padding=PADDED, groups=2),
    "dilated_batch": Layer((16, 7, 5, 17), (1, 2, 17, 33), dilation=(1, 2)),
    "images_of_a_pixel": Layer((5, 1, 1, 20), (3, 3, 20, 6), padding=PADDED),
}


IMAGE = Layer((1, 11, 13, 19), (3, 3, 19, 5), padding=PADDED)
STRIDED = Layer((3, 11, 13, 10), (3, 2, 10, 17), (2, 2), (1, 1, 1, 0), (2, 3))
GROUPED = Layer((5, 7, 6, 9), (2, 3, 3, 12), (1, 2), PADDED, groups=3)
# Patches, strips or samples that do not fit, so that the last ones are moved back.
CUTS = {
    "bands_and_chunks": (IMAGE, Cut(1, 3, 4, 2, 3, 2, 8, 4)),
    "strips": (IMAGE, Cut(1, 2, 2, 1, 4, 1, 16, 4)),
    "one_row_strips": (IMAGE, Cut(1, 4, 2, 1, 3, 3, 8, 1)),
    "whole_patches": (IMAGE, Cut(1, 1, 5, 2, 3, 1, 8, 10)),
    "samples": (dataclasses.replace(IMAGE, x=(5, 11, 13, 19)), Cut(2, 2, 2, 3, 2, 2, 32, 3)),
    "idle_lanes": (IMAGE, Cut(1, 1, 3, 1, 5, 1, 8, 3)),
    "strided_and_dilated": (STRIDED, Cut(2, 1, 2, 2, 2, 2, 16, 2)),
    "groups": (GROUPED, Cut(3, 1, 2, 2, 2, 3, 8, 4)),
}


def adder(layer: Layer) -> Adder2d:
    op = layer.op("minimum")
    assert isinstance(op, Adder2d)
    return op


def numbers(layer: Layer, draw: Callable[..., Array], seed: int, kept: float = 0.5) -> list[Array]:
    rng = np.random.default_rng(seed)
    f = np.abs(draw(rng, layer.f)) * np.where(rng.random(layer.f) < kept, 1, -1)
    return [draw(rng, layer.x, nonnegative=True), f.astype(np.float32)]


def ways(family: Family = SparseAdderKernel) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every target, every second one with a halo."""
    for k, target in enumerate(HERE):
        halos = {0: WIDE} if k % 2 else {}
        yield target, {"target": target, "constant": (1,), "halos": halos, "family": family}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", CASES)
def test_exact_data_has_the_bits_of_the_reference(name: str) -> None:
    layer = CASES[name]
    arrays = numbers(layer, whole, 1)
    (expected,) = adder(layer).reference(*arrays)
    for k, (target, way) in enumerate(ways()):
        (found,) = run_call(adder(layer), arrays, threads=THREADS[(k + len(name)) % 4], **way)
        assert same_bits(found, expected), (target, found, expected)


@pytest.mark.thinned(5)
@pytest.mark.parametrize("name", CASES)
def test_any_data_has_the_bits_of_the_dense_kernel(name: str) -> None:
    layer = CASES[name]
    arrays = numbers(layer, real, 2)
    (dense,) = run_call(adder(layer), arrays, target=HERE[0], constant=(1,), family=DenseKernel)
    for target, way in ways():
        (found,) = run_call(adder(layer), arrays, threads=2, **way)
        assert same_bits(found, dense), target


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", CUTS)
def test_patches_strips_and_samples_that_do_not_fit(name: str) -> None:
    layer, cut = CUTS[name]
    exact, any_data = (numbers(layer, draw, 3) for draw in (whole, real))
    (expected,) = adder(layer).reference(*exact)
    (dense,) = run_call(adder(layer), any_data, constant=(1,), family=DenseKernel)
    for k, (target, way) in enumerate(ways(cut)):
        threads = THREADS[(k + len(name)) % 4]
        (found,) = run_call(adder(layer), exact, threads=threads, **way)
        assert same_bits(found, expected), (target, found, expected)
        (found,) = run_call(adder(layer), any_data, threads=threads, **way)
        assert same_bits(found, dense), target


def with_residual(layer: Layer, arrays: list[Array], residual: Array) -> Fused:
    """The layer and, added to it, a third operand of the result's shape."""
    builder = Builder("body")
    types = [TensorType(f32, a.shape) for a in (*arrays, residual)]
    x, f, r = (Tensor(builder, builder.input(f"a{i}", t)) for i, t in enumerate(types))
    y = Tensor(builder, builder.add(adder(layer), [x.value, f.value], "v")[0])
    return Fused(builder.finish([(y + r).value]))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", CUTS)
def test_what_is_computed_twice_is_written_once(name: str) -> None:
    """A residual that shares the result's memory would be added twice."""
    layer, cut = CUTS[name]
    arrays = numbers(layer, whole, 4)
    (y,) = adder(layer).reference(*arrays)
    residual = whole(np.random.default_rng(5), y.shape)
    op = with_residual(layer, arrays, residual)
    for k, target in enumerate(HERE):
        (found,) = run_call(
            op, [*arrays, residual], target=target, threads=THREADS[(k + len(name)) % 4],
            constant=(1,), in_place=2, family=cut,
        )  # fmt: skip
        assert same_bits(found, y + residual), target


@pytest.mark.parametrize("shape", [(1, 5, 3), (33, 19, 20), (7, 40, 5)])
def test_dense_layers(shape: tuple[int, int, int]) -> None:
    rows, taken, made = shape
    rng = np.random.default_rng(6)
    op = AdderDense(True)
    arrays = [whole(rng, (rows, taken), nonnegative=True), whole(rng, (taken, made))]
    (expected,) = op.reference(*arrays)
    for k, target in enumerate(HERE):
        (found,) = run_call(
            op, arrays, target=target, threads=THREADS[k % 4], constant=(1,),
            family=SparseAdderKernel,
        )  # fmt: skip
        assert same_bits(found, expected), target


@pytest.mark.parametrize("kept", [0.0, 0.02, 1.0])
def test_empty_and_full_lists(kept: float) -> None:
    layer = CASES["batch"]
    arrays = numbers(layer, whole, 7, kept)
    (expected,) = adder(layer).reference(*arrays)
    for _, way in ways():
        (found,) = run_call(adder(layer), arrays, **way)
        assert same_bits(found, expected)


@pytest.mark.parametrize("special", [np.nan, np.inf, 0.0, 1e-42])
def test_special_values_are_those_of_the_dense_kernel(special: float) -> None:
    layer = CASES["batch"]
    x, f = numbers(layer, real, 8)
    x[3, 2, 1, ::3] = f[1, 1, ::5, ::4] = special
    x[5, 0, 0, 0] = -0.0
    (dense,) = run_call(adder(layer), [x, f], constant=(1,), family=DenseKernel)
    (found,) = run_call(adder(layer), [x, f], constant=(1,), family=SparseAdderKernel)
    assert same_bits(found, dense)


def test_the_fused_tail() -> None:
    layer, builder = CASES["short_batch"], Builder("body")
    x, f = numbers(layer, whole, 9)
    rng = np.random.default_rng(10)
    (y,) = adder(layer).reference(x, f)
    rest = [whole(rng, y.shape[-1:]), whole(rng, y.shape), whole(rng, ())]
    arrays = [x, f, *rest]
    types = [TensorType(f32, a.shape) for a in arrays]
    tensors = [Tensor(builder, builder.input(f"a{i}", t)) for i, t in enumerate(types)]
    result = Tensor(builder, builder.add(adder(layer), [t.value for t in tensors[:2]], "v")[0])
    body = builder.finish([relu(result * tensors[2] + tensors[3] - tensors[4]).value])
    expected = np.maximum(y * rest[0] + rest[1] - rest[2], 0)
    for target in HERE:
        (found,) = run_call(
            Fused(body), arrays, target=target, threads=3, constant=(1, 2),
            family=lambda call: SparseAdderKernel(call, call.op.body),  # type: ignore[attr-defined]
        )  # fmt: skip
        assert np.array_equal(found, expected), target


def chosen(layer: Layer, kept: Taps) -> type[Kernel]:
    call = make_call(adder(layer), numbers(layer, whole, 11), target="x86-64-v4", constant=(1,))
    known = Call(call.op, call.inputs, call.outputs, call.target, call.constant, (ALL_KEPT, kept))
    return type(forward_contraction(known))


def test_the_choice_follows_the_share_of_taps_kept() -> None:
    deep = Layer((1, 28, 28, 128), (3, 3, 128, 128), padding=PADDED)
    assert chosen(deep, Taps(4)) is SparseAdderKernel
    assert chosen(deep, Taps(8)) is DenseKernel
    batch = Layer((16, 14, 14, 64), (3, 3, 64, 64), padding=PADDED)
    assert chosen(batch, Taps(4)) is SparseAdderKernel
    point = Layer((1, 32, 32, 16), (1, 1, 16, 32), (2, 2))
    assert chosen(point, Taps(4)) is DenseKernel
