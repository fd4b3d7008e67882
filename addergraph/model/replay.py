"""A network built again from its inference graph, which is what a model file holds of a function.

The two forms of a network differ in its batch norms alone: in training these take the statistics of
the batch, and move the running ones by their momentum. So the inference graph and the momenta say
all, unless the function looked itself at which form it builds; whoever saves a model compares.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import AdderGraphError
from ..ir import Graph, Node, Parameter, Value
from ..ir.trace import Tensor, apply_all, new_parameter, trace
from ..layers import BatchNorm


@dataclass(frozen=True)
class Replay:
    """A function of one symbolic tensor that builds `graph` again, in inference or training form.

    momentum  of each batch norm that moves its running statistics, by the node's name
    """

    graph: Graph
    momentum: Mapping[str, float]

    @property
    def __signature__(self) -> inspect.Signature:
        """The input keeps its name: a trace takes it from here."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(self.graph.inputs[0].name, kind)])

    def __call__(self, x: Tensor) -> Tensor:
        known: dict[Value, Tensor] = {self.graph.inputs[0]: x}
        for p in self.graph.parameters:
            known[p] = new_parameter(
                x, p.name, p.type, p.init, trainable=p.learns, eta=p.eta, frozen=p.frozen
            )
        for node in self.graph.nodes:
            known.update(zip(node.outputs, self._again(node, known, x), strict=True))
        return known[self.graph.outputs[0]]

    def _again(self, node: Node, known: Mapping[Value, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        operands = [known[v] for v in node.inputs]
        if x.builder.training and node.name in self.momentum:
            layer = BatchNorm(self.momentum[node.name])
            if not layer.is_frozen(*operands[3:5]):
                operands[1:3] = layer.batch_statistics(operands[0], node.name, *operands[1:3])
        op = node.op if x.type.is_open else node.op.bind(int(x.shape[0]))
        if not operands:
            (made,) = x.builder.add(op, [], node.name)
            return (Tensor(x.builder, made),)
        return apply_all(op, *operands, name=node.name)


def momenta_of(graph: Callable[[bool, int | None], Graph]) -> dict[str, float] | None:
    """`momenta` of a model without frozen parameters, whose `graph(training, batch)` this is."""
    try:
        training = graph(True, 2)
    except AdderGraphError:
        return None
    return momenta(graph(False, None), training)


def momenta(inference: Graph, training: Graph) -> dict[str, float] | None:
    """The momentum of each batch norm of a network, by its name; None where the training form is
    not the one that `Replay` would build with them.

    `training` is bound to a batch. An update is `(1 - momentum) running + momentum batch`, whose
    last factor is a number in the graph.
    """
    producers = training.producers()
    norms = {n.inputs[1]: n.name for n in inference.nodes if n.op.normalizes}
    names = {value.name: name for value, name in norms.items() if isinstance(value, Parameter)}
    found: dict[str, float] = {}
    for update in training.updates:
        number = _last_factor(update.value, producers)
        if update.parameter.name in names and number is not None:
            found[names[update.parameter.name]] = number
    try:
        again = trace(
            Replay(inference, found), training.inputs[0].type, name=training.name, training=True
        )
    except AdderGraphError:
        return None
    return found if _structure(again) == _structure(training) else None


def _last_factor(value: Value, producers: Mapping[Value, Node]) -> float | None:
    """The number c of `a + b c`."""
    node = producers.get(value)
    moved = producers.get(node.inputs[-1]) if node is not None else None
    number = producers.get(moved.inputs[-1]) if moved is not None else None
    return getattr(number.op, "value", None) if number is not None else None


def _structure(graph: Graph) -> tuple[object, ...]:
    """All of a graph but the names of what its nodes compute."""
    place: dict[Value, int] = {}
    for v in graph.values():
        place[v] = len(place)
    nodes = [(n.op.key, tuple(place[v] for v in n.inputs)) for n in graph.nodes]
    parameters = [str(p) + str(p.type) for p in graph.parameters]
    updates = [(u.parameter.name, place[u.value]) for u in graph.updates]
    return nodes, parameters, updates, [place[v] for v in graph.outputs]
