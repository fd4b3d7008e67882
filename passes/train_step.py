"""One training step as one graph: forward, loss, backward and the optimizer's update.

    rewrite (loss "mean_squared_error", SGD(momentum=0, weight_decay=0)):
      graph net(%x: f32[2,3]) params(%w: f32[3,1] init=normal(0,1)) {
        %y = dense(%x, %w) : f32[2,1]
        return %y
      }
      ->
      graph net_train(%x: f32[2,3], %targets: f32[2,1], %learning_rate: f32[])
          params(%w: f32[3,1] init=normal(0,1)) {
        %y = dense(%x, %w) : f32[2,1]
        %losses = mean_squared_error(%y, %targets) : f32[2]
        %loss = reduce_mean(%losses) axes=(0) : f32[]
        ... %w.grad: the gradient of %loss
        %w.step = mul(%learning_rate, %w.grad) : f32[3,1]
        %w.new = sub(%w, %w.step) : f32[3,1]
        update %w <- %w.new
        return %loss, %y
      }

The loss and the optimizer say themselves what they compute (`addergraph/training/losses.py`,
`optimizers.py`). The learning rate is an input: a schedule changes it without compiling again.

Where several processes share a batch, the same step is two graphs (`halves`): what a process
computes of its samples, and the update, which takes the means of that over all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Builder, Graph, Node, Op, Parameter, Value
from addergraph.ir.attributes import FULL_PRECISION, GRADIENTS, SIGN, choice
from addergraph.ir.check import require_something_to_train
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.ir.walk import append, downstream, upstream
from addergraph.ops.pointwise.full import Full

from .autodiff import close, differentiate
from .replicas import synchronized
from .rewrite import Draft, rebuild


class Loss(Protocol):
    """What training minimizes."""

    def means(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> Sequence[Tensor]:
        """Appends the loss f32[] to the graph of these tensors, one of each for an output and both
        of one type; more numbers may stand behind it."""


class Optimizer(Protocol):
    """How parameters follow their gradients."""

    def update(self, gradients: Mapping[Parameter, Tensor], rate: Tensor) -> None:
        """Appends new values of these parameters, and of its own state, to the graph of `rate`."""


def train_step(
    graph: Graph, loss: Loss, optimizer: Optimizer, *, gradient: str = FULL_PRECISION
) -> Graph:
    """(inputs of `graph`, targets, learning_rate) -> (mean loss f32[], prediction), with updates.

    `graph` is bound and in training form; its outputs are the predictions, f32. Targets have their
    types (one-hot rows for classes), and are called `targets`, or of several outputs
    `<output>.targets`. Updates of `graph` are kept. What else `loss` gives stands behind it.

    gradient  of adder layers: "full_precision" leaves them as the graph has them, "sign" makes all
              of them sign gradients

    Raises GraphError for an open batch, trainable parameters that the loss
    does not depend on, and where all are frozen; ShapeError where the prediction does not fit the
    loss, or batch statistics would be of one value.
    """
    _check_forward(graph)
    require_statistics(graph)
    made = _Backward(graph, loss, gradient, with_rate=True)
    draft = made.draft
    for u in made.graph.updates:
        draft.update(u.parameter, draft.new[u.value])
    assert made.rate is not None
    optimizer.update({p: made.gradients[p] for p in made.trainable}, made.rate)
    return close(draft, made.gradients, [*made.losses, *made.predictions])


class _Backward:
    """A draft with forward, loss and backward of `graph`; what `train_step` raises."""

    def __init__(self, graph: Graph, loss: Loss, gradient: str, *, with_rate: bool) -> None:
        _check_forward(graph)
        choice("train_step", "gradient", gradient, GRADIENTS)
        self.graph = graph = with_sign_gradients(graph) if gradient == SIGN else graph
        self.draft = draft = Draft(dataclasses.replace(graph, name=f"{graph.name}_train"))
        draft.copy()
        self.predictions = [draft.new[v] for v in graph.outputs]
        prefixes = [f"{v.name}." if len(graph.outputs) > 1 else "" for v in graph.outputs]
        ends = zip(prefixes, self.predictions, strict=True)
        targets = [_input(draft, f"{prefix}targets", v.type) for prefix, v in ends]
        self.rate = draft.tensor(_rate(draft)) if with_rate else None
        both = ([draft.tensor(v) for v in values] for values in (self.predictions, targets))
        self.losses = [found.value for found in loss.means(*both)]

        require_something_to_train(graph)
        self.trainable = [p for p in graph.parameters if p.trainable]
        one = draft.add(Full(shape=(), value=1.0, dtype=f32), [], "one")[0]
        seeds = {self.losses[0]: draft.tensor(one)}
        self.gradients = differentiate(draft, seeds, self.trainable)
        _require_used(graph, self.trainable, self.gradients)


@dataclass(frozen=True)
class Halves:
    """A training step in two graphs, for several replicas, of which each has a part of the batch.

    backward   (inputs of the graph, targets, then the parameters that it reads, as inputs) ->
               (losses f32[], predictions, then `exchanged`), without updates
    update     (`exchanged`, learning_rate f32[]) -> learning_rate, with the updates; `exchanged`
               are means over the replicas. It depends on no batch size
    losses, predictions   how many there are
    exchanged  by name of the parameter: the gradient of each that is trained, then the new value of
               each that an update of the graph computes from samples, all of them f32
    read       the parameters that `backward` takes as inputs
    """

    backward: Graph
    update: Graph
    losses: int
    predictions: int
    exchanged: tuple[str, ...]
    read: tuple[str, ...]


def halves(
    graph: Graph, loss: Loss, optimizer: Optimizer, *, gradient: str = FULL_PRECISION,
    synchronize: bool = False,
) -> Halves:  # fmt: skip
    """`train_step` cut where gradients are there and nothing has been updated.

    synchronize  batch norms take the statistics of all replicas' samples; `replicas.segments` then
                 cuts `backward` where these are exchanged. Otherwise each takes those of its own

    Raises what `train_step` raises, but for batch statistics of one value: those may be of more
    samples than this replica has. GraphError for an update that depends on samples and is not f32.
    """
    made = _Backward(synchronized(graph) if synchronize else graph, loss, gradient, with_rate=False)
    forward, draft = made.graph, made.draft
    sampled = downstream(forward.nodes, forward.inputs)
    moved = [u for u in forward.updates if u.value in sampled]
    for u in moved:
        _require_mean(forward, u.parameter)
    ends = [made.gradients[p].value for p in made.trainable]
    ends += [draft.new[u.value] for u in moved]
    outputs = [*made.losses, *made.predictions, *ends]
    backward = _with_inputs(close(draft, made.gradients, outputs))
    read = tuple(v.name for v in backward.inputs[len(draft.inputs) :])
    exchanged = (*(p.name for p in made.trainable), *(u.parameter.name for u in moved))
    update = _update_half(forward, made.trainable, [u.parameter for u in moved], optimizer)
    return Halves(backward, update, len(made.losses), len(made.predictions), exchanged, read)


def _update_half(
    graph: Graph, trained: Sequence[Parameter], moved: Sequence[Parameter], optimizer: Optimizer
) -> Graph:
    """(gradients of `trained`, new values of `moved`, learning_rate) -> learning_rate."""
    builder = Builder(f"{graph.name}_update")
    new: dict[Value, Value] = {p: builder.parameter(p) for p in graph.parameters}
    gradients = {p: Tensor(builder, _input(builder, f"{p.name}.grad", p.type)) for p in trained}
    values = {p: _input(builder, f"{p.name}.mean", p.type) for p in moved}
    rate = _rate(builder)
    others = [u for u in graph.updates if u.parameter not in values]
    append(builder, upstream(graph.nodes, [u.value for u in others]), new)
    for u in graph.updates:
        builder.update(u.parameter, values.get(u.parameter) or new[u.value])
    optimizer.update(gradients, Tensor(builder, rate))
    return builder.finish([rate])


def _with_inputs(graph: Graph) -> Graph:
    """The graph with the parameters that it reads as inputs behind the others."""
    builder = Builder(graph.name)
    read = {v for n in graph.nodes for v in n.inputs} | set(graph.outputs)
    given = (*graph.inputs, *(p for p in graph.parameters if p in read))
    new: dict[Value, Value] = {v: builder.input(v.name, v.type) for v in given}
    append(builder, graph.nodes, new)
    return builder.finish([new[v] for v in graph.outputs])


def _require_mean(graph: Graph, p: Parameter) -> None:
    if p.type.dtype != f32:
        raise GraphError(
            f'"{graph.name}" updates the parameter {p} from samples; replicas that share a batch '
            f"can take the mean of f32 alone, it is {p.type}"
        )


def _rate(builder: Builder) -> Value:
    """The learning rate, an input."""
    return _input(builder, "learning_rate", TensorType(f32, ()))


def _input(builder: Builder, hint: str, type: TensorType) -> Value:
    """An input whose name the network may have for something else."""
    builder.inputs.append(Value(builder.fresh(hint), type))
    return builder.inputs[-1]


def _require_used(graph: Graph, trainable: Sequence[Parameter], found: Container[Value]) -> None:
    """GraphError for trainable parameters without a gradient."""
    unused = [p.name for p in trainable if p not in found]
    if not unused:
        return
    if len(unused) == len(trainable):
        raise GraphError(
            f'the loss of "{graph.name}" depends on nothing that is trained, so that nothing would '
            "be learned: it has to be a differentiable function of the prediction"
        )
    raise GraphError(
        f'the loss of "{graph.name}" does not depend on the trainable parameters '
        f"{', '.join(unused)}; use them or declare them with trainable=False"
    )


def _check_forward(graph: Graph) -> None:
    if graph.is_open:
        raise GraphError(
            f'"{graph.name}" has an open batch; a training step needs a bound one: graph.bind(64)'
        )


def require_statistics(graph: Graph) -> None:
    """ShapeError, naming the layer, where a batch norm would see one value a channel.

    That value is its own mean: the variance is 0, the result beta, and every gradient 0.
    """
    readers = graph.uses()
    for node in graph.nodes:
        if not node.op.estimates:
            continue
        x, mean = node.inputs[0].type, node.outputs[0]
        if math.prod(x.sizes[:-1]) == 1:
            layer = next((n for n in readers[mean] if n.op.normalizes), node)
            raise ShapeError(
                f'batch_norm "{layer.name}" gets one value for each channel ({x}): in training its '
                "result would not depend on it; use batches of at least 2 samples, also the last "
                "one of an epoch (samples modulo batch size)"
            )


def with_sign_gradients(graph: Graph) -> Graph:
    """The graph with the gradient of every adder layer set to `sign`."""

    def signed(draft: Draft, node: Node) -> Sequence[Value] | None:
        if not node.op.measures_distance:
            return None
        op: Op = dataclasses.replace(node.op, gradient=SIGN)  # type: ignore[type-var]
        return draft.add(op, node.inputs, node.outputs)

    return rebuild(graph, signed)
