"""adder2d and its gradients against plain loops over the paper's equations."""

from __future__ import annotations

import numpy as np
import pytest

import addergraph as ag
from addergraph import ops
from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Builder, Cost, Halo
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.trace import Tensor, apply
from addergraph.ir.types import tensor
from addergraph.ops.contraction.adder2d import Adder2d, Adder2dGradFilter, Adder2dGradInput
from tests.addergraph.ops.naive import contraction, gradients, normal

CASES = [
    (Adder2d(), (2, 4, 4, 3), (3, 3, 3, 2)),
    (Adder2d((2, 1), (1, 0, 2, 1)), (1, 5, 4, 2), (3, 2, 2, 3)),
    (Adder2d((1, 2), (2, 2, 0, 1), (2, 3)), (1, 4, 8, 2), (2, 3, 2, 2)),
    (Adder2d((3, 3), (1, 1, 1, 1), groups=2), (2, 5, 5, 4), (2, 2, 2, 6)),
    (Adder2d(groups=3, input_nonnegative=True), (1, 2, 2, 3), (1, 1, 1, 3)),
    (Adder2d(padding=(3, 3, 3, 3)), (1, 1, 1, 1), (5, 5, 1, 1)),
    (Adder2d(), (0, 4, 4, 3), (3, 3, 3, 2)),
    (Adder2d(), (2, 3, 3, 0), (3, 3, 0, 2)),
    (Adder2d(groups=2), (2, 3, 3, 2), (2, 2, 1, 0)),
    (Adder2d(padding=(1, 1, 1, 1)), (1, 0, 2, 1), (2, 2, 1, 2)),
]


def types(*shapes: tuple[int, ...]):
    return [tensor("f32", s) for s in shapes]


def huber_slope(x: float, f: float) -> float:
    return min(1.0, max(-1.0, f - x))


@pytest.mark.parametrize(("op", "x_shape", "f_shape"), CASES)
def test_forward(op: Adder2d, x_shape, f_shape) -> None:
    x, f, bias = normal(1, *x_shape), normal(2, *f_shape), normal(3, f_shape[3])
    expected = contraction(op, x, f, lambda a, b: -abs(a - b))
    (y,) = op.reference(x, f)
    (found,) = op.infer(*types(x_shape, f_shape))
    assert y.dtype == np.float32
    assert y.shape == found.sizes
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(op.reference(x, f, bias)[0], expected + bias, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("op", "x_shape", "f_shape"), CASES)
def test_gradients(op: Adder2d, x_shape, f_shape) -> None:
    x, f = normal(1, *x_shape), normal(2, *f_shape)
    (y,) = op.infer(*types(x_shape, f_shape))
    g = normal(3, *y.sizes)
    same = (op.stride, op.padding, op.dilation, op.groups)
    dx, df = gradients(op, g, x, f, by_x=huber_slope, by_f=lambda a, b: a - b)
    np.testing.assert_allclose(Adder2dGradInput(*same).reference(g, x, f)[0], dx, atol=1e-5)
    np.testing.assert_allclose(Adder2dGradFilter(*same).reference(g, x, f)[0], df, atol=2e-5)
    operands = types(y.sizes, x_shape, f_shape)
    assert Adder2dGradInput(*same).infer(*operands) == (operands[1],)
    assert Adder2dGradFilter(*same).infer(*operands) == (operands[2],)


def test_padding_is_a_value_and_zero_distance_is_plus_zero() -> None:
    x, f = np.ones((1, 1, 1, 1), np.float32), np.full((3, 3, 1, 1), 2, np.float32)
    assert Adder2d(padding=(1, 1, 1, 1)).reference(x, f)[0].item() == -(8 * 2 + 1)
    assert not np.signbit(Adder2d().reference(x, x)[0]).any()


