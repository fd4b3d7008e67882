"""What `summary` says: counts against sums by hand, energies, and how it looks."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph import compiler, zoo
from addergraph.ir import Graph
from addergraph.ir.text import parse
from addergraph.report.arithmetic import Arithmetic, by_kind, total, with_convolutions
from addergraph.report.summary import summary_text


def terms_of(stages: list[tuple[int, int, int, int, int]]) -> int:
    """Sum of positions * kernel^2 * inputs * outputs * count."""
    return sum(
        hw * hw * k * k * c * t for hw, k, c, t in (s[:4] for s in stages for _ in range(s[4]))
    )


# (output size, kernel size, inputs, outputs, how many)
RESNET20 = [
    (32, 3, 16, 16, 6), (16, 3, 16, 32, 1), (16, 3, 32, 32, 5), (8, 3, 32, 64, 1),
    (8, 3, 64, 64, 5), (16, 1, 16, 32, 1), (8, 1, 32, 64, 1),
]  # fmt: skip
ENDS = 32 * 32 * 27 * 16 + 640


def kinds_of(graph: Graph) -> dict[str, Arithmetic]:
    return {one.kind: one for one in by_kind(graph)}


def test_the_terms_of_resnet20_by_kind() -> None:
    adder = kinds_of(zoo.build("resnet20").graph(training=False))
    conv = kinds_of(zoo.build("resnet20-conv").graph(training=False))
    terms = terms_of(RESNET20)
    assert (adder["adder"].additions, adder["adder"].multiplications) == (2 * terms, 0)
    products = adder["convolution, dense"]
    assert products.additions == products.multiplications == ENDS
    products = conv["convolution, dense"]
    assert products.additions == products.multiplications == terms + ENDS
    assert "adder" not in conv
    assert adder["batch norm"] == conv["batch norm"] and adder["other"] == conv["other"]


def test_the_comparison_is_the_convolutional_network() -> None:
    for name in ("resnet20", "lenet5_bn", "vgg_small"):
        adder = total("", with_convolutions(by_kind(zoo.build(name).graph(training=False))))
        conv = total("", by_kind(zoo.build(f"{name}-conv").graph(training=False)))
        assert (adder.additions, adder.multiplications) == (conv.additions, conv.multiplications)
        assert adder.f32_picojoules == pytest.approx(conv.f32_picojoules, rel=1e-12)
        assert adder.int8_picojoules == pytest.approx(conv.int8_picojoules, rel=1e-12)


@pytest.mark.parametrize(
    ("op", "f32", "int8"),
    [
        ("adder_dense(%x, %f)", 12 * 2 * 0.9, 12 * (0.03 + 0.1)),
        ("dense(%x, %f)", 12 * (0.9 + 3.7), 12 * (0.2 + 0.1)),
        ("matmul(%x, %f)", 12 * (0.9 + 3.7), 12 * (0.2 + 0.1)),
    ],
)
def test_energy_of_twelve_terms(op: str, f32: float, int8: float) -> None:
    graph = parse(
        f"graph g(%x: f32[1,4], %f: f32[4,3]) {{\n %y = {op} : f32[1,3]\n"
        " %z = mul(%y, %y) : f32[1,3]\n return %z\n}"
    )
    kinds = by_kind(graph)
    assert kinds[0].f32_picojoules == pytest.approx(f32)
    assert kinds[0].int8_picojoules == pytest.approx(int8)
    rest = kinds[1]
    assert (rest.kind, rest.multiplications) == ("other", 3)
    assert rest.f32_picojoules == pytest.approx(3 * 3.7)
    assert rest.int8_picojoules == pytest.approx(3 * 3.1)


def test_fused_nodes_count_by_what_is_inside() -> None:
    graph = zoo.build("small-adder").graph(training=False)
    optimized = compiler.optimize(graph)
    assert any(node.op.name == "fused" for node in optimized.nodes)
    before, after = kinds_of(graph), kinds_of(optimized)
    for kind in ("adder", "convolution, dense"):
        assert before[kind] == after[kind]
    assert "batch norm" not in after  # it is a mul and an add by then
    assert after["other"].multiplications >= before["batch norm"].multiplications


@pytest.mark.parametrize("name", [n for n in zoo.NETWORKS if n != "deck"])
def test_it_fits_into_100_columns(name: str) -> None:
    graph = zoo.build(name).graph(training=False)
    filters = {p.name: np.ones(1, "f4") for p in graph.parameters}  # looks for what is above zero
    text = summary_text(graph, (), filters, arena=12345)
    assert max(map(len, text.splitlines())) <= 100
    assert ("100%" in text) == any(node.op.name == "adder2d" for node in graph.nodes)


def test_the_sections() -> None:
    model = zoo.build("resnet20")
    graph = model.graph(training=False)
    lines = model.summary_text().splitlines()
    assert lines[0] == "resnet20"
    rows = [line.split() for line in lines]
    assert ["stage2.block0"] in rows
    assert ["conv1", "adder2d", "16x16x32", "4,608", "18.0", "KiB", "2,359,296"] in rows
    assert ["total", "274,072", "1.05", "MiB", "81,674,836", "643,786"] in rows
    assert "272,484 trainable and 1,588 fixed parameters, 1.05 MiB" in lines
    arena = compiler.arena_bytes(graph)
    assert f"arena of the compiled network, batch 1: {arena:,} bytes" in lines
    share = next(line for line in lines if line.startswith("share of the energy"))
    kinds = by_kind(graph)
    ratio = total("", kinds).f32_picojoules / total("", with_convolutions(kinds)).f32_picojoules
    assert f"{ratio:.2f} in f32" in share and ratio < 0.5
    assert not any(line.startswith("share") for line in _lines("resnet20-conv"))


def _lines(name: str) -> list[str]:
    return zoo.build(name).summary_text().splitlines()


def test_a_graph_that_computes_nothing_has_no_arithmetic() -> None:
    graph = parse("graph g(%x: f32[N,4]) {\n %y = relu(%x) : f32[N,4]\n return %y\n}")
    text = summary_text(graph, ())
    assert "energy" not in text.lower() and "0 trainable" in text


def test_the_arena_is_that_of_the_program() -> None:
    model = zoo.build("small-adder")
    graph, weights = model.graph(training=False), model.weights
    built = compiler.build(graph, weights)
    assert compiler.arena_bytes(graph, weights) == built.lowered.plan.arena_bytes > 0


def test_the_arena_of_graphs_with_an_open_batch_that_mix_samples() -> None:
    graph = parse("graph g(%x: f32[N,4]) {\n %s = reduce_sum(%x) axes=(0) : f32[4]\n return %s\n}")
    assert compiler.arena_bytes(graph) == compiler.arena_bytes(graph.bind(1))
