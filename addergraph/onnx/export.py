"""`ag.to_onnx`: a network as an ONNX model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import __version__, border
from ..data import preprocessing
from ..errors import UnsupportedError
from ..files import storage
from ..ir import Array, Graph
from ..ir.check import check
from ..ir.network import Network, graph_and_weights, require_weights
from ..ir.state import bind_weights
from .attributes import DOMAIN, DOMAIN_VERSION
from .export_rules import write_node
from .export_writer import OPSET, Writer
from .metadata import entries_of
from .package import require_onnx

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # of opset 21; later ones say nothing that is used here
LIMIT = (1 << 31) - 1  # bytes of a protobuf message
_ROOM = 1 << 24  # of them for all but the numbers of parameters


def to_onnx(
    network: Graph | Network,
    path: str | os.PathLike[str] | None = None,
    *,
    weights: Mapping[str, Array] | None = None,
    batch: int | None = None,
    inline: bool = False,
) -> onnx.ModelProto:
    """The network that predicts as an ONNX model, which is written to `path` where one is given.

        network  a model, an int8 model of `ag.quantize`, or a graph
        weights  the numbers of a graph's parameters; models bring their own
        batch    binds the batch; unless given it stays the symbolic dimension N
        inline   write the bodies of functions in place of their calls, for runtimes without
                 functions; such a file does not tell what its layers are

    Opset 21, IR version 10. Inputs and outputs are those of the graph (NHWC, their names), the
    preprocessing of a model included: it takes pixels. Integers are equal to the bit, floats within
    the bounds of `ag.verify`. docs/onnx.md says how ops, names and metadata stand in the file.

    Raises UnsupportedError without the package onnx, for an op of training, naming the node, and
    for numbers that no ONNX file holds (2 GiB); DataError for missing weights; StorageError where
    `path` cannot be written.
    """
    require_onnx("writing an ONNX model")
    batch = border.plain(int | None, "batch", batch)
    inline = border.flag("inline", inline)
    if path is not None:
        storage.require_writable(path)
    graph, numbers = graph_and_weights(network, weights)
    if batch is not None:
        graph = graph.bind(batch)
    check(graph)
    _require_exportable(graph)
    numbers = bind_weights(
        f'graph "{graph.name}"', graph.parameters, require_weights(graph, numbers)
    )
    model = _model(graph, numbers, _metadata(network, graph))
    if inline:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    if path is not None:
        storage.atomic_write(path, model.SerializeToString(deterministic=True))
    return model


def _require_exportable(graph: Graph) -> None:
    """UnsupportedError for a training step, for nothing at all, and for more than a file holds."""
    if graph.updates:
        raise UnsupportedError(
            f'graph "{graph.name}" updates parameters, as a training step does, which ONNX cannot '
            "say: export the graph that predicts"
        )
    if not graph.outputs:
        raise UnsupportedError(f'graph "{graph.name}" has no outputs: nothing to export')
    empty = next((v for v in graph.values() if 0 in v.type.shape), None)
    if empty is not None:
        raise UnsupportedError(
            f'{empty}: {empty.type} of graph "{graph.name}" has no elements, which runtimes of '
            "ONNX refuse or compute in ways of their own: leave it out"
        )
    size = sum(p.type.nbytes for p in graph.parameters)
    if size > LIMIT - _ROOM:
        largest = max(graph.parameters, key=lambda p: p.type.nbytes)
        raise UnsupportedError(
            f'graph "{graph.name}" has {size:,} bytes of parameters ({largest} alone '
            f"{largest.type.nbytes:,}), and an ONNX file holds {LIMIT:,} (a limit of protobuf); "
            "files with external data are not written: quantize it, or export a C library"
        )


def _model(
    graph: Graph, weights: Mapping[str, Array], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    from onnx import helper

    writer = Writer(graph, weights)
    for node in graph.nodes:
        write_node(writer, node)
    made = writer.finish()
    functions = [f for forms in writer.functions.values() for f in forms.values()]
    domains = [("", OPSET), *([(DOMAIN, DOMAIN_VERSION)] if functions else [])]
    model = helper.make_model(
        made, functions=functions, ir_version=IR_VERSION, producer_name="addergraph",
        producer_version=__version__, opset_imports=[helper.make_opsetid(*d) for d in domains],
    )  # fmt: skip
    helper.set_model_props(model, dict(metadata))
    return model


def _metadata(network: object, graph: Graph) -> dict[str, str]:
    """What a user of the file has to know of its pixels, classes and integers."""
    known = None if isinstance(network, Graph) else preprocessing.declared_by(network)
    return entries_of(graph, known)
