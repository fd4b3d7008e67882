"""Networks of others: what they become, layouts, names, batches, training, adder layers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph.cli import main as cli
from addergraph.errors import DataError, GraphError, ShapeError, UnsupportedError
from addergraph.ir import Array
from addergraph.model import Model
from tests.addergraph.onnx.foreign import answers, drawn, model_of, node, written


def residual(batch: Any = "batch") -> Any:
    """Convolution, batch norm, residual sum, pools, a flattened image before the last layer."""
    nodes = [
        node("Conv", ["x", "c1.weight"], ["a"], name="/c1/Conv", kernel_shape=[3, 3],
             pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], name="/bn1/BatchNorm",
             momentum=0.8),
        node("Relu", ["n"], ["r"], name="/Relu"),
        node("Conv", ["r", "onnx::Conv_7", "onnx::Conv_8"], ["d"], name="/c2/Conv", group=2,
             dilations=[2, 2], pads=[2, 2, 2, 2]),
        node("Add", ["d", "r"], ["s"], name="/Add"),
        node("MaxPool", ["s"], ["p"], name="/Pool", kernel_shape=[3, 3], strides=[2, 2],
             ceil_mode=1),
        node("Dropout", ["p"], ["q"], name="/Dropout"),
        node("Flatten", ["q"], ["f"], name="/Flatten"),
        node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], name="/fc/Gemm", transB=1),
    ]  # fmt: skip
    numbers = {
        "c1.weight": drawn(4, 3, 3, 3), "g": drawn(4), "b": drawn(4, seed=1), "m": drawn(4, seed=2),
        "v": np.ones(4, np.float32), "onnx::Conv_7": drawn(4, 2, 3, 3), "onnx::Conv_8": drawn(4),
        "fc.weight": drawn(5, 4 * 3 * 4), "fc.bias": drawn(5),
    }  # fmt: skip
    return model_of(nodes, numbers, ["y"], x=[batch, 3, 7, 8])


def nhwc(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def test_a_network_gives_the_answers_of_onnx_runtime(tmp_path: Path) -> None:
    source = residual()
    model = ag.from_onnx(written(tmp_path, source))
    assert isinstance(model, Model)
    x = drawn(6, 3, 7, 8, seed=5)
    found = model.predict(nhwc(x), engine="reference")
    np.testing.assert_allclose(found, answers(source, x=x)[0], rtol=1e-5, atol=1e-5)
    assert (model.name, model.input_shape, model.output_shape) == ("net", (7, 8, 3), (5,))


def test_transposes_cancel_and_names_stay(tmp_path: Path) -> None:
    model = ag.from_onnx(written(tmp_path, residual()))
    assert isinstance(model, Model)
    graph = model.graph(training=False)
    assert [n.name for n in graph.nodes] == [
        "c1.Conv", "bn1.BatchNorm", "Relu", "c2.Conv", "Add", "Pool", "Flatten", "y",
    ]  # fmt: skip
    assert [n.op.name for n in graph.nodes[-2:]] == ["flatten", "dense"]
    names = {"c1.weight", "g", "b", "m", "v", "c2.Conv.f", "c2.Conv.b", "fc.weight", "fc.bias"}
    assert set(model.weights) == names  # numbers that an exporter gave for names are none
    np.testing.assert_array_equal(
        model.weights["c1.weight"], drawn(4, 3, 3, 3).transpose(2, 3, 1, 0)
    )
    trained = {p.name for p in graph.parameters if p.trainable}
    assert names - trained == {"m", "v"}


def test_it_trains_on_with_its_momentum_and_dropouts_and_is_saved(tmp_path: Path) -> None:
    model = ag.from_onnx(written(tmp_path, residual()))
    assert isinstance(model, Model)
    form = str(model.graph(training=True, batch=8))
    assert "dropout" in form and "value=0.2 :" in form  # 1 - 0.8 of the running statistics
    x, y = nhwc(drawn(16, 3, 7, 8)), np.arange(16) % 5
    history = model.fit(x, y, epochs=1, batch_size=8, engine="reference", verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.graph(training=False) == model.graph(training=False)
    assert "dropout" in str(again.graph(training=True, batch=8))


@pytest.mark.parametrize("batch", [1, 4, "batch", None])
def test_a_fixed_batch_opens_for_a_model_and_stays_for_a_graph(tmp_path: Path, batch: Any) -> None:
    path = written(tmp_path, residual(batch))
    assert ag.from_onnx(path).inference_graph().inputs[0].type.shape == ("N", 7, 8, 3)
    graph, _ = ag.graph_from_onnx(path)
    assert graph.inputs[0].type.shape[0] == (batch if isinstance(batch, int) else "N")


def test_a_fixed_batch_in_a_reshape_is_the_open_one(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "to"], ["f"]), node("Reshape", ["f", "back"], ["y"])]
    numbers = {"to": np.array([2, -1]), "back": np.array([2, 4, 3])}
    model = ag.from_onnx(written(tmp_path, model_of(nodes, numbers, ["y"], x=[2, 3, 4])))
    assert model.inference_graph().outputs[0].type.shape == ("N", 4, 3)
    numbers["to"] = np.array([4, -1])
    with pytest.raises(ShapeError, match="the batch N does not stay in front"):
        ag.from_onnx(written(tmp_path, model_of(nodes, numbers, ["y"], x=[2, 3, 4])))


def test_a_network_that_mixes_its_samples_keeps_its_batch(tmp_path: Path) -> None:
    path = written(tmp_path, model_of([node("ReduceMean", ["x"], ["y"])], {}, ["y"], x=[2, 3]))
    with pytest.raises(UnsupportedError, match="depends on the others"):
        ag.from_onnx(path)
    assert ag.graph_from_onnx(path)[0].outputs[0].type.shape == (1, 1)


def test_both_layouts_of_inputs_and_outputs(tmp_path: Path) -> None:
    nodes = [node("Sub", ["x", "mean"], ["s"]), node("Conv", ["s", "w"], ["y"])]
    numbers = {"mean": drawn(1, 3, 1, 1), "w": drawn(2, 3, 1, 1)}
    source = model_of(nodes, numbers, ["y"], x=["n", 3, 4, 5])
    path, x = written(tmp_path, source), drawn(2, 3, 4, 5)
    expected = answers(source, x=x)[0]
    for layout, turn in (("NHWC", nhwc), ("NCHW", lambda x: x)):
        graph, weights = ag.graph_from_onnx(path, layout=layout)
        found = ag.interpret(graph, turn(x), weights=weights)
        np.testing.assert_allclose(found, turn(expected), rtol=1e-5, atol=1e-6)
    assert "transpose" not in str(ag.graph_from_onnx(path)[0])
    with pytest.raises(DataError, match=r"layout='NWHC' must be one of NHWC, NCHW"):
        ag.graph_from_onnx(path, layout="NWHC")


def test_files_that_are_nhwc_themselves_stay_so(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["c"]),
        node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]  # fmt: skip
    source = model_of(nodes, {"w": drawn(2, 3, 1, 1)}, ["y"], x=["n", 4, 5, 3])
    graph, _ = ag.graph_from_onnx(written(tmp_path, source))
    assert [n.op.name for n in graph.nodes] == ["conv2d"]
    assert graph.inputs[0].type.shape == ("N", 4, 5, 3)


def test_open_dimensions_get_sizes(tmp_path: Path) -> None:
    source = model_of([node("Relu", ["x"], ["y"])], {}, ["y"], x=["n", 3, "height", "width"])
    path = written(tmp_path, source)
    with pytest.raises(ShapeError, match=r'axis 2 is open \("height"\).*dimensions='):
        ag.from_onnx(path)
    graph, _ = ag.graph_from_onnx(path, dimensions={"height": 4, "width": 5, "n": 2})
    assert graph.inputs[0].type.shape == (2, 4, 5, 3)
    with pytest.raises(DataError, match="at least 1"):
        ag.from_onnx(path, dimensions={"height": 0})


def test_what_is_no_model_is_a_graph(tmp_path: Path) -> None:
    nodes = [node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)]
    path = written(tmp_path, model_of(nodes, {}, ["y"], x=["n", 3]))
    with pytest.raises(GraphError, match="ag.graph_from_onnx"):
        ag.from_onnx(path)
    graph, weights = ag.graph_from_onnx(path)
    np.testing.assert_array_equal(
        ag.interpret(graph, np.eye(3, dtype="f4"), weights=weights), [0, 1, 2]
    )


# --- shapes that exporters compute ----------------------------------------------------------------


def test_a_view_by_the_size_of_the_batch(tmp_path: Path) -> None:
    """What x.view(x.size(0), -1) is exported as."""
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]), node("Concat", ["n1", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["y"]),
    ]  # fmt: skip
    numbers = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    graph, _ = ag.graph_from_onnx(written(tmp_path, model_of(nodes, numbers, ["y"], x=["n", 3, 4])))
    assert str(graph.outputs[0].type) == "f32[N,12]" and len(graph.nodes) == 1


@pytest.mark.parametrize("counted", [0, 1])
def test_windows_with_other_padding_on_every_side(tmp_path: Path, counted: int) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[2, 1, 0, 1], strides=[1, 2]),
        node("AveragePool", ["c"], ["a"], kernel_shape=[3, 2], pads=[1, 0, 2, 1],
             count_include_pad=counted),
        node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3], pads=[2, 0, 1, 1]),
    ]  # fmt: skip
    source = model_of(nodes, {"w": drawn(2, 3, 3, 2)}, ["y"], x=["n", 3, 9, 8])
    x = drawn(2, 3, 9, 8, seed=3)
    graph, weights = ag.graph_from_onnx(written(tmp_path, source), layout="NCHW")
    found = ag.interpret(graph, x, weights=weights)
    np.testing.assert_allclose(found, answers(source, x=x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 18, 21, 24, 28])
def test_softmax_of_old_and_new_opsets(tmp_path: Path, opset: int) -> None:
    """Before opset 13 over all axes from `axis` on."""
    x = drawn(2, 3, 4)
    source = model_of([node("Softmax", ["x"], ["y"], axis=1)], {}, ["y"], opset=opset, x=[2, 3, 4])
    graph, weights = ag.graph_from_onnx(written(tmp_path, source))
    axes = (1, 2) if opset < 13 else (1,)
    found = np.asarray(ag.interpret(graph, x, weights=weights))
    np.testing.assert_allclose(found.sum(axes), 1, rtol=1e-6)


@pytest.mark.parametrize("opset", [10, 11, 13])
def test_attributes_that_became_inputs(tmp_path: Path, opset: int) -> None:
    """Of Clip and Pad at opset 11, of Squeeze at 13."""
    old = opset < 11
    clip = node("Clip", ["x"], ["c"], min=-0.5, max=0.5)
    pad = node("Pad", ["c"], ["p"], pads=[0, 1, 0, 2], value=3.0)
    unsqueeze = node("Unsqueeze", ["p"], ["u"], axes=[1])
    if not old:
        clip, pad = node("Clip", ["x", "a", "b"], ["c"]), node("Pad", ["c", "pads", "v"], ["p"])
    if opset >= 13:
        unsqueeze = node("Unsqueeze", ["p", "one"], ["u"])
    nodes = [clip, pad, unsqueeze]
    numbers: dict[str, Any] = {
        "a": np.float32(-0.5), "b": np.float32(0.5), "v": np.float32(3), "one": np.array([1]),
        "pads": np.array([0, 1, 0, 2]),
    }  # fmt: skip
    source = model_of(nodes, numbers, ["u"], opset=opset, x=[2, 3])
    x = drawn(2, 3)
    graph, weights = ag.graph_from_onnx(written(tmp_path, source))
    expected = np.pad(np.clip(x, -0.5, 0.5), ((0, 0), (1, 2)), constant_values=3)[:, None]
    np.testing.assert_array_equal(ag.interpret(graph, x, weights=weights), expected)


def test_weights_that_are_moved_before_they_are_read(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])]
    w = drawn(5, 3)
    model = ag.from_onnx(written(tmp_path, model_of(nodes, {"w": w}, ["y"], x=["n", 3])))
    np.testing.assert_array_equal(model.inference_weights()["w"], w.T)


def test_matrices_behind_more_axes(tmp_path: Path) -> None:
    """A[n,s,k] B[k,t] is a convolution of one pixel, of an open batch; A A' sums products."""
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
             node("MatMul", ["a", "t"], ["y"])]  # fmt: skip
    source = model_of(nodes, {"w": drawn(4, 6)}, ["y"], x=["n", 5, 4])
    x = drawn(2, 5, 4)
    found = ag.from_onnx(written(tmp_path, source)).predict(x, engine="reference")  # type: ignore[union-attr]
    np.testing.assert_allclose(found, answers(source, x=x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_integer_layers_have_the_integers_of_onnx_runtime(
    tmp_path: Path, signed: bool, channels: int
) -> None:
    dtype = np.int8 if signed else np.uint8
    rng = np.random.default_rng(3)
    low, high = (-128, 128) if signed else (0, 256)
    w = rng.integers(low, high, (3, 2, 3, 3)).astype(dtype)
    nodes = [
        node("QuantizeLinear", ["x", "xs", "z"], ["q"]),
        node("QLinearConv", ["q", "xs", "z", "w", "ws", "wz", "ys", "z", "b"], ["c"],
             pads=[1, 0, 1, 2], strides=[1, 2]),
        node("DequantizeLinear", ["c", "ys", "z"], ["y"]),
    ]  # fmt: skip
    zeros = rng.integers(-3, 4, channels) if signed else rng.integers(120, 136, channels)
    numbers: dict[str, Any] = {
        "xs": np.float32(0.02), "ys": np.float32(0.5), "w": w,
        "z": np.array(5 if signed else 133, dtype),
        "ws": rng.uniform(0.01, 0.03, channels).astype("f4"), "wz": zeros.astype(dtype),
        "b": rng.integers(-900, 900, 3).astype(np.int32),
    }  # fmt: skip
    numbers |= {name: numbers[name].reshape(()) for name in ("ws", "wz") if channels == 1}
    source = model_of(nodes, numbers, ["y"], x=["n", 2, 6, 7])
    x = drawn(3, 2, 6, 7)
    graph, weights = ag.graph_from_onnx(written(tmp_path, source), layout="NCHW")
    found = ag.interpret(graph, x, weights=weights)
    np.testing.assert_array_equal(found, answers(source, x=x)[0])
    assert len(np.unique(found)) > 20


def test_a_dropout_of_what_others_read_too_is_none(tmp_path: Path) -> None:
    """The sum reads the image that the dropout reads flattened: both are one tensor here."""
    nodes = [
        node("Relu", ["x"], ["r"]), node("Flatten", ["r"], ["f"]), node("Dropout", ["f"], ["d"]),
        node("Gemm", ["d", "w"], ["g"]), node("Flatten", ["r"], ["s"]),
        node("Add", ["g", "s"], ["y"]),
    ]  # fmt: skip
    path = written(tmp_path, model_of(nodes, {"w": drawn(12, 12)}, ["y"], x=["n", 3, 2, 2]))
    model = ag.from_onnx(path)
    assert isinstance(model, Model) and "dropout" not in str(model.graph(training=True, batch=2))


def test_computing_with_the_size_of_the_batch_is_refused(tmp_path: Path) -> None:
    numbers = {"zero": np.array([0]), "one": np.array([1])}
    others = (
        node("Add", ["n", "one"], ["t"]), node("Cast", ["n"], ["t"], to=1),
        node("Range", ["zero", "n", "one"], ["t"]), node("Reshape", ["one", "n"], ["t"]),
    )  # fmt: skip
    for other in others:
        nodes = [
            node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), other,
            node("Reshape", ["x", "t"], ["y"]),
        ]  # fmt: skip
        source = model_of(nodes, numbers, ["y"], x=["n", 3])
        with pytest.raises(ag.AdderGraphError, match="open batch"):
            ag.graph_from_onnx(written(tmp_path, source))


# --- adder layers ---------------------------------------------------------------------------------


def test_adder_layers_begin_anew_with_a_batch_norm_each(tmp_path: Path) -> None:
    path = written(tmp_path, residual())
    before, model = ag.from_onnx(path), ag.from_onnx(path, adders=["*"], seed=3)
    assert isinstance(model, Model) and isinstance(before, Model)
    graph = model.graph(training=False)
    assert [n.op.name for n in graph.nodes[:5]] == [
        "adder2d", "batch_norm", "relu", "adder2d", "batch_norm",
    ]  # fmt: skip
    assert [n.name for n in graph.nodes[3:5]] == ["c2.Conv.adder", "c2.Conv"]
    op: Any = graph.nodes[3].op
    assert (op.groups, op.dilation, op.padding) == (2, (2, 2), (2, 2, 2, 2))
    etas = {p.name: p.eta for p in graph.parameters if p.eta is not None}
    assert etas == {"c1.weight": 0.2, "c2.Conv.f": 0.2}
    assert "c2.Conv.b" not in model.weights  # the batch norm has one
    for name in ("g", "v", "c2.Conv.gamma", "c2.Conv.variance"):
        assert (model.weights[name] == 1).all()
    for name in ("b", "m", "c2.Conv.beta", "c2.Conv.mean"):
        assert not model.weights[name].any()
    assert 0.8 < model.weights["c1.weight"].std() < 1.2
    np.testing.assert_array_equal(model.weights["fc.weight"], before.weights["fc.weight"])
    x, y = nhwc(drawn(8, 3, 7, 8)), np.arange(8) % 5
    history = model.fit(x, y, epochs=1, batch_size=8, engine="reference", verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_inner_leaves_the_first_convolution_and_patterns_have_to_fit(tmp_path: Path) -> None:
    path = written(tmp_path, residual())
    graph = ag.from_onnx(path, adders=["inner"]).inference_graph()
    kinds = [n.op.name for n in graph.nodes if n.op.name.endswith("2d")]
    assert kinds == ["conv2d", "adder2d", "max_pool2d"]
    with pytest.raises(GraphError, match=r'called "c3\*".*it has c1.Conv, c2.Conv'):
        ag.from_onnx(path, adders=["c3*"])


# --- refusals -------------------------------------------------------------------------------------

REFUSED = [
    (node("ConvTranspose", ["x", "w"], ["y"], name="up"), "Transpose 'up', node 1 of 1: .*Resize"),
    (node("Elu", ["x"], ["y"]), "what would do: LeakyRelu"),
    (node("Reluu", ["x"], ["y"]), r"did you mean \"Relu\""),
    (node("Gelu", ["x"], ["y"], domain="com.microsoft"), r'domain "com.microsoft"'),
    (node("Resize", ["x", "", "scales"], ["y"], mode="linear"), "its attribute mode is 'linear'"),
    (node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), "output 1, the indices"),
    (node("Reshape", ["x", "x"], ["y"]), "its shape .input 1. are computed"),
    (node("Relu", ["x"], ["y"], slope=2.0), "its attribute 'slope' is not known"),
    (node("BatchNormalization", ["x", *"bbbb"], ["y"], training_mode=1), r"model.eval\(\)"),
    (node("Cast", ["x"], ["y"], to=10), "it casts to FLOAT16"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "said"), REFUSED, ids=[n.op_type for n, _ in REFUSED])
def test_what_is_not_read_is_named_with_its_place(tmp_path: Path, one: Any, said: str) -> None:
    numbers = {"w": drawn(2, 2, 3, 3), "scales": np.array([1, 1, 2, 2], "f4"), "b": drawn(2)}
    outputs = list(one.output)
    source = model_of([one], numbers, outputs, x=["n", 2, 4, 4])
    with pytest.raises(UnsupportedError, match=said):
        ag.graph_from_onnx(written(tmp_path, source))


def test_nodes_that_no_output_needs_are_not_looked_at(tmp_path: Path) -> None:
    nodes = [node("NonMaxSuppression", ["x"], ["dead"]), node("Relu", ["x"], ["y"])]
    graph, _ = ag.graph_from_onnx(written(tmp_path, model_of(nodes, {}, ["y"], x=["n", 3])))
    assert [n.name for n in graph.nodes] == ["y"]


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, residual())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnsupportedError, match=r"addergraph\[onnx\]"):
        ag.from_onnx(path)


# --- the command ----------------------------------------------------------------------------------


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["import", *words])
    return int(end.value.code or 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, residual(), "weights.bin")  # its content tells what it is
    output = str(tmp_path / "m.safetensors")
    assert run(str(tmp_path / "weights.bin"), "-o", output, "--adders", "c2*") == 0
    printed = capsys.readouterr().out
    assert "5 classes, samples of 7x8x3" in printed
    assert "1 adder layers, to be trained: c2.Conv.adder" in printed
    assert Model.load(output).graph(training=True, batch=4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--network", "resnet20"], "which has its own"), (["--dimension", "x"], "NAME=SIZE"),
        (["--dimension", "x=-1"], "NAME=SIZE"), (["--adders", "no"], "no convolution"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    path = written(tmp_path, residual())
    assert run(str(path), "-o", str(tmp_path / "m.safetensors"), *words) == 2
    assert said in capsys.readouterr().err


def test_options_of_onnx_files_and_of_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "a.pth"
    other.write_bytes(b"PK")
    for words, said in (([], "--network"), (["--adders", "*"], "no ONNX model")):
        assert run(str(other), "-o", str(tmp_path / "m.safetensors"), *words) == 2
        assert said in capsys.readouterr().err
