"""Whole networks as ONNX models: names, layouts, metadata, pixels, files, and what is refused."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import layers, zoo
from addergraph.data import Normalize, Preprocessing, digits
from addergraph.errors import (
    DataError,
    GraphError,
    QuantizationWarning,
    StorageError,
    UnsupportedError,
)
from addergraph.model import Model
from addergraph.onnx.attributes import DECLARED, declared_text, declared_value
from addergraph.onnx.export import IR_VERSION
from addergraph.onnx.export_writer import OPSET
from addergraph.onnx.metadata import CLASSES, PREPROCESSING, SCALES
from addergraph.quantization import Quantized
from addergraph.zoo.networks import IMAGENET
from benchmarks import onnx_zoo
from benchmarks.onnx_zoo import OnnxProgram
from tests.addergraph.models import adders_only, residual, small_model
from tests.addergraph.onnx.runtime import assert_within_bounds, checked, drawn
from tests.addergraph.shell import Shell

PIXELS = Preprocessing(Normalize((0.5, 0.4), (0.25, 0.2), 1 / 255), classes=("a", "b", "c"))


@pytest.fixture(scope="module")
def model() -> Model:
    made = adders_only()
    made.preprocessing = PIXELS
    return made


@pytest.fixture(scope="module")
def quantized(model: Model) -> Quantized:
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 5, 2)).astype("u1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)
        return ag.quantize(model, images, engine="reference")


# --- what is in the file --------------------------------------------------------------------------


def test_names_of_layers_and_weights_are_kept(model: Model) -> None:
    made, graph = checked(ag.to_onnx(model)), model.inference_graph()
    assert [n.name for n in made.graph.node] == [node.name for node in graph.nodes]
    assert [n.output[0] for n in made.graph.node] == [node.name for node in graph.nodes]
    arrays = model.inference_weights()
    for tensor in made.graph.initializer:
        np.testing.assert_array_equal(_array(tensor), arrays.pop(tensor.name))
    assert not arrays
    assert (made.ir_version, made.opset_import[0].version) == (IR_VERSION, OPSET)
    assert made.graph.name == model.name


def _array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def test_declarations_come_back(quantized: Quantized) -> None:
    graph, made = quantized.graph, ag.to_onnx(quantized).graph
    kept = {p.name: p for p in graph.parameters} | {v.name: v for v in graph.inputs}
    for held in (*made.initializer, *made.input):
        (text,) = [entry.value for entry in held.metadata_props if entry.key == DECLARED]
        value = kept.pop(held.name)
        assert text == declared_text(value)
        is_parameter = value in graph.parameters
        found = declared_value(value.name, text, parameter=is_parameter)
        assert declared_text(found) == text
        assert found.type.quantization == value.type.quantization
    assert not kept


@pytest.mark.parametrize(
    "text",
    ["f32[2", "f32[2], %y: f32[2]", "f32[2]) { return } graph g(", "f64[2]", "f32[2] eta=", ""],
)
def test_a_damaged_declaration_is_refused(text: str) -> None:
    with pytest.raises(StorageError, match='declaration of "f" is damaged'):
        declared_value("f", text, parameter=True)


def test_types_are_inferred_and_the_batch_stays_symbolic(model: Model) -> None:
    made, graph = checked(ag.to_onnx(model)), model.inference_graph()
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*made.graph.input, *made.graph.value_info, *made.graph.output)
    }
    for value in graph.values():
        if value not in graph.parameters:
            assert shapes[value.name] == list(value.type.shape)


def test_filters_of_convolutions_are_stored_as_these_take_them() -> None:
    network = Model(residual, input_shape=(6, 6, 2), seed=1)
    made = checked(ag.to_onnx(network))
    filters = {t.name: _array(t) for t in made.graph.initializer}
    name = next(n.input[1] for n in made.graph.node if n.op_type == "Conv")
    np.testing.assert_array_equal(filters[name].transpose(2, 3, 1, 0), network.weights[name])
    kinds = [n.op_type for n in made.graph.node]
    assert kinds.count("Transpose") <= 4, kinds  # in, to the adder, to the pool, to the flatten
    assert_within_bounds(network)


def test_a_filter_that_others_read_too_has_its_own_form() -> None:
    graph = ag.parse("""graph g(%x: f32[N,3,3,2]) params(%f: f32[1,1,2,2]) {
      %y = conv2d(%x, %f) : f32[N,3,3,2]
      %z = adder2d(%y, %f) : f32[N,3,3,2]
      return %z
    }""")
    weights = {"f": np.arange(4, dtype="f4").reshape(1, 1, 2, 2)}
    made = ag.to_onnx(graph, weights=weights).graph
    np.testing.assert_array_equal(_array(made.initializer[0]), weights["f"])  # HWIO
    (conv,) = (n for n in made.node if n.op_type == "Conv")
    assert ["f", "f.oihw"] in [[*n.input, *n.output] for n in made.node]
    assert conv.input[1] == "f.oihw"
    assert_within_bounds(graph, weights=weights)


def test_metadata_says_what_pixels_and_classes_are(model: Model, quantized: Quantized) -> None:
    for network in (model, quantized):
        found = {e.key: json.loads(e.value) for e in ag.to_onnx(network).metadata_props}
        assert found[CLASSES] == ["a", "b", "c"]
        assert found[PREPROCESSING]["dtype"] == "u8"
        assert found[PREPROCESSING]["normalize"]["mean"] == [0.5, 0.4]
    output = quantized.graph.outputs[0].name
    scale = quantized.outputs(np.ones((1, 3), "i4"))[0, 0]
    assert found[SCALES][output]["scale"] == pytest.approx(scale)
    assert not ag.to_onnx(adders_only()).metadata_props


def test_the_same_network_has_the_same_bytes(model: Model, tmp_path: Path) -> None:
    one, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    made = ag.to_onnx(model, one)
    ag.to_onnx(model, other)
    assert one.read_bytes() == other.read_bytes()
    assert len(one.read_bytes()) == made.ByteSize()


# --- what runtimes make of it ---------------------------------------------------------------------


def test_pixels_enter_as_the_model_takes_them(model: Model, quantized: Quantized) -> None:
    for network in (model, quantized):
        program = assert_within_bounds(network)
        assert program.graph.inputs[0].type.dtype.name == "u8"
    images = np.random.default_rng(1).integers(0, 256, (7, 5, 5, 2)).astype("u1")
    program = OnnxProgram(model)
    expected = model.predict(images, engine="reference")
    np.testing.assert_allclose(program.run([images])[0], expected, rtol=1e-5)
    assert len(program.run([images[:1]])[0]) == 1


@pytest.mark.parametrize("options", [{"inline": True}, {"batch": 3}], ids=["inline", "batch"])
def test_other_forms_answer_alike(quantized: Quantized, options: dict[str, Any]) -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 5, 5, 2)).astype("u1")
    made = checked(ag.to_onnx(quantized, **options))
    assert bool(made.functions) != bool(options.get("inline"))
    (found,) = OnnxProgram(quantized, **options).run([images])
    np.testing.assert_array_equal(found, OnnxProgram(quantized).run([images])[0])


def test_the_reference_of_onnx_itself_agrees(model: Model, quantized: Quantized) -> None:
    from onnx.reference import ReferenceEvaluator

    images = np.random.default_rng(3).integers(0, 256, (3, 5, 5, 2)).astype("u1")
    (found,) = ReferenceEvaluator(ag.to_onnx(quantized)).run(None, {"x": images})
    np.testing.assert_array_equal(found, OnnxProgram(quantized).run([images])[0])
    (found,) = ReferenceEvaluator(ag.to_onnx(model)).run(None, {"x": images})
    np.testing.assert_allclose(
        np.asarray(found), model.predict(images, engine="reference"), rtol=1e-5
    )


def test_several_inputs_and_outputs() -> None:
    def net(image: Any, more: Any) -> Any:
        x = layers.Flatten()(layers.Adder(3, 2)(image))
        y = layers.AdderDense(4)(x) + more
        return {"size": y, "kind": ag.ops.softmax(y)}

    network = Model(net, input_shape={"image": (3, 3, 1), "more": (4,)}, seed=2)
    program = assert_within_bounds(network)
    (size, kind) = program.run([np.ones((2, 3, 3, 1), "f4"), np.ones((2, 4), "f4")])
    np.testing.assert_allclose(kind.sum(1), 1, rtol=1e-6)
    assert size.max() < 1  # distances are subtracted


def test_outputs_that_are_inputs_images_or_the_same_twice() -> None:
    graph = ag.parse("""graph g(%x: f32[N,2,2,1]) params(%f: f32[1,1,1,1]) {
      %y = conv2d(%x, %f) : f32[N,2,2,1]
      %p = max_pool2d(%y) window=(1,1) stride=(1,1) : f32[N,2,2,1]
      %z = adder2d(%y, %f) : f32[N,2,2,1]
      return %x, %y, %y, %p, %z
    }""")
    program = assert_within_bounds(graph, weights={"f": np.full((1, 1, 1, 1), 2, "f4")})
    images = np.arange(8, dtype="f4").reshape(2, 2, 2, 1)
    x, y, again, p, z = program.run([images])
    np.testing.assert_array_equal(x, images)
    for made in (y, again, p):
        np.testing.assert_array_equal(made, 2 * images)
    np.testing.assert_array_equal(z, -np.abs(2 * images - 2))


@pytest.mark.slow
def test_a_model_that_rounds_for_its_integers() -> None:
    network = ag.quantization_aware(
        adders_only(), np.random.default_rng(0).normal(size=(9, 5, 5, 2))
    )
    assert "fake_quantize" in {n.op_type for n in ag.to_onnx(network).graph.node}
    assert_within_bounds(network, samples=3)


# --- the zoo --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_the_zoo_in_onnx_runtime(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float and int8: classes of all images equal, outputs within the bounds (of 224x224 these
    take NumPy minutes: the benchmark has them), integers equal."""
    bounds = 0 if zoo.NETWORKS[name].input_shape == IMAGENET else 2
    monkeypatch.setattr(onnx_zoo, "SECONDS", 0.0)
    monkeypatch.setattr(onnx_zoo, "best", lambda calls: [1.0, 1.0])
    for row in onnx_zoo.rows_of(name, bounds):
        assert row.ok, row


