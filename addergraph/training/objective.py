"""What a run minimizes: the loss of its only output, or of several the weighted sum of theirs.

Model(loss="huber")                                           the loss of every output
Model(loss={"class": "cat_cross_entropy", "size": "huber"})   one for each, or a tuple in order
Model(..., loss_weights={"size": 0.1})                        1 where nothing is said
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import border
from ..errors import GraphError
from ..ir.trace import Tensor
from ..ops.pointwise.binary import add
from .losses import CatCrossEntropy, Loss, LossFunction, loss_of
from .trainee import Losses, Trainee, Weights


@dataclass(frozen=True)
class Objective:
    """loss = sum over the outputs of weight x loss of the output.

    losses, weights  by name of the output, in order
    """

    losses: Mapping[str, Loss]
    weights: Mapping[str, float]

    def means(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
        """Appends that loss, f32[], to the graph of these tensors, one of each for an output;
        behind it, where there are several, the loss of each."""
        builder, parts, terms = predictions[0].builder, [], []
        ends = zip(self.losses.items(), predictions, targets, strict=True)
        for (name, loss), prediction, target in ends:
            builder.scope = f"{name}." if len(self.losses) > 1 else ""
            parts.append(loss.mean(prediction, target))
            weight = self.weights[name]
            terms.append(parts[-1] if weight == 1 else weight * parts[-1])
        builder.scope = ""
        whole = functools.reduce(lambda a, b: add(a, b, name="loss"), terms)
        return [whole, *parts] if len(parts) > 1 else [whole]

    def column(self, name: str, what: str) -> str:
        """What the history calls a number of an output: `size_loss`; of the only one `loss`."""
        return what if len(self.losses) == 1 else f"{name}_{what}"

    def identity(self, answers: Mapping[str, Sequence[int]]) -> str:
        """How a checkpoint calls it, for answers of these shapes."""
        of = {name: loss.identity(answers[name]) for name, loss in self.losses.items()}
        if len(of) == 1:
            return next(iter(of.values()))
        return ", ".join(f"{name} {text} x {self.weights[name]!r}" for name, text in of.items())


def objective_of(model: Trainee, label_smoothing: float = 0.0) -> Objective:
    """What `model.loss` and `model.loss_weights` stand for, for its outputs. `label_smoothing` is
    of the losses of classes, where there are any.

    Raises GraphError for an unknown output, one that no loss reads, and weights that cannot be.
    """
    names = [*model.output_shapes]
    given = _by_output(model.loss, names)
    smoothed = [name for name in names if loss_of(given[name]).of_classes] or names
    losses = {
        name: loss_of(given[name], label_smoothing if name in smoothed else 0.0) for name in names
    }
    return Objective(losses, _weights(model.loss_weights, names))


def require_losses(value: object) -> None:
    """GraphError for an unknown loss among those that are given, whatever the outputs are."""
    listed = isinstance(value, tuple | list) and len(value) > 0
    found = value.values() if isinstance(value, Mapping) else value if listed else [value]
    for loss in found:  # type: ignore[attr-defined]
        loss_of(loss)


def the_one(loss: Losses | None, loss_name: str | None) -> Losses:
    """What `loss` or its other name `loss_name` says; GraphError where they differ."""
    given = [one for one in (loss, loss_name) if one is not None]
    for one in given:
        require_losses(one)
    if len(given) == 2 and loss != loss_name:
        raise GraphError(
            f"loss={border.shown(loss)} and loss_name={border.shown(loss_name)} are two names of "
            "one setting: give one of them"
        )
    return given[0] if given else CatCrossEntropy.name


def _by_output(given: Losses, names: Sequence[str]) -> dict[str, str | LossFunction]:
    if isinstance(given, str) or callable(given):
        return dict.fromkeys(names, given)
    unread = [n for n in names if isinstance(given, Mapping) and n not in given]
    if unread:
        raise GraphError(
            f'no loss reads the output "{unread[0]}": loss= has none for it, of the outputs '
            f"{', '.join(names)}. Give it one, whose loss_weights may be 0, or leave the output out"
        )
    return border.by_name("loss", given, names, GraphError)


def _weights(given: Weights | None, names: Sequence[str]) -> dict[str, float]:
    if given is None:
        return dict.fromkeys(names, 1.0)
    if len(names) == 1:
        raise GraphError(
            f"loss_weights={border.shown(given)} weigh the losses of several outputs; this model "
            f'has one, "{names[0]}": leave them out'
        )
    whole = {**dict.fromkeys(names, 1.0), **given} if isinstance(given, Mapping) else given
    found = border.by_name("loss_weights", whole, names, GraphError)
    for name, value in found.items():
        weight = border.accept(float, value)
        if weight is None or not 0.0 <= weight <= np.finfo(np.float32).max:
            raise GraphError(
                f'loss_weights: that of "{name}" is {border.shown(value)}; expected a number of at '
                "least 0 that f32 holds"
            )
        found[name] = weight
    if not any(found.values()):
        raise GraphError("loss_weights are all 0: nothing would be learned; give one more than 0")
    return found
