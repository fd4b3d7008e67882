"""ONNX files are untrusted: each is read, or refused with one of our errors, in little time and
memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import GraphError, ShapeError, StorageError, UnsupportedError
from addergraph.onnx import import_file
from tests.addergraph.onnx.foreign import drawn, model_of, node, written
from tests.damage import flipped, ours, within
from tests.parsers import onnx_files

NBYTES, SECONDS = 256 << 20, 20.0


def small() -> Any:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])]
    return model_of(nodes, {"w": drawn(2, 3, 1, 1)}, ["y"], x=["n", 3, 4, 5])


def assert_refused(folder: Path, model: Any, error: type[Exception], said: str) -> None:
    path = folder / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with within(NBYTES, SECONDS), pytest.raises(error, match=said):
        ag.from_onnx(path)


@pytest.mark.parametrize("number", range(5))
def test_damaged_messages(tmp_path: Path, number: int) -> None:
    """`python -m tests.parsers onnx` has many more."""
    data = list(onnx_files.seeds())[number]
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    ag.graph_from_onnx(path)
    found = []
    for seed in range(40):
        path.write_bytes(onnx_files.damaged(data, seed))
        found.append(ours(ag.graph_from_onnx, path))
    assert any(found) and not all(found)


def test_damaged_bytes(tmp_path: Path) -> None:
    data, path = small().SerializeToString(), tmp_path / "m.onnx"
    found = []
    for damaged in flipped(data, 120):
        path.write_bytes(damaged)
        found.append(ours(ag.from_onnx, path))
    assert any(found)


def test_every_beginning_of_a_file(tmp_path: Path) -> None:
    data, path = small().SerializeToString(), tmp_path / "m.onnx"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert ours(ag.from_onnx, path), length


# --- the wire format ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no graph"), (b"\x89PNG\r\n\x1a\n", "damaged"), (b"\x08" + b"\xff" * 12, "no end"),
        (b"\x3a\xff\xff\xff\xff\x0f", "truncated"), (b"\x0b\x0c", "a field of kind 3"),
        (b"\x12\x02\xff\xfe", "producer_name is no text"), (b"\x08\x08", "no graph"),
    ],
)  # fmt: skip
def test_what_is_no_message(tmp_path: Path, data: bytes, said: str) -> None:
    assert_refused(tmp_path, data, StorageError, said)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes of a file that take hundreds of memory, and messages in messages in messages."""
    empty = b"\x0a\x00"  # a node without anything
    with monkeypatch.context() as fewer:
        fewer.setattr(import_file, "MOST_FIELDS", 1000)
        assert_refused(
            tmp_path, _message(7, empty * 1001), UnsupportedError, "more than 1,000 fields"
        )
    made = b""
    for _ in range(40):  # node.attribute.g.node ...: of a length below 128 each
        made = _message(1, _message(5, _message(6, made)))
    assert_refused(tmp_path, _message(7, made), UnsupportedError, "more than 32 deep")


def _message(number: int, content: bytes) -> bytes:
    length, head = len(content), bytearray([number << 3 | 2])
    while True:
        head.append((length & 0x7F) | (0x80 if length >> 7 else 0))
        length >>= 7
        if not length:
            return bytes(head) + content


def test_files_that_are_too_large_or_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, small())
    monkeypatch.setattr(import_file, "LARGEST", 10)
    with pytest.raises(UnsupportedError, match="at most 10 are read"):
        ag.from_onnx(path)
    monkeypatch.undo()
    for other in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(StorageError, match="cannot read"):
            ag.from_onnx(other)


# --- graphs ---------------------------------------------------------------------------------------


def _changed(change: Callable[[Any], object]) -> Any:
    made = small()
    change(made)
    return made


def _cycle(made: Any) -> None:
    made.graph.node[0].input[0] = "y"


def _no_weights(made: Any) -> None:
    del made.graph.initializer[:]


def _negative(made: Any) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -4


def _negative_weights(made: Any) -> None:
    made.graph.initializer[0].dims[0] = -2


def _short(made: Any) -> None:
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]


def _wrong_type(made: Any) -> None:
    made.graph.input[0].type.tensor_type.elem_type = 8


def _huge(made: Any) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 62


def _twice(made: Any) -> None:
    made.graph.node.add().CopyFrom(made.graph.node[0])


def _old(made: Any) -> None:
    made.opset_import[0].version = 6


def _new(made: Any) -> None:
    made.opset_import[0].version = 99


def _two_opsets(made: Any) -> None:
    made.opset_import.add().CopyFrom(made.opset_import[0])
    made.opset_import[1].version = 12


def _output(made: Any) -> None:
    made.graph.output[0].name = "z"


def _no_input(made: Any) -> None:
    del made.graph.input[:]


def _more_inputs(made: Any) -> None:
    made.graph.node[1].input.append("x")