def test_a_network_of_the_zoo_reads_the_digits_alike() -> None:
    network, images = zoo.build("deck", seed=1), digits.load().x_test[:40]
    program = OnnxProgram(network)
    found, expected = program.run([images])[0], network.predict(images, engine="reference")
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    ag.verify(network, program, inputs=[images[:4]], layers=False).raise_for_failure()


# --- what is refused ------------------------------------------------------------------------------


def test_a_path_without_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none.*x.onnx"):
        ag.to_onnx(adders_only(), tmp_path / "none" / "x.onnx")
    assert not (tmp_path / "none").exists()


def test_a_training_step() -> None:
    graph = ag.parse("""graph step(%x: f32[2]) params(%p: f32[2]) {
      %y = add(%x, %p) : f32[2]
      update %p <- %y
      return %y
    }""")
    with pytest.raises(UnsupportedError, match='"step" updates parameters.*graph that predicts'):
        ag.to_onnx(graph, weights=drawn(graph))


def test_more_than_a_file_holds() -> None:
    graph = ag.parse("""graph huge(%x: f32[N,30000]) params(%small: f32[2], %f: f32[30000,30000]) {
      %y = dense(%x, %f) : f32[N,30000]
      return %y
    }""")
    with pytest.raises(UnsupportedError, match=r"3,600,000,008 bytes.*%f alone.*2,147,483,647"):
        ag.to_onnx(graph, weights={})


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("%y = full() value=1 shape=(N,2) : f32[N,2]", 'full "y" of graph "g" has the open batch'),
        (
            "%y = broadcast_to(%p) shape=(N,2) : f32[N,2]",
            'broadcast_to "y" of graph "g" repeats %p',
        ),
    ],
)
def test_an_open_batch_that_onnx_has_no_constant_for(line: str, match: str) -> None:
    graph = ag.parse(f"""graph g(%x: f32[N,2]) params(%p: f32[2]) {{
      {line}
      %z = add(%x, %p) : f32[N,2]
      return %y, %z
    }}""")
    weights = {"p": np.ones(2, "f4")}
    with pytest.raises(UnsupportedError, match=match):
        ag.to_onnx(graph, weights=weights)
    assert_within_bounds(graph.bind(3), weights=weights)


