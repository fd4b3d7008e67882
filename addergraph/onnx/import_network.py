"""ONNX files as networks: `ag.from_onnx` and `ag.graph_from_onnx`.

A network of f32 samples is a `Model`, which is what this project has for a network that came from
elsewhere (`addergraph import` writes its file): it predicts, trains on, is quantized and compiled.
An integer network of our own is a `Quantized`. Whatever else a file computes is a graph and its
weights, which `ag.compile` takes as well.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import border
from ..data.preprocessing import Preprocessing
from ..errors import AdderGraphError, DataError, GraphError
from ..ir import Array, Graph, Parameter, Value
from ..ir.op import POINTWISE
from ..ir.trace import trace
from ..ir.types import TensorType, f32
from ..ir.walk import upstream
from ..layers import BatchNorm
from ..model import Model
from ..model.pixels import with_preprocessing
from ..model.replay import Left, Replay
from ..model.samples import require_network, shapes_of
from ..quantization import Quantized
from .import_adders import with_adders
from .import_file import opset_of, read_model
from .import_graph import Imported, Wanted, imported
from .import_own import require_known_domain
from .metadata import read_preprocessing

if TYPE_CHECKING:
    import onnx

MOST_STEPS = 3  # in front of a network: cast, mul, add
NORM_OPERANDS = 5
LAYOUTS = ("NHWC", "NCHW")
Path = str | os.PathLike[str]


def from_onnx(
    path: Path,
    *,
    adders: Sequence[str] = (),
    dimensions: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Model | Quantized:
    """The network in the ONNX file `path`: a `Model`, or, of a file that `ag.to_onnx` wrote of an
    int8 network, a `Quantized`.

        adders      convolutions that become adder layers, by name: shell patterns, or "inner" for
                    all but the first, as in the paper. Their filters are N(0, 1) as new layers
                    have them, with the layer-adaptive rate of 0.2; their biases go. Each is
                    followed by a batch norm that begins anew, one that is there or a new one. The
                    other layers keep the numbers of the file
        dimensions  sizes of open dimensions other than the batch, by the file's names
        seed        of the filters of adder layers, and of the model

    Images are NHWC here, as all samples in this project: x[n,c,h,w] of the file is x[n,h,w,c], f32.
    A batch that all inputs have fixed, as exporters write it unless asked, becomes open; answers
    for one sample do not depend on it. Weights keep their names; see docs/onnx.md for the operators
    and for what a file may hold.

    Raises StorageError for a file that cannot be read, is damaged or is no ONNX model;
    UnsupportedError, naming the node, for what is not read here, and without the package onnx;
    GraphError and ShapeError, naming the node, for a graph that is not well formed, and GraphError
    for one that is no network of f32 samples (`ag.graph_from_onnx` reads those) and a pattern that
    no convolution has.
    """
    patterns = border.plain(Sequence[str], "adders", adders, GraphError)
    source = _read(path)
    found = _imported(path, source, Wanted(True, True, _sizes(dimensions)))
    known = read_preprocessing(path, source)
    if _is_quantized(found):
        return _quantized(path, found, known, patterns)
    if known is not None:
        found = _without_pixels(path, found, known)
    if patterns:
        found = with_adders(found, patterns, seed)
    return _model(path, found, known, seed)


def graph_from_onnx(
    path: Path, *, dimensions: Mapping[str, int] | None = None, layout: str = "NHWC"
) -> tuple[Graph, dict[str, Array]]:
    """The graph in the ONNX file `path`, of any inputs and outputs, and the numbers of its
    parameters: what `ag.compile(graph, weights=weights)` takes.

        dimensions  sizes of open dimensions other than the batch, by the file's names
        layout      "NHWC": inputs and outputs of 4 axes that are images have their channels last;
                    "NCHW": all are as in the file

    A batch is open where the file has it so, and fixed where it is. INT64 results are i32. Raises
    what `from_onnx` raises, and DataError for another layout.
    """
    if border.word("layout", layout) not in LAYOUTS:
        raise DataError(f"layout={border.shown(layout)} must be one of {', '.join(LAYOUTS)}")
    wanted = Wanted(False, layout == "NHWC", _sizes(dimensions))
    found = _imported(path, _read(path), wanted)
    return found.graph, found.weights


def _read(path: Path) -> onnx.ModelProto:
    source = read_model(path)
    require_known_domain(path, source)
    return source


def _imported(path: Path, source: onnx.ModelProto, wanted: Wanted) -> Imported:
    return imported(path, source, opset_of(path, source), wanted)


def _sizes(dimensions: object) -> dict[str, int]:
    given = border.mapping("dimensions", {} if dimensions is None else dimensions)
    made = {name: border.integer(f"the dimension {name}", size) for name, size in given.items()}
    if min(made.values(), default=1) < 1:
        raise DataError(f"dimensions={border.shown(dimensions)} must be sizes of at least 1")
    return made


# --- models ---------------------------------------------------------------------------------------


def _model(path: Path, found: Imported, known: Preprocessing | None, seed: int) -> Model:
    graph = found.graph
    fixed = [v for v in graph.inputs if v.type.shape[:1] != ("N",)]
    if fixed:
        raise GraphError(
            f'"{path}" takes {fixed[0]}: {fixed[0].type}, and a model any number of samples. '
            "Export it with an open batch (of our own files: without batch=), or read it as it is: "
            "graph, weights = ag.graph_from_onnx(path)"
        )
    try:
        require_network(graph)
    except GraphError as error:
        raise GraphError(
            f'"{path}": {error}. graph, weights = ag.graph_from_onnx(path) reads any graph'
        ) from None
    norms = [n for n in graph.nodes if n.op.normalizes and len(n.inputs) == NORM_OPERANDS]
    statistics = {n.name for n in norms if all(isinstance(v, Parameter) for v in n.inputs[1:])}
    momentum = dict.fromkeys(statistics, BatchNorm.momentum)  # files of our own do not say it
    momentum |= {name: m for name, m in found.momentum.items() if name in statistics}
    values = {v.name for v in graph.values()}
    left = {name: Left(*of) for name, of in found.dropouts.items() if of[0] in values}
    replay = Replay(graph, momentum, left)
    model = Model(name=graph.name, seed=seed)
    model.restore(graph, replay if _trains(replay) else None, border.bare(shapes_of(graph.inputs)))
    model.weights = found.weights
    model.preprocessing = known
    return model


def _trains(replay: Replay) -> bool:
    """Whether its training form can be built, with a batch that is bound."""
    types = [v.type.bind(2) for v in replay.graph.inputs]
    try:
        trace(replay, *types, name=replay.graph.name, training=True)
    except AdderGraphError:
        return False
    return True


# --- files of our own -----------------------------------------------------------------------------


def _without_pixels(path: Path, found: Imported, known: Preprocessing) -> Imported:
    """The network behind the nodes that `known` puts in front of it; GraphError where these are
    not what the file begins with."""
    graph = found.graph
    shapes = {v.name: tuple(int(d) for d in v.type.shape[1:]) for v in graph.inputs}
    image = known.input_of(shapes)
    (pixels,) = (v for v in graph.inputs if v.name == image)
    at: Value = pixels
    steps = []
    for _ in range(MOST_STEPS):
        readers = [n for n in graph.nodes if at in n.inputs]
        if len(readers) != 1 or len(readers[0].outputs) != 1:
            break
        steps.append(readers[0])
        (at,) = readers[0].outputs
    for count in range(len(steps), -1, -1):
        at = steps[count - 1].outputs[0] if count else pixels
        made = _beginning_with(graph, pixels, at)
        if _is_in_front(known, image, made, graph):
            kept = {p.name: found.weights[p.name] for p in made.parameters}
            return replace(found, graph=made, weights=kept)
    raise GraphError(
        f'"{path}" says how its pixels enter, but its first nodes do something else: it is '
        "damaged, or was changed. ag.graph_from_onnx reads it as it is"
    )


def _is_in_front(known: Preprocessing, image: str, made: Graph, graph: Graph) -> bool:
    """Whether `graph` is `made` behind the nodes of `known`."""
    try:
        return with_preprocessing(made, known, image)[0] == graph
    except AdderGraphError:  # a part of a network, which takes no image
        return False


def _beginning_with(graph: Graph, pixels: Value, at: Value) -> Graph:
    """The graph whose input stands in the place of `at`."""
    new = Value(pixels.name, TensorType(f32, pixels.type.shape))
    nodes = []
    for node in upstream(graph.nodes, graph.outputs, {at}):
        inputs = tuple(new if v in (at, pixels) else v for v in node.inputs)
        nodes.append(replace(node, inputs=inputs))
    read = {v for n in nodes for v in n.inputs}
    return replace(
        graph,
        inputs=tuple(new if v is pixels else v for v in graph.inputs),
        parameters=tuple(p for p in graph.parameters if p in read),
        nodes=tuple(nodes),
        outputs=tuple(new if v in (at, pixels) else v for v in graph.outputs),
    )


def _is_quantized(found: Imported) -> bool:
    inputs = found.graph.inputs
    return len(inputs) == 1 and inputs[0].type.quantization is not None


def _quantized(
    path: Path, found: Imported, known: Preprocessing | None, patterns: Sequence[str]
) -> Quantized:
    """The file does not hold how far its answers are from those of the float network: NaN."""
    if patterns:
        raise GraphError(f'"{path}" is an integer network: it has no convolutions to train')
    multiplies = any(n.op.kind == POINTWISE and n.op.multiplies for n in found.graph.nodes)
    chosen = "multiply" if multiplies else "shift"
    return Quantized(found.graph, found.weights, {chosen: math.nan}, chosen, known)
