"""Verification layer by layer: honest programs pass, the wrong layer is named, others are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler, layers, ops
from addergraph.codegen.run.jit import Program
from addergraph.diagnostics import pictures, plots
from addergraph.errors import DataError, GraphError, ShapeError, VerificationError
from addergraph.ir import Array, Graph
from addergraph.ir.interpreter import run_reference
from addergraph.ir.state import initial_weights
from addergraph.ir.trace import Tensor
from addergraph.ir.types import Shape
from addergraph.training.losses import loss_of
from addergraph.training.optimizers import SGD
from addergraph.verification.layers import LayerReport, verify_layers
from tests.addergraph.models import residual
from tests.passes.random_graphs import random_data, random_graph

IMAGES = ag.tensor("f32", ("N", 6, 6, 2))
Spoil = Callable[[dict[str, Array]], None]


def network() -> Graph:
    return ag.trace(residual, IMAGES, name="residual")


def integers() -> Graph:
    """Distances of pixels, raised and clipped, again of bytes, compared: no float anywhere."""

    def net(x: Tensor, f: Tensor, g: Tensor) -> Tensor:
        y = ops.adder2d(x, f, padding=1, name="first")
        y = ops.cast(ops.maximum(ops.add(y, 40), 0), "u8", name="bytes")
        scores = ops.adder2d(y, g, name="second")
        return ops.greater(ops.flatten(scores, name="flat"), -4000, name="near")

    shapes: tuple[Shape, ...] = ("N", 6, 6, 2), (3, 3, 2, 4), (6, 6, 4, 5)
    return ag.trace(net, *(ag.tensor("u8", shape) for shape in shapes), name="integers")


def weights_of(graph: Graph) -> dict[str, Array]:
    """Random ones, with the statistics that keep the relu behind the adder alive."""
    found = initial_weights(graph, 1)
    found["bn1.mean"][:], found["bn1.variance"][:] = -38, 100
    return found


@dataclass(frozen=True)
class Planted:
    """A program that claims `weights` and runs with others; or spoils what it returns."""

    graph: Graph
    weights: Mapping[str, Array]
    run: Callable[[Sequence[object]], tuple[Array, ...]]


def with_other_weights(program: Program, change: Spoil) -> Planted:
    claimed = dict(program.weights)
    changed = {name: array.copy() for name, array in claimed.items()}
    change(changed)
    program.set_weights(changed)
    return Planted(program.graph, claimed, program.run)


def spoiled(graph: Graph, weights: Mapping[str, Array], name: str, by: float) -> Planted:
    """The reference, but for the first element of one value that others have read unspoiled."""

    def run(inputs: Sequence[object]) -> tuple[Array, ...]:
        found = run_reference(graph, inputs, weights)[0]
        position = [v.name for v in graph.outputs].index(name)
        first = found[position].flat[0]
        found[position].flat[0] = not first if found[position].dtype == bool else first + by
        return found

    return Planted(graph, weights, run)


def names(report: LayerReport) -> list[str]:
    return [row.name for row in report.rows]


# --- honest programs ------------------------------------------------------------------------------


def test_each_node_of_the_compiled_graph_is_a_row() -> None:
    graph = network()
    program = ag.compile_layers(graph, weights=weights_of(graph), threads=2)
    report = ag.verify_layers(graph, program, 3)
    assert report.ok, str(report)
    assert report.samples == 3
    assert names(report) == [v.name for v in program.graph.outputs]
    compiled = compiler.optimize(graph)
    assert set(names(report)) <= {v.name for node in compiled.nodes for v in node.outputs}
    assert "adder2d+mul+add+add+relu" in [row.op for row in report.rows]
    assert {row.type for row in report.rows} >= {"f32[1,6,6,4]", "f32[1,10]"}
    errors = [row.own.error for row in report.rows]
    assert max(errors) > 0  # natively, sums are not in float64: some layer rounds
    assert all(row.own.share < 1 and row.network.share < 1 for row in report.rows)
    report.raise_for_failure()


def test_the_last_layer_has_the_bits_of_the_program_that_is_shipped() -> None:
    graph = network()
    weights = weights_of(graph)
    x = np.random.default_rng(3).normal(size=(1, 6, 6, 2)).astype(np.float32)
    outputs = ag.compile_layers(graph, weights=weights).run([x])
    np.testing.assert_array_equal(outputs[-1], ag.compile(graph, weights=weights)(x))


def test_integers_are_exact() -> None:
    graph = integers()
    report = verify_layers(graph, ag.compile_layers(graph), 5)
    assert report.ok, str(report)
    for row in report.rows:
        assert (row.own.error, row.own.allowed, row.own.different) == (0, 0, 0)
        assert (row.network.error, row.network.different) == (0, 0)
        assert "exact" in row.cells()
    assert [row.own.elements for row in report.rows if row.name == "second"] == [25]


def test_given_inputs_and_a_bound_batch() -> None:
    graph = network()
    weights = weights_of(graph)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype(np.float32)
    report = verify_layers(graph, ag.compile_layers(graph, weights=weights), inputs=[x])
    assert (report.ok, report.samples, report.seed) == (True, 4, None)
    assert "4 samples, given inputs: passed" in str(report)
    bound = graph.bind(4)
    report = verify_layers(bound, ag.compile_layers(bound, weights=weights), inputs=[x])
    assert report.ok
    assert {row.type for row in report.rows} >= {"f32[4,6,6,4]", "f32[4,10]"}


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_pass(seed: int) -> None:
    graph = random_graph(Random(seed))
    weights = random_data(graph, seed)[1]
    report = verify_layers(graph, ag.compile_layers(graph, weights=weights), 1)
    assert report.rows
    assert report.ok, str(report)


def test_what_depends_on_parameters_alone_is_no_layer() -> None:
    model = Model(input_shape=(4, 4, 1), name="folded")
    for layer in (layers.Adder(2, 3), layers.BatchNorm(), layers.Flatten()):
        model.add(layer)
    program = ag.compile_layers(model)
    report = verify_layers(model.graph(training=False), program, 2)
    assert report.ok
    assert [row.op for row in report.rows] == ["adder2d+mul+add", "flatten"]
    assert len(program.graph.parameters) == 3  # the filter, the folded scale and shift


def test_layers_that_hardly_vary_are_mistrusted() -> None:
    dead = ag.trace(
        lambda x, f: ops.relu(ops.adder2d(x, f), name="dead"), IMAGES,
        ag.tensor("f32", (3, 3, 2, 4)),
    )  # fmt: skip
    values = tuple(v for node in dead.nodes for v in node.outputs)
    every = Graph("g", dead.inputs, (), dead.nodes, values).bind(1)  # no pass makes it a constant
    program = Planted(every, {}, lambda inputs: run_reference(every, inputs, {})[0])
    report = verify_layers(dead, program, 2)
    assert report.ok
    assert report.mistrusted == ("dead",)
    assert "mistrusted, since nearly constant on these inputs: %dead" in str(report)


# --- wrong programs -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_layer_whose_weights_differ_is_named(number: int) -> None:
    graph = network()
    program = ag.compile_layers(graph, weights=weights_of(graph))
    named, filters = [], []
    for node in program.graph.nodes:
        for v in node.inputs:
            if v in program.graph.parameters and len(v.type.shape) > 1:
                named.append(node.name)
                filters.append(v.name)

    def change(weights: dict[str, Array]) -> None:
        weights[filters[number]].flat[1] += 0.25

    report = verify_layers(graph, with_other_weights(program, change), 4)
    assert [row.name for row in report.rows if not row.ok] == [named[number]]  # none behind it
    first = report.first
    assert first is not None
    assert first.node == named[number]
    assert f'first differing layer: {first.op} "{named[number]}"' in str(report)
    assert f"FAIL %{named[number]}" in str(report)
    behind = report.rows[names(report).index(named[number]) :]
    assert all(row.network.share > 1 for row in behind)  # through the network all of them differ
    with pytest.raises(VerificationError, match="first differing layer"):
        report.raise_for_failure()


@pytest.mark.parametrize("name", ["bytes", "second", "near"])
def test_one_wrong_integer_is_named(name: str) -> None:
    graph = integers()
    compiled = ag.compile_layers(graph).graph
    report = verify_layers(graph, spoiled(compiled, {}, name, 1), 2)
    assert report.first is not None
    assert report.first.name == name
    assert report.first.own.error == 1
    worst = report.first.own.worst
    assert worst is not None
    assert worst.sample == 0


@pytest.mark.parametrize("by", [np.nan, np.inf])
def test_what_is_not_finite_is_no_rounding(by: float, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    graph = network()
    compiled = ag.compile_layers(graph, weights=weights_of(graph))
    last = compiled.graph.outputs[-1].name
    report = verify_layers(graph, spoiled(compiled.graph, compiled.weights, last, by), 1)
    assert [row.name for row in report.rows if not row.ok] == [last]
    pictures.save(plots.plot_layer_errors(report), tmp_path / "errors.png")


# --- refused --------------------------------------------------------------------------------------


def test_what_cannot_be_verified_is_refused() -> None:
    graph = network()
    weights = weights_of(graph)
    program = ag.compile_layers(graph, weights=weights)
    with pytest.raises(DataError, match="samples=0 must be an integer of at least 1"):
        verify_layers(graph, program, 0)
    plain = ag.compile(graph, weights=weights, batch=1)
    with pytest.raises(DataError, match="does not return %.*program from ag.compile_layers"):
        verify_layers(graph, Planted(compiler.optimize(plain.graph), plain.weights, plain.run), 1)
    with pytest.raises(DataError, match="compile its layers from this graph"):
        verify_layers(graph.bind(2), program, 1)
    with pytest.raises(DataError, match="has parameters"):
        ag.compile_layers(graph)
    with pytest.raises(ShapeError, match="expected f32"):
        verify_layers(graph, program, inputs=[np.zeros((3, 6, 6, 1), np.float32)])


def test_a_training_step_is_refused() -> None:
    model = Model(input_shape=(4, 4, 1), name="m")
    model.add(layers.Flatten())
    model.add(layers.Dense(2))
    forward = model.graph(training=True, batch=4)
    step = compiler.train_step_graph(forward, loss_of(model.loss_name), SGD())
    with pytest.raises(GraphError, match="updates parameters; compile its forward graph"):
        ag.compile_layers(step, weights=initial_weights(step))
    program = ag.compile_layers(network(), weights=weights_of(network()))
    with pytest.raises(DataError, match="verify its forward graph"):
        verify_layers(step, program)


# --- the picture ----------------------------------------------------------------------------------


def test_the_picture_shows_each_layer_and_marks_the_wrong_one() -> None:
    pytest.importorskip("matplotlib")
    graph = network()
    program = ag.compile_layers(graph, weights=weights_of(graph))
    last = program.graph.outputs[-1].name
    report = verify_layers(graph, spoiled(program.graph, program.weights, last, 5.0), 2)
    figure = plots.plot_layer_errors(report)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == names(report)
    red = next(line for line in axis.lines if line.get_label() == "error beyond the bound")
    assert red.get_ydata().tolist() == [len(report.rows) - 1]
    assert red.get_xdata()[0] == pytest.approx(5.0, rel=1e-3)
    low, high = axis.get_xlim()
    assert 0 < low < high
    blue = next(line for line in axis.lines if line.get_label() == "error on its own inputs")
    assert (blue.get_xdata() >= low).all()


def test_a_report_without_layers_has_no_picture() -> None:
    pytest.importorskip("matplotlib")
    graph = network()
    report = verify_layers(graph, ag.compile_layers(graph, weights=weights_of(graph)), 1)
    with pytest.raises(DataError, match='"residual" has no layers to draw'):
        plots.plot_layer_errors(replace(report, rows=()))
