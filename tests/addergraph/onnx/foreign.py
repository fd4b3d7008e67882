"""Small ONNX models as others write them, and what ONNX Runtime answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

from addergraph.ir import Array

Dims = Sequence[int | str | None]
TYPES = {"f4": TensorProto.FLOAT, "u1": TensorProto.UINT8, "i8": TensorProto.INT64}
node = helper.make_node


def model_of(
    nodes: Sequence[Any],
    numbers: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    opset: int = 17,
    dtype: str = "f4",
    **inputs: Dims,
) -> Any:
    """A model of these nodes and initializers; inputs by name, with their sizes."""
    graph = helper.make_graph(
        list(nodes), "net",
        [helper.make_tensor_value_info(n, TYPES[dtype], list(d)) for n, d in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in numbers.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def written(folder: Path, model: Any, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def answers(model: Any, **inputs: Array) -> list[Array]:
    """Of ONNX Runtime. Outputs without a type get one by shape inference."""
    ort = pytest.importorskip("onnxruntime")
    made = onnx.shape_inference.infer_shapes(model)
    known = {v.name: v for v in made.graph.value_info}
    for value in made.graph.output:
        if value.name in known:
            value.CopyFrom(known[value.name])
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, inputs)
    return found


def drawn(*shape: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32)
