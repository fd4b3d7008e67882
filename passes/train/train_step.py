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

The update rules are in `optimizers.py`. The learning rate is an input: a schedule changes it
without compiling again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from addergraph.errors import DataError, GraphError, ShapeError
from addergraph.ir import Graph, Node, Op, Value
from addergraph.ir.attributes import FULL_PRECISION, GRADIENTS, SIGN, choice
from addergraph.ir.types import TensorType, f32
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.pointwise.binary import add
from addergraph.ops.pointwise.full import Full
from addergraph.ops.reduction.reduce import reduce_mean
from addergraph.ops.reduction.softmax import Softmax
from addergraph.ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy
from addergraph.training.losses import loss_named
from addergraph.training.optimizers import Optimizer

from ..autodiff import close, differentiate
from ..rewrite import Draft, rebuild
from .optimizers import append_updates


def train_step(
    graph: Graph,
    loss_name: str,
    optimizer: Optimizer,
    *,
    label_smoothing: float = 0.0,
    gradient: str = FULL_PRECISION,
) -> Graph:
    """(inputs of `graph`, targets, learning_rate) -> (mean loss f32[], prediction), with updates.

    `graph` is bound and in training form, with one f32 output: the prediction. Targets have its
    type (one-hot rows for cat_cross_entropy). Under cat_cross_entropy a final softmax is left out
    of the loss, which takes its logits (the stable form); any other output is taken as logits. The
    optimizer's state is in fixed parameters (`optimizers.py`). Updates of `graph` are kept.

    label_smoothing  s in [0, 1): targets become (1 - s) targets + s / T over T classes (Szegedy et
                     al. 2016, arXiv:1512.00567, section 7); for cat_cross_entropy
    gradient         of adder layers: "full_precision" leaves them as the graph has them, "sign"
                     makes all of them sign gradients

    Raises GraphError for an unknown loss, an open batch, several outputs, and trainable parameters
    that the loss does not depend on; ShapeError where the prediction does not fit the loss, or
    batch statistics would be of one value; DataError for a smoothing out of range.
    """
    loss_op = loss_named(loss_name)
    _check_forward(graph)
    _check_smoothing(label_smoothing, loss_op)
    require_statistics(graph)
    choice("train_step", "gradient", gradient, GRADIENTS)
    graph = with_sign_gradients(graph) if gradient == SIGN else graph
    draft = Draft(dataclasses.replace(graph, name=f"{graph.name}_train"))
    draft.copy()
    (prediction,) = (draft.new[v] for v in graph.outputs)
    targets = draft.input("targets", prediction.type)
    rate = draft.tensor(draft.input("learning_rate", TensorType(f32, ())))
    expected = _smoothed(draft, targets, label_smoothing)
    loss = _mean_loss(draft, loss_op, prediction, expected)

    trainable = [p for p in graph.parameters if p.trainable]
    one = draft.add(Full(shape=(), value=1.0, dtype=f32), [], "one")[0]
    gradients = differentiate(draft, {loss: draft.tensor(one)}, trainable)
    unused = [p.name for p in trainable if p not in gradients]
    if unused:
        raise GraphError(
            f'the loss of "{graph.name}" does not depend on the trainable parameters '
            f"{', '.join(unused)}; use them or declare them with trainable=False"
        )
    for u in graph.updates:
        draft.update(u.parameter, draft.new[u.value])
    append_updates(draft, optimizer, {p: gradients[p] for p in trainable}, rate)
    return close(draft, gradients, [loss, prediction])


def _check_forward(graph: Graph) -> None:
    if graph.is_open:
        raise GraphError(
            f'"{graph.name}" has an open batch; a training step needs a bound one: graph.bind(64)'
        )
    if len(graph.outputs) != 1:
        raise GraphError(
            f'a training step needs a graph with one output, "{graph.name}" has '
            f"{len(graph.outputs)}: {', '.join(map(str, graph.outputs))}"
        )


def _check_smoothing(smoothing: float, loss: Op) -> None:
    if not 0.0 <= smoothing < 1.0:
        raise DataError(f"label_smoothing={smoothing!r} must be at least 0 and below 1")
    if smoothing and not isinstance(loss, SoftmaxCrossEntropy):
        raise DataError(
            f"label_smoothing={smoothing} spreads the probabilities of classes; {loss.name} "
            "has none: use cat_cross_entropy, or no smoothing"
        )


def require_statistics(graph: Graph) -> None:
    """ShapeError, naming the layer, where a batch norm would see one value a channel.

    That value is its own mean: the variance is 0, the result beta, and every gradient 0.
    """
    for node in graph.nodes:
        if not isinstance(node.op, BatchNormStatistics):
            continue
        x = node.inputs[0].type
        if math.prod(x.sizes[:-1]) == 1:
            layer = node.name.removesuffix(".mean").removesuffix(".batch")
            raise ShapeError(
                f'batch_norm "{layer}" gets one value for each channel ({x}): in training its '
                "result would not depend on it; use batches of at least 2 samples, also the last "
                "one of an epoch (samples modulo batch size)"
            )


def with_sign_gradients(graph: Graph) -> Graph:
    """The graph with the gradient of every adder layer set to `sign`."""

    def signed(draft: Draft, node: Node) -> Sequence[Value] | None:
        if not isinstance(node.op, Adder2d | AdderDense):
            return None
        op = dataclasses.replace(node.op, gradient=SIGN)
        return draft.add(op, node.inputs, node.outputs)

    return rebuild(graph, signed)


def _smoothed(draft: Draft, targets: Value, smoothing: float) -> Value:
    if not smoothing:
        return targets
    classes = targets.type.sizes[-1]
    kept = (1.0 - smoothing) * draft.tensor(targets)
    return add(kept, smoothing / classes, name="smoothed").value


def _mean_loss(draft: Draft, op: Op, prediction: Value, targets: Value) -> Value:
    scores, last = prediction, draft.producer(prediction)
    if isinstance(op, SoftmaxCrossEntropy) and last is not None and isinstance(last.op, Softmax):
        scores = last.inputs[0]
    losses = draft.tensor(draft.add(op, [scores, targets], "losses")[0])
    return reduce_mean(losses, (0,), name="loss").value
