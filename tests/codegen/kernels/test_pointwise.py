"""Pointwise kernels: the bits of the references, but for exp, log and batch_norm."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addergraph.ir import Array, Builder, Graph, Halo, Op, Value
from addergraph.ir.types import DTYPES, Shape, bool_, f32, i8, i32, tensor, u8
from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.batch_norm import BatchNorm
from addergraph.ops.pointwise.binary import Add, Div, Maximum, Minimum, Mul, Sub
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.clip import Clip
from addergraph.ops.pointwise.fake_quantize import FakeQuantize
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.greater import Greater
from addergraph.ops.pointwise.relu import LeakyRelu, Relu, Relu6
from addergraph.ops.pointwise.select import Select
from addergraph.ops.pointwise.unary import Abs, Exp, Log, Neg, Sqrt
from tests.codegen.harness import RUNS, require_equal, run_call, same_bits, ulps
from tests.codegen.kernels.layers import INTEGERS

EXAMPLES = settings().max_examples // 2
# fmt: off
FLOATS = np.array(
    [
        0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 7.25, np.inf, -np.inf, np.nan, 1e-45, -1e-45,
        1.1754944e-38, 3.4028235e38, -3.4028235e38, 2.0**31, -(2.0**31), 2147483520.0, 127.5, 128.0,
        -129.0, 255.5,
    ],
    np.float32,
)
# fmt: on
WIDE_BYTES = np.arange(256, dtype=np.int32)
WIDE_SIGNED = np.arange(-128, 128, dtype=np.int32)
SIXTEEN_BITS = np.arange(-(1 << 15), 1 << 15, dtype=np.int32)
BY_DTYPE: dict[str, Array] = {
    "f32": np.concatenate([FLOATS, SIXTEEN_BITS.astype(np.float32) / 64]),
    "i32": np.concatenate([INTEGERS, SIXTEEN_BITS]),
    "u8": np.arange(256, dtype=np.uint8),
    "i8": np.arange(-128, 128, dtype=np.int8),
    "bool": np.array([True, False, True]),
}
EXACT_UNARY = [
    Relu(), Relu6(), LeakyRelu(), LeakyRelu(0.0), LeakyRelu(7.0), Neg(), Abs(), Sqrt(),
    Clip(-1.0, 2.5), Clip(0.0, np.inf), Clip(-1e300, -0.0),
]  # fmt: skip
BINARY = [Add(), Sub(), Mul(), Div(), Maximum(), Minimum(), Greater()]


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("op", EXACT_UNARY, ids=str)
def test_unary(op: Op, target: str, threads: int) -> None:
    require_equal(op, [FLOATS], target, threads)
    if isinstance(op, (Neg, Abs)):
        require_equal(op, [BY_DTYPE["i32"]], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("op", BINARY, ids=lambda op: str(op.name))
def test_binary_on_all_pairs(op: Op, target: str, threads: int) -> None:
    require_equal(op, [FLOATS[:, None], FLOATS], target, threads)
    if isinstance(op, Div):
        return
    for a, b in (
        (INTEGERS, INTEGERS), (WIDE_BYTES, WIDE_BYTES), (WIDE_SIGNED, WIDE_SIGNED),
        (WIDE_BYTES, INTEGERS), (INTEGERS, WIDE_SIGNED),
    ):  # fmt: skip
        require_equal(op, [a, b[:, None]], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("saturate", [True, False])
def test_rounding_to_a_grid(saturate: bool, target: str, threads: int) -> None:
    """Ties, the neighbours of ties, ends, signed zeros, NaN."""
    rng = np.random.default_rng(6)
    for scale, zero_point, bits in ((0.25, 0, 8), (0.1, 7, 4), (3e-40, 1, 2), (1e30, 128, 8)):
        ties = (np.float64(scale) * (np.arange(-300, 301) * 0.5)).astype(np.float32)
        near = [np.nextafter(ties, np.float32(end)) for end in (np.inf, -np.inf)]
        spread = (rng.normal(size=400) * scale * 2**bits).astype(np.float32)
        x = np.concatenate([FLOATS, ties, *near, spread])
        require_equal(FakeQuantize(scale, zero_point, bits, saturate), [x], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_division_and_square_root_round_correctly(target: str, threads: int) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.lognormal(0, 20, (2, 4001)).astype(np.float32)
    require_equal(Div(), [a, b], target, threads)
    require_equal(Sqrt(), [a], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_cast_between_all_dtypes(target: str, threads: int) -> None:
    """Of integers every byte, and every number of 16 bits; of f32 64ths, so that all is rounded."""
    for source, to in itertools.product(BY_DTYPE.values(), DTYPES.values()):
        with np.errstate(invalid="ignore"):
            require_equal(Cast(to), [source], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_select_and_full(target: str, threads: int) -> None:
    rng = np.random.default_rng(6)
    for values in BY_DTYPE.values():
        condition = rng.random((3, len(values))) < 0.5
        require_equal(Select(), [condition, values, values[::-1].copy()], target, threads)
    for full in (Full(-0.0, (5, 3)), Full(np.nan, ()), Full(-7, (17,), i32), Full(1, (3,), bool_)):
        require_equal(full, [], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_batch_norm_within_its_bound(target: str, threads: int) -> None:
    rng = np.random.default_rng(7)
    for shape in ((2, 3, 5, 7), (70, 16), (3, 1), (1, 2, 2, 33)):
        channels = shape[-1]
        x = rng.normal(1, 3, shape).astype(np.float32)
        mean, gamma, beta = rng.normal(0, 1, (3, channels)).astype(np.float32)
        variance = rng.uniform(0.1, 4, channels).astype(np.float32)
        op, operands = BatchNorm(), [x, mean, variance, gamma, beta]
        halos = {0: Halo(1, 0, 2, 1), 5: Halo(0, 1, 1, 0)} if len(shape) == 4 else None
        (found,) = run_call(op, operands, target=target, threads=threads, halos=halos)
        x8, mean8, variance8, gamma8, beta8 = (a.astype("f8") for a in operands)
        scaled = (x8 - mean8) * gamma8 / np.sqrt(variance8 + op.epsilon)
        # Rounded: x - mean, variance + epsilon (half counts), root, quotient, product, sum.
        bound = 2.0**-24 * (5 * np.abs(scaled) + np.abs(scaled + beta8)) + 1e-44
        assert (np.abs(found - (scaled + beta8)) <= bound).all()


@st.composite
def broadcast_pairs(draw: st.DrawFn) -> tuple[list[int], list[int], bool]:
    """Two shapes that broadcast, and whether the rank-4 ones have halos."""
    size = st.sampled_from([1, 2, 3, 5, 7, 16, 17, 33])
    whole = draw(st.lists(size, max_size=4))
    if whole and draw(st.integers(0, 9)) == 0:
        whole[draw(st.integers(0, len(whole) - 1))] = 0
    shapes = []
    for _ in range(2):
        kept = [1 if draw(st.booleans()) and draw(st.booleans()) else s for s in whole]
        shapes.append(kept[draw(st.integers(0, len(kept))) if draw(st.booleans()) else 0 :])
    return shapes[0], shapes[1], draw(st.booleans())


@settings(max_examples=EXAMPLES)
@given(broadcast_pairs(), st.sampled_from(RUNS), st.integers(0, 2**32 - 1))
def test_broadcasting(
    shapes: tuple[list[int], list[int], bool], run: tuple[str, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.asarray(rng.integers(-8, 9, s).astype(np.float32) / 4) for s in shapes[:2])
    result = np.broadcast_shapes(a.shape, b.shape)
    ranks = enumerate((a.ndim, b.ndim, len(result)))
    halos = {i: Halo(i, 1, 2 - i, 1) for i, rank in ranks if rank == 4 and shapes[2]}
    require_equal(Sub(), [a, b], *run, halos=halos)


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_every_pair_of_bytes(dtype: str, target: str, threads: int) -> None:
    """One kernel of all that is pointwise on integers, on all 256 x 256 pairs."""

    def build(b: Builder) -> list[Value]:
        one, other = (b.input(n, tensor(dtype, (256, 256))) for n in ("a0", "a1"))
        x, y = (b.add(Cast(i32), [v])[0] for v in (one, other))
        (bound,) = b.add(Full(77, (), i32), [])
        binary = [b.add(op, [x, y])[0] for op in (Add(), Sub(), Mul(), Maximum(), Minimum())]
        (larger,) = b.add(Greater(), [x, y])
        (real,) = b.add(Cast(f32), [binary[1]])
        return [
            *binary,
            larger,
            b.add(Abs(), [binary[1]])[0],
            b.add(Neg(), [binary[0]])[0],
            b.add(Select(), [larger, one, other])[0],
            b.add(Greater(), [binary[0], bound])[0],
            *(b.add(Cast(to), [binary[2]])[0] for to in (u8, i8, bool_)),
            b.add(Cast(u8), [b.add(Relu(), [real])[0]])[0],
            b.add(Cast(i8), [b.add(Clip(-100.0, 99.0), [real])[0]])[0],
        ]

    every = BY_DTYPE[dtype]
    pair = [np.repeat(every[:, None], 256, 1), np.repeat(every[None], 256, 0)]
    require_equal(Fused(body_of(build)), pair, target, threads)


# -- fused groups --------------------------------------------------------------------------------


def body_of(build: Callable[[Builder], list[Value]]) -> Graph:
    builder = Builder("body")
    return builder.finish(build(builder))


def normalized(shape: Shape) -> Graph:
    """relu((x - m) s + 0.5), its sign, and |x| / 2, with per-channel m, s and scalar constants."""

    def build(b: Builder) -> list[Value]:
        x = b.input("a0", tensor("f32", shape))
        m, s = (b.input(n, tensor("f32", shape[-1:])) for n in ("a1", "a2"))
        scalar = b.input("a3", tensor("f32", ()))
        (half,) = b.add(Full(0.5), [])
        (centred,) = b.add(Sub(), [x, m])
        (scaled,) = b.add(Mul(), [centred, s])
        (moved,) = b.add(Add(), [scaled, half])
        (y,) = b.add(Relu(), [moved])
        (positive,) = b.add(Greater(), [moved, scalar])
        (magnitude,) = b.add(Abs(), [x])
        (halved,) = b.add(Mul(), [magnitude, half])
        return [y, positive, halved]

    return body_of(build)


GROUPED = [(2, 3, 5, 7), (1, 1, 1, 1), (70, 16), (33, 10), (100,), (0, 3), (2, 40, 1), (5, 67)]


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("shape", GROUPED, ids=str)
def test_fused_group(shape: tuple[int, ...], target: str, threads: int) -> None:
    rng = np.random.default_rng(8)
    operands = [
        np.asarray(rng.integers(-8, 9, s).astype(np.float32) / 4)
        for s in (shape, shape[-1:], shape[-1:], ())
    ]
    halos = {0: Halo(1, 1, 1, 1), 4: Halo(1, 1, 1, 1)} if len(shape) == 4 else None
    op = Fused(normalized(shape))
    require_equal(op, operands, target, threads, halos=halos)
    require_equal(op, operands, target, threads, halos=halos, in_place=0)


def test_transcendentals_in_a_group_are_those_of_single_ops() -> None:
    def build(b: Builder) -> list[Value]:
        (e,) = b.add(Exp(), [b.input("a0", tensor("f32", (37,)))])
        return [b.add(Log(), [e])[0], e]

    x = np.linspace(-3, 3, 37, dtype=np.float32)
    log, exp = run_call(Fused(body_of(build)), [x])
    assert same_bits(exp, run_call(Exp(), [x])[0])
    assert same_bits(log, run_call(Log(), [exp])[0])
    assert ulps(exp, Exp().reference(x)[0]) <= 1


def test_in_place_unary() -> None:
    x = np.linspace(-3, 3, 1001, dtype=np.float32)
    for target, threads in RUNS:
        require_equal(Relu(), [x], target, threads, in_place=0)