def test_tensors_of_nothing() -> None:
    graph = ag.parse("""graph g(%x: f32[N,2], %e: f32[N,0]) {
      %y = concat(%x, %e) axis=1 : f32[N,2]
      return %y
    }""")
    with pytest.raises(UnsupportedError, match=r'%e: f32\[N,0\] of graph "g" has no elements'):
        ag.to_onnx(graph)


def test_numbers_that_are_missing_or_too_many() -> None:
    graph = adders_only().inference_graph()
    with pytest.raises(DataError, match="has parameters"):
        ag.to_onnx(graph)
    with pytest.raises(DataError, match="brings its own weights"):
        ag.to_onnx(adders_only(), weights={})
    with pytest.raises(GraphError, match="expected a graph"):
        ag.to_onnx(3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="batch"):
        ag.to_onnx(adders_only(), batch="many")  # type: ignore[arg-type]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'addergraph\[onnx\]'"):
        ag.to_onnx(adders_only())


# --- the command ----------------------------------------------------------------------------------


def test_the_command(shell: Shell, tmp_path: Path, model: Model) -> None:
    model.save(tmp_path / "m.safetensors")
    target = tmp_path / "m.onnx"
    said = shell.ok("export-onnx", tmp_path / "m.safetensors", "-o", target)
    assert f"{target.stat().st_size:,} bytes, opset {OPSET}" in said
    assert "takes x: u8[N,5,5,2]" in said and "gives adder_dense1: f32[N,3]" in said
    assert target.read_bytes() == ag.to_onnx(model).SerializeToString(deterministic=True)


def test_the_command_refuses_another_kind_of_file(shell: Shell, tmp_path: Path) -> None:
    said = shell.error("export-onnx", "deck", "-o", tmp_path / "m.pb")
    assert "ends in .onnx" in said
    assert not list(tmp_path.iterdir())


def test_small_models_of_layers_answer_as_here() -> None:
    assert_within_bounds(small_model(input_shape=(8, 8, 1)))
