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
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from typing import Protocol

from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Graph, Node, Op, Parameter, Value
from addergraph.ir.attributes import FULL_PRECISION, GRADIENTS, SIGN, choice
from addergraph.ir.check import require_something_to_train
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.pointwise.full import Full

from .autodiff import close, differentiate
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
    choice("train_step", "gradient", gradient, GRADIENTS)
    graph = with_sign_gradients(graph) if gradient == SIGN else graph
    draft = Draft(dataclasses.replace(graph, name=f"{graph.name}_train"))
    draft.copy()
    predictions = [draft.new[v] for v in graph.outputs]
    prefixes = [f"{v.name}." if len(graph.outputs) > 1 else "" for v in graph.outputs]
    ends = zip(prefixes, predictions, strict=True)
    targets = [_input(draft, f"{prefix}targets", v.type) for prefix, v in ends]
    rate = draft.tensor(_input(draft, "learning_rate", TensorType(f32, ())))
    both = ([draft.tensor(v) for v in values] for values in (predictions, targets))
    mean, *others = (found.value for found in loss.means(*both))

    require_something_to_train(graph)
    trainable = [p for p in graph.parameters if p.trainable]
    one = draft.add(Full(shape=(), value=1.0, dtype=f32), [], "one")[0]
    gradients = differentiate(draft, {mean: draft.tensor(one)}, trainable)
    _require_used(graph, trainable, gradients)
    for u in graph.updates:
        draft.update(u.parameter, draft.new[u.value])
    optimizer.update({p: gradients[p] for p in trainable}, rate)
    return close(draft, gradients, [mean, *others, *predictions])


def _input(draft: Draft, hint: str, type: TensorType) -> Value:
    """An input whose name the network may have for something else."""
    draft.inputs.append(Value(draft.fresh(hint), type))
    return draft.inputs[-1]


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
        if not isinstance(node.op, BatchNormStatistics):
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