def test_open_batch() -> None:
    x, f = tensor("f32", ("N", 8, 8, 16)), tensor("f32", (3, 3, 16, 32))
    assert str(Adder2d(padding=(1, 1, 1, 1)).infer(x, f)[0]) == "f32[N,8,8,32]"


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Adder2d(), [(1, 5, 5, 3)], r"takes 2 to 3 operands \(x, f, bias\), found 1"),
        (
            Adder2d(),
            [(5, 5, 3), (3, 3, 3, 4)],
            r"input must be NHWC \(rank 4\), found f32\[5,5,3\]",
        ),
        (Adder2d(), [(1, 5, 5, 3), (3, 3, 3)], r"filter must be HWIO \(rank 4\)"),
        (Adder2d(), [(1, 5, 5, 3), ("N", 3, 3, 3)], "has an open batch"),
        (
            Adder2d(),
            [("N", 5, 5, 3), (3, 3, 2, 4)],
            r"input has 3 channels but the filter expects 2 "
            r"\(x: f32\[N,5,5,3\], f: f32\[3,3,2,4\]\)",
        ),
        (Adder2d(), [(1, 5, 5, 3), (3, 3, 3, 4), (5,)], r"bias must be f32\[4\], found f32\[5\]"),
        (Adder2d(), [(1, 2, 5, 3), (3, 3, 3, 4)], "spans 3 but the input height is 2"),
        (Adder2d(), [(1, 5, 5, 3), (3, 0, 3, 4)], "kernel size"),
        (Adder2d(groups=0), [(1, 5, 5, 3), (3, 3, 3, 4)], "groups=0 must be at least 1"),
        (Adder2d(groups=3), [(1, 5, 5, 3), (3, 3, 1, 4)], "do not divide into 3 groups"),
        (Adder2d(groups=2), [(1, 5, 5, 3), (3, 3, 3, 4)], "expects 3 in each of 2 groups"),
        (
            Adder2dGradInput(),
            [(1, 4, 3, 4), (1, 5, 5, 3), (3, 3, 3, 4)],
            r"output gradient must be f32\[1,3,3,4\], found f32\[1,4,3,4\]",
        ),
        (Adder2dGradFilter(), [(1, 3, 3, 4)], r"takes 3 operands \(g, x, f\), found 1"),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*types(*shapes))


def test_only_f32() -> None:
    x, f = tensor("i32", (1, 5, 5, 3)), tensor("f32", (3, 3, 3, 4))
    with pytest.raises(ShapeError, match=r"input must be f32 or u8, found i32\[1,5,5,3\]"):
        Adder2d().infer(x, f)
    with pytest.raises(ShapeError, match="filter must be f32"):
        Adder2d().infer(tensor("f32", (1, 5, 5, 3)), tensor("u8", (3, 3, 3, 4)))


BYTES = [tensor("u8", (2, 4, 4, 3)), tensor("u8", (3, 3, 3, 5))]


@pytest.mark.parametrize(
    ("op", "x_shape", "f_shape"), [c for c in CASES if not c[0].input_nonnegative]
)
def test_bytes(op: Adder2d, x_shape, f_shape) -> None:
    rng = np.random.default_rng(4)
    x, f = (rng.integers(0, 256, s).astype(np.uint8) for s in (x_shape, f_shape))
    bias = rng.integers(-(2**31), 2**31, f_shape[3]).astype(np.int32)
    expected = contraction(op, x, f, lambda a, b: -abs(a - b))
    (found,) = op.infer(tensor("u8", x_shape), tensor("u8", f_shape), tensor("i32", f_shape[3:]))
    (y,) = op.reference(x, f)
    assert y.dtype == np.int32
    assert found == tensor("i32", y.shape)
    np.testing.assert_array_equal(y, expected)
    wrapped = expected.astype("i8") + bias
    np.testing.assert_array_equal(op.reference(x, f, bias)[0], wrapped.astype("i4"))


