"""Whether a run learns at all: said while it runs, with the layer that died.

A network that ignores its input does best with one constant answer. For classes of the shares p
that is p itself, with the loss -sum_t p_t log p_t; for values it is their mean, with the loss that
is their variance. A run whose loss stays there has learned nothing but that constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ir import Array
from ..ir.interpreter import same_for_all
from ..report.findings import Finding
from .labels import Targets
from .losses import Loss
from .objective import Objective

CLOSE = 0.99  # a loss of at least this share of the constant's is no better than it
FALLING = 0.99  # a loss of less than this share of the epoch's before is one that learns
LUCK = 4.0  # standard deviations by which an accuracy may exceed the most frequent class
EPOCHS = 2  # in a row, before it is said
HELD_OUT_EPOCHS = 3  # in a row, before it is said that nothing shows on validation samples
STEPS = 100  # of the run, before which it may just have begun


def constant_loss(targets: Targets, loss: Loss) -> float:
    """The loss of the best answer that is the same for all samples, in f64; 0 where a loss does not
    know it, which keeps this watch away."""
    one_hot = targets.values is None or (targets.labels is not None)
    return loss.of_constant(None if one_hot else targets.values, _shares(targets))


def has_stalled(
    history: Mapping[str, Sequence[float]], steps: int, targets: Targets, constant: float
) -> bool:
    """Whether, after so many steps, the last `EPOCHS` epochs were no better than the constant
    answer and not getting there, in their loss and, where there is one, in their accuracy."""
    losses, accuracies = history["loss"][-EPOCHS:], history.get("accuracy", [])[-EPOCHS:]
    if steps < STEPS or len(losses) < EPOCHS or not constant > 0 or min(losses) < CLOSE * constant:
        return False
    if losses[-1] < FALLING * losses[-2]:
        return False
    if not accuracies:
        return True
    return max(accuracies) <= _lucky(targets)


def is_by_chance(history: Mapping[str, Sequence[float]], targets: Targets) -> bool:
    """Whether in each of the last `HELD_OUT_EPOCHS` epochs the accuracy on the validation samples
    was what one constant answer gets. Of few samples luck alone may make much of that: a tenth of
    the way to 1 is then the most."""
    found = history.get("val_accuracy", [])[-HELD_OUT_EPOCHS:]
    if len(found) < HELD_OUT_EPOCHS:
        return False
    share = float(_shares(targets).max())
    return max(found) <= min(_lucky(targets), share + 0.1 * (1 - share))


def is_learning(history: Mapping[str, Sequence[float]], steps: int, targets: Targets) -> bool:
    """Whether, after so many steps, the accuracy on the training samples was in each of the last
    `HELD_OUT_EPOCHS` epochs half way from that of a lucky constant answer to 1, or farther."""
    found = history.get("accuracy", [])[-HELD_OUT_EPOCHS:]
    if steps < STEPS or len(found) < HELD_OUT_EPOCHS:
        return False
    return min(found) >= (1 + _lucky(targets)) / 2


def _lucky(targets: Targets) -> float:
    """The accuracy that a constant answer may get with much luck."""
    share = float(_shares(targets).max())
    return share + LUCK * math.sqrt(share * (1 - share) / len(targets))


def finding_by_chance(epoch: int, history: Mapping[str, Sequence[float]]) -> Finding:
    """What to say where only the training samples are told apart."""
    accuracy, held_out = history["accuracy"][-1], history["val_accuracy"][-1]
    message = (
        f"after {epoch} epochs the network tells the training samples apart (accuracy "
        f"{accuracy:.4g}), but the validation samples by chance only (val_accuracy {held_out:.4g})"
    )
    hint = (
        "see whether the validation samples are of the same kind, enter as the same numbers and "
        "have their labels in the same order as the training samples; a network with batch norms "
        "may need a lower learning rate, so that their running statistics keep up, and few "
        "samples are learned by heart"
    )
    return Finding("", message, hint)


def finding(
    epoch: int, losses: Sequence[float], constant: float, probed: Iterable[tuple[str, Array]],
    rate: float,
) -> Finding:  # fmt: skip
    """What to say of a stalled run: its numbers, the first layer whose result does not depend on
    the sample, and what to try. `probed` has the results of some samples, in order."""
    # Of one axis are statistics of channels, whose rows are no samples.
    dead = next((label for label, a in probed if a.ndim > 1 and same_for_all(a)), None)
    where = "the answers differ by sample, but do not follow the targets"
    if dead is not None:
        where = f"the result of {dead} is the same for every sample: it has died"
    message = (
        f"after {epoch} epochs the network has learned nothing: its loss, {losses[-1]:.4g}, is "
        f"not below that of one constant answer, {constant:.4g}; {where}"
    )
    hint = (
        f"lower the learning rate (it was {rate:g}) to a fifth or let it warm up, see whether the "
        "samples enter as numbers of about 1 (`addergraph diagnose`), and start again: what is "
        "dead does not recover"
    )
    return Finding("" if dead is None else dead.partition('"')[2].rstrip('"'), message, hint)


@dataclass(frozen=True)
class Watch:
    """How one output does in a run, by the columns that the history has of the only output.

    output    its name where there are several; constant: the loss of the best constant answer
    held_out  its targets of the validation samples
    """

    output: str
    constant: float
    history: Mapping[str, Sequence[float]]
    targets: Targets
    held_out: Targets | None

    @property
    def learns(self) -> bool:
        return self.history["loss"][-1] < CLOSE * self.constant

    @property
    def by_chance(self) -> bool:
        return self.held_out is not None and is_by_chance(self.history, self.held_out)

    @property
    def is_well(self) -> bool:
        """Whether there is nothing to say; also where nobody knows what it would be."""
        return not self.constant or (self.learns and not self.by_chance)

    def finding(
        self, epoch: int, steps: int, probe: Callable[[], Iterable[tuple[str, Array]]],
        rate: Callable[[], float],
    ) -> Finding | None:  # fmt: skip
        """What to say after so many epochs and steps; `probe`, `rate` give what `finding` takes."""
        if has_stalled(self.history, steps, self.targets, self.constant):
            found = finding(epoch, self.history["loss"], self.constant, probe(), rate())
        elif self.learns and self.by_chance and is_learning(self.history, steps, self.targets):
            found = finding_by_chance(epoch, self.history)
        else:
            return None
        where = f'output "{self.output}": ' if self.output else ""
        return replace(found, message=where + found.message)


def watches_of(
    objective: Objective,
    constants: Mapping[str, float],
    targets: Mapping[str, Targets],
    history: Mapping[str, Sequence[float]],
    held_out: Mapping[str, Targets] | None,
) -> list[Watch]:
    """One for each output that is trained; `constants` are their `constant_loss`."""
    made = []
    for name, weight in objective.weights.items():
        columns = {what: objective.column(name, what) for what in ("loss", "accuracy")}
        columns |= {f"val_{what}": f"val_{column}" for what, column in columns.items()}
        seen = {what: history[column] for what, column in columns.items() if column in history}
        output = name if len(targets) > 1 else ""
        if weight:
            others = None if held_out is None else held_out[name]
            made.append(Watch(output, constants[name], seen, targets[name], others))
    return made


def _shares(targets: Targets) -> Array:
    """The mean of each column: of classes, their shares."""
    if targets.labels is None or targets.values is not None:
        assert targets.values is not None
        return np.asarray(targets.values.mean(axis=0, dtype=np.float64))
    return np.bincount(targets.labels, minlength=targets.shape[-1]) / len(targets)
