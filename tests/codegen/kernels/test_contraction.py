"""Forward contractions between guard pages: exact data bit for bit, any data within bounds.

On general data the adder kernels give the same bits on every target, for any number of threads; the
product kernels do so on each target. Halos and packing change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from addergraph.ir import Array, Builder, Halo, Op
from addergraph.ir.trace import Tensor
from addergraph.ir.types import DTYPES, TensorType
from addergraph.ops import clip, greater, relu, select
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense, Matmul
from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.cast import cast
from tests.codegen.harness import HERE, run_call, same_bits
from tests.codegen.kernels.layers import (
    FORMS,
    LAYERS,
    MATRICES,
    THREADS,
    WIDE,
    Layer,
    Shape,
    U,
    real,
    ways,
    whole,
)  # fmt: skip

pytestmark = pytest.mark.thinned(3)


def operands(op: Op, x: Shape, f: Shape, draw: Callable[..., Array], seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [draw(rng, x, nonnegative=is_minimum(op)), draw(rng, f)]


def is_minimum(op: Op) -> bool:
    return bool(getattr(op, "input_nonnegative", False))


def require_exact(op: Op, arrays: Sequence[Array], start: int = 0, image: bool = True) -> None:
    with np.errstate(invalid="ignore"):
        (expected,) = op.reference(*arrays)
    for way in ways(start, image):
        (found,) = run_call(op, arrays, **way)
        assert same_bits(found, expected), f"{op}, {way}: {found} is not {expected}"


# -- exact data ----------------------------------------------------------------------------------


def turn_of(name: str, form: str) -> int:
    return list(LAYERS).index(name) + FORMS.index(form)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_bits_of_the_reference_on_exact_data(name: str, form: str) -> None:
    layer = LAYERS[name]
    op = layer.op(form)
    require_exact(op, operands(op, layer.x, layer.f, whole, 1), turn_of(name, form))


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "op", [AdderDense(), AdderDense(input_nonnegative=True), Matmul()], ids=repr
)
@pytest.mark.parametrize("name", MATRICES)
def test_dense_layers_have_the_bits_of_the_reference_on_exact_data(name: str, op: Op) -> None:
    start = list(MATRICES).index(name)
    require_exact(op, operands(op, *MATRICES[name], whole, 2), start, image=False)


@pytest.mark.parametrize("form", FORMS)
def test_a_bias_is_added_once(form: str) -> None:
    layer = LAYERS["grouped_blocks"]
    op = layer.op(form)
    x, f = operands(op, layer.x, layer.f, whole, 3)
    bias = whole(np.random.default_rng(4), layer.f[-1:])
    (expected,) = op.reference(x, f, bias)
    for target in HERE:
        (found,) = run_call(op, [x, f, bias], target=target, threads=2, constant=(1, 2))
        assert same_bits(found, expected)


def test_sums_of_denormals_are_exact() -> None:
    layer = LAYERS["same"]
    for form in ("direct", "minimum"):
        op = layer.op(form)
        arrays = [a * np.float32(2.0**-147) for a in operands(op, layer.x, layer.f, whole, 5)]
        assert 0 < np.abs(arrays[1]).max() < np.finfo("f4").tiny
        require_exact(op, arrays)


# -- general data --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["direct", "minimum"])
@pytest.mark.parametrize("name", ["tails", "dilated", "grouped", "deep"])
def test_bits_of_adders_depend_on_nothing_but_the_numbers(name: str, form: str) -> None:
    layer = LAYERS[name]
    op = layer.op(form)
    arrays, turn = operands(op, layer.x, layer.f, real, 6), turn_of(name, form)
    (first,) = run_call(op, arrays, **ways(turn)[0])
    for way in (*ways(turn), *ways(turn + 1)):  # the first are compiled already
        (found,) = run_call(op, arrays, **way)
        assert same_bits(found, first), way
    require_within(first, op, arrays, *adder_bound(op, arrays))


@pytest.mark.parametrize("op", [AdderDense(), AdderDense(input_nonnegative=True)], ids=repr)
def test_bits_of_dense_adders_depend_on_nothing_but_the_numbers(op: Op) -> None:
    arrays = operands(op, *MATRICES["tails"], real, 7)
    (first,) = run_call(op, arrays, target=HERE[0])
    for way in (*ways(0, image=False), *ways(1, image=False)):
        (found,) = run_call(op, arrays, **way)
        assert same_bits(found, first), way
    require_within(first, op, arrays, *adder_bound(op, arrays))


@pytest.mark.parametrize("name", ["tails", "dilated", "grouped", "deep"])
def test_bits_of_products_depend_on_the_target_alone(name: str) -> None:
    layer = LAYERS[name]
    op = layer.op("product")
    x, f = operands(op, layer.x, layer.f, real, 8)
    for target in HERE:
        (first,) = run_call(op, [x, f], target=target)
        for threads, constant, halo in [(3, (), WIDE), (7, (1,), Halo())]:
            (found,) = run_call(
                op, [x, f], target=target, threads=threads, constant=constant, halos={0: halo}
            )
            assert same_bits(found, first)
        n = int(np.prod(layer.f[:3]))
        magnitude = exact(op, np.abs(x), np.abs(f))
        require_within(first, op, [x, f], n, magnitude)


def adder_bound(op: Op, arrays: Sequence[Array]) -> tuple[int, Array]:
    """(terms, the sum of magnitudes): the bound is terms u / (1 - terms u) times the sum."""
    x, f = arrays
    n = f.size // f.shape[-1]
    if not is_minimum(op):
        return n, -exact(op, x, f)
    # min(x, F+) = (x + F+ - |x - F+|) / 2, and sums of x and |f| are distances as well.
    zero = np.zeros_like(f)
    sum_x, sum_f = -exact(op, x, zero), -exact(op, np.zeros_like(x), f)
    positive = np.maximum(f, 0)
    least = sum_x - exact(op, np.zeros_like(x), positive) + exact(op, x, positive)
    return n + 1, least + sum_x + sum_f


def exact(op: Op, *arrays: Array) -> Array:
    """The reference in float64, whatever it stores its results in."""
    x, f = (a.astype("f8") for a in arrays)
    if x.ndim == 2:
        return np.asarray(-np.abs(x[:, :, None] - f).sum(1))
    assert isinstance(op, Adder2d | Conv2d)
    window, groups = op.window_of((f.shape[0], f.shape[1])), op.groups
    out = window.output_size(x.shape[1], x.shape[2])
    y = np.zeros((x.shape[0], *out, f.shape[3]))
    taken, made = f.shape[2], f.shape[3] // groups
    for i, j, tap in window.taps(window.pad(x), out):
        for g in range(groups):
            one = tap[..., g * taken : (g + 1) * taken, None]
            other = f[i, j, :, g * made : (g + 1) * made]
            terms = one * other if isinstance(op, Conv2d) else -np.abs(one - other)
            y[..., g * made : (g + 1) * made] += terms.sum(-2)
    return y


def require_within(
    found: Array, op: Op, arrays: Sequence[Array], terms: int, magnitude: Array
) -> None:
    error = np.abs(found - exact(op, *arrays))
    allowed = terms * U / (1 - terms * U) * magnitude
    assert (error <= allowed).all(), (error / allowed).max()
    assert error.max() > 0  # otherwise the data say nothing about rounding


# -- tails ---------------------------------------------------------------------------------------

Tail = Callable[[Tensor, list[Tensor]], Tensor]
TAILS: dict[str, tuple[list[str], Tail]] = {
    "bias_relu": (["[T]"], lambda y, a: relu(y + a[0])),
    "scale_shift_relu": (["[T]", "[T]"], lambda y, a: relu(y * a[0] + a[1])),
    "residual": (["same"], lambda y, a: relu(y + a[0])),
    "scalar": (["[]"], lambda y, a: y * a[0] - 0.5),
    "itself": (["[T]"], lambda y, a: (y + a[0]) * y),
    "clip_abs": ([], lambda y, a: abs(clip(y, -40.0, -2.0))),
    "select": (["mask", "same"], lambda y, a: select(a[0], y, a[1])),
    "mask": (["[T]"], lambda y, a: greater(y, a[0])),
    "cast": ([], lambda y, a: cast(y, "i8")),
    "integers": (["[T] i32"], lambda y, a: cast(y, "i32") + a[0]),
    "own_input": (["input"], lambda y, a: y + a[0]),
    "own_filter": (["filter"], lambda y, a: y - a[0]),
}


SQUARE_TAILS = ("own_input", "own_filter", "residual", "integers")


def with_tail(op: Op, arrays: list[Array], name: str) -> tuple[Op, list[Array]]:
    """The fused op, and operands for it: those of `op`, then those of the tail."""
    wanted, tail = TAILS[name]
    builder, rng = Builder("body"), np.random.default_rng(9)
    symbols = [Tensor(builder, builder.input(f"a{i}", type_of(a))) for i, a in enumerate(arrays)]
    (y,) = builder.add(op, [s.value for s in symbols], "v0")
    extra = []
    for kind in wanted:
        if kind in ("input", "filter"):
            extra.append(symbols[("input", "filter").index(kind)])
            continue
        arrays = [*arrays, tail_operand(rng, kind, y.type)]
        value = builder.input(f"a{len(arrays) - 1}", type_of(arrays[-1]))
        extra.append(Tensor(builder, value))
    result = tail(Tensor(builder, y), extra)
    return Fused(builder.finish([result.value])), arrays


def tail_operand(rng: np.random.Generator, kind: str, y: TensorType) -> Array:
    if kind == "mask":
        return rng.integers(0, 2, y.sizes).astype(bool)
    if kind.endswith("i32"):
        return rng.integers(-(2**31), 2**31, y.sizes[-1:]).astype(np.int32)
    return whole(rng, {"[T]": y.sizes[-1:], "[]": (), "same": y.sizes}[kind])


def type_of(array: Array) -> TensorType:
    return TensorType(next(d for d in DTYPES.values() if d.numpy == array.dtype), array.shape)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tail", [t for t in TAILS if not t.startswith("own")])
def test_tails(tail: str, form: str) -> None:
    layer = Layer((2, 5, 4, 6), (3, 3, 3, 38), padding=(1, 1, 0, 2), groups=2)
    op = layer.op(form)
    fused, arrays = with_tail(op, operands(op, layer.x, layer.f, whole, 10), tail)
    (expected,) = fused.reference(*arrays)
    first = list(TAILS).index(tail) + FORMS.index(form)
    for k in (first, first + 1):
        halos = {len(arrays): WIDE} if k % 3 else {}
        target, threads = HERE[k % len(HERE)], THREADS[k % len(THREADS)]
        (found,) = run_call(
            fused, arrays, target=target, threads=threads, constant=(1,), halos=halos
        )
        assert same_bits(found, expected), target


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "op", [AdderDense(), AdderDense(input_nonnegative=True), Dense()], ids=repr
)
@pytest.mark.parametrize("tail", SQUARE_TAILS)
def test_tails_of_square_matrices(tail: str, op: Op) -> None:
    """There, the input and the filter have the result's shape and may be read by the tail."""
    fused, arrays = with_tail(op, operands(op, (19, 19), (19, 19), whole, 11), tail)
    (expected,) = fused.reference(*arrays)
    first = SQUARE_TAILS.index(tail)
    for k in (first, first + 1):  # every op and every tail on every target, in turns
        target, threads = HERE[k % len(HERE)], THREADS[k % len(THREADS)]
        (found,) = run_call(fused, arrays, target=target, threads=threads, constant=(1,))
        assert same_bits(found, expected), target