def test_bytes_do_not_mix_with_other_dtypes() -> None:
    x, f = BYTES
    for operands, message in [
        ((x, tensor("f32", f.shape)), "filter must be u8, as the input is u8.*, found f32"),
        ((tensor("f32", x.shape), f), "filter must be f32, as the input is f32.*, found u8"),
        ((x, tensor("i8", f.shape)), "filter must be f32 or u8, found i8"),
        ((x, f, tensor("f32", (5,))), r"bias must be i32\[5\], found f32\[5\]"),
        ((x, f, tensor("u8", (5,))), r"bias must be i32\[5\], found u8\[5\]"),
    ]:
        with pytest.raises(ShapeError, match=message):
            Adder2d().infer(*operands)
    with pytest.raises(ShapeError, match="input_nonnegative=true is for f32 operands"):
        Adder2d(input_nonnegative=True).infer(x, f)
    with pytest.raises(ShapeError, match="must be f32, found u8"):
        Adder2dGradInput().infer(tensor("i32", (2, 2, 2, 5)), x, f)


def test_sums_of_bytes_fit_i32() -> None:
    most = tensor("u8", (1, 1, 8_421_504, 1))
    assert Adder2d().infer(tensor("u8", (1, 1, 1, 8_421_504)), most)[0].dtype.name == "i32"
    with pytest.raises(ShapeError, match=r"8,421,505 distances .* at most 2,147,483,775"):
        Adder2d().infer(tensor("u8", (1, 1, 1, 8_421_505)), tensor("u8", (1, 1, 8_421_505, 1)))


def test_range_of_bytes() -> None:
    op = Adder2d(padding=(1, 1, 1, 1))
    assert op.interval((ANY, ANY), BYTES) == (Interval(-27 * 255, 0),)
    assert op.interval((Interval(9, 10), Interval(3, 4)), BYTES) == (Interval(-27 * 7, 0),)
    inside = Adder2d().interval((Interval(9, 10), Interval(3, 4)), BYTES)
    assert inside == (Interval(-27 * 7, -27 * 5),)
    bias = Interval(5, 6)
    assert op.interval((ANY, ANY, bias), BYTES) == (Interval(5 - 27 * 255, 6),)
    assert op.interval((ANY, ANY, ANY), BYTES) == (Interval(-(2**31), 2**31 - 1),)


def test_bytes_have_no_gradient() -> None:
    def net(x, f):
        return ops.cast(ops.adder2d(ops.cast(x, "u8"), f), "f32")

    graph = ag.trace(net, tensor("f32", (1, 4, 4, 3)), BYTES[1])
    # No gradient enters integers ...
    assert not ag.grad(graph, wrt=["x"]).nodes[-1].inputs
    # ... and asking the op for one is an error.
    builder = Builder("bytes")
    xs = [Tensor(builder, builder.input(f"x{k}", t)) for k, t in enumerate(BYTES)]
    y = apply(Adder2d(), *xs)
    with pytest.raises(GraphError, match=r"adder2d of u8\[2,4,4,3\] .* no gradient: train in f32"):
        Adder2d().grad(xs, [y], [y])


def test_facts_for_passes() -> None:
    op, operands = Adder2d(padding=(1, 1, 1, 1)), types((2, 4, 4, 3), (3, 3, 3, 5))
    assert op.cost(operands) == Cost(additions=2 * (2 * 4 * 4 * 5) * 27)
    assert op.halo(operands) == (Halo(1, 1, 1, 1), Halo())
    assert op.interval((ANY, ANY), operands) == (Interval(hi=0.0),)
    assert op.interval((ANY, ANY, Interval(-1, 2)), operands) == (Interval(hi=2.0),)
    gradient = [tensor("f32", (2, 4, 4, 5)), *operands]
    same = (op.stride, op.padding)
    assert Adder2dGradInput(*same).halo(gradient) == (Halo(1, 1, 1, 1), Halo(), Halo())
    assert Adder2dGradFilter(*same).halo(gradient) == (Halo(), Halo(1, 1, 1, 1), Halo())
