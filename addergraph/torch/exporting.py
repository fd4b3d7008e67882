"""`ag.to_torch`: a graph of ours as a PyTorch module that computes it node by node.

Inside, images stay NHWC, as the graph has them; layers see them as NCHW in `channels_last` memory,
which is the same memory. Parameters have our names, shapes and order of axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from .. import border
from ..errors import DataError, GraphError, UnsupportedError
from ..ir import Array, Graph, Node, Parameter, Value
from ..ir.network import Network, graph_and_weights, require_weights
from ..ir.state import bind_weights
from ..ir.types import f32
from ..model import Model
from ..model.replay import Left, Replay, replay_of
from .rules import RULES, Step
from .site import BACK, ORDER


def exported(model: Graph | Network, weights: Mapping[str, Array] | None) -> nn.Module:
    """See `front.to_torch`."""
    graph, weights = graph_and_weights(model, weights)
    weights = require_weights(graph, weights)
    if graph.updates:
        raise GraphError(f'to_torch: graph "{graph.name}" updates parameters; give what predicts')
    arrays = bind_weights(f'graph "{graph.name}"', graph.parameters, weights)
    replay = replay_of(model.holding(()).graph) if isinstance(model, Model) else None
    return GraphModule(graph, arrays, replay)


class GraphModule(nn.Module):
    """A network of ours. `forward(*inputs)` takes what the graph's inputs are, images as NCHW."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], replay: Replay | None) -> None:
        super().__init__()
        self.graph = graph
        self._dropouts = {} if replay is None else dict(replay.dropouts)
        self._trains = replay is not None
        self._momentum = {} if replay is None else dict(replay.momentum)
        self._steps = self._made()
        for parameter in graph.parameters:
            self._place(parameter, weights[parameter.name])
        self.eval()

    def _made(self) -> list[tuple[Node, Step]]:
        return [(node, _step(node, self._momentum)) for node in self.graph.nodes]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, by pickle: steps are functions, and made again."""
        return {**vars(self), "_steps": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._steps = self._made()

    def _place(self, parameter: Parameter, array: Array) -> None:
        """Registers a parameter under its dotted name, or as a buffer what is not learned."""
        if parameter.type.dtype != f32:
            raise UnsupportedError(
                f'to_torch: graph "{self.graph.name}" has {parameter}: {parameter.type}; integer '
                "networks stay here: ag.compile runs them, ag.export writes them as C"
            )
        *path, name = parameter.name.split(".")
        holder: nn.Module = self
        for part in path:
            if part not in holder._modules:
                self._require_free(holder, part, parameter)
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        held = torch.from_numpy(np.array(array, np.float32))
        self._require_free(holder, name, parameter)
        if parameter.learns:
            learned = nn.Parameter(held, requires_grad=not parameter.frozen)
            holder.register_parameter(name, learned)
        else:
            holder.register_buffer(name, held)

    @staticmethod
    def _require_free(holder: nn.Module, name: str, parameter: Parameter) -> None:
        if hasattr(holder, name):
            raise GraphError(
                f'to_torch: {parameter} cannot be called so: a module has another thing "{name}"'
            )

    def train(self, mode: bool = True) -> Self:
        """UnsupportedError for the training form where the graph does not say what it is."""
        if mode and not self._trains and self._differs():
            raise UnsupportedError(
                f'to_torch: graph "{self.graph.name}" does not say how its batch norms move their '
                "statistics in training; give ag.to_torch the Model instead of a graph"
            )
        super().train(mode)
        return self

    def _differs(self) -> bool:
        return any(node.op.normalizes for node in self.graph.nodes)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        known: dict[Value, Tensor] = {}
        for value, given in zip(self.graph.inputs, self._checked(inputs), strict=True):
            known[value] = given.permute(ORDER) if given.dim() == 4 else given
        for parameter in self.graph.parameters:
            path, _, name = parameter.name.rpartition(".")
            known[parameter] = getattr(self.get_submodule(path), name)
        self._leave_out(self.graph.inputs, known)
        for node, step in self._steps:
            known[node.outputs[0]] = step(self.training, [known[v] for v in node.inputs])
            self._leave_out(node.outputs, known)
        found = [known[v] for v in self.graph.outputs]
        outputs = tuple(y.permute(BACK) if y.dim() == 4 else y for y in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def _checked(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The inputs; DataError for those of other shapes or kinds."""
        wanted = self.graph.inputs
        if len(inputs) != len(wanted):
            raise DataError(
                f'"{self.graph.name}" takes {len(wanted)} tensors ({", ".join(map(str, wanted))}), '
                f"found {len(inputs)}"
            )
        for value, given in zip(wanted, inputs, strict=True):
            if not isinstance(given, Tensor):
                raise DataError(f"{value}: expected a torch.Tensor, found {border.shown(given)}")
            shape = tuple(value.type.shape)
            expected = tuple(shape[axis] for axis in BACK) if len(shape) == 4 else shape
            fits = len(expected) == given.dim() and all(
                a in (b, "N") for a, b in zip(expected, given.shape, strict=True)
            )
            if not fits or given.dtype != torch.float32:
                raise DataError(
                    f"{value}: expected float32 [{', '.join(map(str, expected))}], found "
                    f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
                )
        return inputs

    def _leave_out(self, made: Sequence[Value], known: dict[Value, Tensor]) -> None:
        """In training, readers of these values see them with their dropouts."""
        for left in self._dropouts.values() if self.training else ():
            _drop(left, made, known)


def _drop(left: Left, made: Sequence[Value], known: dict[Value, Tensor]) -> None:
    for value in made:
        if value.name == left.of:
            known[value] = nn.functional.dropout(known[value], left.rate)


def _step(node: Node, momentum: Mapping[str, float]) -> Step:
    """A node as a function of whether it trains, and of its operands."""
    make = RULES.get(node.op.name)
    if make is None or any(v.type.dtype != f32 for v in node.outputs):
        types = ", ".join(str(v.type) for v in node.outputs)
        raise UnsupportedError(
            f"to_torch: {node.label} ({types}) has no equivalent in PyTorch here; known are f32 "
            f"results of {', '.join(sorted(RULES))}"
        )
    return make(node, momentum.get(node.name))
