"""The benchmarks of layers and the profile: their arithmetic, not their speed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from addergraph import compiler
from addergraph.cli import main as cli
from addergraph.cli.bench import layers as bl
from addergraph.cli.bench import report as br
from addergraph.cli.bench.graphs import (
    ALL,
    BYTES,
    DRAWN_KINDS,
    FEW_BYTES,
    HALF,
    OF_BYTES,
    SUMS,
    arranged,
    input_of,
    layers_graph,
    weights_of,
)
from addergraph.cli.bench.timing import LAYERS, ROUNDS, Layer, Slope, Timing, line_slope, pinned
from addergraph.codegen.llvm import compile_assembly
from addergraph.codegen.measure import peak, profile
from addergraph.codegen.targets.lookup import target_named
from addergraph.diagnostics import pictures
from addergraph.errors import DataError, StorageError
from addergraph.ir import CONTRACTION, Array, Parameter
from addergraph.ir.interpreter import interpret
from addergraph.ir.state import State
from addergraph.zoo import build
from tests.codegen.states import step

pytestmark = pytest.mark.usefixtures("quick_objects")

CHAIN = Layer("tiny", 8, 6, 8, 3)
BESIDE = Layer("tiny", 4, 5, 16, 3, 2)
POINT = Layer("tiny", 4, 5, 16, 1, 2)


def row(**changes: object) -> br.Row:
    made = br.Row(
        CHAIN, 1, "half", "adder2d_sparse_f32", True, Timing(2e-6, 4e-6), 4000, 2000, 500, 10.0
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def report(*rows: br.Row) -> br.Report:
    return br.Report("x86-64-v4", "f32", 1, "a machine", 9.0, rows)


def options(**changes: object) -> bl.LayerBench:
    made = bl.LayerBench("host", "f32", 1, 0.0, "", None, None)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


# --- shapes ---------------------------------------------------------------------------------------


def test_layers_are_the_distinct_ones_of_both_networks() -> None:
    assert len(set(LAYERS)) == len(LAYERS) == 18
    assert {(one.kernel, one.stride) for one in LAYERS} == {(3, 1), (3, 2), (1, 2)}
    # A stage has six 3x3 layers; the first one of a later stage has a shape of its own.
    total = sum(
        one.terms(1) * ((6 if one.size == 32 else 5) if one.chains else 1)
        for one in LAYERS
        if one.network == "ResNet-20" and one.kernel == 3
    )
    assert round(total / 1e6, 2) == 40.55  # as published, without the classifier


def test_terms_of_a_layer() -> None:
    assert BESIDE.made == POINT.made == 3
    assert BESIDE.terms(2) == 2 * 3 * 3 * 16 * 36
    assert (CHAIN.chains, BESIDE.chains) == (True, False)
    assert str(BESIDE) == "4x5x5 -> 16, 3x3 /2"


@pytest.mark.parametrize(("layer", "parameters"), [(CHAIN, 5), (BESIDE, 15), (POINT, 15)])
def test_graphs_compile_to_one_kernel_a_layer(layer: Layer, parameters: int) -> None:
    """A chain shares its parameters; the sum of layers side by side is done in their kernels."""
    graph = layers_graph(layer, 3, HALF)
    assert len(graph.parameters) == parameters
    assert graph.outputs[0].type.shape == ("N", layer.made, layer.made, layer.outputs)
    kernels = list(compiler.build(graph, weights_of(layer, HALF)).facts.kernels.values())
    assert sorted(k.symbol.partition("_")[0] for k in kernels) == ["adder2d"] * 3 + ["relu"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_BYTES)
@pytest.mark.parametrize("layer", [CHAIN, BESIDE, POINT])
def test_layers_of_bytes_are_one_kernel_each(layer: Layer, kind: str) -> None:
    placed = arranged(layer, kind)
    assert placed.chains == (layer is CHAIN and kind in (BYTES, FEW_BYTES))
    graph = layers_graph(placed, 3, kind)
    (y,) = graph.outputs
    assert y.type.shape == ("N", layer.made, layer.made, layer.outputs)
    assert y.type.dtype.name == ("u8" if kind in (BYTES, FEW_BYTES) else "i32")
    weights = weights_of(placed, kind)
    kernels = list(compiler.build(graph, weights).facts.kernels.values())
    assert [k.symbol[:7] for k in kernels] == ["adder2d"] * 3
    assert all("_u8_" in k.symbol for k in kernels)
    found = compiler.compile(graph, weights=weights)(input_of(layer, 2, kind))
    assert isinstance(found, np.ndarray)
    expected = interpret(graph, input_of(layer, 2, kind), weights=weights)
    assert np.array_equal(found, np.asarray(expected))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HALF, ALL])
def test_a_chain_keeps_its_values_alive(kind: str) -> None:
    """Batch norm keeps the values away from denormals and zeros, which could be faster."""
    layer = Layer("tiny", 32, 8, 32, 3)
    program = compiler.compile(layers_graph(layer, 8, kind), weights=weights_of(layer, kind))
    y = program(input_of(layer, 1, kind))
    assert isinstance(y, np.ndarray)
    assert 0.3 < y.min() <= y.max() < 3.0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "low", "high"), [(BYTES, 50, 200), (FEW_BYTES, 10, 63)])
def test_a_chain_of_bytes_does_not_saturate(kind: str, low: int, high: int) -> None:
    layer = Layer("tiny", 32, 8, 32, 3)
    program = compiler.compile(layers_graph(layer, 8, kind), weights=weights_of(layer, kind))
    y = program(input_of(layer, 1, kind))
    assert isinstance(y, np.ndarray)
    assert low < y.min() <= y.max() < high


# --- times ----------------------------------------------------------------------------------------


def test_line_slope_is_the_cost_of_one_more_layer() -> None:
    assert line_slope({n: 5.0 + 3.0 * n for n in (1, 2, 4, 8)}) == pytest.approx(3.0)
    assert line_slope({1: 0.0, 2: 1.0, 3: 1.0}) == pytest.approx(0.5)


def test_slope_runs_every_program_in_turn() -> None:
    calls: list[int] = []
    two = Slope({1: lambda: calls.append(1), 2: lambda: calls.append(2)})
    two.run(0.0)
    assert calls == [1, 2] * (1 + ROUNDS)


def test_with_threads_a_program_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of the one before it need a while to fall asleep."""
    now = iter(np.arange(0.0, 10.0, 0.001))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    calls: list[int] = []
    Slope({1: lambda: calls.append(1), 2: lambda: calls.append(2)}, threads=2).run(0.0)
    assert calls[:5] == [1, 2, 1, 1, 2]


