"""What every op promises, checked for the whole registry. `op_samples.py` says on what."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from addergraph import ops
from addergraph.errors import ShapeError
from addergraph.ir import CONTRACTION, Array, Builder, Graph, Halo, registry
from addergraph.ir.check import check
from addergraph.ir.interpreter import interpret
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.text import parse
from addergraph.ir.trace import Tensor, apply_all
from addergraph.ir.types import DType, TensorType, bool_, f32, i8, i32, u8
from addergraph.ops.pointwise.relu import Relu
from tests.addergraph.op_samples import ALL, SAMPLES, Sample, identify

every_sample = pytest.mark.parametrize("sample", ALL, ids=identify)
STEP = 2.0**-9


def run(sample: Sample, operands: Sequence[Array]) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):
        return sample.op.reference(*operands)


def test_every_op_has_samples_and_a_function() -> None:
    assert set(SAMPLES) == set(registry())
    for name, group in SAMPLES.items():
        assert {s.op.name for s in group} == {name}
    made_by_passes = {n for n in registry() if "_grad" in n} | {"fused"}
    assert set(registry()) - made_by_passes <= set(ops.__all__)


def test_docstrings() -> None:
    for name, op in registry().items():
        assert op.__doc__, name
        assert not op.__doc__.startswith(f"{op.__name__}("), f"{name} has no docstring of its own"


@every_sample
def test_what_multiplies_says_so(sample: Sample) -> None:
    bound = sample.bound()
    cost = bound.op.cost(bound.types)
    empty = any(0 in t.shape for t in bound.types)
    assert bound.op.multiplies == bool(cost.multiplications or cost.transcendentals) or empty


@every_sample
def test_an_alias_has_the_elements_of_its_operand(sample: Sample) -> None:
    bound = sample.bound()
    if bound.op.aliases is None:
        return
    operands = bound.data(np.random.default_rng(0))
    (y,) = run(bound, operands)
    assert y.ravel().tolist() == operands[bound.op.aliases].ravel().tolist()


def test_gradient_ops_name_their_op() -> None:
    for name, op in registry().items():
        forward = op.gradient_of
        assert ("_grad" in name) == (forward is not None), name
        assert forward is None or name.startswith(f"{forward.name}_grad")


@every_sample
def test_ops_are_values(sample: Sample) -> None:
    copy = dataclasses.replace(sample.op)  # type: ignore[type-var]
    assert copy == sample.op
    assert hash(copy) == hash(sample.op)
    assert {copy: 1}[sample.op] == 1
    for field in dataclasses.fields(sample.op):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(sample.op, field.name, None)


def test_attributes_and_ops_tell_ops_apart() -> None:
    distinct = {(s.op.name, repr(s.op)): s.op for s in ALL if s.op.name not in ("fused", "full")}
    for one, other in itertools.combinations(distinct.values(), 2):
        assert one != other


@every_sample
@pytest.mark.parametrize("batch", [3, 1, 0])
def test_reference_agrees_with_the_shape_rule(sample: Sample, batch: int) -> None:
    bound = sample.bound(batch)
    try:
        types = bound.op.infer(*bound.types)
    except ShapeError:
        assert batch == 0, "only an empty batch may be refused"
        assert not sample.op.per_sample, "an empty batch of samples is an empty answer"
        return
    if sample.is_open:
        assert tuple(t.bind(batch) for t in sample.op.infer(*sample.types)) == types
    results = run(bound, bound.data(np.random.default_rng(1)))
    assert [(r.shape, r.dtype) for r in results] == [(t.sizes, t.dtype.numpy) for t in types]
    assert len(bound.op.interval([ANY] * len(bound.types), bound.types)) == len(types)


@every_sample
def test_wrong_operands_are_shape_errors(sample: Sample) -> None:
    if sample.op.name != "completed":  # which takes any number of any types
        with pytest.raises(ShapeError, match=r"."):
            sample.op.infer(*sample.types, *[TensorType(f32, (1,) * 7)] * 4)
    if sample.types:
        with pytest.raises(ShapeError, match=r"."):
            sample.op.infer()


@every_sample
def test_per_sample_ops_see_one_sample_at_a_time(sample: Sample) -> None:
    if not (sample.is_open and sample.op.per_sample):
        return
    whole, one = sample.bound(3), sample.bound(1)
    operands = whole.data(np.random.default_rng(2))
    together = run(whole, operands)
    for n in range(3):
        alone = [
            a[n : n + 1] if t.is_open else a for a, t in zip(operands, sample.types, strict=True)
        ]
        for a, y in zip(run(one, alone), together, strict=True):
            np.testing.assert_allclose(a, y[n : n + 1], rtol=1e-6)


@every_sample
def test_facts_for_passes(sample: Sample) -> None:
    bound = sample.bound()
    cost, halo = bound.op.cost(bound.types), bound.op.halo(bound.types)
    assert min(dataclasses.astuple(cost)) >= 0
    assert len(halo) == len(bound.types)
    if bound.op.kind == CONTRACTION:
        assert cost.additions > 0
    else:
        assert bound.op.name == "fused" or set(halo) <= {Halo()}


# --- text -------------------------------------------------------------------------------------


def one_node(sample: Sample) -> Graph:
    builder = Builder("one")
    values = [builder.input(f"x{k}", t) for k, t in enumerate(sample.types)]
    builder.input("batch", TensorType(f32, ("N",)))  # an open batch must come from an input
    if getattr(sample.op, "input_nonnegative", False):
        values[:1] = builder.add(Relu(), values[:1])  # the fact must be provable
    return builder.finish(builder.add(sample.op, values))


@every_sample
@pytest.mark.parametrize("batch", [None, 3])
def test_text_round_trip(sample: Sample, batch: int | None) -> None:
    graph = one_node(sample if batch is None else sample.bound(batch))
    again = parse(str(graph))
    assert again == graph
    assert str(again) == str(graph)
    nan = "nan" in repr(sample.op)
    assert nan or sample.op.name == "fused" or again.nodes[-1].op == graph.nodes[-1].op


# --- ranges -----------------------------------------------------------------------------------

INF = math.inf
FLOATS = [(-1.0, 1.0), (0.0, 2.0), (-3.0, -0.5), (0.0, 0.0), (0.1, 0.1), (-2.0, 0.0), (-INF, INF),
          (0.0, INF), (-INF, -0.3), (-INF, 0.0)]  # fmt: skip
RANGES: dict[DType, list[tuple[float, float]]] = {
    f32: FLOATS,
    i32: [(-1, 5), (0, 2), (-7, -7), (-INF, INF), (0, INF), (-INF, -3), (-(2**31), 2**31 - 1)],
    u8: [(0, 9), (7, 7), (-INF, INF), (3, INF)],
    i8: [(-9, 9), (-7, -7), (-INF, INF), (0, INF), (-INF, -3)],
    bool_: [(0, 1), (0, 0), (1, 1), (-INF, INF)],
}


def within(rng: np.random.Generator, type: TensorType, lo: float, hi: float) -> Array:
    """Data of `type` in [lo, hi], its ends and (f32) NaN included."""
    if type.dtype != f32:
        info = (0, 1) if type.dtype == bool_ else _limits(type.dtype)
        least, most = int(max(lo, info[0])), int(min(hi, info[1]))
        inner = rng.integers(least, most, type.sizes, endpoint=True)
        outer = rng.choice(np.array([least, most]), type.sizes)
        return np.where(rng.random(type.sizes) < 0.5, outer, inner).astype(type.dtype.numpy)
    drawn = rng.uniform(max(lo, -50.0), min(hi, 50.0), type.sizes)
    ends = rng.choice(np.array([lo, hi, max(lo, -50), min(hi, 50), math.nan]), type.sizes)
    mixed = np.where(rng.random(type.sizes) < 0.3, ends, drawn)
    return mixed.astype(np.float32)


def _limits(dtype: DType) -> tuple[int, int]:
    info = np.iinfo(dtype.numpy)  # type: ignore[type-var]
    return int(info.min), int(info.max)


@every_sample
def test_ranges_hold_every_result(sample: Sample) -> None:
    rng, bound = np.random.default_rng(3), sample.bound()
    for _ in range(40):
        chosen = [RANGES[t.dtype][rng.integers(len(RANGES[t.dtype]))] for t in bound.types]
        known = [
            Interval(float(np.float32(lo)), float(np.float32(hi))) if t.dtype == f32
            else Interval(lo, hi) for (lo, hi), t in zip(chosen, bound.types, strict=True)
        ]  # fmt: skip
        operands = [within(rng, t, r.lo, r.hi) for r, t in zip(known, bound.types, strict=True)]
        claimed = bound.op.interval(known, bound.types)
        for y, interval in zip(run(bound, operands), claimed, strict=True):
            numbers = y[~np.isnan(y)].astype(float)
            assert interval.lo <= interval.hi
            assert (numbers >= interval.lo).all(), (known, interval, numbers.min())
            assert (numbers <= interval.hi).all(), (known, interval, numbers.max())


# --- gradients --------------------------------------------------------------------------------

NO_GRADIENT = {("softmax_cross_entropy", 1)}
DIFFERENTIABLE = [
    s
    for s in (sample.bound() for sample in ALL)
    if s.types
    and not (s.op.not_differentiable or s.op.surrogate)
    and all(t.dtype == f32 for t in s.op.infer(*s.types))
]


def gradients(sample: Sample, operands: list[Array], gs: list[Array | None]) -> list[Array | None]:
    """What `op.grad` builds, run by the interpreter."""
    builder = Builder("gradients")
    xs = [Tensor(builder, builder.input(f"x{k}", t)) for k, t in enumerate(sample.types)]
    ys = apply_all(sample.op, *xs)
    upstream = [
        None if g is None else Tensor(builder, builder.input(f"g{k}", y.type))
        for k, (g, y) in enumerate(zip(gs, ys, strict=True))
    ]
    made = sample.op.grad(xs, ys, upstream)
    assert len(made) == len(xs)
    for number, (d, x) in enumerate(zip(made, xs, strict=True)):
        if d is None:
            assert x.dtype != f32 or (sample.op.name, number) in NO_GRADIENT
        else:
            assert d.type == x.type
    graph = builder.finish([d.value for d in made if d is not None])
    check(graph)
    found = interpret(graph, *operands, *(g for g in gs if g is not None))
    arrays = iter(found if isinstance(found, tuple) else (found,))
    return [None if d is None else next(arrays) for d in made]


def differences(
    sample: Sample, operands: list[Array], number: int, gs: Sequence[Array | None]
) -> Array:
    """d(sum g y) / d(operand `number`), by central differences of the reference."""
    slopes = np.zeros(operands[number].shape)
    for at in np.ndindex(slopes.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = [a.copy() for a in operands]
            moved[number][at] += np.float32(step)
            ends.append(
                sum(
                    np.vdot(g.astype("f8"), y.astype("f8"))
                    for g, y in zip(gs, run(sample, moved), strict=True)
                    if g is not None
                )
            )
        slopes[at] = (ends[0] - ends[1]) / (2 * STEP)
    return slopes


def used_results(count: int) -> list[tuple[bool, ...]]:
    """Every choice of results that a loss may depend on."""
    return [used for used in itertools.product((True, False), repeat=count) if any(used)]


@pytest.mark.parametrize("sample", DIFFERENTIABLE, ids=identify)
def test_gradients_are_the_derivatives(sample: Sample) -> None:
    rng = np.random.default_rng(4)
    operands = sample.data(rng)
    types = sample.op.infer(*sample.types)
    upstream = [rng.uniform(-1, 1, t.sizes).astype(np.float32) for t in types]
    for used in used_results(len(types)):
        gs = [g if u else None for g, u in zip(upstream, used, strict=True)]
        for number, found in enumerate(gradients(sample, operands, gs)):
            if found is not None:
                expected = differences(sample, operands, number, gs)
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_all_ops_that_should_be_are_checked_by_differences() -> None:
    exempt = {n for n, op in registry().items() if op.not_differentiable or op.surrogate}
    assert {s.op.name for s in DIFFERENTIABLE} == set(registry()) - exempt - {"full"}
    assert {n for n in exempt if "_grad" not in n} == {
        "adder2d", "adder_dense", "argmax", "completed", "fake_quantize", "fake_quantize_filter",
        "fused", "greater", "lookup", "requantize_multiply", "requantize_shift", "sum_pool2d",
    }  # fmt: skip


# --- values that compare oddly ----------------------------------------------------------------


@pytest.mark.parametrize("operand", [(), (3,), (16,), (17,)])
def test_relu_of_odd_values(operand: tuple[int, ...]) -> None:
    for x, expected in (
        (math.nan, math.nan), (-math.nan, math.nan), (-0.0, 0.0), (0.0, 0.0), (-INF, 0.0),
        (INF, INF), (-1e-45, 0.0), (1e-45, 1e-45), (-3.5, 0.0), (3.5, 3.5),
    ):  # fmt: skip
        (y,) = Relu().reference(np.full(operand, x, np.float32))
        np.testing.assert_array_equal(y, np.full(operand, expected, np.float32))
        assert not np.signbit(y).any()
        assert y.shape == operand
