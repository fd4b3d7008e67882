"""adder2d of u8 operands between guard pages: the bits of the reference on every target.

The lengths of runs matter here: steps of 8 bytes, whole, with a rest behind, or a rest alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import addergraph as ag
from addergraph.codegen.emit.module import standalone
from addergraph.codegen.inspect.census import count_instructions
from addergraph.codegen.inspect.instructions import PRODUCTS, UNKNOWN
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.llvm import compile_assembly, compile_object
from addergraph.codegen.targets.lookup import TARGETS, target_named
from addergraph.codegen.targets.target import Target
from addergraph.ir import Array, Builder, Op
from addergraph.ir.interpreter import interpret
from addergraph.ir.trace import Tensor
from addergraph.ir.types import DTYPES, TensorType
from addergraph.ops import cast, clip, relu
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.fused import Fused
from tests.codegen.harness import (
    HERE,
    make_call,
    require_equal,
    run_call,
    same_bits,
    undefined_symbols,
)  # fmt: skip
from tests.codegen.kernels.layers import LAYERS, THREADS, WIDE, Layer, ways

pytestmark = pytest.mark.thinned(3)

ONE_ROW = (1, 3, 4)  # samples, height, width
TARGET_NAMES = [*HERE, "aarch64-linux-gnu", "riscv64-linux-gnu"]


def saturating(name: str) -> Target:
    """A target whose core adds distances with saturation."""
    target = target_named(name)
    rates = replace(target.rates, width=target.vector_bytes, saturating_sums=True)
    return replace(target, machine=replace(target.machine, rates=(rates,)))


SCALAR = replace(target_named("toy"), name="scalar", lanes=1)  # as small boards, but it runs here
SATURATING = [saturating(name) for name in HERE if target_named(name).byte_distances]


def integers(layer: Layer, seed: int) -> list[Array]:
    """x, f and bias; the whole range of bytes, and a bias that makes sums wrap."""
    rng = np.random.default_rng(seed)
    x, f = (rng.integers(0, 256, shape).astype(np.uint8) for shape in (layer.x, layer.f))
    return [x, f, rng.integers(-(2**31), 2**31, layer.f[-1:]).astype(np.int32)]


def require_exact(op: Op, arrays: list[Array], start: int) -> None:
    (expected,) = op.reference(*arrays)
    for way in ways(start):
        # `ways` means the result by its number without a bias.
        halos = {len(arrays) if k == 2 else k: halo for k, halo in way["halos"].items()}
        (found,) = run_call(op, arrays, **{**way, "halos": halos})
        assert same_bits(found, expected), f"{op}, {way}: {found} is not {expected}"
    if SATURATING:
        (found,) = run_call(op, arrays, target=SATURATING[start % len(SATURATING)])
        assert same_bits(found, expected), op


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """Every second one with a bias."""
    layer, start = LAYERS[name], list(LAYERS).index(name)
    require_exact(layer.op("direct"), integers(layer, 1)[: 2 + start % 2], start)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("channels", [*range(10), 15, 16, 17, 24])
def test_runs_of_every_length(channels: int) -> None:
    """Of 1x1 windows, and of rows of three taps in one run or in three."""
    for k, (taps, dilation) in enumerate([(1, 1), (3, 1 + channels % 2)]):
        f = (1, taps, channels, 5)
        layer = Layer((*ONE_ROW, channels), f, padding=(0, 1, 2, 1), dilation=(1, dilation))
        require_exact(layer.op("direct"), integers(layer, 2)[:2], channels + k)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("outputs", [1, 2, 7, 8, 9, 15, 17, 33])
def test_every_number_of_channels(outputs: int) -> None:
    layer = Layer((*ONE_ROW, 9), (2, 2, 9, outputs), padding=(1, 0, 0, 1))
    require_exact(layer.op("direct"), integers(layer, 3), outputs)


@pytest.mark.parametrize("groups", [2, 5])
@pytest.mark.parametrize("inputs", [1, 8, 11])
def test_groups_strides_and_dilation(inputs: int, groups: int) -> None:
    layer = Layer(
        (2, 9, 11, inputs * groups), (3, 2, inputs, 3 * groups), (2, 3), (2, 1, 0, 3), (1, 2),
        groups,
    )  # fmt: skip
    require_exact(layer.op("direct"), integers(layer, 4), inputs)


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("height", [1, 2, 5])
def test_kernel_rows_beyond_the_image(height: int, dilation: int) -> None:
    """Some windows lie in the padding as a whole; dilated, a kernel row has several runs."""
    layer = Layer(
        (2, height, 3, 9), (3, 2, 9, 17), padding=(7, 8, 1, 2), stride=(2 - dilation // 2, 1),
        dilation=(dilation, dilation),
    )  # fmt: skip
    require_exact(layer.op("direct"), integers(layer, 10), height)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (255, 0), (127, 128), (255, 255)])
def test_ends_of_the_range(low: int, high: int) -> None:
    """Padding counts as 0: 255 from a filter of 255."""
    x = np.full((1, 5, 6, 20), low, np.uint8)
    f = np.full((3, 3, 20, 17), high, np.uint8)
    op = Adder2d(padding=(1, 1, 1, 1))
    require_exact(op, [x, f], low)
    (found,) = run_call(op, [x, f], target=SCALAR)
    assert same_bits(found, *op.reference(x, f))


@pytest.mark.parametrize("target", SATURATING, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("taps", "channels"),
    [((1, 1), 255), ((1, 1), 257), ((1, 1), 771), ((3, 1), 80), ((3, 1), 97), ((2, 2), 300)],
)
def test_sums_of_16_bits_do_not_overflow(
    taps: tuple[int, int], channels: int, target: Target
) -> None:
    """Of the largest distances, in one such sum, one for each row, or several."""
    x = np.zeros((1, *taps, channels), np.uint8)
    f = np.full((*taps, channels, 9), 255, np.uint8)
    (found,) = run_call(Adder2d(), [x, f], target=target)
    assert (found == -255 * channels * taps[0] * taps[1]).all()


@pytest.mark.parametrize("target", SATURATING, ids=lambda t: t.name)
def test_additions_saturate_where_they_shall(target: Target) -> None:
    """LLVM takes plain ones where it sees that nothing saturates."""
    call = make_call(Adder2d(), [np.zeros((1, 6, 6, 8), "u1"), np.zeros((3, 3, 8, 32), "u1")])
    call = replace(call, target=target)
    text = compile_assembly(standalone(call, DenseKernel(call)), target)
    assert text.count("paddusw") > text.count("paddq"), text


@pytest.mark.parametrize("op", [Adder2d(), AdderDense()], ids=str)
def test_every_pair_of_bytes(op: Op) -> None:
    """All 256 x 256 distances, one by one, and beside others in steps of eight."""
    for channels in (1, 11):
        image = isinstance(op, Adder2d)
        x = np.zeros((1, 16, 16, channels) if image else (256, channels), np.uint8)
        f = np.zeros((1, 1, channels, 256) if image else (channels, 256), np.uint8)
        x.reshape(256, channels)[:, -1] = f.reshape(channels, 256)[-1] = np.arange(256)
        for k, target in enumerate(HERE):
            require_equal(op, [x, f], target, THREADS[k])


def test_sums_beyond_16_bits() -> None:
    x, f = np.zeros((1, 1, 1, 40_003), np.uint8), np.full((1, 1, 40_003, 3), 255, np.uint8)
    for target in HERE:
        (y,) = run_call(Adder2d(), [x, f], target=target)
        assert (y == -40_003 * 255).all()


@pytest.mark.parametrize("tail", ["requantized", "integers", "bytes"])
def test_tails(tail: str) -> None:
    layer = Layer((2, 5, 4, 6), (3, 3, 3, 38), padding=(1, 1, 0, 2), groups=2)
    op, rng = layer.op("direct"), np.random.default_rng(6)
    arrays = integers(layer, 5)[:2]
    shape = (2, 5, 4, 38)
    extra = {
        "requantized": rng.integers(1, 9, (38,)).astype(np.float32) / 64,
        "integers": rng.integers(-(2**31), 2**31, (38,)).astype(np.int32),
        "bytes": rng.integers(0, 256, shape).astype(np.uint8),
    }[tail]
    arrays = [*arrays, np.asarray(extra)]
    builder = Builder("body")
    types = [
        TensorType(next(d for d in DTYPES.values() if d.numpy == a.dtype), a.shape) for a in arrays
    ]
    x, f, a = (Tensor(builder, builder.input(f"a{i}", t)) for i, t in enumerate(types))
    y = Tensor(builder, builder.add(op, [x.value, f.value], "v0")[0])
    made = {
        "requantized": lambda: cast(clip(relu(cast(y, "f32") * a + 99.0), 0.0, 255.0), "u8"),
        "integers": lambda: y + a,
        "bytes": lambda: y + cast(a, "i32"),
    }[tail]()
    fused = Fused(builder.finish([made.value]))
    (expected,) = fused.reference(*arrays)
    for k, target in enumerate(HERE):
        halos = {3: WIDE} if k % 2 else {}
        (found,) = run_call(
            fused, arrays, target=target, threads=THREADS[k], constant=(1,), halos=halos
        )
        assert same_bits(found, expected), target


NETWORK = """
graph net(%x: u8[N,7,6,5]) params(%f: u8[3,3,5,18] fixed, %b: i32[18] fixed, %s: f32[18] fixed,
                                  %g: u8[1,1,18,4] fixed) {
  %y = adder2d(%x, %f, %b) padding=(1,1,1,1) : i32[N,7,6,18]
  %r = cast(%y) dtype=f32 : f32[N,7,6,18]
  %a = add(%r, %s) : f32[N,7,6,18]
  %q = cast(%a) dtype=u8 : u8[N,7,6,18]
  %z = adder2d(%q, %g) padding=(0,1,1,0) stride=(2,2) : i32[N,4,4,4]
  return %z
}
"""


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64", "toy"])
def test_a_network_of_bytes(target: str) -> None:
    """The tail joins the first layer, and its bytes get the halo that the second one reads."""
    graph, rng = ag.parse(NETWORK), np.random.default_rng(9)
    x = rng.integers(0, 256, (3, 7, 6, 5)).astype(np.uint8)
    weights: dict[str, Array] = {
        "f": rng.integers(0, 256, (3, 3, 5, 18)).astype(np.uint8),
        "b": rng.integers(0, 2000, 18).astype(np.int32),
        "s": rng.integers(0, 4000, 18).astype(np.float32),
        "g": rng.integers(0, 256, (1, 1, 18, 4)).astype(np.uint8),
    }
    program = ag.compile(graph, weights=weights, target=target)
    expected = interpret(graph, x, weights=weights)
    assert isinstance(expected, np.ndarray)
    assert len(np.unique(expected)) > 20
    assert same_bits(np.asarray(program(x)), expected)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_targets_without_the_instruction_call_nothing(target: str) -> None:
    layer = LAYERS["tails"]
    call = make_call(layer.op("direct"), integers(layer, 7)[:2], target=target)
    text = standalone(call, DenseKernel(call))
    assert ("psad" in text) == bool(target_named(target).byte_distances)
    assert not undefined_symbols(compile_object(text, call.target))


def test_nothing_is_multiplied() -> None:
    layer = Layer((1, 8, 8, 64), (3, 3, 64, 64), padding=(1, 1, 1, 1))
    for target in ("x86-64", "x86-64-v3", "x86-64-v4"):
        call = make_call(layer.op("direct"), integers(layer, 8)[:2], target=target, constant=(1,))
        assembly = compile_assembly(standalone(call), TARGETS[target])
        assert "psadbw" in assembly
        for counts in count_instructions(assembly).values():
            assert not {*PRODUCTS, UNKNOWN}.intersection(counts)


@pytest.mark.parametrize("name", ["adder2d", "conv2d"])
@pytest.mark.parametrize("batch", [None, 2])
def test_pixels_with_a_gap_between_them(name: str, batch: int | None) -> None:
    """512 bytes apart, haloed pixels would meet in few sets of L1: the plan puts a gap after each,
    and a kernel row is not contiguous then."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 3, 2, 512), np.uint8)
    dtype, limits = ("u8", np.iinfo(np.uint8)) if name == "adder2d" else ("i8", np.iinfo(np.int8))
    f = rng.integers(limits.min, limits.max, (3, 3, 512, 8), limits.dtype, endpoint=True)
    graph = ag.parse(
        f"graph g(%x: u8[N,3,2,512]) params(%f: {dtype}[3,3,512,8]) {{\n"
        f"  %y = {name}(%x, %f) padding=(1,1,1,1) : i32[N,3,2,8]\n  return %y\n}}"
    )
    expected = ag.interpret(graph, x, weights={"f": f})
    for target in HERE:
        for threads in (1, 3):
            program = ag.compile(
                graph, weights={"f": f}, batch=batch, target=target, threads=threads
            )
            assert np.array_equal(program(x), expected)
