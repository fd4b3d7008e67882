"""The sparse adder whose input has an upper bound: saturated taps are added without a minimum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import addergraph as ag
from addergraph import Graph, compiler
from addergraph.codegen.emit.lowered import MOST_BY_KINDS, share_kept
from addergraph.codegen.kernels import ALL_KEPT, Call, Family, Kernel
from addergraph.codegen.kernels.forward.choice import candidates, forward_contraction
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.forward.depthwise import DepthwiseKernel
from addergraph.codegen.kernels.schedule import DENSE, SPARSE, Choice
from addergraph.codegen.kernels.sparse._f32_tile import SparseTile
from addergraph.codegen.kernels.sparse.sparse_f32 import SparseAdderKernel
from addergraph.ir import Array
from addergraph.ir.taps import Taps
from tests.codegen.harness import HERE, make_call, run_call, same_bits
from tests.codegen.kernels.cuts import Cut
from tests.codegen.kernels.layers import THREADS, Layer
from tests.codegen.kernels.test_sparse_adder import CASES, CUTS, PADDED, adder, ways

TOP = 1.5
KNOWN = (ALL_KEPT, Taps(2, 2, TOP))

pytestmark = pytest.mark.thinned(3)


def told(family: Family = SparseAdderKernel) -> Family:
    """The kernel that knows the kinds of taps of its filter."""
    return lambda call: family(dataclasses.replace(call, kept=KNOWN))


def by_kinds(cut: Cut) -> Family:
    """With this tile, but for the channels of a list, which are no matter of a tile."""

    def family(call: Call) -> Kernel:
        tile = cut.tile(DenseKernel(call).g, call.target.lanes)
        return SparseAdderKernel(call, None, dataclasses.replace(tile, channels=16, kinds=True))

    return told(family)


def numbers(layer: Layer, seed: int, *, exact: bool, saturated: float = 0.3) -> list[Array]:
    """An input from 0 to TOP, both of which it has, and a filter of all kinds of taps."""
    rng = np.random.default_rng(seed)
    x, f = rng.uniform(-0.3, TOP + 0.3, layer.x), rng.uniform(-1.5, TOP, layer.f)
    f = np.where(rng.random(layer.f) < saturated, TOP + np.abs(f), f)
    f[..., ::3] = np.where(rng.random(f[..., ::3].shape) < 0.4, TOP, f[..., ::3])
    if exact:
        x, f = np.round(4 * x) / 4, np.round(4 * f) / 4
    return [np.clip(x, 0, TOP).astype(np.float32), f.astype(np.float32)]


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", CASES)
def test_exact_data_has_the_bits_of_the_reference(name: str) -> None:
    layer = CASES[name]
    arrays = numbers(layer, 1, exact=True)
    (expected,) = adder(layer).reference(*arrays)
    for k, (target, way) in enumerate(ways(told())):
        (found,) = run_call(adder(layer), arrays, threads=THREADS[(k + len(name)) % 4], **way)
        assert same_bits(found, expected), (target, found, expected)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", CUTS)
def test_bits_depend_on_no_tile_target_or_threads(name: str) -> None:
    layer, cut = CUTS[name]
    arrays = numbers(layer, 2, exact=False)
    (first,) = run_call(adder(layer), arrays, target=HERE[0], constant=(1,), family=told())
    for k, (target, way) in enumerate((*ways(told()), *ways(by_kinds(cut)))):
        (found,) = run_call(adder(layer), arrays, threads=THREADS[(k + len(name)) % 4], **way)
        assert same_bits(found, first), target


def in_order(x: Array, f: Array) -> Array:
    """Sums of minima of a 1x1 layer in f32: of each 16 channels the saturated ones are last."""
    total = np.zeros((*x.shape[:3], f.shape[-1]), np.float32)
    for t, column in enumerate(f[0, 0].T):
        for first in range(0, len(column), 16):
            here = np.arange(first, min(first + 16, len(column)))
            for k in (*here[column[here] < TOP], *here[column[here] >= TOP]):
                total[..., t] += np.minimum(x[..., k], max(column[k], np.float32(0)))
    return total


def test_the_order_of_a_sum_is_the_one_of_the_page() -> None:
    """Told by what its rounding gives: powers of two would hide another order."""
    layer = Layer((1, 4, 4, 40), (1, 1, 40, 5))
    x, f = numbers(layer, 3, exact=False)
    (found,) = run_call(adder(layer), [x, f], constant=(1,), family=told())
    (dense,) = run_call(adder(layer), [x, f], constant=(1,), family=DenseKernel)
    minima, natural = in_order(x, f), np.zeros_like(found)
    for k in range(40):
        natural += np.minimum(x[..., k, None], np.maximum(f[0, 0, k], 0))
    rest = dense - 2 * natural.astype("f8")  # what is subtracted: the same of both
    assert np.allclose(found - 2 * minima.astype("f8"), rest, rtol=0, atol=4e-6)
    assert not np.array_equal(minima, natural) and not np.array_equal(found, dense)
    same = minima == natural
    assert np.array_equal(found[same], dense[same]) and 0 < same.sum() < same.size


@pytest.mark.parametrize("saturated", [0.0, 1.0])
def test_lists_of_one_kind(saturated: float) -> None:
    layer = CASES["batch"]
    arrays = numbers(layer, 4, exact=True, saturated=saturated)
    arrays[1][..., 0] = TOP  # one filter has nothing else: the others have fewer
    arrays[1][..., 1] = 0
    (expected,) = adder(layer).reference(*arrays)
    for target, way in ways(told()):
        (found,) = run_call(adder(layer), arrays, **way)
        assert same_bits(found, expected), target


def test_nan_comes_through_saturated_taps() -> None:
    layer = Layer((1, 9, 9, 3), (3, 3, 3, 5), padding=PADDED)
    x, f = numbers(layer, 5, exact=True, saturated=1.0)
    x[0, 4, 4, 1] = np.nan
    (expected,) = adder(layer).reference(x, f)
    (found,) = run_call(adder(layer), [x, f], constant=(1,), family=told())
    assert np.array_equal(found, expected, equal_nan=True) and np.isnan(found).any()


def known(layer: Layer, target: str) -> Call:
    call = make_call(adder(layer), numbers(layer, 6, exact=True), target=target, constant=(1,))
    return dataclasses.replace(call, kept=KNOWN)


def test_the_filter_alone_decides() -> None:
    """A measured choice or a cost model of the target would change the bits."""
    for target in HERE:
        for layer in (Layer((1, 28, 28, 128), (3, 3, 128, 128)), Layer((1, 2, 2, 3), (1, 1, 3, 2))):
            call = known(layer, target)
            kernel = forward_contraction(dataclasses.replace(call, choice=Choice(DENSE)))
            assert isinstance(kernel, SparseAdderKernel) and isinstance(kernel.tile, SparseTile)
            assert kernel.tile.kinds and kernel.tile.channels == 16
            assert list(candidates(call)) == [Choice(SPARSE)]
        depthwise = known(Layer((1, 9, 9, 8), (3, 3, 1, 8), groups=8), target)
        assert isinstance(forward_contraction(depthwise), DepthwiseKernel)


def test_all_kernels_of_a_depthwise_layer_give_the_same_bits() -> None:
    """A list of one channel does not tell kinds, though its filter has saturated taps."""
    layer = Layer((1, 9, 9, 8), (3, 3, 1, 8), padding=PADDED, groups=8)
    arrays = numbers(layer, 10, exact=False)
    call = known(layer, "x86-64-v3")
    (dense,) = run_call(adder(layer), arrays, constant=(1,), family=DenseKernel)
    made = candidates(call)
    assert Choice(SPARSE) in made and len(made) > 2
    for choice in made:
        family = told(lambda call, choice=choice: candidates(call)[choice])  # type: ignore[misc]
        (found,) = run_call(adder(layer), arrays, target="x86-64-v3", constant=(1,), family=family)
        assert same_bits(found, dense), choice


def net(high: float, text: str = "clip(%x) lo=0.0 hi={}") -> Graph:
    return ag.parse(f"""graph g(%x: f32[2,9,9,8]) params(%f: f32[3,3,8,12]) {{
      %r = {text.format(high)} : f32[2,9,9,8]
      %y = adder2d(%r, %f) padding=(1,1,1,1) input_nonnegative=true : f32[2,9,9,12]
      return %y
    }}""")


def test_what_counts_as_saturated() -> None:
    f = np.full((3, 3, 8, 12), -1, np.float32)
    f[:, :, 0::4], f[:, :, 1::4] = 0.5, 1.5
    assert share_kept(net(1.5), {"f": f}) == {"f": Taps(2, 2)}
    assert share_kept(net(1.5), {"f": f})["f"].top == 1.5
    assert share_kept(net(1.625), {"f": f}) == {"f": Taps(4)}
    assert share_kept(net(0.0, "relu(%x)"), {"f": f}) == {"f": Taps(4)}  # no upper bound
    assert share_kept(net(0.1), {"f": np.full_like(f, np.float32(0.1))}) == {"f": Taps(1, 8)}
    f[:, :, 2:] = 0.5
    assert MOST_BY_KINDS < 6 and share_kept(net(1.5), {"f": f}) == {"f": Taps(8)}


def test_a_filter_of_two_layers_has_the_larger_bound() -> None:
    both = ag.parse("""graph g(%x: f32[2,9,9,8]) params(%f: f32[3,3,8,12]) {
      %r = clip(%x) lo=0.0 hi=2.0 : f32[2,9,9,8]
      %s = clip(%x) lo=0.0 hi=1.0 : f32[2,9,9,8]
      %y = adder2d(%r, %f) input_nonnegative=true : f32[2,7,7,12]
      %z = adder2d(%s, %f) input_nonnegative=true : f32[2,7,7,12]
      return %y, %z
    }""")
    f = np.random.default_rng(8).uniform(-1, 3, (3, 3, 8, 12)).astype(np.float32)
    assert share_kept(both, {"f": f})["f"].top == 2.0
    assert ag.verify(both, compiler.compile(both, weights={"f": f}), samples=2).ok


@pytest.mark.parametrize("high", [1.5, 0.1, 6.0])
def test_a_program_follows_the_bound_of_its_graph(high: float) -> None:
    rng = np.random.default_rng(7)
    f = rng.uniform(-high, high, (3, 3, 8, 12))
    f[:, :, ::2] *= 3
    weights = {"f": f.astype(np.float32)}
    x = rng.uniform(-high, 2 * high, (2, 9, 9, 8)).astype(np.float32)
    found = [compiler.compile(net(high), weights=weights, target=t).run([x])[0] for t in HERE]
    assert all(same_bits(y, found[0]) for y in found)
    program = compiler.compile(net(high), weights=weights, threads=2)
    kernels = compiler.build(net(high), weights).facts.kernels
    assert "kinds" in kernels["y"].symbol and kernels["y"].sparse
    assert same_bits(program.run([x])[0], found[0])
    assert ag.verify(net(high), program, samples=3).ok
    # Other numbers of the same program are packed by the same bound.
    program.set_weights({"f": weights["f"][..., ::-1].copy()})
    assert same_bits(program.run([x])[0], np.ascontiguousarray(found[0][..., ::-1]))