@pytest.mark.parametrize("form", FORMS)
def test_a_residual_may_be_the_layers_own_input(form: str) -> None:
    layer = Layer((2, 5, 4, 18), (3, 3, 18, 18), padding=(1, 1, 1, 1))
    op = layer.op(form)
    fused, arrays = with_tail(op, operands(op, layer.x, layer.f, whole, 12), "own_input")
    (expected,) = fused.reference(*arrays)
    for k, target in enumerate(HERE):
        halos = {0: WIDE} if k % 2 else {}
        (found,) = run_call(fused, arrays, target=target, threads=2, constant=(1,), halos=halos)
        assert same_bits(found, expected), target


@pytest.mark.parametrize("form", FORMS)
def test_a_tail_rounds_every_step_as_numpy_does(form: str) -> None:
    layer = LAYERS["tails"]
    op = layer.op(form)
    pair = operands(op, layer.x, layer.f, real, 13)
    fused, arrays = with_tail(op, pair, "scale_shift_relu")
    rng = np.random.default_rng(14)
    arrays[2:] = [real(rng, a.shape) for a in arrays[2:]]
    for target in HERE:
        (alone,) = run_call(op, pair, target=target)
        (found,) = run_call(fused, arrays, target=target, threads=2, constant=(1,))
        expected = np.maximum(alone * arrays[2] + arrays[3], np.float32(0))
        assert same_bits(found, expected), target


# -- special values ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["direct", "minimum"])
def test_nan_inf_and_minus_zero_are_the_same_everywhere(form: str) -> None:
    layer = LAYERS["same"]
    op = layer.op(form)
    x, f = operands(op, layer.x, layer.f, whole, 15)
    x[0, 0, 0, 0], x[0, 4, 4, 1], x[1, 2, 2, 2] = np.nan, np.inf, -0.0
    f[0, 0, 0, 0], f[1, 1, 1, 1], f[2, 2, 2, 2], f[1, 0, 0, 3] = np.nan, np.inf, -np.inf, -0.0
    require_exact(op, [x, f])
