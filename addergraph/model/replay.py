"""A network built again from its inference graph, which is what a model file holds of a function.

The two forms of a network differ in its batch norms and dropouts alone: in training those take the
statistics of the batch, and move the running ones by their momentum; these are in training alone.
So the inference graph, the momenta and what is known of the dropouts say all, unless the function
looked itself at which form it builds; whoever saves a model compares.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import AdderGraphError
from ..ir import Graph, Node, Parameter, Value
from ..ir.trace import Tensor, apply_all, new_parameter, trace
from ..layers import BatchNorm
from ..layers.dropout import dropped
from ..ops.pointwise.dropout import Dropout


@dataclass(frozen=True)
class Left:
    """A dropout: what it leaves elements out of, for all readers; the attributes of its op."""

    of: str
    rate: float
    seed: int


@dataclass(frozen=True)
class Replay:
    """A function of symbolic tensors that builds `graph` again, in inference or training form.

    momentum  of each batch norm that moves its running statistics, by the node's name
    dropouts  of the training form, by the node's name
    """

    graph: Graph
    momentum: Mapping[str, float]
    dropouts: Mapping[str, Left] = field(default_factory=dict)

    @property
    def __signature__(self) -> inspect.Signature:
        """Inputs keep their names: a trace takes them from here."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(v.name, kind) for v in self.graph.inputs])

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        x, known = inputs[0], dict(zip(self.graph.inputs, inputs, strict=True))
        for p in self.graph.parameters:
            known[p] = new_parameter(
                x, p.name, p.type, p.init, trainable=p.learns, eta=p.eta, frozen=p.frozen
            )
        self._leave_out(self.graph.inputs, known, x)
        for node in self.graph.nodes:
            known.update(zip(node.outputs, self._again(node, known, x), strict=True))
            self._leave_out(node.outputs, known, x)
        return [known[v] for v in self.graph.outputs]

    def _leave_out(self, made: Sequence[Value], known: dict[Value, Tensor], x: Tensor) -> None:
        """From here on, readers of these values see them with their dropouts."""
        for name, left in self.dropouts.items() if x.builder.training else ():
            for value in made:
                if value.name == left.of:
                    known[value] = dropped(known[value], Dropout(left.rate, left.seed), name)

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


def replay_of(graph: Callable[[bool, int | None], Graph]) -> Replay | None:
    """What builds a model without frozen parameters, whose `graph(training, batch)` this is; None
    where its training form is not what a `Replay` would build.

    The momentum of a batch norm is the last factor of an update, which is `(1 - momentum) running +
    momentum batch`.
    """
    try:
        inference, training = graph(False, None), graph(True, 2)
    except AdderGraphError:
        return None
    producers = training.producers()
    norms = {n.inputs[1]: n.name for n in inference.nodes if n.op.normalizes}
    names = {value.name: name for value, name in norms.items() if isinstance(value, Parameter)}
    found: dict[str, float] = {}
    for update in training.updates:
        norm = names.get(update.parameter.name)
        number = None if norm is None else _last_factor(update.value, producers)
        if norm is not None and number is not None:
            found[norm] = number
    dropouts = {
        n.name: Left(_seen(n.inputs[0], producers).name, n.op.rate, n.op.seed)  # type: ignore[attr-defined]
        for n in training.nodes
        if n.op.training_only
    }
    made = Replay(inference, found, dropouts)
    try:
        types = [v.type for v in training.inputs]
        again = trace(made, *types, name=training.name, training=True)
    except AdderGraphError:
        return None
    return made if _structure(again) == _structure(training) else None


def _seen(value: Value, producers: Mapping[Value, Node]) -> Value:
    """What stands for `value` in the inference form: the operand of dropouts."""
    node = producers.get(value)
    while node is not None and node.op.training_only:
        value = node.inputs[0]
        node = producers.get(value)
    return value


def _last_factor(value: Value, producers: Mapping[Value, Node]) -> float | None:
    """The number c of `a + b c`."""
    node = producers.get(value)
    moved = producers.get(node.inputs[-1]) if node is not None else None
    number = producers.get(moved.inputs[-1]) if moved is not None else None
    return getattr(number.op, "value", None) if number is not None else None


def _structure(graph: Graph) -> tuple[object, ...]:
    """All of a graph but the names of what its nodes compute."""
    place: dict[Value, object] = {}
    for v in graph.values():
        place[v] = v.name if isinstance(v, Parameter) else len(place)
    nodes = [(n.op.key, tuple(place[v] for v in n.inputs)) for n in graph.nodes]
    parameters = sorted(str(p) + str(p.type) for p in graph.parameters)
    updates = [(u.parameter.name, place[u.value]) for u in graph.updates]
    return nodes, parameters, updates, [place[v] for v in graph.outputs]
