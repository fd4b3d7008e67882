"""Files of our own: the graph that comes in is the graph that went out, by its text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import addergraph as ag
from addergraph import layers, zoo
from addergraph.data import Normalize, Preprocessing
from addergraph.errors import (
    DataError,
    GraphError,
    QuantizationWarning,
    StorageError,
    UnsupportedError,
)
from addergraph.ir import Array, Builder, Graph, registry
from addergraph.ir.state import initial_weights
from addergraph.model import Model
from addergraph.onnx.metadata import CLASSES
from addergraph.passes.canonicalize import canonicalize
from addergraph.passes.eliminate import eliminate
from addergraph.quantization import Quantized, load_quantized
from tests.addergraph.models import adders_only, small_model
from tests.addergraph.op_samples import ALL, Sample
from tests.strategies import random_case
from tests.strategies_integers import integer_case
from tests.strategies_quantized import quantized_case

LEFT = {  # of steps of training
    "fused", "mean_squared_error", "softmax_cross_entropy", "batch_norm_statistics", "replica_mean",
}  # fmt: skip
PIXELS = Preprocessing(Normalize((0.5, 0.4), (0.25, 0.2), 1 / 255), classes=("a", "b", "c"))


def text(graph: Graph) -> str:
    return str(eliminate(canonicalize(graph)))


def comes_back(graph: Graph, weights: dict[str, Array], folder: Path) -> bool:
    """False where it cannot be exported."""
    path = folder / "g.onnx"
    try:
        ag.to_onnx(graph, path, weights=weights)
    except (UnsupportedError, GraphError):
        return False
    again, numbers = ag.graph_from_onnx(path)
    assert text(again) == text(graph)
    assert set(numbers) == {p.name for p in graph.parameters}
    for name, array in numbers.items():
        np.testing.assert_array_equal(array, weights[name])
    return True


def _graph_of(sample: Sample) -> Graph:
    builder = Builder("g")
    operands = [builder.input(f"x{n}", type) for n, type in enumerate(sample.types)]
    if not operands:
        builder.input("x", ag.tensor("f32", ("N", 2)))
    return builder.finish(builder.add(sample.op, operands, "y"))


@pytest.mark.slow
def test_every_op_that_can_be_exported_comes_back(tmp_path: Path) -> None:
    done = {s.op.name for s in ALL if comes_back(_graph_of(s), {}, tmp_path)}
    left = {s.op.name for s in ALL} - done
    assert all(
        registry()[n].not_differentiable or registry()[n].training_only or n in LEFT for n in left
    ), left


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow)
        if "18" in n or "50" in n or "vgg" in n
        else pytest.param(n, marks=pytest.mark.thinned(4))
        for n in zoo.NETWORKS
    ],
)
def test_networks_of_the_zoo_come_back_letter_by_letter(name: str, tmp_path: Path) -> None:
    model = zoo.build(name)
    ag.to_onnx(model, tmp_path / "m.onnx")
    graph, weights = ag.graph_from_onnx(tmp_path / "m.onnx")
    assert str(graph) == str(model.inference_graph())
    for key, array in model.inference_weights().items():
        np.testing.assert_array_equal(weights[key], array)


@pytest.mark.parametrize("case", [random_case, integer_case, quantized_case])
@pytest.mark.filterwarnings("ignore")
def test_random_graphs(case: object, tmp_path: Path) -> None:
    assert callable(case)
    drawn = [case(seed) for seed in range(3)]
    exported = [comes_back(one.graph, one.weights, tmp_path) for one in drawn]
    assert any(exported)


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Model:
    made = adders_only()
    made.preprocessing = PIXELS
    return made


def test_a_model_comes_back_with_its_pixels_and_trains(model: Model, tmp_path: Path) -> None:
    ag.to_onnx(model, tmp_path / "m.onnx")
    again = ag.from_onnx(tmp_path / "m.onnx")
    assert isinstance(again, Model)
    assert again.graph(training=False) == model.graph(training=False)
    assert again.preprocessing == PIXELS
    for name, array in model.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    assert again.graph(training=True, batch=4) == model.graph(training=True, batch=4)


def test_pixels_that_enter_otherwise_are_damage(model: Model, tmp_path: Path) -> None:
    made = ag.to_onnx(model)
    entry = next(e for e in made.metadata_props if e.key == "addergraph.preprocessing")
    entry.value = entry.value.replace("0.25", "0.5")
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ag.AdderGraphError, match="its first nodes do something else"):
        ag.from_onnx(tmp_path / "m.onnx")
    assert ag.graph_from_onnx(tmp_path / "m.onnx")[0] == model.inference_graph()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["a", "b"', "is not JSON"), ("[" * 100_000, "is not JSON"),
        ('{"a": 1}', "expected a list of names"), ('["a", 2, "c"]', "expected a list of names"),
        ('["a", "c", "b"]', r"names \['a', 'c', 'b'\], addergraph.preprocessing names \['a', 'b'"),
    ],
)  # fmt: skip
def test_damaged_classes_are_refused(text: str, said: str, model: Model, tmp_path: Path) -> None:
    made = ag.to_onnx(model)
    next(e for e in made.metadata_props if e.key == CLASSES).value = text
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(StorageError, match=rf"m.onnx.* is damaged: {CLASSES} in its .*{said}"):
        ag.from_onnx(tmp_path / "m.onnx")


def test_classes_without_pixels_are_damage(model: Model, tmp_path: Path) -> None:
    made = ag.to_onnx(model)
    left = [e for e in made.metadata_props if e.key == CLASSES]
    del made.metadata_props[:]
    made.metadata_props.extend(left)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(StorageError, match=f"{CLASSES} in its metadata names"):
        ag.from_onnx(tmp_path / "m.onnx")


def test_an_integer_network_comes_back(model: Model, tmp_path: Path) -> None:
    shape = (12, *model.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape).astype("u1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)
        made = ag.quantize(model, images, engine="reference", verbose=0)
    ag.to_onnx(made, tmp_path / "q.onnx")
    again = ag.from_onnx(tmp_path / "q.onnx")
    assert isinstance(again, Quantized)
    assert (again.graph, again.preprocessing) == (made.graph, made.preprocessing)
    for name, array in made.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    assert math.isnan(again.error)  # the file does not hold it
    again.save(tmp_path / "q.safetensors")
    assert load_quantized(tmp_path / "q.safetensors").graph == made.graph
    with pytest.raises(ag.AdderGraphError, match="an integer network"):
        ag.from_onnx(tmp_path / "q.onnx", adders=["*"])


def test_filters_of_convolutions_come_back_as_they_were(tmp_path: Path) -> None:
    """They are OIHW in the file; with as many rows as channels no shape tells."""
    model = Model(input_shape=(8, 8, 3), seed=4)
    model.add(layers.Conv(3, 3))
    ag.to_onnx(model, tmp_path / "m.onnx")
    graph, weights = ag.graph_from_onnx(tmp_path / "m.onnx")
    assert graph == model.inference_graph()
    for name, array in model.weights.items():
        np.testing.assert_array_equal(weights[name], array)


def test_calls_of_another_version_are_refused(tmp_path: Path) -> None:
    made = ag.to_onnx(small_model(input_shape=(8, 8, 1)))
    next(o for o in made.opset_import if o.domain).version = 2
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(StorageError, match="version 2 of the domain addergraph"):
        ag.from_onnx(tmp_path / "m.onnx")


def test_functions_that_compute_something_else_are_refused(tmp_path: Path) -> None:
    made = ag.to_onnx(small_model(input_shape=(8, 8, 1)))
    node = next(n for f in made.functions for n in f.node if n.op_type == "Abs")
    node.op_type = "Neg"
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(StorageError, match=r"addergraph\.adder2d.* computes something else"):
        ag.from_onnx(tmp_path / "m.onnx")
    del made.functions[:]
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(StorageError, match="no function addergraph"):
        ag.from_onnx(tmp_path / "m.onnx")


def test_files_with_a_fixed_batch_are_graphs(tmp_path: Path) -> None:
    model = small_model(input_shape=(8, 8, 1))
    ag.to_onnx(model, tmp_path / "m.onnx", batch=4)
    graph, _ = ag.graph_from_onnx(tmp_path / "m.onnx")
    assert graph == model.inference_graph().bind(4)
    with pytest.raises(GraphError, match=r"f32\[4,8,8,1\], and a model any number.*open batch"):
        ag.from_onnx(tmp_path / "m.onnx")


def test_files_without_functions_do_not_come_back(tmp_path: Path) -> None:
    ag.to_onnx(small_model(input_shape=(8, 8, 1)), tmp_path / "m.onnx", inline=True)
    with pytest.raises(StorageError, match="--inline.*export it without"):
        ag.from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("read", [ag.from_onnx, ag.graph_from_onnx])
def test_dimensions_are_those_of_the_file(read: Callable[..., object], tmp_path: Path) -> None:
    ag.to_onnx(small_model(input_shape=(8, 8, 1)), tmp_path / "m.onnx")
    with pytest.raises(DataError, match='no input has an open dimension "q"'):
        read(tmp_path / "m.onnx", dimensions={"q": 3})


def test_declarations_and_numbers_have_to_fit(tmp_path: Path) -> None:
    made = ag.to_onnx(small_model(input_shape=(8, 8, 1)))
    entry = made.graph.initializer[0].metadata_props[0]
    for damage, said in ((entry.value.replace("f32", "i32"), "declared as"), ("f32[", "damaged")):
        entry.value = damage
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(StorageError, match=said):
            ag.from_onnx(tmp_path / "m.onnx")


def test_initial_weights_are_those_of_the_graph(tmp_path: Path) -> None:
    """Inits travel: weights that are drawn anew are the same."""
    model = small_model(input_shape=(8, 8, 1))
    ag.to_onnx(model, tmp_path / "m.onnx")
    graph, _ = ag.graph_from_onnx(tmp_path / "m.onnx")
    drawn, expected = (initial_weights(g, 7) for g in (graph, model.inference_graph()))
    for name, array in expected.items():
        np.testing.assert_array_equal(drawn[name], array)
