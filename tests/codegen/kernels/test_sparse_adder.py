"""The sparse adders between guard pages: the bits of the dense kernel, whatever filters keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from addergraph.codegen.kernels import ALL_KEPT, Call, Kernel
from addergraph.codegen.kernels._geometry import geometry
from addergraph.codegen.kernels._sparse_batch_tile import batch_tile
from addergraph.codegen.kernels._sparse_tile import sparse_tile
from addergraph.codegen.kernels.contraction import ContractionKernel
from addergraph.codegen.kernels.forward import forward_contraction
from addergraph.codegen.kernels.sparse_adder import SparseAdderKernel
from addergraph.codegen.kernels.sparse_adder_batch import SparseBatchKernel
from addergraph.codegen.target import TARGETS
from addergraph.ir import Array, Builder
from addergraph.ops import relu
from addergraph.ops.adder2d import Adder2d
from addergraph.ops.fused import Fused
from addergraph.trace import Tensor
from addergraph.types import TensorType, f32
from tests.codegen.harness import HERE, make_call, run_call, same_bits
from tests.codegen.kernels.layers import LAYERS, THREADS, WIDE, Layer, real, whole

PADDED = (1, 1, 1, 1)
IMAGES = {
    **{k: v for k, v in LAYERS.items() if v.stride[1] <= 2 and 0 not in (*v.x, *v.f)},
    "rows_share_vectors": Layer((1, 9, 7, 12), (3, 3, 12, 20), padding=PADDED),
    "several_strips": Layer((2, 40, 37, 9), (3, 3, 9, 5), padding=PADDED),
    "strided_pairs": Layer((1, 13, 19, 10), (3, 3, 10, 18), (2, 2), PADDED),
    "strided_point": Layer((2, 9, 21, 19), (1, 1, 19, 34), (2, 2)),
    "row_phases": Layer((1, 23, 10, 3), (5, 3, 3, 4), (3, 1), (2, 1, 0, 2), (2, 1)),
}
BATCHES = {
    "full": Layer((16, 5, 6, 12), (3, 3, 12, 20), padding=PADDED),
    "short": Layer((15, 4, 17, 9), (3, 3, 9, 5), padding=PADDED),
    "several": Layer((33, 3, 3, 19), (2, 3, 19, 7), (3, 2), (1, 0, 2, 1)),
    "grouped": Layer((16, 5, 4, 6), (3, 3, 3, 10), padding=PADDED, groups=2),
    "dilated_point": Layer((16, 7, 5, 17), (1, 2, 17, 33), dilation=(1, 2)),
}


def adder(layer: Layer) -> Adder2d:
    op = layer.op("minimum")
    assert isinstance(op, Adder2d)
    return op


def numbers(layer: Layer, draw: Callable[..., Array], seed: int, kept: float = 0.5) -> list[Array]:
    rng = np.random.default_rng(seed)
    f = np.abs(draw(rng, layer.f)) * np.where(rng.random(layer.f) < kept, 1, -1)
    return [draw(rng, layer.x, nonnegative=True), f.astype(np.float32)]


def serves(layer: Layer, target: str, family: type[Kernel]) -> bool:
    call = make_call(adder(layer), numbers(layer, whole, 0), target=target, constant=(1,))
    tile = batch_tile if family is SparseBatchKernel else sparse_tile
    return tile(TARGETS[target], geometry(call.op, *call.inputs, *call.outputs)) is not None


def ways(layer: Layer, family: type[Kernel]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The targets that `family` serves the layer on, and how: every second one with a halo."""
    for k, target in enumerate(HERE):
        if serves(layer, target, family):
            halos = {0: WIDE} if k % 2 else {}
            way = {"target": target, "constant": (1,), "halos": halos, "family": family}
            yield target, way


CASES = [
    *((name, layer, SparseAdderKernel) for name, layer in IMAGES.items()),
    *((name, layer, SparseBatchKernel) for name, layer in BATCHES.items()),
]


@pytest.mark.parametrize(("name", "layer", "family"), CASES, ids=[c[0] for c in CASES])
def test_exact_data_has_the_bits_of_the_reference(
    name: str, layer: Layer, family: type[Kernel]
) -> None:
    arrays = numbers(layer, whole, 1)
    (expected,) = adder(layer).reference(*arrays)
    ran = 0
    for target, way in ways(layer, family):
        ran += 1
        (found,) = run_call(adder(layer), arrays, threads=THREADS[(ran + len(name)) % 4], **way)
        assert same_bits(found, expected), (target, found, expected)
    assert ran


