"""The sparse adder of bytes between guard pages: the bits of the reference, whatever is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from addergraph.codegen.emit.lowered import share_kept
from addergraph.codegen.emit.module import standalone
from addergraph.codegen.inspect.census import count_instructions
from addergraph.codegen.inspect.instructions import PRODUCTS, UNKNOWN
from addergraph.codegen.kernels import ALL_KEPT, Call, Kernel
from addergraph.codegen.kernels.forward.choice import candidates, forward_contraction
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.schedule import DENSE, SPARSE, Choice
from addergraph.codegen.kernels.sparse._patches import Patches
from addergraph.codegen.kernels.sparse._u8_tile import BytesTile
from addergraph.codegen.kernels.sparse.sparse_u8 import SparseU8Kernel
from addergraph.codegen.llvm import compile_assembly
from addergraph.codegen.targets.lookup import TARGETS
from addergraph.ir import Array, Builder, Init, Op
from addergraph.ir.taps import Taps
from addergraph.ir.trace import Tensor, new_parameter, trace
from addergraph.ir.types import DTYPES, TensorType, tensor, u8
from addergraph.ops import adder2d, cast, requantize_shift
from addergraph.ops.fused import Fused
from tests.codegen.harness import HERE, make_call, run_call, same_bits
from tests.codegen.kernels.layers import LAYERS, THREADS, WIDE, Layer

pytestmark = pytest.mark.thinned(3)

TARGETS_HERE = [name for name in HERE if name != "toy"]  # its vectors are too short
PADDED = (1, 1, 1, 1)
IMAGES = {
    **{
        name: LAYERS[name]
        for name in ("same", "tails", "grouped", "depthwise", "kernel_beyond_input")
    },
    "bands": Layer((1, 22, 30, 20), (3, 3, 20, 18), padding=PADDED),
    "samples_side_by_side": Layer((7, 8, 7, 17), (3, 3, 17, 5), padding=PADDED),
    "a_row_of_vectors": Layer((1, 5, 130, 3), (3, 3, 3, 4), padding=PADDED),
    "dilated": Layer((2, 9, 25, 5), (2, 3, 5, 7), (1, 2), (2, 1, 3, 0), (3, 2)),
    "row_phases": Layer((2, 23, 10, 3), (5, 3, 3, 4), (3, 1), (2, 1, 0, 2), (2, 1)),
    "strided_pairs": Layer((3, 13, 19, 10), (3, 3, 10, 18), (2, 2), PADDED),
    "small_blocks": Layer((1, 12, 9, 21), (7, 5, 21, 3), padding=(3, 3, 2, 2)),
}
KEPT = (0.5, 0.1, 1.0)


def numbers(
    layer: Layer, seed: int, kept: float = 0.5, most: int = 255, saturated: float = 0.0
) -> list[Array]:
    """x, f, and what makes bytes of the sums: center, offset, shift, two terms."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, layer.x).astype(np.uint8)
    f = rng.integers(1, most + 1, layer.f).astype(np.uint8)
    f[rng.random(layer.f) >= kept] = 0
    f[rng.random(layer.f) < saturated] = 255
    if saturated:
        f[..., 0] = 255
        f[:, :, 1::2, 1:2] = 255
        f[..., 2:3] = np.minimum(f[..., 2:3], 254)
    (y,) = layer.op("direct").reference(x, f)
    center = -np.round(y.mean((0, 1, 2))).astype(np.int32)
    spread = max(1.0, float((y + center).std()))
    shift = np.full(layer.f[-1:], max(0, round(np.log2(spread))) + 1, np.int32)
    offset = (128 << shift).astype(np.int32)
    terms = (rng.choice([7, -7, 8], layer.f[-1:]), rng.choice([0, 5, -4], layer.f[-1:]))
    return [x, f, center, offset, shift, *(t.astype(np.int32) for t in terms)]


def layer_of(layer: Layer, arrays: list[Array], residual: bool = False) -> Fused:
    """The layer with its requantization, and with a residual of bytes behind it."""
    builder = Builder("body")
    types = [TensorType(next(d for d in DTYPES.values() if d.numpy == a.dtype), a.shape)
             for a in arrays]  # fmt: skip
    x, f, *rest = (Tensor(builder, builder.input(f"a{i}", t)) for i, t in enumerate(types))
    y = Tensor(builder, builder.add(layer.op("direct"), [x.value, f.value], "v0")[0])
    if residual:
        *rest, other = rest
        y = y + cast(other, "i32")
    return Fused(builder.finish([requantize_shift(y, *rest, lo=3, hi=250).value]))