def test_pinned_to_as_many_processors_as_threads() -> None:
    allowed = os.sched_getaffinity(0)
    with pinned(1):
        assert os.sched_getaffinity(0) == {max(allowed)}
    assert os.sched_getaffinity(0) == allowed
    with pytest.raises(DataError, match="ask for fewer"), pinned(len(allowed) + 1):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("target", ["host", "x86-64", "toy"])
@pytest.mark.parametrize("form", peak.FORMS)
def test_peaks_are_measured_in_one_thread_and_in_several(form: str, target: str) -> None:
    machine = target_named(target)
    for threads in (1, 2):
        assert peak._measure(form, machine, 8, 0.0, threads) == 0.0  # no time, no measurement
    assert peak.measure_peak(form, machine, 1e-4) > 0
    bytewise = form == "minima" or (form == "distances" and target != "toy")
    assert peak.terms_of_vector(form, machine) == machine.lanes * (4 if bytewise else 1)


@pytest.mark.slow
def test_the_peak_of_bytes_runs_what_the_kernels_run() -> None:
    for target in ("x86-64", "x86-64-v3", "x86-64-v4"):
        machine = target_named(target)
        assembly = compile_assembly(peak.peak_module("distances", machine, 8), machine)
        assert assembly.count("psadbw") == 8
        assert assembly.count("paddq") == 8
        assembly = compile_assembly(peak.peak_module("minima", machine, 8), machine)
        assert assembly.count("pminub") == 8
        assert assembly.count("paddb") == 8


# --- rows and tables ------------------------------------------------------------------------------


