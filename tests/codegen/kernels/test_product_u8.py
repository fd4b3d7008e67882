"""conv2d and dense of u8 and i8 operands between guard pages: the reference's bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.codegen.emit.module import standalone
from addergraph.codegen.kernels.forward.choice import candidates
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.schedule import DENSE
from addergraph.codegen.llvm import compile_object
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array, Builder
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, i8, i32, u8
from addergraph.ops import requantize_multiply
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense
from addergraph.ops.fused import Fused
from tests.codegen.harness import HERE, make_call, run_call, same_bits, undefined_symbols
from tests.codegen.kernels.layers import LAYERS, MATRICES, Layer
from tests.codegen.kernels.test_adder_u8 import ONE_ROW, TARGET_NAMES, require_exact

pytestmark = pytest.mark.thinned(3)


def integers(layer: Layer, seed: int) -> list[Array]:
    """x, f and bias; the whole range of bytes, and a bias that makes sums wrap."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, layer.x).astype(np.uint8)
    f = rng.integers(-128, 128, layer.f).astype(np.int8)
    return [x, f, rng.integers(-(2**31), 2**31, layer.f[-1:]).astype(np.int32)]


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """Every second one with a bias."""
    layer, start = LAYERS[name], list(LAYERS).index(name)
    require_exact(layer.op("product"), integers(layer, 1)[: 2 + start % 2], start)


@pytest.mark.parametrize("name", MATRICES)
def test_matrices(name: str) -> None:
    x, f = MATRICES[name]
    arrays = integers(Layer(x, f), 2)
    (expected,) = Dense().reference(*arrays)
    for k, target in enumerate(HERE):
        constant = (1,) if k % 2 else ()
        (found,) = run_call(Dense(), arrays, target=target, threads=1 + k, constant=constant)
        assert same_bits(found, expected), target


@pytest.mark.thinned(4)
@pytest.mark.parametrize("channels", [*range(6), 7, 8, 9, 17])
def test_runs_of_every_length(channels: int) -> None:
    """Of 1x1 windows, and of rows of three taps in one run or in three."""
    for k, (taps, dilation) in enumerate([(1, 1), (3, 1 + channels % 2)]):
        f = (1, taps, channels, 5)
        layer = Layer((*ONE_ROW, channels), f, padding=(0, 1, 2, 1), dilation=(1, dilation))
        require_exact(layer.op("product"), integers(layer, 2)[:2], channels + k)


@pytest.mark.parametrize("low", [0, 255])
@pytest.mark.parametrize("high", [-128, -1, 127])
def test_ends_of_the_range(low: int, high: int) -> None:
    """What saturates in 16 bits does not here."""
    x, f = np.full((1, 5, 6, 20), low, np.uint8), np.full((3, 3, 20, 17), high, np.int8)
    require_exact(Conv2d(padding=(1, 1, 1, 1)), [x, f], low)


def test_the_largest_sums() -> None:
    """As many terms as the shape rule admits, at the end of i32."""
    x, f = np.full((1, 65_793), 255, np.uint8), np.full((65_793, 3), -128, np.int8)
    for target in HERE:
        (y,) = run_call(Dense(), [x, f], target=target)
        assert (y == -65_793 * 255 * 128).all()


def test_a_tail() -> None:
    """Requantized in the same kernel; lists of minima of bytes are not for products."""
    layer = Layer((2, 5, 4, 6), (3, 3, 3, 38), padding=(1, 1, 0, 2), groups=2)
    rng = np.random.default_rng(6)
    x, f = integers(layer, 5)[:2]
    numbers = [
        rng.integers(low, high, 38).astype(np.int32)
        for low, high in ((-9999, 9999), (0, 9999), (7, 12), (-9, 9))
    ]
    builder = Builder("body")
    types = [TensorType(u8, x.shape), TensorType(i8, f.shape), *[TensorType(i32, (38,))] * 4]
    a = [Tensor(builder, builder.input(f"a{k}", t)) for k, t in enumerate(types)]
    y = Tensor(builder, builder.add(layer.op("product"), [a[0].value, a[1].value], "v0")[0])
    made = requantize_multiply(y, *a[2:], lo=3, hi=250)
    fused = Fused(builder.finish([made.value]))
    (expected,) = fused.reference(x, f, *numbers)
    assert len(np.unique(expected)) > 100
    for k, target in enumerate(HERE):
        call = make_call(fused, [x, f, *numbers], target=target, constant=(1,))
        assert [choice.kind for choice in candidates(call, fused.body)] == [DENSE]
        (found,) = run_call(fused, [x, f, *numbers], target=target, threads=1 + k, constant=(1,))
        assert same_bits(found, expected), target


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_targets_without_the_instruction_call_nothing(target: str) -> None:
    layer = LAYERS["tails"]
    call = make_call(layer.op("product"), integers(layer, 7)[:2], target=target)
    text = standalone(call, DenseKernel(call))
    assert ("pmadd" in text) == bool(target_named(target).pair_products)
    assert not undefined_symbols(compile_object(text, call.target))