def _strings(made: Any) -> None:
    made.graph.node[0].attribute.add(name="strides", type=3, s=b"abc")


BAD: list[tuple[Callable[[Any], object], type[Exception], str]] = [
    (_cycle, GraphError, 'reads "y" before it is made: nodes stand in order, without cycle'),
    (_no_weights, GraphError, 'reads "w", which no node makes and no input or initializer is'),
    (_negative, ShapeError, "has the size -4"), (_negative_weights, ShapeError, "has the size -2"),
    (_short, StorageError, "6 elements of FLOAT take 24 bytes, it has 20"),
    (_wrong_type, UnsupportedError, "of STRING; known: FLOAT"),
    (_huge, GraphError, "more than 1,099,511,627,776 elements"),
    (_twice, GraphError, 'makes "c" again'), (_old, UnsupportedError, "opset 6, .* reads 7 to 28"),
    (_new, UnsupportedError, "opset 99"), (_two_opsets, StorageError, "several opsets"),
    (_output, GraphError, 'nothing makes the output "z"'), (_no_input, GraphError, "no input"),
    (_more_inputs, StorageError, "it has 2 inputs, Relu takes 1"),
    (_strings, ag.AdderGraphError, "its attribute strides must be of the type INTS"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "said"), BAD, ids=[c.__name__ for c, _, _ in BAD])
def test_graphs_that_are_none(
    tmp_path: Path, change: Callable[[Any], object], error: type[Exception], said: str
) -> None:
    assert_refused(tmp_path, _changed(change), error, said)


LARGE = [
    (node("Reshape", ["x", "n"], ["y"]), {"n": np.array([1 << 40, 1 << 40])}, "does not fit"),
    (node("Expand", ["x", "n"], ["y"]), {"n": np.array([1 << 30] * 2 + [2, 3])}, "more than 1,099"),
    (node("ConstantOfShape", ["n"], ["y"]), {"n": np.array([1 << 40])}, "at most 1,048,576"),
    (node("Pad", ["x", "n"], ["y"]), {"n": np.array([0, 1 << 40, 0, 0])}, "larger than any"),
    (node("Pad", ["x", "n"], ["y"], mode="edge"), {"n": np.array([0, 1 << 30, 0, 0])}, "pads of"),
    (node("Resize", ["x", "", "n"], ["y"], mode="nearest"), {"n": np.array([1, 9e9], "f4")}, "89"),
    (node("Gather", ["x", "n"], ["y"], axis=1), {"n": np.zeros(1 << 17, "i8")}, "not so many"),
    (node("MaxPool", ["z"], ["y"], kernel_shape=[1 << 40]), {"z": drawn(1, 1, 9)}, "is none"),
    (node("AveragePool", ["z"], ["y"], kernel_shape=[1 << 22], pads=[1 << 23, 1 << 23]),
     {"z": drawn(1, 1, 9)}, "more than are counted"),
    (node("Range", ["a", "b", "c"], ["y"]),
     {"a": np.array(0), "b": np.array(1 << 60), "c": np.array(1)}, "numbers"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "numbers", "said"), LARGE, ids=[f"{n.op_type}{i}" for i, (n, *_) in enumerate(LARGE)]
)
def test_little_that_asks_for_much(tmp_path: Path, one: Any, numbers: Any, said: str) -> None:
    path = written(tmp_path, model_of([one], numbers, ["y"], x=[2, 3]))
    with within(NBYTES, SECONDS), pytest.raises(ag.AdderGraphError, match=said):
        ag.graph_from_onnx(path)


# --- files beside it ------------------------------------------------------------------------------


def external(location: str, **entries: int) -> Any:
    """The network with its filter in another file."""
    made = small()
    (tensor,) = made.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return made


def test_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"abc" + drawn(2, 3, 1, 1).tobytes() + b"z")
    path = written(tmp_path, external("w.bin", offset=3, length=24))
    _, weights = ag.graph_from_onnx(path)
    np.testing.assert_array_equal(weights["w"], drawn(2, 3, 1, 1).transpose(2, 3, 1, 0))


@pytest.mark.parametrize(
    "location",
    ["../w.bin", "/etc/passwd", "", "a/../../w.bin", "link", "folder", "none", "a\0b", "loop"],
)
def test_paths_that_leave_the_folder(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(bytes(24))
    os.symlink(tmp_path / "w.bin", inside / "link")
    os.symlink(inside / "loop", inside / "loop")
    assert_refused(inside, external(location), StorageError, 'the tensor "w" is kept outside, and')


@pytest.mark.parametrize(
    "entries", [{"offset": 20}, {"length": 99}, {"offset": -1}, {"length": 10**30}]
)
def test_parts_that_are_not_there(tmp_path: Path, entries: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(24))
    assert_refused(
        tmp_path, external("w.bin", **entries), StorageError, "w.bin|offset|length|damaged"
    )