@pytest.mark.parametrize(("name", "layer", "family"), CASES, ids=[c[0] for c in CASES])
def test_any_data_has_the_bits_of_the_dense_kernel(
    name: str, layer: Layer, family: type[Kernel]
) -> None:
    arrays = numbers(layer, real, 2)
    (dense,) = run_call(
        adder(layer), arrays, target=HERE[0], constant=(1,), family=ContractionKernel
    )
    for target, way in ways(layer, family):
        (found,) = run_call(adder(layer), arrays, threads=2, **way)
        assert same_bits(found, dense), target


@pytest.mark.parametrize("kept", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("family", [SparseAdderKernel, SparseBatchKernel])
def test_empty_and_full_lists(kept: float, family: type[Kernel]) -> None:
    layer = BATCHES["full"]
    arrays = numbers(layer, whole, 3, kept)
    (expected,) = adder(layer).reference(*arrays)
    for target in HERE:
        (found,) = run_call(adder(layer), arrays, target=target, constant=(1,), family=family)
        assert same_bits(found, expected)


@pytest.mark.parametrize("special", [np.nan, np.inf, 0.0, 1e-42])
@pytest.mark.parametrize("family", [SparseAdderKernel, SparseBatchKernel])
def test_special_values_are_those_of_the_dense_kernel(special: float, family: type[Kernel]) -> None:
    layer = BATCHES["full"]
    x, f = numbers(layer, real, 4)
    x[3, 2, 1, ::3] = f[1, 1, ::5, ::4] = special
    x[5, 0, 0, 0] = -0.0
    (dense,) = run_call(adder(layer), [x, f], constant=(1,), family=ContractionKernel)
    (found,) = run_call(adder(layer), [x, f], constant=(1,), family=family)
    assert same_bits(found, dense)


@pytest.mark.parametrize("family", [SparseAdderKernel, SparseBatchKernel])
def test_the_fused_tail(family: type[Kernel]) -> None:
    layer, builder = BATCHES["short"], Builder("body")
    x, f = numbers(layer, whole, 5)
    rng = np.random.default_rng(6)
    (y,) = adder(layer).reference(x, f)
    rest = [whole(rng, y.shape[-1:]), whole(rng, y.shape), whole(rng, ())]
    arrays = [x, f, *rest]
    types = [TensorType(f32, a.shape) for a in arrays]
    tensors = [Tensor(builder, builder.input(f"a{i}", t)) for i, t in enumerate(types)]
    result = Tensor(builder, builder.add(adder(layer), [t.value for t in tensors[:2]], "v")[0])
    body = builder.finish([relu(result * tensors[2] + tensors[3] - tensors[4]).value])
    expected = np.maximum(y * rest[0] + rest[1] - rest[2], 0)
    for target in HERE:
        if serves(layer, target, family):
            (found,) = run_call(
                Fused(body), arrays, target=target, threads=3, constant=(1, 2),
                family=lambda call: family(call, call.op.body),  # type: ignore[call-arg,attr-defined]
            )  # fmt: skip
            assert np.array_equal(found, expected), target


def chosen(layer: Layer, kept: int) -> type[Kernel]:
    call = make_call(adder(layer), numbers(layer, whole, 7), target="x86-64-v4", constant=(1,))
    known = Call(call.op, call.inputs, call.outputs, call.target, call.constant, (ALL_KEPT, kept))
    return type(forward_contraction(known))


def test_the_choice_follows_the_share_of_taps_kept() -> None:
    deep = Layer((1, 28, 28, 128), (3, 3, 128, 128), padding=PADDED)
    assert chosen(deep, 4) is SparseAdderKernel
    assert chosen(deep, 8) is ContractionKernel
    batch = Layer((16, 14, 14, 64), (3, 3, 64, 64), padding=PADDED)
    assert chosen(batch, 4) is SparseBatchKernel
    point = Layer((1, 32, 32, 16), (1, 1, 16, 32), (2, 2))
    assert chosen(point, 4) is ContractionKernel
