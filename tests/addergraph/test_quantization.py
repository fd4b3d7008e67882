"""Scale and zero point: in types, in text, and as `check` follows it through a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import ops
from addergraph.data import Normalize, Seen
from addergraph.errors import GraphError, ParseError, ShapeError, StorageError
from addergraph.files import storage
from addergraph.ir import Graph, Init
from addergraph.ir.check import check
from addergraph.ir.quantization import Quantization, value_quantizations
from addergraph.ir.trace import Tensor, new_parameter
from addergraph.ir.types import TensorType, i32, u8
from addergraph.quantization import Quantized, load_quantized

TEXT = """\
graph net(%x: u8[N,4,4,2] scale=0.25) params(
  %f: u8[3,3,2,3] scale=0.25 init=zeros fixed,
  %c: i32[3] init=zeros fixed,
  %t: i32[3] init=zeros fixed
) {
  %y = adder2d(%x, %f) padding=(1,1,1,1) : i32[N,4,4,3]
  %z = requantize_shift(%y, %c, %c, %c, %t) lo=3 hi=255 scale=0.5 zero_point=3 : u8[N,4,4,3]
  %p = max_pool2d(%z) window=(2,2) stride=(2,2) : u8[N,2,2,3]
  %flat = flatten(%p) : u8[N,12]
  %wide = cast(%flat) dtype=i32 : i32[N,12]
  return %y, %wide
}"""
IMAGE = TensorType(u8, ("N", 4, 4, 2), Quantization(0.25))
ZERO = Quantization(0.25, 7)


def traced(function: Callable[[Tensor], Tensor], image: TensorType = IMAGE) -> Graph:
    return ag.trace(function, image, name="net")


def filter_of(x: Tensor, quantization: Quantization | None) -> Tensor:
    return new_parameter(x, "f", TensorType(u8, (3, 3, 2, 3), quantization), Init())


def test_text_round_trip() -> None:
    graph = ag.parse(TEXT)
    assert str(graph) == TEXT
    assert ag.parse(str(graph.bind(2))) == graph.bind(2)
    assert graph.inputs[0].type.quantization == Quantization(0.25)
    assert graph.inputs[0].type == TensorType(u8, ("N", 4, 4, 2))  # shape rules see no difference
    shifted = "graph g(%x: i8[2] scale=1 zero_point=-3) {\n  return %x\n}"
    assert str(ag.parse(shifted)) == shifted
    assert ag.parse(shifted) != ag.parse(shifted.replace("-3", "3"))


def test_it_follows_the_ops() -> None:
    known = value_quantizations(ag.parse(TEXT))
    assert known["y"] == Quantization(0.25)
    assert known["z"] == known["p"] == known["flat"] == known["wide"] == Quantization(0.5, 3)
    assert known["c"] is None


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: ops.adder2d(x, filter_of(x, Quantization(0.5))),
         r"the input and the filter of an adder need one scale.*scale=0\.25 and scale=0\.5"),
        (lambda x: ops.adder2d(x, filter_of(x, ZERO)), r"scale=0\.25 and scale=0\.25 zero_point=7"),
        (lambda x: ops.concat([x, new_parameter(x, "f", TensorType(u8, (1,), None), Init())], 3),
         r"concat"),
        (lambda x: ops.cast(x, "i32") + new_parameter(
            x, "b", TensorType(i32, (2,), Quantization(1.0)), Init()),
         r'add "add".*integers that are added need one scale'),
    ],
)  # fmt: skip
def test_what_does_not_agree_is_refused(net: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises((GraphError, ShapeError), match=message):
        traced(net)


def test_zero_points() -> None:
    image = TensorType(u8, ("N", 4, 4, 2), ZERO)
    fine = traced(lambda x: ops.adder2d(x, filter_of(x, ZERO)), image)
    assert value_quantizations(fine)["adder2d"] == Quantization(0.25)  # it cancels
    with pytest.raises(GraphError, match=r"padding=\(1, 1, 1, 1\) pads with byte 0.*ops\.pad"):
        traced(lambda x: ops.adder2d(x, filter_of(x, ZERO), padding=1), image)
    with pytest.raises(GraphError, match=r"their zero points would be"):
        traced(lambda x: ops.cast(x, "i32") + 1, image)


def test_what_says_nothing_fits_any() -> None:
    check(traced(lambda x: ops.adder2d(x, filter_of(x, None), padding=1)))


def test_only_integers_have_a_scale() -> None:
    with pytest.raises(ShapeError, match=r"f32\[3\] has scale=1.0: only integers"):
        ag.tensor("f32", (3,), Quantization(1.0))
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ShapeError, match="must be positive and finite"):
            Quantization(scale)
    for text, message in (
        ("scale=0 init", r"scale=0.0 must be positive"),
        ("scale=x init", r"expected a number"),
        ("scale=1 zero_point=1.5 init", r"expected an integer"),
    ):
        with pytest.raises(ParseError, match=message):
            ag.parse(TEXT.replace("scale=0.25 init", text))
    with pytest.raises(ParseError, match=r"only integers"):
        ag.parse("graph g(%x: f32[2] scale=1) {\n  return %x\n}")


def test_a_sum_that_could_leave_i32_is_refused_with_the_numbers() -> None:
    x, f = ag.tensor("u8", ("N", 9_000_000)), ag.tensor("u8", (9_000_000, 1))
    with pytest.raises(ShapeError, match=r"sums 9,000,000 distances.*2,295,000,000.*8,421,504"):
        ag.trace(ops.adder_dense, x, f)


def test_numbers_round_and_saturate() -> None:
    known = Quantization(0.5, 10)
    values = np.array([-99.0, -0.25, 0.0, 0.25, 0.75, np.nan, np.inf], np.float32)
    assert known.quantized(values, 0, 255).tolist() == [0, 10, 10, 10, 12, 10, 255]
    assert known.values(np.array([0, 10, 13], np.uint8)).tolist() == [-5.0, 0.0, 1.5]


# --- files ----------------------------------------------------------------------------------------


def network() -> Quantized:
    graph = ag.parse(TEXT)
    weights = {p.name: np.ones(p.type.sizes, p.type.dtype.numpy) for p in graph.parameters}
    return Quantized(graph, weights, {"shift1": 0.25, "multiply": 0.125}, "shift1")


def test_a_file_holds_the_network(tmp_path: Path) -> None:
    made = network()
    made.save(tmp_path / "q.safetensors")
    again = load_quantized(tmp_path / "q.safetensors")
    assert (again.graph, again.errors, again.chosen) == (made.graph, made.errors, "shift1")
    assert again.error == 0.25 and again.seen == Seen()  # as of files that say nothing of it
    seen = Seen(Normalize((0.1, 0.2), (0.3, 0.4), 0.5), ("cat", "dog", "bird"))
    replace(made, seen=seen).save(tmp_path / "q.safetensors")
    assert load_quantized(tmp_path / "q.safetensors").seen == seen
    assert all((again.weights[k] == w).all() for k, w in made.weights.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is no quantized network"),
        ({"version": "2"}, "format version 2"),
        ({"graph": "graph"}, "expected"),
        ({"graph": "graph g(%x: u8[N]) {\n  return %x\n}"}, "one input with a scale"),
        ({"errors": "[1"}, 'the entry "errors" is not JSON'),
        ({"chosen": "shift2"}, 'do not name "shift2"'),
        ({"seen": '{"classes": 3}'}, "safetensors.*classes in what .* are no list of names"),
    ],
)
def test_foreign_and_damaged_files(tmp_path: Path, change: dict[str, str], message: str) -> None:
    made = network()
    metadata = {"format": "addergraph.quantized", "version": "1", "graph": TEXT,
                "errors": '{"shift1": 0.5}', "chosen": "shift1"}  # fmt: skip
    storage.save(tmp_path / "q.safetensors", made.weights, metadata | change)
    with pytest.raises(StorageError, match=message):
        load_quantized(tmp_path / "q.safetensors")


def test_inputs_and_outputs() -> None:
    made = network()
    x = np.full((1, 4, 4, 2), 0.5)
    assert (made.inputs(x) == 2).all()
    assert made.outputs(np.full((1, 4, 4, 3), -4, np.int32)).tolist()[0][0][0] == [-1.0] * 3
    with pytest.raises(ag.errors.DataError, match="real numbers"):
        made.inputs([["a"]])
    with pytest.raises(ShapeError, match=r"found the shape \[1,4\]"):
        made.inputs(np.zeros((1, 4)))
