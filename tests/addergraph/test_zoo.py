"""The networks: their topology, that each one works, and which options they take."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler, zoo
from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Graph, Node
from addergraph.ir.check import check
from addergraph.ir.text import parse
from addergraph.model import Model
from addergraph.report.arithmetic import by_kind, total, with_convolutions
from addergraph.verification.outputs import verify
from addergraph.zoo.resnet import ResNet

# name -> (trainable parameters, layers with a filter). The numbers of ResNet-18 and -50 are those
# of torchvision's networks, and the batch norm on the logits; all others are counted by hand.
SIZES = {
    "small-adder": (62_970, 5),
    "all-adder": (62_980, 5),
    "small-conv": (62_970, 5),
    "deck": (8_994, 3),
    "lenet5_bn": (sum((25 * 6, 150 * 16, 400 * 120, 120 * 84, 840, 2 * (226 + 10))), 5),
    "vgg_small": (
        9 * (3 * 128 + 128**2 + 128 * 256 + 256**2 + 256 * 512 + 512**2)
        + 4 * 4 * 512 * 10 + 2 * (2 * 896 + 10),
        7,
    ),
    "mobilenet_small": (205_652, 14),
    "resnet20": (272_484, 22),
    "resnet32": (466_916, 34),
    "resnet18": (11_689_512 + 2_000, 21),
    "resnet50": (25_557_032 + 2_000, 54),
}  # fmt: skip
CONTRACTIONS = ("adder2d", "conv2d", "adder_dense", "dense")


def contractions(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op.name in CONTRACTIONS]


def kinds(model: Model) -> list[str]:
    names = {"adder2d": "adder", "adder_dense": "adder", "conv2d": "conv", "dense": "conv"}
    return [names[node.op.name] for node in contractions(model.graph(training=False))]


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_sizes_and_kinds(name: str) -> None:
    model = zoo.build(name)
    graph = model.graph(training=False)
    check(graph)
    plain = name.removesuffix("-centered").removesuffix("-conv")
    parameters, count = SIZES["small-conv" if name == "small-conv" else plain]
    assert sum(p.type.elements for p in graph.parameters if p.trainable) == parameters
    found = kinds(model)
    assert len(found) == count
    if name == "deck":
        assert found == ["adder", "conv", "conv"]
    elif name == "all-adder":
        assert set(found) == {"adder"}
    elif "conv" in name:
        assert set(found) == {"conv"}
    else:
        assert found[0] == found[-1] == "conv" and set(found[1:-1]) == {"adder"}


@pytest.mark.parametrize("name", [n for n in zoo.NETWORKS if "resnet" in n])
def test_each_layer_of_a_resnet_has_a_batch_norm_and_adders_see_no_negatives(name: str) -> None:
    graph = zoo.build(name).graph(training=False)
    uses = graph.uses()
    for node in contractions(graph):
        readers = uses[node.outputs[0]]
        if "centered" in name and node.op.name == "adder2d":
            assert [n.op.name for n in readers] == ["reduce_mean", "sub"]
            readers = uses[readers[1].outputs[0]]
        assert [n.op.name for n in readers] == ["batch_norm"], node.name
    optimized = compiler.optimize(graph)
    bodies: list[Graph] = [getattr(node.op, "body", optimized) for node in optimized.nodes]
    nodes = {n: None for body in (optimized, *bodies) for n in body.nodes}
    adders: list[Any] = [n.op for n in nodes if n.op.name == "adder2d"]
    assert len(adders) == sum(n.op.name == "adder2d" for n in graph.nodes)
    assert all(op.input_nonnegative for op in adders)


def test_the_shapes_inside_resnet50() -> None:
    graph = zoo.build("resnet50").graph(training=False)
    types = {node.name: str(node.outputs[0].type) for node in graph.nodes}
    for name, shape in {
        "first": "112,112,64", "first_pool": "56,56,64", "stage1.block0.conv3": "56,56,256",
        "stage2.block0.conv1": "56,56,128", "stage2.block0.conv2": "28,28,128",
        "stage3.block0.skip": "14,14,1024", "stage4.block2.act3": "7,7,2048", "pool": "2048",
        "last_bn": "1000",
    }.items():  # fmt: skip
        assert types[name] == f"f32[N,{shape}]"
    skips = Counter(n.name.endswith(".skip") for n in graph.nodes)
    assert skips[True] == 4


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_each_network_survives_text_and_training_form(name: str) -> None:
    model = zoo.build(name)
    graph = model.graph(training=False)
    assert parse(str(graph)) == graph
    training = model.graph(training=True, batch=2)
    check(training)
    assert [p.name for p in training.parameters] == [p.name for p in graph.parameters]
    norms = sum(node.op.name == "batch_norm" for node in graph.nodes)
    assert len(training.updates) == 2 * norms


@pytest.mark.parametrize(
    "name",
    ["lenet5_bn", "vgg_small-conv", "mobilenet_small", "resnet32-conv", "small-adder-centered"],
)
def test_each_kind_of_network_survives_its_file(name: str, tmp_path: Path) -> None:
    model = zoo.build(name, seed=3)
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.graph(training=False) == model.graph(training=False)
    assert all(np.array_equal(again.weights[k], v) for k, v in model.weights.items())


def test_the_big_networks_survive_their_files_with_small_channels(tmp_path: Path) -> None:
    for name, kind in (("resnet18", "adder"), ("resnet50", "conv")):
        network = zoo.NETWORKS[name].layers
        assert isinstance(network, ResNet)
        small = Model(input_shape=(32, 32, 3), name=name)
        for layer in dataclasses.replace(network, channels=4)(zoo.Form(7, kind)):
            small.add(layer)
        small.save(tmp_path / "m.safetensors")
        again = Model.load(tmp_path / "m.safetensors")
        assert again.graph(training=False) == small.graph(training=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"), [("lenet5_bn", None), ("vgg_small", (16, 16, 3)), ("resnet20", None)]
)
def test_native_code_is_within_the_bound(name: str, shape: tuple[int, ...] | None) -> None:
    model = zoo.build(name, shape, seed=1)
    program = ag.compile(model)
    report = verify(model.graph(training=False), program, samples=1, seed=0)
    assert report.ok, str(report)


def test_first_and_last_make_networks_of_adders_only() -> None:
    for name in (
        "small-adder", "lenet5_bn", "vgg_small", "mobilenet_small", "resnet20", "resnet50",
    ):  # fmt: skip
        model = zoo.build(name, first="adder", last="adder")
        assert set(kinds(model)) == {"adder"}
        last = contractions(model.graph(training=False))[-1]
        assert model.graph(training=False).uses()[last.outputs[0]][0].op.name == "batch_norm"
    assert kinds(zoo.build("resnet20", first="adder"))[::21] == ["adder", "conv"]
    assert kinds(zoo.build("all-adder", last="conv"))[::4] == ["adder", "conv"]
    same = zoo.build("small-adder", first="adder", last="adder").graph(training=False)
    assert same.parameters[0].name == "adder1.f"


def test_names_agree_between_the_forms() -> None:
    adder, conv = (zoo.build(n).graph(training=False) for n in ("resnet20", "resnet20-conv"))
    assert [p.name for p in adder.parameters] == [p.name for p in conv.parameters]
    assert {p.name for p in adder.parameters if p.eta is not None} == {
        p.name for p in adder.parameters
        if p.name.endswith(".f") and p.name.startswith("stage")
    }  # fmt: skip


def test_other_shapes_and_classes() -> None:
    model = zoo.build("resnet20", (40, 24, 1), 100)
    assert model.output_shape == (100,)
    assert model.weights["first.f"].shape == (3, 3, 1, 16)
    assert zoo.build("lenet5_bn").input_shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"name": "resnet21"}, GraphError, 'mean "resnet'),
        ({"name": "resnet20", "first": "adders"}, GraphError, r'first="adders".*mean "adder"'),
        ({"name": "resnet20", "last": "dense"}, GraphError, "expected adder or conv"),
        ({"name": "deck", "first": "conv"}, GraphError, "do not apply"),
        ({"name": "resnet20", "classes": 0}, ShapeError, "classes=0"),
    ],
)
def test_bad_options_are_refused(
    arguments: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        zoo.build(**arguments)  # type: ignore[arg-type]


def test_images_that_are_too_small_name_the_layer() -> None:
    with pytest.raises(ShapeError, match='adder2d "conv2"'):
        zoo.build("lenet5_bn", (8, 8, 1))


def test_filters_start_as_the_layers_say() -> None:
    weights = zoo.build("resnet20").weights
    adder, conv = weights["stage3.block1.conv1.f"], weights["first.f"]
    assert adder.std() == pytest.approx(1, rel=0.02)
    assert conv.std() == pytest.approx(math.sqrt(2 / 27), rel=0.15)


def test_the_table_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    rows = [re.findall(r"[^|`\s]+", line) for line in text.splitlines() if line.startswith("| `")]
    table = [row for row in rows if row[0] in zoo.NETWORKS]
    assert {row[0] for row in table} == {
        n for n in zoo.NETWORKS if "conv" not in n and n != "deck"
    }  # fmt: skip
    for name, *numbers in table:
        graph = zoo.build(name).graph(training=False)
        kinds = by_kind(graph)
        sums, other = total("", kinds), total("", with_convolutions(kinds))
        if name == "all-adder":  # its counterpart has no batch norm on the logits
            other = total("", by_kind(zoo.build("small-conv").graph(training=False)))
        counts = (sum(p.type.elements for p in graph.parameters if p.trainable), sums.additions)
        energies = (1e-6 * sums.f32_picojoules, 1e-6 * other.f32_picojoules)
        assert numbers == [
            "x".join(map(str, zoo.NETWORKS[name].input_shape)),
            *(f"{n:,}" for n in (*counts, sums.multiplications)),
            *(f"{e:,.2f}" for e in energies),
        ]
