"""Every op of inference in ONNX Runtime, and the forms of adder layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import StorageError, UnsupportedError
from addergraph.ir import Graph, registry
from addergraph.ir.text_attributes import shown_attributes
from addergraph.onnx import attributes, export_adders, export_rules
from addergraph.onnx.export_functions import BODIES
from benchmarks.onnx_zoo import OnnxProgram
from tests.addergraph.onnx.runtime import assert_within_bounds, checked, drawn, graph_of
from tests.addergraph.op_samples import ALL, Sample, identify

# Of sigmoid: ONNX Runtime's is a rational function whose relative error grows where it is small.
LOOSE = {"sigmoid": 1e-6}
WRITTEN = {op.name for op in (*export_rules._RULES, *BODIES)}
TRAINING = {
    "adder2d_grad_filter", "adder2d_grad_input", "adder_dense_grad_filter",
    "adder_dense_grad_input", "avg_pool2d_grad", "batch_norm_statistics", "completed",
    "conv2d_grad_filter", "conv2d_grad_input", "dropout", "fused", "max_pool2d_grad",
    "mean_squared_error", "replica_mean", "softmax_cross_entropy",
}  # fmt: skip


def test_every_op_is_exported_or_belongs_to_training() -> None:
    assert set(registry()) == WRITTEN | TRAINING
    assert not WRITTEN & TRAINING


def _is_alone(sample: Sample) -> bool:
    """Whether a graph of this op alone can be exported: a batch needs an input, a proof needs a
    relu, and every tensor elements."""
    if sample.op.name not in WRITTEN or getattr(sample.op, "input_nonnegative", False):
        return False
    (made,) = sample.op.infer(*sample.types)
    empty = any(0 in type.shape for type in (*sample.types, made))
    return not empty and (sample.is_open or not made.is_open)


SAMPLES = [sample for sample in ALL if _is_alone(sample)]


@pytest.mark.thinned(8)
@pytest.mark.parametrize("parameters", [False, True], ids=["inputs", "parameters"])
@pytest.mark.parametrize("sample", SAMPLES, ids=identify)
def test_every_op_in_onnx_runtime(sample: Sample, parameters: bool) -> None:
    graph = graph_of(sample, parameters)
    weights = drawn(graph)
    if sample.op.name not in LOOSE:
        assert_within_bounds(graph, weights=weights)
        return
    program = OnnxProgram(graph, weights=weights)
    x = [np.asarray(np.linspace(-20, 20, v.type.bind(4).elements), "f4") for v in graph.inputs]
    x = [a.reshape(v.type.bind(4).sizes) for a, v in zip(x, graph.inputs, strict=True)]
    expected = ag.interpret(graph, *x)
    np.testing.assert_allclose(program.run(x)[0], expected, atol=LOOSE[sample.op.name])


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_ops_of_training_are_refused_by_name_and_place(name: str) -> None:
    sample = next(s for s in ALL if s.op.name == name)
    with pytest.raises(UnsupportedError, match=f'{name} "y.*" of graph "one" has no form in ONNX'):
        ag.to_onnx(graph_of(sample.bound(), False))


@pytest.mark.parametrize("sample", [s for s in ALL if s.op.name != "fused"], ids=identify)
def test_attributes_come_back(sample: Sample) -> None:
    made = attributes.encoded(sample.op)
    name = attributes.function_name(sample.op.name, 3)
    assert shown_attributes(attributes.decoded(name, made)) == shown_attributes(sample.op)
    assert attributes.op_name(name) == sample.op.name


def _attribute(name: str, value: Any) -> Any:
    from onnx import helper

    return helper.make_attribute(name, value)


@pytest.mark.parametrize(
    ("op", "given", "match"),
    [
        ("adder3d", {}, 'unknown op "adder3d".*did you mean "adder2d'),
        ("adder2d__2", {"strides": [1, 1]}, 'no attribute "strides".*did you mean "stride"'),
        ("adder2d", {"stride": 1}, "stride must be an INT, several; found"),
        ("adder2d", {"groups": [1, 1]}, "groups must be an INT; found"),
        ("adder2d", {"gradient": "sign", "input_nonnegative": 2}, "must be an INT, 0 or 1"),
        ("batch_norm", {"epsilon": 0.5}, "epsilon must be a TENSOR of DOUBLE; found"),
        ("cast", {"dtype": "f16"}, "dtype must be a STRING, the name of a dtype"),
        ("clip", {}, "missing 2 required positional arguments: 'lo' and 'hi'"),
        ("requantize_shift", {"lo": 3, "hi": "x"}, "hi must be an INT; found"),
        ("fused", {}, "has a graph for its attribute"),
    ],
)
def test_damaged_attributes(op: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(StorageError, match=match):
        attributes.decoded(op, [_attribute(name, value) for name, value in given.items()])


@pytest.mark.parametrize("value", [0.1, 1e-5, 6.0, -0.0, 0.0, float("inf"), 0.25, 1e38])
def test_short_numbers_come_back_from_floats(value: float) -> None:
    found = attributes.from_float(float(np.float32(value)))
    assert attributes.short(value) and attributes.same(found, value)


@pytest.mark.parametrize("value", [1 / 3, 0.1 + 1e-12, 1e300, float(np.float32(0.1))])
def test_long_numbers_are_called_so(value: float) -> None:
    assert not attributes.short(value)


def test_axes_and_sides_of_images_are_those_of_their_layout() -> None:
    """Behind a convolution, so in NCHW: channels, and a padding that differs on every side."""
    graph = ag.parse("""graph g(%x: f32[N,9,8,3]) params(
      %f: f32[3,2,3,5], %mean: f32[5], %variance: f32[5], %gamma: f32[5], %beta: f32[5]
    ) {
      %w = conv2d(%x, %f) padding=(2,0,1,0) : f32[N,9,8,5]
      %c = batch_norm(%w, %mean, %variance, %gamma, %beta) epsilon=0.001 : f32[N,9,8,5]
      %m = max_pool2d(%c) window=(3,2) stride=(1,1) padding=(2,1,0,1) : f32[N,10,8,5]
      %a = avg_pool2d(%c) window=(3,2) stride=(1,1) padding=(1,2,1,0) : f32[N,10,8,5]
      %p = pad(%c) before=(0,1,0,2) after=(0,0,3,1) value=0.5 : f32[N,10,11,8]
      %j = concat(%m, %a) axis=3 : f32[N,10,8,10]
      %s = softmax(%j) : f32[N,10,8,10]
      %l = slice(%s) start=(0,1,2,3) stop=(N,9,8,7) : f32[N,8,6,4]
      %r = reduce_max(%p) axes=(1,3) keepdims=true : f32[N,1,11,1]
      return %l, %p, %r
    }""")
    assert_within_bounds(graph, weights=drawn(graph))


# --- adder layers ---------------------------------------------------------------------------------


def _adder(
    size: tuple[int, int], channels: tuple[int, int], kernel: tuple[int, int], *, groups: int = 1,
    stride: tuple[int, int] = (1, 1), padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1), dtype: str = "f32", bias: bool = False,
) -> Graph:  # fmt: skip
    types = [
        ag.tensor(dtype, ("N", *size, channels[0])),
        ag.tensor(dtype, (*kernel, channels[0] // groups, channels[1])),
        *([ag.tensor("f32" if dtype == "f32" else "i32", (channels[1],))] * bias),
    ]

    def layer(x: Any, f: Any, b: Any = None) -> Any:
        return ag.ops.adder2d(
            x, f, b, stride=stride, padding=padding, dilation=dilation, groups=groups
        )

    if bias:
        return ag.trace(layer, *types)
    return ag.trace(lambda x, f: layer(x, f), *types)


FORMS = {
    "terms in one step": _adder((3, 3), (4, 8), (3, 3), bias=True),
    "terms in steps": _adder((11, 11), (128, 128), (1, 1), bias=True),
    "channels": _adder((11, 10), (32, 256), (1, 1), bias=True),
    "few terms": _adder((2, 2), (2, 512), (2, 1), padding=(1, 0, 0, 0)),
    "positions": _adder((16, 16), (2, 3), (3, 3), padding=(1, 1, 1, 1), bias=True),
    "positions, some channels": _adder((64, 64), (1, 16), (2, 2), bias=True),
    "stride and dilation": _adder(
        (9, 12), (3, 5), (3, 2), stride=(2, 3), dilation=(2, 1), padding=(0, 1, 2, 1)
    ),
    "groups": _adder((12, 12), (6, 9), (3, 3), groups=3, bias=True),
    "depthwise": _adder((5, 5), (8, 8), (3, 3), groups=8, padding=(1, 1, 1, 1)),
    "depthwise, two each": _adder((5, 5), (4, 8), (3, 3), groups=4, stride=(2, 2), bias=True),
    "bytes": _adder((6, 6), (3, 4), (3, 3), dtype="u8", padding=(1, 1, 1, 1), bias=True),
    "bytes beyond what f32 holds": _adder((1, 1), (70000, 2), (1, 1), dtype="u8", bias=True),
    "bytes by positions": _adder((13, 13), (2, 4), (3, 3), dtype="u8", groups=2),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_adder_layers(form: str) -> None:
    assert_within_bounds(FORMS[form], samples=3)


def _shapes(file: str) -> Iterator[list[int]]:
    """Of every result that a run made, those of steps included."""
    for event in json.loads(Path(file).read_text()):
        for tensor in event.get("args", {}).get("output_type_shape", []):
            yield from tensor.values()


@pytest.mark.parametrize("form", FORMS)
def test_no_tensor_is_larger_than_stated(form: str, tmp_path: Path) -> None:
    """Those of steps included, which the profile of a run tells."""
    import onnxruntime

    graph = FORMS[form].bind(1)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "run")
    session = onnxruntime.InferenceSession(
        ag.to_onnx(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {v.name: np.ones(v.type.sizes, v.type.dtype.numpy) for v in graph.inputs})
    largest = max(int(np.prod(shape)) for shape in _shapes(session.end_profiling()))
    assert 0 < largest <= _stated(graph)
    if form in ("terms in steps", "positions", "positions, some channels", "channels"):
        made = graph.outputs[0].type
        assert largest < made.elements * graph.inputs[1].type.elements // made.sizes[-1]


def _stated(graph: Graph) -> int:
    """The largest of a step over terms, result, padded input, and taps side by side."""
    x, f, y = (v.type.sizes for v in (*graph.inputs[:2], *graph.outputs))
    op: Any = graph.nodes[0].op
    top, bottom, left, right = op.padding
    positions, terms = y[1] * y[2], f[0] * f[1] * f[2]
    in_terms = op.groups == 1 and export_adders.largest_step(positions, y[3], terms)
    padded = (x[1] + top + bottom) * (x[2] + left + right) * x[3]
    step = export_adders.STEP if in_terms else 0
    taps, filters = f[0] * f[1] * x[3] * positions, f[0] * f[1] * f[2] * f[3]
    return int(max(step, positions * y[3], padded, taps, filters))


def test_bodies_are_shared_by_layers_of_one_form() -> None:
    text = """graph two(%x: f32[N,4,4,2]) params(%f: f32[1,1,2,2], %g: f32[1,1,2,2]) {
      %a = adder2d(%x, %f) : f32[N,4,4,2]
      %b = adder2d(%a, %g) : f32[N,4,4,2]
      %c = adder2d(%b, %g) stride=(2,2) : f32[N,2,2,2]
      return %c
    }"""
    graph = ag.parse(text)
    model = checked(ag.to_onnx(graph, weights=drawn(graph)))
    assert [f.name for f in model.functions] == ["adder2d", "adder2d__2"]
    assert [n.op_type for n in model.graph.node] == ["adder2d", "adder2d", "adder2d__2"]
