"""Calibration: quantiles and moments to the bit, by NumPy and natively; memory; what it says."""

from __future__ import annotations

import io
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler, layers, ops
from addergraph.errors import DataError, EnvironmentWarning
from addergraph.ir import Array, Graph
from addergraph.model.engines import Interpreted, Native
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from addergraph.passes.quantize import integer_graph
from addergraph.passes.quantize.calibrate import calibrate, quantiles
from addergraph.passes.quantize.fixed_point import Affine, Operands, shift_operands
from addergraph.passes.quantize.quantize import quantize
from addergraph.quantization import QuantizationSettings, Quantized
from addergraph.stages import Stages
from tests.passes.networks import settled
from tests.passes.test_quantize import NETWORKS, adder, bn, network, samples, traced
from tests.passes.test_quantize_layers import network as between_layers

pytestmark = pytest.mark.usefixtures("quick_objects")

FORMS: Mapping[str, Callable[[Array], Array]] = {
    "both signs": lambda a: a,
    "behind a relu": lambda a: np.maximum(a, 0),
    "nearly all zero": lambda a: np.maximum(a - 3.5, 0),
    "few values": np.round,
    "one value": lambda a: 0 * a + 3.25,
}


# --- statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_quantiles_are_those_of_numpy(form: str) -> None:
    """To the bit, whether the limit that a sample tells lets enough elements pass or not."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 100, 5_000, 70_000, 300_000):
        for share in (0.9997, 0.99, 0.75, 0.5001, 1 - 1e-9):
            flat = np.asarray(FORMS[form](rng.normal(size=count)), np.float32)
            expected = np.quantile(flat, (1 - share, share))
            assert quantiles(flat, share, (flat.min(), flat.max())) == tuple(expected)


def test_quantiles_of_an_order_that_misleads_the_sample() -> None:
    """Each 64th element is unlike all others, or some of these are: a limit lets too few pass."""
    for odd, last in ((-100.0, None), (100.0, None), (0.0, None), (100.0, 1280), (-100.0, 1280)):
        flat = np.random.default_rng(0).normal(size=64 * 2_000).astype(np.float32)
        flat[:last:64] = odd
        ends = flat.min(), flat.max()
        assert quantiles(flat, 0.9997, ends) == tuple(np.quantile(flat, (1 - 0.9997, 0.9997)))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_moments_have_the_bits_of_numpy(dtype: str) -> None:
    """Channels fill vectors, or do not; a channel may be far from zero, or stand still."""
    rng = np.random.default_rng(0)
    for shape in ((1, 9), (7, 1), (5, 3), (64, 10), (3, 5, 7, 16), (40, 67), (2, 3, 128)):
        values = rng.normal(-50_000, 300, shape).astype(dtype)
        values[..., 0] = values.flat[0]
        mean, variance = Native(1).moments(values)
        expected = Interpreted().moments(values)
        np.testing.assert_array_equal(mean, expected[0])
        np.testing.assert_array_equal(variance, expected[1])
        axes, wide = tuple(range(values.ndim - 1)), values.astype("f8")
        np.testing.assert_allclose(mean, wide.mean(axes), rtol=1e-12)
        np.testing.assert_allclose(variance, wide.var(axes), rtol=1e-9, atol=1e-9)
        assert variance[0] == 0


def test_one_factor_does_what_the_shifts_do() -> None:
    """Calibration multiplies where the int8 model adds shifted numbers: also where i32 wraps."""
    rng = np.random.default_rng(0)
    factor, least = rng.normal(size=64) / 50, -rng.uniform(1e4, 1e6, 64)
    x = rng.integers(-(2**31), 2**31, (500, 64)).astype(np.int32)
    x[:250] = rng.uniform(least, 0, (250, 64)).astype(np.int32)
    wrapping = [rng.integers(-32, 33, 64).astype(np.int32) for _ in range(3)]
    center, offset, shift = (rng.integers(-(2**31), 2**31, 64).astype(np.int32) for _ in range(3))
    made = shift_operands(Affine(factor, 100 + 0 * factor, least, 0 * least), 0, 255, 3)
    for operands in (made, Operands(center, offset, shift, tuple(wrapping), True)):
        expected = RequantizeShift(0, 255).reference(x, *operands.arrays.values())
        found = RequantizeMultiply(0, 255).reference(x, *operands.multiplying)
        np.testing.assert_array_equal(found[0], expected[0])


# --- the engines ----------------------------------------------------------------------------------


class FloatsByNumPy(Native):
    """Native code but for the float network, whose rounding is another one there."""

    def program(
        self, graph: Graph, weights: Mapping[str, Array], *, alone: bool = False
    ) -> Callable[[Sequence[Array]], Sequence[Array]]:
        by = Interpreted() if alone else super()
        return by.program(graph, weights, alone=alone)  # type: ignore[union-attr]


def same(one: Quantized, other: Quantized) -> None:
    assert one.graph == other.graph and one.errors == other.errors
    assert one.chosen == other.chosen and one.weights.keys() == other.weights.keys()
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name], name)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", [*NETWORKS, "joined", "larger of two", "sequences", "tanh"])
def test_integers_are_the_same_by_every_engine(name: str) -> None:
    """Of 150 samples, which are three chunks: graph, numbers and errors, for any threads."""
    (graph, weights), x = (network if name in NETWORKS else between_layers)(name), samples(150)
    how = QuantizationSettings(bits=6)
    reference = quantize(graph, weights, x, how, Interpreted())
    for threads in (1, 3):
        same(quantize(graph, weights, x, how, FloatsByNumPy(threads)), reference)


def test_the_float_network_agrees_within_rounding() -> None:
    (graph, weights), x = network("residual"), samples(150)
    native, reference = (calibrate(graph, weights, x, 0.99, e) for e in (Native(2), Interpreted()))
    for name, ends in reference.ranges.items():
        np.testing.assert_allclose(native.ranges[name], ends, rtol=1e-5, atol=1e-5, err_msg=name)
    for found, expected in zip(native.outputs, reference.outputs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    one = ag.quantize(graph, x, weights=weights, threads=1)
    same(ag.quantize(graph, x, weights=weights, threads=3), one)
    slow = ag.quantize(graph, x, weights=weights, engine="reference")
    assert slow.chosen == one.chosen and slow.error == pytest.approx(one.error, rel=0.05)


def test_numpy_stands_in_where_there_is_no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    (graph, weights), x = network("biased"), samples(8)
    slow = ag.quantize(graph, x, weights=weights, engine="reference")
    monkeypatch.setattr(compiler, "has_native_code", lambda: False)
    monkeypatch.setattr(compiler.programs, "build", None)
    with pytest.warns(EnvironmentWarning, match="runs no native code: NumPy calibrates") as found:
        same(ag.quantize(graph, x, weights=weights), slow)
    assert found[0].filename == __file__


def test_sums_that_a_batch_norm_reads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of as many chunks as there is room for; the rest are computed twice."""
    (graph, weights), x = network("residual"), samples(150)
    run: list[str] = []

    class Counting(Interpreted):
        def program(
            self, graph: Graph, weights: Mapping[str, Array], *, alone: bool = False
        ) -> Callable[[Sequence[Array]], Sequence[Array]]:
            made = super().program(graph, weights, alone=alone)

            def counted(inputs: Sequence[Array]) -> Sequence[Array]:
                run.extend(["layer"] * ("adder2d" in str(graph) and not alone))
                return made(inputs)

            return counted

    def made(kept: int) -> tuple[Quantized, int]:
        monkeypatch.setattr(integer_graph, "KEPT", kept)
        run.clear()
        return quantize(graph, weights, x, QuantizationSettings(terms=2), Counting()), len(run)

    (all_kept, least), (none_kept, most) = made(1 << 28), made(0)
    layers = sum(node.op.name == "adder2d" for node in graph.nodes)
    assert (least, most) == (3 * layers, 6 * layers)  # of three chunks
    same(all_kept, none_kept)


