"""ONNX files as networks: `ag.from_onnx` and `ag.graph_from_onnx`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import border
from ..errors import AdderGraphError, GraphError
from ..ir import Array, Graph
from .import_file import opset_of, read_model
from .import_graph import Imported, Wanted, imported
from .import_own import require_known_domain


def graph_from_onnx(
    path: str | os.PathLike[str],
    *,
    dimensions: Mapping[str, int] | None = None,
    layout: str = "NHWC",
) -> tuple[Graph, dict[str, Array]]:
    x = _read(path, Wanted(False, layout == "NHWC", dict(dimensions or {})))
    return x.graph, x.weights


def _read(path: str | os.PathLike[str], wanted: Wanted) -> Imported:
    model = read_model(path)
    require_known_domain(path, model)
    return imported(path, model, opset_of(path, model), wanted)
