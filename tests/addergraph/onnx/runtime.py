"""Exported networks in ONNX Runtime, for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

import addergraph as ag
from addergraph.ir import Array, Builder, Graph, Init, Parameter, Value
from addergraph.ir.types import f32
from benchmarks.onnx_zoo import OnnxProgram
from tests.addergraph.op_samples import Sample


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, which ONNX's checker and its strict shape inference take; with inferred types."""
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def assert_within_bounds(network: Any, samples: int = 6, **options: Any) -> OnnxProgram:
    """The network in ONNX Runtime, verified: integers equal, floats within the proven bounds."""
    checked(ag.to_onnx(network, **options))
    program = OnnxProgram(network, **options)
    ag.verify(program.graph, program, samples=samples, layers=False).raise_for_failure()
    return program


def graph_of(sample: Sample, parameters: bool) -> Graph:
    """The op alone; operands behind the first that have no batch are parameters, or inputs."""
    builder, operands = Builder("one"), list[Value]()
    for place, type in enumerate(sample.types):
        if parameters and place and not type.is_open:
            operands.append(builder.parameter(Parameter(f"p{place}", type, Init())))
        else:
            operands.append(builder.input(f"x{place}", type))
    return builder.finish(builder.add(sample.op, operands, "y"))


def drawn(graph: Graph, seed: int = 0) -> Mapping[str, Array]:
    """Numbers for parameters: of f32 positive, which variances have to be."""
    rng = np.random.default_rng(seed)
    return {
        p.name: np.asarray(
            rng.uniform(0.1, 2, p.type.sizes)
            if p.type.dtype == f32
            else rng.integers(0, 100, p.type.sizes),
            p.type.dtype.numpy,
        )
        for p in graph.parameters
    }
