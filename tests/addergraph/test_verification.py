"""Verification passes honest programs and catches planted errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.errors import DataError, GraphError, VerificationError
from addergraph.ir import Array, Builder, Graph
from addergraph.ir.interpreter import run_reference
from addergraph.ir.intervals import NONNEGATIVE, Interval
from addergraph.ir.trace import Tensor
from addergraph.ir.types import Shape, f32, i32, u8
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.verification.outputs import verify
from addergraph.verification.reference import Difference
from addergraph.verification.samples import draw
from tests.addergraph.models import adders_only
from tests.addergraph.op_samples import ALL, Sample, identify


@dataclass(frozen=True)
class Fake:
    """A program made of a function of its inputs; honest without `spoil`."""

    graph: Graph
    weights: Mapping[str, Array]
    spoil: Callable[[Array], Array] = lambda y: y

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        outputs, _ = run_reference(self.graph, inputs, self.weights)
        return tuple(self.spoil(y) for y in outputs)


X = ag.tensor("f32", ("N", 9, 5, 4))
STRIDE, PADDING = (2, 1), (1, 0, 0, 1)


def adder() -> Graph:
    def net(x: Tensor) -> Tensor:
        return layers.Adder(6, 3, stride=STRIDE, padding=PADDING)(x)

    return ag.trace(net, X, name="adder")


def filter_of(seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(3, 3, 4, 6)).astype(np.float32)


# --- planted errors in one layer ------------------------------------------------------------------


def wrong_tap(f: Array) -> Array:
    """One filter takes its first tap for its second."""
    f = f.copy()
    f[0, 0, :, 5] = f[0, 1, :, 5]
    return f


def lost_tap(f: Array) -> Array:
    """One element of one filter counts as zero."""
    f = f.copy()
    f[2, 1, 3, 2] = 0
    return f


def shifted_channels(f: Array) -> Array:
    """Packed one channel off."""
    return np.roll(f, 1, axis=2)


def rows_for_columns(f: Array) -> Array:
    return f.transpose(1, 0, 2, 3).copy()


@pytest.mark.parametrize("plant", [wrong_tap, lost_tap, shifted_channels, rows_for_columns])
def test_a_wrong_filter_is_caught(plant: Callable[[Array], Array]) -> None:
    class Spoilt(Fake):
        def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
            wrong = {"adder1.f": plant(self.weights["adder1.f"])}
            return run_reference(self.graph, inputs, wrong)[0]

    report = verify(adder(), Spoilt(adder(), {"adder1.f": filter_of()}), samples=3)
    assert not report.ok
    assert "elements differ" in str(report)
    assert report.outputs[0].error > 10 * report.outputs[0].allowed


def other_geometry(x: Tensor, f: Tensor, case: str) -> Tensor:
    """Results of the same shape with a mistake in how the window moves."""
    if case == "swapped stride":
        wide = ops.pad(ops.slice(x, (0, 0, 0, 0), ("N", 5, 5, 4)), (0, 1, 0, 0), (0, 0, 4, 0))
        return ops.adder2d(wide, f, stride=(1, 2))
    if case == "off-by-one shift":
        return ops.adder2d(x, f, stride=STRIDE, padding=(0, 1, 0, 1))
    if case == "halo of ones":
        return ops.adder2d(ops.pad(x, (0, 1, 0, 0), (0, 0, 1, 0), value=1.0), f, stride=STRIDE)
    return ops.adder2d(x, f, stride=STRIDE, padding=PADDING)


@pytest.mark.parametrize("case", ["swapped stride", "off-by-one shift", "halo of ones"])
def test_wrong_geometry_is_caught(case: str) -> None:
    types = (X, ag.tensor("f32", (3, 3, 4, 6)))
    honest = ag.trace(lambda x, f: other_geometry(x, f, "honest"), *types, name="layer")
    wrong = ag.trace(lambda x, f: other_geometry(x, f, case), *types, name="layer")
    assert honest.outputs[0].type == wrong.outputs[0].type
    assert verify(honest, Fake(honest, {}), samples=4).ok
    assert not verify(honest, Fake(wrong, {}), samples=4).ok


def last_element(y: Array) -> Array:
    """A tail that sums one term too few."""
    y = y.copy()
    y.flat[-1] *= np.float32(0.999)
    return y


def nan(y: Array) -> Array:
    y = y.copy()
    y.flat[3] = np.nan
    return y


def infinite(y: Array) -> Array:
    return np.where(y == y.min(), -np.inf, y).astype(np.float32)


@pytest.mark.parametrize("spoil", [last_element, nan, infinite, np.zeros_like, np.negative])
def test_wrong_results_are_caught(spoil: Callable[[Array], Array]) -> None:
    report = verify(adder(), Fake(adder(), {"adder1.f": filter_of()}, spoil), samples=2)
    assert not report.ok


def test_errors_within_the_bound_pass() -> None:
    def jitter(y: Array) -> Array:
        return np.nextafter(np.nextafter(y, np.float32(0)), np.float32(0))

    report = verify(adder(), Fake(adder(), {"adder1.f": filter_of()}, jitter), samples=2)
    assert report.ok
    assert report.outputs[0].different == report.outputs[0].elements
    said = f"the largest error, {report.outputs[0].error:.3g}, is within its bound, "
    assert said in str(report) and "differ" not in str(report)
    equal = verify(adder(), Fake(adder(), {"adder1.f": filter_of()}, lambda y: y), samples=2)
    assert f"all {report.outputs[0].elements:,} elements are equal, values" in str(equal)


def test_exact_graphs_have_to_be_equal() -> None:
    graph = ag.trace(lambda x: ops.relu(x * 3.0 + 1.0), ag.tensor("f32", ("N", 7)), name="exact")
    assert verify(graph, Fake(graph, {})).ok

    def one_ulp(y: Array) -> Array:
        return np.where(y > 0, np.nextafter(y, np.float32(9)), y)

    report = verify(graph, Fake(graph, {}, one_ulp))
    assert not report.ok
    assert report.outputs[0].allowed == 0


def test_integers_have_to_be_equal() -> None:
    graph = ag.trace(lambda x: ops.argmax(x, -1), ag.tensor("f32", ("N", 7)), name="choice")
    assert verify(graph, Fake(graph, {})).ok
    assert not verify(graph, Fake(graph, {}, lambda y: (y + 1) % 7)).ok


# --- whole networks -------------------------------------------------------------------------------


def network() -> Model:
    """Three adder layers with the statistics that their inputs have, so that nothing is dead."""
    model = Model(input_shape=(8, 8, 1), seed=3)
    for channels in (8, 12, 10):
        model.add(layers.Adder(channels, kernel_size=3, padding=1))
        model.add(layers.BatchNorm(momentum=1.0))
        model.add(layers.Activation("relu"))
    for made in (layers.Flatten(), layers.Dense(10), layers.Activation("softmax")):
        model.add(made)
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1))
    y = np.arange(64) % 10
    model.fit(x, y, epochs=1, batch_size=64, learning_rate=1e-30, engine="reference", verbose=0)
    return model


MODEL = network()
GRAPH = MODEL.graph(training=False)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("adder1.f", wrong_tap),
        ("adder1.f", rows_for_columns),
        *(
            (name, plant)
            for name in ("adder2.f", "adder3.f")
            for plant in (wrong_tap, lost_tap, shifted_channels, rows_for_columns)
        ),
    ],
)
def test_a_wrong_filter_inside_a_network_is_caught(
    name: str, plant: Callable[[Array], Array]
) -> None:
    spoilt = dict(MODEL.weights)
    spoilt[name] = plant(spoilt[name])

    class Spoilt(Fake):
        def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
            return run_reference(self.graph, inputs, spoilt)[0]

    assert not verify(GRAPH, Spoilt(GRAPH, MODEL.weights), samples=16).ok


def test_an_honest_network_passes() -> None:
    report = verify(GRAPH, ag.compile(MODEL), samples=40)
    assert report.ok, report
    assert report.mistrusted == ()
    assert report.outputs[0].elements == 400


def test_honest_gradients_pass() -> None:
    def net(x: Tensor, f: Tensor, w: Tensor) -> Tensor:
        y = ops.adder2d(x, f, stride=2, padding=1)
        return ops.conv2d(ops.max_pool2d(y, 2), w)

    shapes: list[Shape] = [("N", 9, 9, 3), (3, 3, 3, 5), (2, 2, 5, 4)]
    graph = ag.trace(net, *(ag.tensor("f32", shape) for shape in shapes))
    gradient = ag.grad(graph, wrt=["x", "f", "w"]).bind(3)
    report = verify(gradient, ag.compile(gradient), samples=2)
    assert report.ok, report
    assert len(report.outputs) == 3


def one_op(sample: Sample) -> Graph:
    builder, op = Builder("one"), sample.op
    if isinstance(op, Adder2d | AdderDense):  # what is proven is for the ranges pass to say
        op = dataclasses.replace(op, input_nonnegative=False)
    inputs = [builder.input(f"x{k}", t) for k, t in enumerate(sample.types)]
    return builder.finish(builder.add(op, inputs, "y"))


@pytest.mark.thinned(4)
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")  # a clip to one number
@pytest.mark.parametrize("target", ["host", "toy"])
@pytest.mark.parametrize("sample", ALL, ids=identify)  # of every op in the registry
def test_every_op_compiled_passes_on_general_data(sample: Sample, target: str) -> None:
    bound = sample.bound()
    graph = one_op(bound)
    rng = np.random.default_rng(5)
    low, high = sample.domain
    inputs = [
        rng.uniform(low, high, t.sizes).astype("f4")
        if t.dtype.name == "f32"
        else rng.integers(0, 2, t.sizes).astype(t.dtype.numpy)
        for t in bound.types
    ]
    report = verify(graph, ag.compile(graph, target=target), inputs=inputs, layers=False)
    assert report.ok, report


# --- what the outputs of random samples do not tell -----------------------------------------------


def test_a_dead_network_is_told_from_a_wrong_one() -> None:
    """Its outputs differ by class, and are the same for every sample and every first layer."""
    model = Model(input_shape=(4, 4, 1), name="dead", seed=0)
    for layer in (
        layers.Conv(4, 3), layers.Adder(4, 2), layers.BatchNorm(), layers.Activation("relu"),
        layers.Flatten(), layers.Dense(10), layers.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    model.weights["dense1.b"][...] = np.arange(10) / 9
    graph, right = model.graph(training=False), model.weights
    report = verify(graph, ag.compile(model), 20)
    assert report.ok
    assert report.constant == ("act1", "flatten1")  # the batch norm leaves sums below 0
    assert "constant with these weights, whatever the input: %act1, %flatten1;" in str(report)
    for name in ("conv1.f", "dense1.f"):
        program = ag.compile(model)
        program.set_weights({**right, name: np.zeros_like(right[name])})
        wrong = verify(graph, program, 20, weights=right)
        assert all(output.ok for output in wrong.outputs)
        assert [row.name for row in wrong.layers if not row.ok] == [name.removesuffix(".f")]
        assert f"FAIL %{name.removesuffix('.f')}" in str(wrong)
    unseen = verify(graph, Fake(graph, right), 20)  # a library shows outputs only
    assert {"act1", "flatten1", "dense1", "act2"} <= set(unseen.mistrusted)
    assert "conv1" not in unseen.mistrusted


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_a_cast_that_saturates_instead_of_wrapping_is_caught(dtype: str) -> None:
    graph = ag.trace(lambda x: ops.cast(x, dtype), ag.tensor("i32", ("N", 5)), name="low_bits")
    ends = np.iinfo(np.uint8 if dtype == "u8" else np.int8)

    class Saturating(Fake):
        def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
            return (np.clip(np.asarray(inputs[0]), ends.min, ends.max).astype(ends.dtype),)

    assert verify(graph, Fake(graph, {})).ok
    assert not verify(graph, Saturating(graph, {})).ok


def test_each_element_has_a_bound_of_its_own() -> None:
    """Powers from 1e-14 to 1e14 in one tensor: the small ones are no rounding of the large."""
    graph = ag.trace(lambda x: ops.exp(x * 8.0), ag.tensor("f32", ("N", 50)), name="powers")
    report = verify(graph, Fake(graph, {}, lambda y: np.where(y < 1, np.float32(0), y)))
    assert not report.ok
    assert report.outputs[0].error < 1
    assert verify(graph, ag.compile(graph)).ok


def test_random_samples_reach_what_the_types_hold() -> None:
    rng = np.random.default_rng(0)
    small, whole = (draw(f32, (4, 100), kind, rng) for kind in (0, 5))
    assert np.abs(small).max() < 10 < 1000 < np.abs(whole).max()
    byte = draw(u8, (1000,), 0, rng)
    assert (byte.min(), byte.max()) == (0, 255)
    assert np.abs(draw(i32, (100,), 0, rng).astype("f8")).max() > 2**30
    known = Interval(-3.0, 40.0)
    assert all(known.lo <= draw(i32, (9,), k, rng, known).min() for k in range(6))
    assert all(draw(f32, (9,), k, rng, known).max() <= known.hi for k in range(6))
    assert all(draw(f32, (9,), k, rng, NONNEGATIVE).min() >= 0 for k in range(6))


# --- the report -----------------------------------------------------------------------------------


def test_a_failure_says_where_and_raises() -> None:
    def spoil(y: Array) -> Array:
        y = y.copy()
        y[1, 2, 3, 4] += 1
        return y

    inputs = [np.random.default_rng(0).normal(size=(3, 9, 5, 4))]
    program = Fake(adder(), {"adder1.f": filter_of()}, spoil)
    report = verify(adder(), program, inputs=inputs)
    worst = report.outputs[0].worst
    assert isinstance(worst, Difference)
    assert (worst.sample, worst.index) == (1, (1, 2, 3, 4))
    assert worst.native == pytest.approx(worst.reference + 1)
    with pytest.raises(VerificationError, match=r"FAIL %adder1.*\n.*sample 1 at \[1,2,3,4\]"):
        report.raise_for_failure()


def test_samples_are_counted_over_calls() -> None:
    seen = []

    class Counting(Fake):
        def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
            seen.append(len(inputs[0]))  # type: ignore[arg-type]
            return super().run(inputs)

    program = Counting(adder(), {"adder1.f": filter_of()})
    report = verify(adder(), program, samples=37)
    assert (seen, report.samples, report.seed) == ([16, 16, 5], 37, 0)
    assert "37 samples, random inputs of seed 0: passed" in str(report)
    given = verify(adder(), program, inputs=[np.zeros((20, 9, 5, 4))])
    assert (given.samples, given.seed) == (20, None)
    assert "20 samples, given inputs: passed" in str(given)


def test_the_seed_decides_the_report() -> None:
    program = Fake(adder(), {"adder1.f": filter_of()}, last_element)
    one, same, other = (verify(adder(), program, samples=3, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_nan_and_inf_where_the_reference_has_them_are_no_error() -> None:
    x = np.array([[np.nan, np.inf, 1.0, -np.inf]], np.float32)
    graph = ag.trace(lambda x: ops.exp(x), ag.tensor("f32", ("N", 4)), name="powers")
    report = verify(graph, Fake(graph, {}), inputs=[x])
    assert report.ok
    assert report.outputs[0].different == 0
    assert not verify(graph, Fake(graph, {}, np.nan_to_num), inputs=[x]).ok


def test_outputs_that_hardly_vary_are_named() -> None:
    graph = ag.trace(lambda x: ops.relu(x - 1e6), ag.tensor("f32", ("N", 4)), name="dull")
    report = verify(graph, Fake(graph, {}))
    assert report.mistrusted == (graph.outputs[0].name,)
    assert "mistrusted, since nearly constant on these inputs: %relu" in str(report)
    dead = ag.trace(lambda x: ops.relu(-ops.abs(x)), ag.tensor("f32", ("N", 4)), name="dead")
    assert verify(dead, Fake(dead, {})).mistrusted == ()  # proven, so nothing else is to be seen


def test_no_samples_is_an_answer_and_no_number_below_one() -> None:
    program = Fake(adder(), {"adder1.f": filter_of()})
    empty = verify(adder(), program, inputs=[np.zeros((0, 9, 5, 4))])
    assert empty.ok
    assert "no elements" in str(empty)
    with pytest.raises(DataError, match="samples=0 must be an integer of at least 1"):
        verify(adder(), program, samples=0)


def test_graphs_with_updates_are_refused() -> None:
    graph = MODEL.graph(training=True, batch=4)
    with pytest.raises(DataError, match="updates parameters; verify its forward graph"):
        verify(graph, Fake(graph, {}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda y: y[:, :1], r"found float32\[7, 1\], expected float32\[7, 3\]"),
        (lambda y: y.astype("f8"), r"found float64\[7, 3\], expected float32"),
    ],
)
def test_outputs_of_another_type_are_not_compared(
    spoil: Callable[[Array], Array], said: str
) -> None:
    """Equal columns would broadcast to what is expected."""
    graph = ag.parse(
        """graph g(%x: f32[N,1]) {
        %y = broadcast_to(%x) shape=(N,3) : f32[N,3]
        return %y }"""
    )
    with pytest.raises(DataError, match=said):
        verify(graph, Fake(graph, {}, spoil), 7)


def test_fused_graphs_have_the_bounds_of_their_bodies() -> None:
    from addergraph import compiler

    fused = compiler.optimize(GRAPH)
    assert any(node.op.name == "fused" for node in fused.nodes)
    report = verify(fused, Fake(GRAPH, MODEL.weights), samples=4)
    assert report.ok, report


def test_a_model_stands_for_its_inference_graph() -> None:
    model = adders_only()
    graph, program = model.graph(training=False), ag.compile(model)
    assert ag.verify(model, program, 3) == ag.verify(graph, program, 3)
    layers = ag.compile_layers(model)
    assert ag.verify_layers(model, layers, 3).rows == ag.verify_layers(graph, layers, 3).rows
    with pytest.raises(GraphError, match="expected a graph .* or a model, found Program"):
        ag.verify(program, program)  # type: ignore[arg-type]