def test_executed_terms_are_those_of_taps_above_zero_in_sparse_kernels_only() -> None:
    filters = [np.array([1.0, -1.0, 0.0, 2.0]), np.array([3.0, 3.0, 3.0, -0.0])]
    point, image = Layer("net", 16, 8, 16, 1), Layer("net", 16, 8, 16, 3)
    assert bl.executed_terms(True, image, 800, filters) == 500
    assert bl.executed_terms(True, image, 800, filters, bounded=True) == 250
    assert bl.executed_terms(False, point, 800, filters) == 800
    # Of 8 x 3 kernel rows, the first and the last lie in the padding.
    assert bl.executed_terms(False, image, 2400, filters) == 2200


def test_figures_of_a_row() -> None:
    one = row()
    assert one.rate == pytest.approx(2.0)
    assert one.executed_rate == pytest.approx(1.0)
    assert one.share == pytest.approx(0.1)
    assert br.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert br.geometric_mean([]) == 1.0
    assert br.geometric_mean([1.0, -4.0]) == 0.0


def test_tables_hold_means_and_minima() -> None:
    slower = row(timing=Timing(8e-6, 8e-6))
    text = report(row(), slower).text()
    assert "8x6x6 -> 8, 3x3" in text
    assert "of peak: 0.050 in the geometric mean, 0.025 at least" in text
    assert "FAILED" not in text


def test_a_share_above_1_fails() -> None:
    for bad in (report(row(peak=0.99)), report(row(timing=Timing(-1e-9, 1e-6)))):
        assert not bad.plausible
        assert "FAILED" in bad.text()


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "batch"), [(CHAIN, 1), (BESIDE, 1), (POINT, 3)])
def test_measured_rows(layer: Layer, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if layer != CHAIN:  # a figure does not depend on how many layers its slope is of
        monkeypatch.setattr(Layer, "counts", (1, 2))
    for filters in (HALF, ALL):
        subject = bl._Subject(layer, batch, filters, options())
        subject.slope.run(0.0)
        one = subject.row(1.0)
        assert one.kernel.startswith("adder2d_")
        assert one.terms == layer.terms(batch)
        assert 0 < one.executed <= one.terms
        inside = bl.executed_terms(False, layer, one.terms, [])
        assert filters == HALF or one.executed == inside
        images = layer.inputs * layer.size**2 + layer.outputs * layer.made**2
        assert one.nbytes > 4 * batch * images


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [(SUMS, 4), (BYTES, 1)])
def test_measured_rows_of_bytes(kind: str, size: int) -> None:
    subject = bl._Subject(CHAIN, 2, kind, options(dtype="u8"))
    subject.slope.run(0.0)
    one = subject.row(1.0)
    assert one.kernel.startswith("adder2d_u8")
    assert one.executed == bl.executed_terms(False, CHAIN, one.terms, [])
    packed = one.nbytes - 2 * (8 * 6 * 6 + size * 8 * 6 * 6)
    assert packed >= CHAIN.window * CHAIN.outputs


@pytest.mark.slow
def test_command_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bl, "LAYERS", (CHAIN, BESIDE))
    monkeypatch.setattr(Layer, "counts", (1, 2))
    monkeypatch.setattr(compiler, "measure_peak", lambda form, target, threads: 1e6)
    monkeypatch.setattr(Slope, "run", lambda self, seconds: None)
    monkeypatch.setattr(Slope, "timing", Timing(1e-6, 2e-6))
    file = tmp_path / "layers.json"
    command = ["bench", "--layers", "--seconds", "0", "--json", str(file)]
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--only", "8x6"])
    assert end.value.code == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(r["batch"], r["kind"]) for r in rows] == [
        (b, kind) for b in (1, 16) for kind in DRAWN_KINDS["f32"]
    ]
    assert all(r["share_of_peak"] == r["executed"] / 1e3 / 1e6 for r in rows)
    assert "batch 16, all taps above zero" in capsys.readouterr().out


