"""benchmarks/layers_against_peers.py: its arithmetic and its tables, not anybody's speed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from addergraph import compiler
from addergraph.cli.bench import layers as bl
from addergraph.cli.bench.report import Row, write_json
from addergraph.cli.bench.timing import Layer, Slope, Timing
from addergraph.errors import StorageError
from benchmarks import layers_against_peers as against
from benchmarks.peers import Peers

pytestmark = pytest.mark.slow

CHAIN = Layer("tiny", 8, 6, 8, 3)


def row(**changes: object) -> Row:
    made = Row(
        CHAIN, 1, "half", "adder2d_sparse_f32", True, Timing(2e-6, 4e-6), 4000, 2000, 500, 10.0
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def report(*rows: Row, **changes: object) -> against.PeerReport:
    theirs = against.Theirs({"slow": Timing(9e-6, 9e-6), "fast": Timing(3e-6, 8e-6)})
    found = {(one.layer, one.batch): theirs for one in rows}
    made = against.PeerReport(
        "x86-64-v4",
        "f32",
        1,
        "a machine",
        9.0,
        rows,
        peers=["fast 1", "slow 2"],
        theirs=found,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_ratios_to_the_fastest_peer() -> None:
    (theirs,) = report(row()).theirs.values()
    assert theirs.best == "fast"
    assert (theirs.ratio(row()), theirs.median_ratio(row())) == (1.5, 2.0)


def test_tables_hold_ratios_and_peers() -> None:
    text = report(row(), row(timing=Timing(8e-6, 8e-6))).text()
    assert "ratio to the best convolution: 0.750 in the geometric mean, 0.375 at least" in text
    assert "of peak: 0.050 in the geometric mean, 0.025 at least" in text
    assert "peers: fast 1, slow 2." in text
    assert "oneDNN held to AVX2" in report(row(), hold="AVX2").text()


def test_numbers_are_written(tmp_path: Path) -> None:
    write_json(report(row()), str(tmp_path / "layers.json"))
    found = json.loads((tmp_path / "layers.json").read_text())
    assert (found["peers"], found["target"]) == (["fast 1", "slow 2"], "x86-64-v4")
    (one,) = found["rows"]
    assert one["peers"]["fast"] == {"best": 3e-6, "median": 8e-6}
    assert (one["ratio"], one["median_ratio"], one["share_of_peak"]) == (1.5, 2.0, 0.1)


def test_markdown_replaces_the_tables_of_the_same_setting_only(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("# Performance\n")
    changes: tuple[dict[str, object], ...] = (
        {}, {"target": "x86-64-v3"}, {"threads": 2},
        {"dtype": "u8", "rows": (row(kind="sums"),)}, {"rows": (row(terms=8000),)},
        {"machine": "another"},
    )  # fmt: skip
    for change in changes:
        against.write_markdown(report(row(), **change), str(file), "a command")
    text = file.read_text()
    assert text.startswith("# Performance\n")
    assert [s for s in text.splitlines() if s.startswith("<!-- begin")] == [
        f"<!-- begin of layers of {setting} -->"
        for setting in (
            "f32, x86-64-v4, one thread; a machine", "f32, x86-64-v3, one thread; a machine",
            "f32, x86-64-v4, 2 threads; a machine", "u8, x86-64-v4, one thread; a machine",
            "f32, x86-64-v4, one thread; another",
        )
    ]  # fmt: skip
    assert text.count("| 4.0 |") == 1
    with pytest.raises(StorageError, match="cannot write"):
        against.write_markdown(report(row()), str(tmp_path / "no" / "file"), "")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bl, "LAYERS", (CHAIN,))
    monkeypatch.setattr(Layer, "counts", (1, 2))
    monkeypatch.setattr(compiler, "measure_peak", lambda form, target, threads: 1e6)
    monkeypatch.setattr(Slope, "timing", Timing(1e-6, 2e-6))


@pytest.mark.usefixtures("quick")
def test_layers_and_peers_take_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[tuple[Layer, int, str]] = []

    def measure(
        self: Peers, layer: Layer, batch: int, dtype: str, seconds: float
    ) -> dict[str, Timing]:
        asked.append((layer, batch, dtype))
        return {"peer": Timing(2e-6, 2e-6)}

    monkeypatch.setattr(Peers, "_answer", lambda self: ["peer 1"])
    monkeypatch.setattr(Peers, "measure", measure)
    file = tmp_path / "layers.json"
    assert against.main(["--seconds", "0", "--only", "8x6", "--json", str(file)]) == 0
    assert set(asked) == {(CHAIN, batch, "f32") for batch in bl.BATCHES}
    assert {one["ratio"] for one in json.loads(file.read_text())["rows"]} == {2.0}
    assert "peers: peer 1." in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_without_peers_there_are_no_columns_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Peers, "_answer", lambda self: [])
    assert against.main(["--seconds", "0", "--only", "8x6"]) == 0
    text = capsys.readouterr().out
    assert "of peak" in text
    assert "ratio" not in text


@pytest.mark.usefixtures("quick")
def test_a_search_writes_its_section(tmp_path: Path) -> None:
    table = tmp_path / "performance.md"
    for _ in range(2):
        assert against.main(["--tune", "0", "--only", "8x6", "--markdown", str(table)]) == 0
    text = table.read_text()
    assert text.count("## The model against a search") == 1
    assert text.count("8x6x6 -> 8, 3x3; batch 16, all of the taps") >= 1
