"""A trained network for other classes: all but its last dense layer, and what follows that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from ..data.preprocessing import Preprocessing
from ..errors import ShapeError, UnsupportedError
from ..ir import Array, Graph, Node, Parameter
from ..ir.op import CONTRACTION
from ..ir.state import initial_weights
from ..ir.types import TensorType
from ..ir.walk import downstream
from ..layers import AdderDense, Dense, Layer
from ..ops.pointwise.fake_quantize import stated
from ..settings import integer
from .freezing import with_parameters
from .replay import Replay, replay_of
from .samples import with_names

M = TypeVar("M", bound="Transferable")


class Transferable(Protocol):
    """What `Model` has of this, each as documented there."""

    layers: list[Layer]
    seed: int

    @property
    def preprocessing(self) -> Preprocessing | None: ...

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing | None) -> None: ...

    @property
    def weights(self) -> dict[str, Array]: ...

    @weights.setter
    def weights(self, values: Mapping[str, Array]) -> None: ...

    def graph(self, training: bool, batch: int | None = None) -> Graph: ...

    def unfreeze(self, *names: str) -> None: ...

    def holding(self: M, frozen: Sequence[str]) -> M: ...

    def derived(self: M, network: Sequence[Layer] | Graph, replay: Replay | None = None) -> M: ...


def transferred(model: M, count: int, names: Sequence[str] | None, seed: int | None) -> M:
    """As `Model.with_classes`, which alone calls it."""
    count, seed = integer("count", count, 1), model.seed if seed is None else seed
    graph = model.graph(training=False)
    if len(graph.outputs) > 1:
        raise UnsupportedError(
            f'"{graph.name}" has {len(graph.outputs)} outputs, '
            f"{', '.join(v.name for v in graph.outputs)}: for other classes in one of them, "
            "declare Model(net, ...) anew and assign the weights that both have"
        )
    preprocessing = with_names(model.preprocessing, names, count)
    if stated(graph):
        raise UnsupportedError(
            "this model rounds by scales that were calibrated for its classes: change these first, "
            "then make it quantization-aware"
        )
    anew = [p for p in _later(graph) if p.learns]
    try:
        made = _rebuilt(model, graph, count)
        made.unfreeze(*(p.name for p in anew))
    except ShapeError as error:
        raise UnsupportedError(f'"{graph.name}" cannot have {count} classes: {error}') from None
    made.seed = integer("seed", seed, 0)
    made.weights = _numbers(model, made, count)
    made.preprocessing = preprocessing
    return made


def _rebuilt(model: M, graph: Graph, count: int) -> M:
    if model.layers:
        return model.derived(_layers_with_classes(model.layers, count))
    replay = replay_of(model.holding(()).graph)
    if replay is None:
        raise UnsupportedError(
            "this model was built from a Python function whose training form does not follow from "
            "its inference graph: declare Model(net, ...) for the new classes, and assign the "
            "weights that both have"
        )
    made = _graph_with_classes(graph, count)
    return model.derived(made, replace(replay, graph=made))


def _numbers(model: M, made: M, count: int) -> dict[str, Array]:
    """The weights of `made`: those of `model`, but for the new ones. UnsupportedError where another
    part would change, or the answers are not one for each class."""
    before, after = model.graph(training=False), made.graph(training=False)
    anew, types = {p.name for p in _later(before)}, {p.name: p.type for p in before.parameters}
    kept = [p for p in after.parameters if p.name not in anew]
    other = [p.name for p in kept if types.get(p.name) != p.type]
    if other or after.outputs[0].type.shape[1:] != (count,):
        what = f'parameter "{other[0]}"' if other else f"its answer {after.outputs[0].type}"
        raise UnsupportedError(
            f'another last dense layer alone does not give "{before.name}" {count} classes: {what} '
            "does not follow"
        )
    return initial_weights(after, made.seed) | {p.name: model.weights[p.name] for p in kept}


def _head_of(graph: Graph) -> Node:
    """The last dense layer of an inference graph, with weights of its own."""
    for node in reversed(graph.nodes):
        matrix = node.op.kind == CONTRACTION and node.outputs[0].type.rank == 2
        if matrix and isinstance(node.inputs[1], Parameter):
            return node
    raise UnsupportedError(
        f'"{graph.name}" has no dense layer, whose place one for other classes could take'
    )


def _later(graph: Graph) -> list[Parameter]:
    """The parameters of the head and of what follows it."""
    later = downstream(graph.nodes, _head_of(graph).outputs)
    read = {v for n in graph.nodes if not later.isdisjoint(n.outputs) for v in n.inputs}
    return [p for p in graph.parameters if p in read]


def _graph_with_classes(graph: Graph, count: int) -> Graph:
    """The inference graph with so many outputs of its head; types follow. ShapeError, naming the
    node, where a shape is written down."""
    later, before = _later(graph), _head_of(graph).outputs[0].type.shape[-1]

    def resized(p: Parameter) -> Parameter:
        shape = p.type.shape
        if p not in later or shape[-1:] != (before,):
            return p
        return replace(p, type=TensorType(p.type.dtype, (*shape[:-1], count)))

    return with_parameters(graph, resized)


def _layers_with_classes(layers: Sequence[Layer], count: int) -> list[Layer]:
    """The layers with so many outputs of the last dense one."""
    dense = [layer for layer in layers if isinstance(layer, Dense | AdderDense)]
    if not dense or dense.count(dense[-1]) > 1:
        why = "stands in several places" if dense else "is a part of another layer, or missing"
        raise UnsupportedError(f"the last dense layer {why}: it cannot be replaced")
    head = replace(dense[-1], output_channels=count, trainable=True)
    return [head if layer is dense[-1] else layer for layer in layers]