@pytest.mark.slow
def test_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "roofline.png"
    br.write_plot(report(row(), row(batch=16, executed=4000)), str(file), {"L2": 100.0})
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_roofline_names_the_networks_of_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    titles = []
    monkeypatch.setattr(
        pictures, "save", lambda figure, path: titles.append(figure.axes[0].get_title())
    )
    other = dataclasses.replace(CHAIN, network="another")
    for rows in ((row(), row(batch=16)), (row(), row(layer=other))):
        br.write_plot(report(*rows), "x.png", {"L2": 100.0})
    assert titles[0].startswith(f"Adder layers of {CHAIN.network}, ")
    assert titles[1].startswith(f"Adder layers of {CHAIN.network} and another, ")


def test_unwritable_files_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        br.write_json(report(row()), str(tmp_path / "no" / "file"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "small-adder"), "leave out FILE"),
        (("--layers", "--only", "9x9"), 'no layer holds "9x9"'),
        (("--plot", "x.png"), "--plot goes with --layers only"),
        (("--dtype", "u8", "--only", "8"), "--dtype, --only go with --layers only"),
        (("--layers", "--batch", "2"), "leave out --batch"),
        (("--layers", "--threads", "1000", "--only", "64x8"), "ask for fewer --threads"),
        (("--layers", "--tune", "1", "--dtype", "u8"), "searches f32 layers"),
        (("--layers", "--tune", "1", "--threads", "2"), "on one thread"),
        (("--tune", "1", "--threads", "2"), "on one thread"),
        (("--tune", "1", "--profile"), "ask for one of them"),
    ],
)
def test_bad_options(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


# --- profile --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 3])
def test_profile_times_every_kernel(batch: int | None) -> None:
    model = build("small-adder")
    graph = model.graph(training=False)
    found = compiler.profile(graph, model.weights, batch=batch, seconds=0.0)
    program = compiler.compile(graph, weights=model.weights, batch=batch)
    symbols = {n: k.symbol for n, k in program.built.facts.kernels.items()}
    assert {k.node: k.symbol for k in found.kernels} == symbols
    assert all(k.inside > 0 for k in found.kernels)
    assert found.seconds >= sum(k.inside for k in found.kernels)
    bound = graph.bind(batch or 1)
    costs = [n.op.cost([v.type for v in n.inputs]) for n in bound.nodes if n.op.kind == CONTRACTION]
    total = sum(c.additions + c.multiplications for c in costs) // 2
    assert sum(k.terms for k in found.kernels) == total


def test_a_program_with_updates_is_profiled_in_a_state_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its weights stand as a `State` has them, not packed for kernels, and it writes to them."""
    made: list[State] = []

    def kept(parameters: Sequence[Parameter]) -> State:
        made.append(State(parameters))
        return made[-1]

    monkeypatch.setattr(profile, "State", kept)
    weights: dict[str, Array] = {"w": np.ones((4, 3), "f4"), "count": np.zeros((), "f4")}
    found = compiler.profile(step(2), weights, seconds=0.0)
    assert found.kernels and all(k.inside > 0 for k in found.kernels)
    (state,) = made
    assert state.views["count"] >= 8 and weights["count"] == 0


def test_profile_prints_a_row_for_each_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "--profile", "--seconds", "0.05"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "small_adder, one image, one thread" in out
    assert "adder2d_minimum" in out
    assert "softmax_f32" in out
    assert "us in the network" in out


# --- search ---------------------------------------------------------------------------------------


def test_search_of_a_network_prints_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "--tune", "0"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small_adder, one image, ")
    assert lines[1].startswith("layer")
    shown = [line.split()[0] for line in lines[3:-1]]  # which layers have a choice: by the CPU
    assert {"act2", "act3", "act4"} <= set(shown) <= {"act1", "act2", "act3", "act4", "dense1"}
    assert "times as long as the search's in the geometric mean" in lines[-1]


def test_search_of_layers_writes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bl, "LAYERS", (CHAIN, BESIDE))
    numbers = tmp_path / "search.json"
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "--layers", "--tune", "0", "--only", "8x6", "--json", str(numbers)])
    assert end.value.code == 0
    rows = json.loads(numbers.read_text())["rows"]
    assert len(rows) == 4  # two batches, two kinds of filters
    for one in rows:
        assert one["ratio"] == one["seconds"][one["model"]] / one["seconds"][one["choice"]] >= 1