def sparse(call: Call) -> Kernel:
    return SparseU8Kernel(call, call.op.subgraph)


def served(op: Op, arrays: list[Array], start: int) -> list[str]:
    """Two of the targets that this kernel serves, taking turns: a row may be too long for one."""
    known = []
    for target in TARGETS_HERE:
        call = make_call(op, arrays, target=target, constant=(1,))
        if Choice(SPARSE) in candidates(call, op.subgraph):
            known.append(target)
    assert known
    return [known[(start + k) % len(known)] for k in range(min(2, len(known)))]


def require_reference(layer: Layer, arrays: list[Array], start: int) -> None:
    """The bits of the reference on two targets, with other threads and halos each."""
    op = layer_of(layer, arrays) if len(arrays) > 2 else layer.op("direct")
    (expected,) = op.reference(*arrays)
    assert len(np.unique(expected)) > 2
    for k, target in enumerate(served(op, arrays, start)):
        (found,) = run_call(
            op, arrays, target=target, threads=THREADS[(k + start) % 4], constant=(1,),
            halos={0: WIDE} if k % 2 else {}, family=sparse,
        )  # fmt: skip
        assert same_bits(found, expected), (target, found, expected)


@pytest.mark.thinned(6)
@pytest.mark.parametrize("name", IMAGES)
def test_layers(name: str) -> None:
    layer, start = IMAGES[name], list(IMAGES).index(name)
    arrays = numbers(layer, start, KEPT[start % 3])
    require_reference(layer, arrays, start)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", IMAGES)
def test_sums_as_they_are(name: str) -> None:
    """Results of i32, as what centers them reads: each is four bytes on its way."""
    layer, start = IMAGES[name], list(IMAGES).index(name)
    require_reference(layer, numbers(layer, start + 70, 0.3)[:2], start)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ["same", "bands", "samples_side_by_side", "a_row_of_vectors"])
def test_a_residual_of_bytes(name: str) -> None:
    layer = IMAGES[name]
    arrays = numbers(layer, 20)
    (y,) = layer.op("direct").reference(*arrays[:2])
    drawn = np.random.default_rng(21).integers(0, 256, y.shape)
    arrays.append(np.asarray(drawn, np.uint8))
    op = layer_of(layer, arrays, residual=True)
    (expected,) = op.reference(*arrays)
    for k, target in enumerate(served(op, arrays, len(name))):
        (found,) = run_call(
            op, arrays, target=target, threads=THREADS[k], constant=(1,),
            in_place=None if k else len(arrays) - 1, family=sparse,
        )  # fmt: skip
        assert same_bits(found, expected), target


@pytest.mark.thinned(5)
@pytest.mark.parametrize("threads", THREADS)
def test_patches_and_strips_that_do_not_fit(threads: int) -> None:
    """The last ones are moved back; what is computed twice reads a residual in place once."""
    layer = Layer((2, 10, 13, 20), (3, 3, 20, 35), padding=PADDED)
    arrays = numbers(layer, 30)
    (y,) = layer.op("direct").reference(*arrays[:2])
    drawn = np.random.default_rng(31).integers(0, 256, y.shape)
    arrays.append(np.asarray(drawn, np.uint8))
    op = layer_of(layer, arrays, residual=True)
    (expected,) = op.reference(*arrays)

    def cut(call: Call) -> Kernel:
        assert isinstance(call.op, Fused)
        g = SparseU8Kernel(call, call.op.body).g
        patches = Patches(g, 4 * call.target.lanes, samples=1, bands=2, chunks=4)
        assert (patches.rows, patches.columns) == (5, 4)  # 13 columns are no 4 x 4
        return SparseU8Kernel(call, call.op.body, BytesTile(patches, 1, 4, 2, 16))

    for target in served(op, arrays, threads):
        (found,) = run_call(
            op, arrays, target=target, threads=threads, constant=(1,),
            in_place=len(arrays) - 1, family=cut,
        )  # fmt: skip
        assert same_bits(found, expected), target


