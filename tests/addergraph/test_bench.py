"""The benchmarks of layers and the profile: their arithmetic, not their speed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from addergraph import cli, driver
from addergraph.commands import bench_layers as bl
from addergraph.commands import bench_report as br
from addergraph.commands.bench_timing import LAYERS, ROUNDS, Layer, Slope, Timing, line_slope
from addergraph.errors import DataError
from addergraph.ir import CONTRACTION
from addergraph.zoo import build

CHAIN = Layer("tiny", 8, 6, 8, 3)
BESIDE = Layer("tiny", 4, 5, 16, 3, 2)
POINT = Layer("tiny", 4, 5, 16, 1, 2)


def row(**changes: object) -> br.Row:
    made = br.Row(
        CHAIN, 1, "half", "adder2d_sparse_f32", Timing(2e-6, 4e-6), 4000, 2000, 500, 10.0,
        {"slow": Timing(9e-6, 9e-6), "fast": Timing(3e-6, 8e-6)},
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def report(*rows: br.Row) -> br.Report:
    peers = ["fast 1", "slow 2"] if rows[0].peers else []
    return br.Report("x86-64-v4", "a machine", 9.0, peers, None, rows)


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
    graph = bl.layers_graph(layer, 3)
    assert len(graph.parameters) == parameters
    assert graph.outputs[0].type.shape == ("N", layer.made, layer.made, layer.outputs)
    kernels = list(driver.build(graph, bl._weights(layer, "half")).facts.kernels.values())
    assert sorted(k.partition("_")[0] for k in kernels) == ["adder2d"] * 3 + ["relu"]


@pytest.mark.parametrize("filters", ["half", "all"])
def test_a_chain_keeps_its_values_alive(filters: str) -> None:
    """Batch norm keeps the values away from denormals and zeros, which could be faster."""
    layer = Layer("tiny", 32, 8, 32, 3)
    program = driver.compile(bl.layers_graph(layer, 8), weights=bl._weights(layer, filters))
    x = np.abs(np.random.default_rng(0).normal(size=(1, 8, 8, 32))).astype(np.float32)
    y = program(x)
    assert isinstance(y, np.ndarray)
    assert 0.3 < y.min() <= y.max() < 3.0


# --- times ----------------------------------------------------------------------------------------


def test_line_slope_is_the_cost_of_one_more_layer() -> None:
    assert line_slope({n: 5.0 + 3.0 * n for n in (1, 2, 4, 8)}) == pytest.approx(3.0)
    assert line_slope({1: 0.0, 2: 1.0, 3: 1.0}) == pytest.approx(0.5)


def test_slope_runs_every_program_in_turn() -> None:
    calls: list[int] = []
    two = Slope({1: lambda: calls.append(1), 2: lambda: calls.append(2)})
    two.run(0.0)
    assert calls == [1, 2] * (1 + ROUNDS)


# --- rows and tables ------------------------------------------------------------------------------


def test_executed_terms_are_those_of_taps_above_zero_in_sparse_kernels_only() -> None:
    filters = [np.array([1.0, -1.0, 0.0, 2.0]), np.array([3.0, 3.0, 3.0, -0.0])]
    point, image = Layer("net", 16, 8, 16, 1), Layer("net", 16, 8, 16, 3)
    assert bl.executed_terms("adder2d_sparse_batch_f32", image, 800, filters) == 500
    assert bl.executed_terms("adder2d_minimum_f32", point, 800, filters) == 800
    # Of 8 x 3 kernel rows, the first and the last lie in the padding.
    assert bl.executed_terms("adder2d_minimum_f32", image, 2400, filters) == 2200


def test_figures_of_a_row() -> None:
    one = row()
    assert one.rate == pytest.approx(2.0)
    assert one.executed_rate == pytest.approx(1.0)
    assert (one.peer, one.ratio, one.median_ratio) == ("fast", 1.5, 2.0)
    assert one.share == pytest.approx(0.1)
    assert br.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert br.geometric_mean([]) == 1.0
    assert br.geometric_mean([1.0, -4.0]) == 0.0


def test_tables_hold_means_and_minima() -> None:
    slower = row(timing=Timing(8e-6, 8e-6))
    text = report(row(), slower).text()
    assert "8x6x6 -> 8, 3x3" in text
    assert "ratio to the best convolution: 0.750 in the geometric mean, 0.375 at least" in text
    assert "of peak: 0.050 in the geometric mean, 0.025 at least" in text
    assert "FAILED" not in text


def test_a_share_above_1_fails() -> None:
    for bad in (report(row(peak=0.99)), report(row(timing=Timing(-1e-9, 1e-6)))):
        assert not bad.plausible
        assert "FAILED" in bad.text()


def test_without_peers_there_are_no_columns_of_them() -> None:
    text = report(row(peers={})).text()
    assert "ratio" not in text
    assert "peers: none." in text


@pytest.mark.parametrize(("layer", "batch"), [(CHAIN, 1), (BESIDE, 1), (POINT, 3)])
def test_measured_rows(layer: Layer, batch: int) -> None:
    for filters in (bl.HALF, bl.ALL):
        subject = bl._Subject(layer, batch, filters, "host")
        subject.slope.run(0.0)
        one = subject.row(1.0, {})
        assert one.kernel.startswith("adder2d_")
        assert one.terms == layer.terms(batch)
        assert 0 < one.executed <= one.terms
        inside = bl.executed_terms("dense", layer, one.terms, [])
        assert filters == bl.HALF or one.executed == inside
        images = layer.inputs * layer.size**2 + layer.outputs * layer.made**2
        assert one.nbytes > 4 * batch * images


def test_command_writes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bl, "LAYERS", (CHAIN, BESIDE))
    monkeypatch.setattr(driver, "measure_peak", lambda form, target: 1e6)
    monkeypatch.setattr(Slope, "run", lambda self, seconds: None)
    monkeypatch.setattr(Slope, "timing", Timing(1e-6, 2e-6))
    file = tmp_path / "layers.json"
    command = ["bench", "--layers", "--no-peers", "--seconds", "0", "--json", str(file)]
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--only", "8x6"])
    assert end.value.code == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(r["batch"], r["filters"]) for r in rows] == [
        (b, f) for b in (1, 16) for f in br.FILTERS
    ]
    assert all(r["share_of_peak"] == r["executed"] / 1e3 / 1e6 for r in rows)
    assert "batch 16, all taps above zero" in capsys.readouterr().out


def test_markdown_replaces_the_tables_of_the_same_target_only(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("# Performance\n")
    other = dataclasses.replace(report(row()), target="x86-64-v3")
    for one in (report(row()), other, report(row(terms=8000))):
        br.write_markdown(one, str(file), "addergraph bench --layers")
    text = file.read_text()
    assert text.startswith("# Performance\n")
    assert text.count("## Layers, x86-64-v4") == text.count("## Layers, x86-64-v3") == 1
    assert "| 4.0 |" in text
    assert text.index("x86-64-v4") < text.index("x86-64-v3")


def test_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "roofline.png"
    br.write_plot(report(row(), row(batch=16, executed=4000)), str(file), {"L2": 100.0})
    assert file.read_bytes().startswith(b"\x89PNG")


def test_unwritable_files_are_one_error(tmp_path: Path) -> None:
    for write in (br.write_json, lambda r, f: br.write_markdown(r, f, "")):
        with pytest.raises(DataError, match="cannot write"):
            write(report(row()), str(tmp_path / "no" / "file"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "small-adder"), "leave out FILE"),
        (("--layers", "--only", "9x9"), 'no layer holds "9x9"'),
        (("--plot", "x.png"), "go with --layers"),
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


@pytest.mark.parametrize("batch", [None, 3])
def test_profile_times_every_kernel(batch: int | None) -> None:
    model = build("small-adder")
    graph = model.graph(training=False)
    found = driver.profile(graph, model.weights, batch=batch, seconds=0.0)
    program = driver.compile(graph, weights=model.weights, batch=batch)
    assert {k.node: k.symbol for k in found.kernels} == program.built.facts.kernels
    assert all(k.inside > 0 for k in found.kernels)
    assert found.seconds >= sum(k.inside for k in found.kernels)
    bound = graph.bind(batch or 1)
    costs = [n.op.cost([v.type for v in n.inputs]) for n in bound.nodes if n.op.kind == CONTRACTION]
    total = sum(c.additions + c.multiplications for c in costs) // 2
    assert sum(k.terms for k in found.kernels) == total


def test_profile_prints_a_row_for_each_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "--profile", "--seconds", "0.05"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "small_adder, one image, one thread" in out
    assert "adder2d_minimum" in out
    assert "softmax_f32" in out
    assert "us in the network" in out
