"""conv2d and its gradient ops against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Cost, Halo
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.quantization import Quantization
from addergraph.ir.trace import Tensor, trace
from addergraph.ir.types import tensor
from addergraph.ops.contraction.conv2d import Conv2d, Conv2dGradFilter, Conv2dGradInput, conv2d
from addergraph.ops.contraction.dense import Dense
from tests.addergraph.ops.naive import contraction, gradients, normal

CASES = [
    (Conv2d(), (2, 4, 4, 3), (3, 3, 3, 2)),
    (Conv2d((2, 1), (1, 0, 2, 1)), (1, 5, 4, 2), (3, 2, 2, 3)),
    (Conv2d((1, 2), (2, 2, 0, 1), (2, 3)), (1, 4, 8, 2), (2, 3, 2, 2)),
    (Conv2d((3, 3), (1, 1, 1, 1), groups=2), (2, 5, 5, 4), (2, 2, 2, 6)),
    (Conv2d((2, 2)), (2, 6, 6, 1), (1, 1, 1, 2)),
    (Conv2d(), (0, 4, 4, 3), (3, 3, 3, 2)),
    (Conv2d(groups=2), (2, 3, 3, 0), (3, 3, 0, 2)),
    (Conv2d(groups=2), (2, 3, 3, 2), (2, 2, 1, 0)),
    (Conv2d(padding=(1, 1, 1, 1)), (1, 0, 2, 1), (2, 2, 1, 2)),
]


def types(*shapes: tuple[int, ...]):
    return [tensor("f32", s) for s in shapes]


@pytest.mark.parametrize(("op", "x_shape", "f_shape"), CASES)
def test_forward(op: Conv2d, x_shape, f_shape) -> None:
    x, f, bias = normal(1, *x_shape), normal(2, *f_shape), normal(3, f_shape[3])
    expected = contraction(op, x, f, lambda a, b: a * b)
    (y,) = op.reference(x, f)
    (found,) = op.infer(*types(x_shape, f_shape))
    assert y.dtype == np.float32
    assert y.shape == found.sizes
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(op.reference(x, f, bias)[0], expected + bias, atol=1e-5)


@pytest.mark.parametrize(("op", "x_shape", "f_shape"), CASES)
def test_gradients(op: Conv2d, x_shape, f_shape) -> None:
    x, f = normal(1, *x_shape), normal(2, *f_shape)
    (y,) = op.infer(*types(x_shape, f_shape))
    g = normal(3, *y.sizes)
    same = (op.stride, op.padding, op.dilation, op.groups)
    by_input = Conv2dGradInput(*same, input_size=x_shape[1:3])
    by_filter = Conv2dGradFilter(*same, kernel_size=f_shape[:2])
    dx, df = gradients(op, g, x, f, by_x=lambda a, b: b, by_f=lambda a, b: a)
    np.testing.assert_allclose(by_input.reference(g, f)[0], dx, atol=1e-5)
    np.testing.assert_allclose(by_filter.reference(g, x)[0], df, atol=1e-5)
    g_type, x_type, f_type = types(y.sizes, x_shape, f_shape)
    assert by_input.infer(g_type, f_type) == (x_type,)
    assert by_filter.infer(g_type, x_type) == (f_type,)


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Conv2d(), [("N", 5, 5, 3), (3, 3, 2, 4)], "3 channels but the filter expects 2"),
        (
            Conv2dGradInput(input_size=(6, 5)),
            [(1, 3, 3, 4), (3, 3, 3, 4)],
            r"output gradient must be f32\[1,4,3,4\], found f32\[1,3,3,4\]",
        ),
        (Conv2dGradInput(input_size=(5, 5)), [(1, 3, 3), (3, 3, 3, 4)], "gradient must be NHWC"),
        (Conv2dGradInput(input_size=(5, 5)), [(1, 3, 3, 4)], r"takes 2 operands \(g, f\), found 1"),
        (
            Conv2dGradFilter(kernel_size=(2, 3)),
            [(1, 3, 3, 4), (1, 5, 5, 3)],
            r"output gradient must be f32\[1,4,3,4\], found f32\[1,3,3,4\]",
        ),
        (
            Conv2dGradFilter(groups=2, kernel_size=(3, 3)),
            [(1, 3, 3, 4), (1, 5, 5, 3)],
            "input's 3 channels do not divide into 2 groups",
        ),
        (
            Conv2dGradFilter(groups=0, kernel_size=(3, 3)),
            [(1, 3, 3, 4), (1, 5, 5, 3)],
            "do not divide into 0 groups",
        ),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*types(*shapes))


def test_facts_for_passes() -> None:
    op, operands = Conv2d(padding=(1, 1, 1, 1)), types((2, 4, 4, 3), (3, 3, 3, 5))
    g, (x, f) = tensor("f32", (2, 4, 4, 5)), operands
    terms = (2 * 4 * 4 * 5) * 27
    assert op.cost(operands) == Cost(additions=terms, multiplications=terms)
    assert op.halo(operands) == (Halo(1, 1, 1, 1), Halo())
    by_input = Conv2dGradInput(padding=op.padding, input_size=(4, 4))
    by_filter = Conv2dGradFilter(padding=op.padding, kernel_size=(3, 3))
    assert by_input.halo((g, f)) == (Halo(1, 1, 1, 1), Halo())
    assert by_filter.halo((g, x)) == (Halo(), Halo(1, 1, 1, 1))
    assert by_input.cost((g, f)) == by_filter.cost((g, x)) == op.cost(operands)


def test_ranges() -> None:
    operands = types((2, 4, 4, 3), (3, 3, 3, 5))
    one, zero = Interval(1.0, 1.0), Interval(0.0, 0.0)
    assert Conv2d().interval((zero, ANY), operands) == (zero,)
    assert Conv2d().interval((one, ANY), operands) == (ANY,)
    (y,) = Conv2d().interval((one, one, one), operands)
    assert y.lo == pytest.approx(28, rel=1e-5)
    assert y.lo < 28 < y.hi
    assert Conv2d(padding=(1, 0, 0, 0)).interval((one, one), operands)[0].lo == 0.0


BYTES = tensor("u8", (2, 4, 4, 3)), tensor("i8", (3, 3, 3, 5))


def test_bytes_are_exact() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, BYTES[0].sizes).astype(np.uint8)
    f = rng.integers(-128, 128, BYTES[1].sizes).astype(np.int8)
    op = Conv2d(padding=(1, 0, 2, 1))
    expected = contraction(op, x.astype("f8"), f.astype("f8"), lambda a, b: a * b)
    (found,) = op.reference(x, f)
    assert op.infer(*BYTES)[0] == tensor("i32", found.shape)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    bias = np.full(5, 2**31 - 1, np.int32)  # adding it wraps
    wrapped = found.astype("i8") + bias
    np.testing.assert_array_equal(op.reference(x, f, bias)[0], wrapped.astype("i4"))


def test_bytes_do_not_mix_with_other_dtypes() -> None:
    x, f = BYTES
    for operands, message in [
        ((x, tensor("f32", f.shape)), "filter must be i8, as the input is u8.*, found f32"),
        ((tensor("f32", x.shape), f), "filter must be f32, as the input is f32.*, found i8"),
        ((x, tensor("u8", f.shape)), "filter must be f32 or i8, found u8"),
        ((x, f, tensor("f32", (5,))), r"bias must be i32\[5\], found f32"),
    ]:
        with pytest.raises(ShapeError, match=message):
            Conv2d().infer(*operands)


def test_sums_of_bytes_fit_i32() -> None:
    x, f = tensor("u8", (1, 1, 1, 65_793)), tensor("i8", (1, 1, 65_793, 1))
    assert 65_793 * 255 * 128 < 2**31 <= 65_794 * 255 * 128
    assert Conv2d().infer(x, f) == (tensor("i32", (1, 1, 1, 1)),)
    with pytest.raises(ShapeError, match=r"65,794 products .* 2,147,516,160, .*; 65,793 terms fit"):
        Dense().infer(tensor("u8", (1, 65_794)), tensor("i8", (65_794, 1)))


def test_range_of_bytes() -> None:
    """Exact at both ends, whatever is known of the operands."""
    (y,) = Conv2d().interval((ANY, ANY), BYTES)
    assert (y.lo, y.hi) == (-27 * 255 * 128, 27 * 255 * 127)
    (y,) = Conv2d(padding=(1, 1, 1, 1)).interval((Interval(5, 9), Interval(1, 2)), BYTES)
    assert (y.lo, y.hi) == (0, 27 * 18)
    (y,) = Conv2d().interval((ANY, ANY, Interval(2**31 - 1, 2**31 - 1)), (*BYTES, BYTES[0]))
    assert (y.lo, y.hi) == (-(2**31), 2**31 - 1)


def test_what_sums_of_bytes_stand_for() -> None:
    x, f = Quantization(0.5), Quantization(0.25)
    assert Conv2d().quantization([x, f]) == (Quantization(0.125),)
    assert Conv2d().quantization([x, None]) == (None,)
    shifted = Quantization(0.5, 3)
    assert Dense().quantization([shifted, f]) == (None,)
    with pytest.raises(ShapeError, match="byte 0, whose value is not 0.0"):
        Conv2d(padding=(0, 1, 0, 0)).quantization([shifted, None])
    with pytest.raises(ShapeError, match="sums of products and their bias need one scale"):
        Conv2d().quantization([x, f, Quantization(0.5)])


def test_bytes_have_no_gradient() -> None:
    def gradient(x: Tensor, f: Tensor) -> Tensor:
        y = conv2d(x, f)
        Conv2d().grad([x, f], [y], [y])
        return y

    with pytest.raises(GraphError, match="conv2d of u8.* has no gradient: train in f32"):
        trace(gradient, *BYTES)
