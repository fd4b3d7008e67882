"""Tuning: every candidate gives the same bits, winners are kept, and the cache remembers them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler, layers, ops
from addergraph.codegen.emit.lowered import planned_call
from addergraph.codegen.kernels import Operand
from addergraph.codegen.kernels.forward.choice import candidates
from addergraph.codegen.kernels.schedule import DENSE, SPARSE
from addergraph.codegen.measure import tune as tuning
from addergraph.codegen.run.jit import Program, build
from addergraph.codegen.targets.lookup import target_named
from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Graph, Init
from addergraph.ir.plan import Layout
from addergraph.ir.state import initial_weights
from addergraph.ir.taps import Taps
from addergraph.ir.trace import Tensor, new_parameter
from addergraph.ir.types import DType, TensorType, f32, u8


def net(x: Tensor) -> Tensor:
    one = ops.relu(layers.BatchNorm()(layers.Conv(24, kernel_size=3, padding=1)(x)))
    return ops.relu(layers.BatchNorm()(layers.Adder(40, kernel_size=3, padding=1)(one)))


def example() -> tuple[Graph, dict[str, Array], Array]:
    graph = ag.trace(net, ag.tensor("f32", ("N", 9, 7, 3)))
    x = np.random.default_rng(0).normal(size=(3, 9, 7, 3)).astype(np.float32)
    return graph, initial_weights(graph), x


@pytest.mark.slow
def test_tuned_programs_keep_their_bits() -> None:
    graph, weights, x = example()
    plain = ag.compile(graph, weights=weights)(x)
    for batch in (None, 3):
        tuned = ag.compile(graph, weights=weights, batch=batch, tune=0.01)
        assert tuned.built.lowered.choices.keys() == {"relu", "relu_1"}
        assert np.array_equal(tuned(x), plain)


def test_every_choice_gives_the_same_bits() -> None:
    graph, weights, x = example()
    target = target_named("host")
    lowered = compiler.lower(graph, target, weights=weights)
    (node,) = [n for n in lowered.main.nodes if n.name == "relu_1"]
    choices = list(candidates(planned_call(lowered, node), node.op.body))  # type: ignore[attr-defined]
    assert {choice.kind for choice in choices} == {DENSE, SPARSE}
    expected = ag.compile(graph, weights=weights)(x)
    for choice in choices:
        chosen = compiler.lower(graph, target, (), weights, {"relu_1": choice})
        program = Program(build(chosen, use_cache=False), weights, None, 1)
        assert np.array_equal(program(x), expected), choice


def test_measurements_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path))
    graph, weights, _ = example()
    first = compiler.tune_graph(graph, weights, seconds=0.01)
    monkeypatch.setattr(tuning, "_times", lambda *_: pytest.fail("measured again"))
    assert compiler.tune_graph(graph, weights, seconds=0.01) == first
    for found in first:
        assert found.loss >= 1
        assert found.choice in found.seconds
        assert found.model in found.seconds


def test_a_machine_cannot_tune_for_another() -> None:
    graph, weights, _ = example()
    with pytest.raises(UnsupportedError, match="aarch64"):
        compiler.tune_graph(graph, weights, target="aarch64-linux-gnu")


@pytest.mark.parametrize("dtype", [f32, u8])
@pytest.mark.parametrize("taps", [Taps(0), Taps(4), Taps(8), Taps(2, 3, 1.5)])
def test_numbers_are_drawn_with_the_taps_of_the_weights(taps: Taps, dtype: DType) -> None:
    """A sparse kernel timed on fewer taps than the layer has would win by what it leaves out."""
    operand = Operand(TensorType(dtype, (10, 1000)), Layout((10, 1000)))
    drawn = tuning._drawn(np.random.default_rng(0), operand, taps)
    assert drawn.dtype == dtype.numpy
    saturated = drawn == (255 if dtype == u8 else taps.top)
    assert np.mean((drawn > 0) & ~saturated) == pytest.approx(taps.above / 8, abs=0.02)
    assert np.mean(saturated) == pytest.approx(taps.saturated / 8, abs=0.02)


def test_layers_of_bytes_are_tuned() -> None:
    def bytes_net(x: Tensor) -> Tensor:
        f = new_parameter(x, "f", TensorType(u8, (3, 3, 16, 16)), Init(), trainable=False)
        return ops.cast(ops.adder2d(x, f) + 9000, "u8")

    graph = ag.trace(bytes_net, ag.tensor("u8", ("N", 9, 9, 16)))
    weights: dict[str, Array] = {"f": np.full((3, 3, 16, 16), 40, np.uint8)}
    (found,) = compiler.tune_graph(graph, weights, seconds=0.01)
    assert {choice.kind for choice in found.seconds} == {DENSE, SPARSE}
