"""ONNX files to begin with, and damage that keeps them messages: changes of bytes alone hardly ever
come through the wire format."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import Model, layers
from addergraph.ir import Array

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 64, 255, 65536, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
MOST_CHANGES = 3
Made = tuple[list[Any], dict[str, Array], list[str]]  # nodes, initializers, outputs


def seeds() -> Iterator[bytes]:
    """Small networks of many operators, of integers, and of our own."""
    for nodes, numbers, outputs in (_images(), _sequences(), _integers(), _shapes()):
        yield _foreign(nodes, numbers, outputs).SerializeToString()
    model = Model(input_shape=(4, 4, 2), name="net")
    model.add(layers.Adder(3, kernel_size=3, padding=1))
    model.add(layers.BatchNorm())
    model.add(layers.Activation("relu"))
    model.add(layers.Conv(2, kernel_size=1))
    model.add(layers.GlobalAvgPool())
    model.add(layers.Dense(2))
    model.preprocessing = ag_preprocessing()
    yield ag.to_onnx(model).SerializeToString()


def ag_preprocessing() -> Any:
    from addergraph.data import Normalize, Preprocessing

    return Preprocessing(Normalize((0.5, 0.25), (1.0, 2.0)), classes=("a", "b"))


def _foreign(nodes: list[Any], numbers: dict[str, Array], outputs: list[str]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])
    graph = helper.make_graph(
        nodes, "g", [x], [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _images() -> Made:
    from onnx.helper import make_node as node

    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2),
        node("BatchNormalization", ["c", "b", "b", "b", "v"], ["n"], epsilon=1e-3),
        node("Clip", ["n", "", "six"], ["a"]),
        node("MaxPool", ["a"], ["m"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("AveragePool", ["m"], ["p"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
        node("Resize", ["p", "", "scales"], ["r"], mode="nearest"),
        node("Concat", ["r", "a"], ["k"], axis=1),
        node("GlobalAveragePool", ["k"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "d", "t"], ["y"], transB=1, alpha=0.5),
        node("Softmax", ["y"], ["s"], axis=-1),
        node("ArgMax", ["y"], ["i"], axis=1, keepdims=0),
    ]
    rng = np.random.default_rng(0)
    numbers = {
        "w": rng.normal(size=(4, 1, 3, 3)), "b": rng.normal(size=4), "v": np.ones(4),
        "six": np.array(6.0), "scales": np.array([1.0, 1.0, 2.0, 2.0]),
        "d": rng.normal(size=(3, 8)), "t": rng.normal(size=(1, 3)),
    }  # fmt: skip
    return nodes, {name: array.astype(np.float32) for name, array in numbers.items()}, ["s", "i"]


def _sequences() -> Made:
    from onnx.helper import make_node as node

    nodes = [
        node("Reshape", ["x", "three"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "m"], ["k"]),
        node("HardSwish", ["k"], ["h"]),
        node("MatMul", ["h", "t"], ["o"]),
        node("ReduceMean", ["o"], ["e"], axes=[1], keepdims=0),
        node("LeakyRelu", ["e"], ["l"], alpha=0.1),
        node("Split", ["l", "parts"], ["p", "q"], axis=1),
        node("Mul", ["p", "q"], ["y"]),
        node("Dropout", ["y"], ["z"]),
    ]
    numbers: dict[str, Array] = {
        "three": np.array([0, 4, -1]), "m": np.eye(4, 8, dtype=np.float32),
        "parts": np.array([2, 2]),
    }  # fmt: skip
    return nodes, numbers, ["z"]


def _integers() -> Made:
    from onnx.helper import make_node as node

    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"], ["c"],
             pads=[1, 1, 0, 0]),
        node("Flatten", ["c"], ["f"]),
        node("QLinearMatMul", ["f", "s", "z", "m", "s", "mz", "s", "z"], ["k"]),
        node("DequantizeLinear", ["k", "s", "z"], ["y"]),
    ]  # fmt: skip
    numbers: dict[str, Array] = {
        "s": np.array(0.25, np.float32), "z": np.array(3, np.uint8),
        "w": np.arange(24, dtype=np.uint8).reshape(3, 2, 2, 2),
        "ws": np.array([0.5, 1, 2], np.float32), "wz": np.array([1, 2, 3], np.uint8),
        "b": np.array([1, -2, 3], np.int32),
        "m": np.arange(96, dtype=np.int8).reshape(48, 2), "mz": np.array(0, np.int8),
    }  # fmt: skip
    return nodes, numbers, ["y"]


def _shapes() -> Made:
    from onnx import helper
    from onnx.helper import make_node as node

    one = helper.make_tensor("one", 7, [1], [1])
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Constant", [], ["rest"], value=helper.make_tensor("rest", 7, [1], [-1])),
        node("Unsqueeze", ["n", "zero1"], ["n1"]),
        node("Concat", ["n1", "rest"], ["to"], axis=0),
        node("Pad", ["x", "pads"], ["p"], mode="reflect"),
        node("Slice", ["p", "zero1", "two", "one"], ["c"]),
        node("Reshape", ["c", "to"], ["f"]),
        node("Where", ["condition", "f", "number"], ["y"]),
        node("Cast", ["y"], ["z"], to=6),
    ]
    numbers: dict[str, Array] = {
        "zero": np.array(0), "zero1": np.array([0]), "two": np.array([1]), "one": np.array([1]),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "condition": np.array(True),
        "number": np.array(2.5, np.float32),
    }  # fmt: skip
    assert one.dims
    return nodes, numbers, ["z"]


# --- damage ---------------------------------------------------------------------------------------


def damaged(data: bytes, seed: int) -> bytes:
    """The message with a few fields changed: numbers, names, parts taken out, twice, elsewhere."""
    import onnx

    rng = random.Random(seed)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.randint(1, MOST_CHANGES)):
        _change(rng, _somewhere(rng, model))
    return bytes(model.SerializeToString())


def _somewhere(rng: random.Random, message: Any) -> Any:
    """A message in the message."""
    while True:
        inner: list[Any] = []
        for field, value in message.ListFields():
            if field.message_type is not None:
                inner += list(value) if _repeated(field) else [value]
        if not inner or rng.random() < 0.15:
            return message
        message = rng.choice(inner)


def _repeated(field: Any) -> bool:
    """Of any protobuf there is: older ones say it by a label."""
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def _change(rng: random.Random, message: Any) -> None:
    fields = list(message.DESCRIPTOR.fields)
    known = [field for field, _ in message.ListFields()]
    field = rng.choice(known if known and rng.random() < 0.85 else fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type is not None:
        _change_messages(rng, message, field)
    elif _repeated(field):
        _change_list(rng, getattr(message, field.name), field)
    else:
        setattr(message, field.name, _another(rng, field, getattr(message, field.name)))


def _change_messages(rng: random.Random, message: Any, field: Any) -> None:
    if not _repeated(field):
        getattr(message, field.name).SetInParent()
        return
    items = getattr(message, field.name)
    change = rng.randrange(3)
    if not len(items) or change == 0:
        items.add()
    elif change == 1:
        del items[rng.randrange(len(items))]
    else:
        items.add().CopyFrom(items[rng.randrange(len(items))])


def _change_list(rng: random.Random, items: Any, field: Any) -> None:
    if not len(items) or rng.random() < 0.3:
        items.append(_another(rng, field, None))
    elif rng.random() < 0.3:
        del items[rng.randrange(len(items))]
    else:
        at = rng.randrange(len(items))
        items[at] = _another(rng, field, items[at])


def _another(rng: random.Random, field: Any, value: Any) -> Any:
    """Another value of the field's type."""
    if field.type == field.TYPE_STRING:
        words = ("", "x", "w", "y", "axes", "Conv", "Add", "Reshape", "Loop", "addergraph", "../x")
        return rng.choice((*words, f"{value}2"))
    if field.type == field.TYPE_BYTES:
        old = bytes(value or b"abcd")
        return rng.choice((b"", old[:-1], old + b"\0", old * 2, bytes(reversed(old)), b"\xff" * 8))
    if field.enum_type is not None:
        return rng.choice([v.number for v in field.enum_type.values])
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice(REALS)
    small = field.type == field.TYPE_INT32
    number = rng.choice(NUMBERS)
    if field.type == field.TYPE_UINT64:
        return abs(number) % (1 << 63)
    return max(-(1 << 31), min((1 << 31) - 1, number)) if small else number
