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

The layer-adaptive learning rate (Chen et al., eq. 12 and 13) scales the gradient of each parameter
that has an `eta`, before weight decay and momentum, which is where the authors' release has it.
"""

from __future__ import annotations

import dataclasses
import math

from addergraph.errors import GraphError
from addergraph.ir import Graph, Init, Op, Parameter, Value
from addergraph.ops.binary import add, maximum, mul, sub
from addergraph.ops.full import Full
from addergraph.ops.reduce import reduce_mean, reduce_sum
from addergraph.ops.softmax import Softmax
from addergraph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from addergraph.ops.unary import sqrt
from addergraph.trace import Tensor
from addergraph.training.losses import loss_named
from addergraph.training.optimizers import SGD
from addergraph.types import TensorType, f32

from .autodiff import close, differentiate
from .rewrite import Draft

SMALLEST_NORM = 1e-12  # of a gradient that the adaptive learning rate divides by


def train_step(graph: Graph, loss_name: str, optimizer: SGD) -> Graph:
    """(inputs of `graph`, targets, learning_rate) -> (mean loss f32[], prediction), with updates.

    `graph` is bound and in training form, with one f32 output: the prediction. Targets have its
    type (one-hot rows for cat_cross_entropy). Under cat_cross_entropy a final softmax is left out
    of the loss, which takes its logits (the stable form); any other output is taken as logits. The
    optimizer's state is in parameters <p>.velocity. Updates of `graph` are kept.

    Raises GraphError for an unknown loss, an open batch, several outputs, and trainable parameters
    that the loss does not depend on; ShapeError where the prediction does not fit the loss.
    """
    loss_op = loss_named(loss_name)
    _check_forward(graph)
    draft = Draft(dataclasses.replace(graph, name=f"{graph.name}_train"))
    draft.copy()
    (prediction,) = (draft.new[v] for v in graph.outputs)
    targets = draft.input("targets", prediction.type)
    rate = draft.tensor(draft.input("learning_rate", TensorType(f32, ())))
    loss = _mean_loss(draft, loss_op, prediction, targets)

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
    for p in trainable:
        _descend(draft, optimizer, p, gradients[p], rate)
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


def _mean_loss(draft: Draft, op: Op, prediction: Value, targets: Value) -> Value:
    scores, last = prediction, draft.producer(prediction)
    if isinstance(op, SoftmaxCrossEntropy) and last is not None and isinstance(last.op, Softmax):
        scores = last.inputs[0]
    losses = draft.tensor(draft.add(op, [scores, targets], "losses")[0])
    return reduce_mean(losses, (0,), name="loss").value


def _descend(draft: Draft, sgd: SGD, p: Parameter, g: Tensor, rate: Tensor) -> None:
    """Appends the update rule of `SGD` for one parameter, and its velocity's."""
    draft.scope = f"{p.name}."
    weights = draft.tensor(p)
    if p.eta is not None:
        norm = sqrt(reduce_sum(g * g, tuple(range(p.type.rank))), name="grad_norm")
        scale = p.eta * math.sqrt(p.type.elements) / maximum(norm, SMALLEST_NORM)
        g = mul(g, scale, name="adapted")
    if sgd.weight_decay:
        g = add(g, sgd.weight_decay * weights, name="decayed")
    if sgd.momentum:
        velocity = Parameter(f"{p.name}.velocity", p.type, Init("zeros"), trainable=False)
        g = add(sgd.momentum * draft.tensor(draft.parameter(velocity)), g, name="velocity.new")
        draft.update(velocity, g.value)
    step = mul(rate, g, name="step")
    draft.update(p, sub(weights, step, name="new").value)
    draft.scope = ""
