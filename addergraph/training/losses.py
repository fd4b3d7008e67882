"""Losses: what they are, and their expression on symbolic tensors and on finished predictions.

Model(loss="huber")                     a name of LOSSES
Model(loss=lambda p, t: abs(p - t))     a function of symbolic tensors, as a network is one
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import habits
from ..border import settle, shown
from ..errors import DataError, GraphError, ShapeError, UnsupportedError, nearest
from ..ir import Array, Graph, Op
from ..ir.interpreter import run_reference
from ..ir.trace import Tensor, trace
from ..ir.types import TensorType, f32
from ..ops.movement.concat import concat
from ..ops.movement.reshape import reshape
from ..ops.pointwise.binary import add, minimum
from ..ops.pointwise.full import full
from ..ops.pointwise.unary import Sigmoid
from ..ops.pointwise.unary import abs as absolute
from ..ops.reduction.mean_squared_error import mean_squared_error
from ..ops.reduction.reduce import reduce_mean
from ..ops.reduction.softmax import Softmax
from ..ops.reduction.softmax_cross_entropy import softmax_cross_entropy

LossFunction = Callable[[Tensor, Tensor], Tensor]
CUSTOM = "custom"  # what a file calls a loss that is a function
LOST = (
    "the loss of this model is a function, which its file does not hold: assign it again, as "
    "model.loss = f or by Model.load(path, loss=f)"
)
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The mean over the samples of what `rows` gives for predictions and targets of one type.

        label_smoothing  s in [0, 1): targets become (1 - s) targets + s / T over T classes
                         (Szegedy et al. 2016, arXiv:1512.00567, section 7)

    `of_classes`: targets are classes, or rows of their probabilities. `final`: an op that ends a
    network whose result is no scores yet; training takes its operand. Raises DataError for a
    smoothing out of range, or of targets that are no probabilities.
    """

    name: ClassVar[str]
    of_classes: ClassVar[bool] = False
    final: ClassVar[type[Op] | None] = None

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        if not 0.0 <= self.label_smoothing < 1.0:
            found = f"label_smoothing={self.label_smoothing!r}"
            raise DataError(f"{found} must be at least 0 and below 1")
        if self.label_smoothing and not self.of_classes:
            raise DataError(
                f"label_smoothing={self.label_smoothing} spreads the probabilities of classes; "
                f"{self.name} has none: use cat_cross_entropy, or no smoothing"
            )

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Appends the losses of the samples, f32[N], or one of them all, f32[]."""
        raise GraphError(f"{self!r} does not say what it computes")

    def mean(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """Appends the loss f32[] to the graph of these tensors."""
        if self.label_smoothing:
            kept = (1.0 - self.label_smoothing) * targets
            share = self.label_smoothing / targets.type.sizes[-1]
            targets = add(kept, share, name="smoothed")
        losses = self.rows(self.scores(prediction), targets)
        return reduce_mean(losses, (0,), name="loss") if losses.type.rank else losses

    def means(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
        """As `Objective.means`, of one output; GraphError where there are several."""
        if len(predictions) != 1:
            raise GraphError(
                f"{self.name} is the loss of one output, the network has {len(predictions)}: "
                f"{', '.join(str(p.value) for p in predictions)}"
            )
        return [self.mean(predictions[0], targets[0])]

    @property
    def is_known(self) -> bool:
        """Whether it can be computed: not where it was a function, in a model from a file."""
        return True

    def scores(self, prediction: Tensor) -> Tensor:
        """What `rows` takes for a prediction: the operand of a `final` op (the stable form)."""
        builder = prediction.builder
        last = next((n for n in reversed(builder.nodes) if prediction.value in n.outputs), None)
        if self.final is None or last is None or not isinstance(last.op, self.final):
            return prediction
        return Tensor(builder, last.inputs[0])

    def of_samples(self, prediction: Array, targets: Array, finished: bool) -> Array:
        """f32[N], without smoothing. `finished`: a `final` op made the prediction.

        A loss of all samples together is that of each of them.
        """
        scores = self.unfinished(prediction) if finished else prediction
        (losses,), _ = run_reference(self.graph(scores.shape), [scores, targets], {})
        return np.broadcast_to(losses, len(scores))

    def unfinished(self, prediction: Array) -> Array:
        """Scores that a `final` op would make this of."""
        return prediction

    def graph(self, shape: Sequence[int]) -> Graph:
        """(scores, targets), both f32 of this shape, -> what `rows` gives."""
        type = TensorType(f32, tuple(shape))
        return trace(self.rows, type, type, name=self.name)

    def finishes(self, graph: Graph, output: int = 0) -> bool:
        """Whether a `final` op makes the answers of a network, by the number of the output."""
        last = graph.producers().get(graph.outputs[output])
        return self.final is not None and last is not None and isinstance(last.op, self.final)

    def require_targets(self, values: Array, what: str) -> None:
        """DataError for numbers that are no targets of this loss."""

    def of_constant(self, values: Array | None, means: Array) -> float:
        """The loss of the best answer that is the same for all samples, in f64; 0 where that is not
        known. `values` are None for one-hot rows of classes; `means` are those of each column."""
        return 0.0

    def identity(self, answer: Sequence[int]) -> str:
        """How a checkpoint calls it, for answers of this shape."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class CatCrossEntropy(Loss):
    """-sum_t targets_t log softmax(logits)_t. A final softmax of the network is left out."""

    name = "cat_cross_entropy"
    of_classes = True
    final = Softmax

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        return softmax_cross_entropy(scores, targets, name="losses")

    def unfinished(self, prediction: Array) -> Array:
        """The logarithms of probabilities, whose softmax they are.

        Where a probability underflowed to zero, the smallest normal f32 replaces it: a loss of at
        most 87.4.
        """
        return np.asarray(np.log(np.maximum(prediction, TINY)))

    def of_constant(self, values: Array | None, means: Array) -> float:
        """Of the shares of the classes: their entropy."""
        shares = (1 - self.label_smoothing) * means + self.label_smoothing / means.shape[-1]
        some = shares[shares > 0]
        return float(-(some * np.log(some)).sum())


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Loss):
    """-mean_t (targets_t log p_t + (1 - targets_t) log(1 - p_t)), p = sigmoid(logits), over all
    numbers of an answer; targets are 0..1. A final sigmoid of the network is left out.

    Computed as the cross entropy of the two logits z and 0, which neither overflows nor loses the
    gradient.
    """

    name = "binary_cross_entropy"
    final = Sigmoid

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        column = (scores.type.elements, 1)
        z, t = reshape(scores, column), reshape(targets, column)
        pairs = concat([z, full(z, 0.0, column)]), concat([t, 1.0 - t])
        return _mean_of_rows(reshape(softmax_cross_entropy(*pairs), scores.shape))

    def unfinished(self, prediction: Array) -> Array:
        """log(p / (1 - p)); a p that was rounded to 0 or 1 counts as the next number of f32."""
        p = np.clip(prediction.astype(np.float64), TINY, 1 - 2.0**-24)
        return np.asarray(np.log(p) - np.log1p(-p), np.float32)

    def require_targets(self, values: Array, what: str) -> None:
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            raise DataError(
                f"{what}: targets of {self.name} are probabilities, found numbers from "
                f"{values.min():g} to {values.max():g}"
            )

    def of_constant(self, values: Array | None, means: Array) -> float:
        """The mean entropy of the columns."""
        both = np.stack([means, 1 - means])
        return float(-(both * np.log(np.maximum(both, TINY))).sum(axis=0).mean())