@pytest.mark.parametrize("most", [1, 63, 128, 255])
def test_bytes_of_every_size_can_be_packed(most: int) -> None:
    """Small bytes go by eights, large ones by fours or alone; sums leave 16 bits on the way."""
    layer = Layer((1, 4, 9, 120), (3, 3, 120, 6), padding=PADDED)
    arrays = numbers(layer, most, 1.0, most)
    arrays[1][..., 0] = most
    arrays[1][..., 1] = 0
    op = layer_of(layer, arrays)
    (expected,) = op.reference(*arrays)
    for target in served(op, arrays, most):
        (found,) = run_call(op, arrays, target=target, constant=(1,), family=sparse)
        assert same_bits(found, expected), target


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    "name", ["same", "tails", "grouped", "depthwise", "dilated", "strided_pairs", "small_blocks"]
)
def test_saturated_taps(name: str) -> None:
    """Taps of 255 add x itself, channels in pairs: the first, the second or both are saturated. In
    one filter all are, in one none, in one each second channel."""
    layer, start = IMAGES[name], list(IMAGES).index(name)
    arrays = numbers(layer, start + 50, 0.7, saturated=0.4)
    require_reference(layer, arrays, start)


def test_nothing_is_multiplied() -> None:
    layer = Layer((1, 8, 8, 32), (3, 3, 32, 32), padding=PADDED)
    arrays = numbers(layer, 8)
    for target in ("x86-64-v3", "x86-64-v4"):
        call = make_call(layer_of(layer, arrays), arrays, target=target, constant=(1,))
        assembly = compile_assembly(standalone(call, sparse(call)), TARGETS[target])
        assert "pminub" in assembly
        (body,) = (c for name, c in count_instructions(assembly).items() if "sparse" in name)
        assert not {*PRODUCTS, UNKNOWN}.intersection(body)


def chosen(layer: Layer, kept: Taps, target: str) -> type[Kernel]:
    arrays = numbers(layer, 9)
    call = make_call(layer_of(layer, arrays), arrays, target=target, constant=(1,))
    shares = (ALL_KEPT, kept, *[ALL_KEPT] * 5)
    known = Call(call.op, call.inputs, call.outputs, call.target, call.constant, shares)
    assert isinstance(call.op, Fused)
    assert [choice.kind for choice in candidates(known, call.op.body)] == [DENSE, SPARSE]
    return type(forward_contraction(known, call.op.body))


def test_the_choice_follows_the_share_of_taps_kept() -> None:
    wide = Layer((1, 28, 28, 128), (3, 3, 128, 128), padding=PADDED)
    assert chosen(wide, Taps(4), "x86-64-v3") is SparseU8Kernel
    assert chosen(wide, Taps(4), "x86-64-v4") is SparseU8Kernel
    assert chosen(wide, Taps(8), "x86-64-v3") is DenseKernel
    assert chosen(wide, Taps(4, 4), "x86-64-v3") is DenseKernel
    small = Layer((1, 8, 8, 32), (3, 3, 32, 32), padding=PADDED)
    assert chosen(small, Taps(4), "x86-64-v4") is DenseKernel  # one vector of pixels
    batch = Layer((16, 8, 8, 64), (3, 3, 64, 64), padding=PADDED)
    assert chosen(batch, Taps(4), "x86-64-v4") is SparseU8Kernel


def test_large_bytes_count_more() -> None:
    """Four of them have no sum that fits a byte, which is what lists win by."""
    f = np.zeros((3, 3, 8, 8), np.uint8)
    f[:, :, ::2] = 50
    net = trace(adder_of(f.shape), tensor("u8", (1, 9, 9, 8)))
    assert share_kept(net, {"f": f}) == {"f": Taps(4)}
    assert share_kept(net, {"f": 4 * f}) == {"f": Taps(7)}
    assert share_kept(net, {"f": 0 * f}) == {"f": Taps(1)}
    f[:, :, 0] = 255
    assert share_kept(net, {"f": f}) == {"f": Taps(3, 1)}


def adder_of(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    def net(x: Tensor) -> Tensor:
        f = new_parameter(x, "f", TensorType(u8, shape), Init(), trainable=False)
        return adder2d(x, f)

    return net
