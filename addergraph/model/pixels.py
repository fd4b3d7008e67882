"""The graph of a network with its preprocessing in front: images in, answers out."""

from __future__ import annotations

import numpy as np

from ..data.preprocessing import Preprocessing
from ..ir import Array, Builder, Graph, Init, Parameter, Value, free_name, walk
from ..ir.types import DType, TensorType, dtype_named, f32
from ..ops.pointwise.binary import Add, Mul
from ..ops.pointwise.cast import Cast
from ..ops.pointwise.full import Full


def with_preprocessing(
    graph: Graph, preprocessing: Preprocessing, image: str
) -> tuple[Graph, dict[str, Array]]:
    """`graph`, whose input `image` is f32[N,...,C], as one that takes pixels there, and its new
    parameters.

    The first nodes are `Normalize`'s equation, to the bit: cast, times scale / std, plus
    -mean / std. A number that all channels share stands in the graph, others are parameters [C].
    """
    writer = _Writer(graph, image, dtype_named(preprocessing.dtype))
    factor, offset = preprocessing.normalize.coefficients()
    if preprocessing.dtype != "f32":
        writer.apply(Cast(f32))
    if (factor != 1).any():
        writer.apply(Mul(), "factor", factor)
    if (offset != 0).any():
        writer.apply(Add(), "offset", offset)
    return writer.finish(), writer.weights


class _Writer:
    """Appends nodes behind one input, then the network."""

    def __init__(self, graph: Graph, image: str, pixel: DType) -> None:
        self.graph, self.builder = graph, Builder(graph.name)
        self.weights: dict[str, Array] = {}
        self.names = {v.name for v in graph.values()}
        self.new: dict[Value, Value] = {}
        for v in graph.inputs:
            type = TensorType(pixel, v.type.shape) if v.name == image else v.type
            self.new[v] = self.builder.input(v.name, type)
        self.x = next(v for v in graph.inputs if v.name == image)
        self.at = self.new[self.x]

    def apply(self, op: Cast | Mul | Add, what: str = "", numbers: Array | None = None) -> None:
        operands = [self.at]
        if numbers is not None:
            operands.append(self._constant(what, numbers))
        result = Value(self._name(f"{self.x.name}.{op.name}"), TensorType(f32, self.x.type.shape))
        (self.at,) = self.builder.add(op, operands, [result])

    def finish(self) -> Graph:
        self.new[self.x] = self.at
        for p in self.graph.parameters:
            self.new[p] = self.builder.parameter(p)
        walk.append(self.builder, self.graph.nodes, self.new)
        for u in self.graph.updates:
            self.builder.update(u.parameter, self.new[u.value])
        return self.builder.finish([self.new[v] for v in self.graph.outputs])

    def _constant(self, what: str, numbers: Array) -> Value:
        name = self._name(f"{self.x.name}.{what}")
        if (numbers == numbers[0]).all():
            op = Full(float(numbers[0]), (), f32)
            return self.builder.add(op, [], [Value(name, TensorType(f32, ()))])[0]
        self.weights[name] = numbers
        type = TensorType(f32, np.shape(numbers))
        return self.builder.parameter(Parameter(name, type, Init(), trainable=False))

    def _name(self, hint: str) -> str:
        name = free_name(hint, self.names)
        self.names.add(name)
        return name