@dataclass(frozen=True, kw_only=True)
class MeanSquared(Loss):
    """The mean of (prediction - targets)^2."""

    name = "mean_squared_error"

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        return mean_squared_error(scores, targets, name="losses")

    def of_constant(self, values: Array | None, means: Array) -> float:
        """The variance."""
        found = means * (1 - means) if values is None else values.var(axis=0, dtype=np.float64)
        return float(np.mean(found))


@dataclass(frozen=True, kw_only=True)
class MeanAbsolute(Loss):
    """The mean of |prediction - targets|."""

    name = "mean_absolute_error"

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        return _mean_of_rows(absolute(scores - targets))

    def of_constant(self, values: Array | None, means: Array) -> float:
        """The mean distance from the median."""
        if values is None:
            return float(np.minimum(means, 1 - means).mean())
        return float(np.abs(values - np.median(values, axis=0)).mean(dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class Huber(Loss):
    """The mean of d^2 / 2 where d = |prediction - targets| is at most 1, and of d - 1/2 beyond.

    Source: Huber, "Robust estimation of a location parameter", 1964, with delta 1.
    """

    name = "huber"

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        distance = absolute(scores - targets)
        cut = minimum(distance, 1.0)
        return _mean_of_rows(cut * (distance - 0.5 * cut))


@dataclass(frozen=True, kw_only=True)
class Custom(Loss):
    """A function of two symbolic tensors, predictions and targets f32[N,...], that gives a loss for
    each sample, f32[N], or one for all, f32[]. None in a model from a file, which holds no code.

    Raises ShapeError for a result of another type, GraphError for one that is no tensor of the
    graph and where the function calls layers that have parameters or are for training alone,
    UnsupportedError without a function.
    """

    name = CUSTOM
    function: LossFunction | None = None

    @property
    def is_known(self) -> bool:
        return self.function is not None

    @property
    def known(self) -> LossFunction:
        """The function; UnsupportedError where there is none."""
        if self.function is None:
            raise UnsupportedError(LOST)
        return self.function

    def rows(self, scores: Tensor, targets: Tensor) -> Tensor:
        builder, made = scores.builder, len(scores.builder.parameters)
        outer, builder.training = builder.training, True  # what only trains leaves its parameter
        try:
            found = self.known(scores, targets)
        finally:
            builder.training = outer
        if not isinstance(found, Tensor) or found.builder is not builder:
            raise GraphError(
                f"the loss function returned {shown(found)}; expected a tensor of its graph"
            )
        if len(builder.parameters) > made:
            names = ", ".join(list(builder.parameters)[made:])
            raise GraphError(
                f"the loss function makes parameters ({names}): layers that have some, and "
                "Dropout, belong to the network"
            )
        if found.type not in (TensorType(f32, scores.shape[:1]), TensorType(f32, ())):
            raise ShapeError(
                f"the loss function gives {found.type} for predictions {scores.type}: expected a "
                f"number for each sample, f32[{scores.shape[0]}], or one for all, f32[]"
            )
        return found

    def identity(self, answer: Sequence[int]) -> str:
        """Of the function: what it computes, not how it is called."""
        text = str(self.graph((2, *answer)))
        return f"{self.name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


LOSSES: Mapping[str, type[Loss]] = {
    kind.name: kind
    for kind in (CatCrossEntropy, MeanSquared, MeanAbsolute, Huber, BinaryCrossEntropy)
}


def loss_of(loss: str | LossFunction, label_smoothing: float = 0.0) -> Loss:
    """The loss that a name or a function stands for; GraphError with the nearest name for an
    unknown one."""
    if callable(loss):
        _require_two_arguments(loss)
        return Custom(function=loss, label_smoothing=label_smoothing)
    if isinstance(loss, str) and loss == CUSTOM:
        return Custom(label_smoothing=label_smoothing)
    if not isinstance(loss, str) or loss not in LOSSES:
        found = f'"{loss}"' if isinstance(loss, str) else shown(loss)
        ours = habits.LOSSES.get(str(loss).lower()) if isinstance(loss, str) else None
        hint = f' (here it is "{ours}")' if ours else nearest(str(loss), LOSSES)
        raise GraphError(
            f"unknown loss {found}{hint}; known: {', '.join(LOSSES)}, "
            "and functions of predictions and targets"
        )
    return LOSSES[loss](label_smoothing=label_smoothing)


def _require_two_arguments(function: Callable[..., object]) -> None:
    """GraphError for a function that cannot take predictions and targets."""
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise GraphError(
            f"loss={shown(function)}: expected a function of two tensors, predictions and targets "
            f"({error})"
        ) from None
    except ValueError:  # it does not tell
        return


def _mean_of_rows(x: Tensor) -> Tensor:
    """The mean of each row, f32[N]."""
    return reduce_mean(x, tuple(range(1, x.type.rank)), name="losses") if x.type.rank > 1 else x