def test_memory_does_not_grow_with_the_samples() -> None:
    """That of the ranges and moments; the samples themselves and the outputs are small here."""
    graph = traced(lambda v: ops.global_avg_pool(ops.relu(bn(adder(64)(v)))))
    weights = settled(graph, samples(4))

    def peak(count: int) -> int:
        x = samples(count)
        tracemalloc.start()
        calibrate(graph, weights, x, 0.9997, Native(1))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(64)  # compiles
    assert peak(640) < 1.2 * peak(128)


# --- what it says ---------------------------------------------------------------------------------


def test_what_is_not_finite_is_named() -> None:
    graph = traced(lambda v: ops.relu(bn(layers.Conv(4, 1)(v))))
    x = samples(8)
    for weight, value in (("conv1.f", "conv1"), ("bn1.gamma", "relu")):
        weights = dict(settled(graph, x))
        weights[weight] = np.full_like(weights[weight], np.nan)
        with pytest.raises(DataError, match=f"%{value} is not finite on the calibration data"):
            ag.quantize(graph, x, weights=weights)


def test_stages_say_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addergraph.stages.EVERY", 0.0)
    (graph, weights), x = network("biased"), samples(70)
    ag.quantize(graph, x, weights=weights, verbose=1, requantize="multiply")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["calibrating: 64 of 70", "calibrating: 70 of 70"]
    count = len(graph.nodes)
    assert lines[2:] == [f"quantizing, multiply: {k} of {count}" for k in range(1, count + 1)]
    ag.quantize(graph, x, weights=weights, requantize="multiply")
    assert not capsys.readouterr().out


def test_a_bar_begins_again_with_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with Stages(1) as report:
        report("first", 3, 4)
        report("second", 1, 9)
        (task,) = report._bar.tasks
        assert (task.description, task.completed, task.total) == ("second", 1, 9)
