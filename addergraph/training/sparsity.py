"""Training for speed: a schedule that leaves adder layers fewer taps to compute.

Behind a relu a tap f <= 0 needs no work, and sparse kernels leave it out (`ir/taps.py`). The
optimizer keeps the filter that it moves, L (`Optimizer.update`), and the network reads L where it
is above the layer's threshold, min(L, 0) elsewhere. The threshold is the quantile of L that the
schedule asks for: taps go out by their size, and come back when L has outgrown others.

Sources: Zhu and Gupta 2017 (arXiv:1710.01878), eq. 1, the schedule; Lin et al. 2020
(arXiv:2006.07253), weights that go on learning while they are pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..ir import Array, Graph, Node, Parameter, Value
from ..ir.intervals import value_ranges
from ..ir.trace import Tensor
from ..ir.walk import upstream
from .checkpoint import Position
from .optimizers import Optimizer, average_name, held_name, threshold_name
from .settings import Fit, Learning
from .trainee import Trainee

EVERY = 8  # steps between two thresholds
NATURAL = 0.5  # the share of N(0, 1) at or below zero, where the schedule begins


@dataclass(frozen=True)
class Thinned:
    """What a step's update is: that of `optimizer`, some taps of the `filters` left out."""

    optimizer: Optimizer
    filters: tuple[str, ...]

    def update(self, gradients: Mapping[Parameter, Tensor], rate: Tensor) -> None:
        self.optimizer.update(gradients, rate, self.filters)


def thinned_of(model: Trainee, settings: Fit) -> tuple[str, ...]:
    """The filters of a model that `settings` thin out, and says of which layers they are.

    DataError where there are none, of a sparsity above 0.
    """
    if not settings.sparsity:
        return ()
    found, alone = filters_of(model.graph(training=False))
    if settings.verbose:
        print(f"{settings.sparsity:g} of the taps of {', '.join(found)} shall need no work")
        for name, why in alone.items():
            print(f"  {name} is left alone: {why}", flush=True)
    return tuple(dict.fromkeys(found.values()))


def is_thinned(settings: Learning, epochs: int) -> bool:
    """Whether the share is reached after so many epochs."""
    return not settings.sparsity or epochs >= settings.sparsity_end * settings.epochs


def share_at(settings: Learning, epochs: float) -> float:
    """Of taps at or below zero after so many epochs: from NATURAL (or `sparsity`, where that is
    less) to `sparsity`, fast at first."""
    left = max(0.0, 1.0 - epochs / (settings.sparsity_end * settings.epochs))
    return settings.sparsity + (min(NATURAL, settings.sparsity) - settings.sparsity) * left**3


def thin(
    views: Mapping[str, Array], filters: Sequence[str], settings: Learning, at: Position, steps: int
) -> None:
    """Before a step, of `steps` an epoch, and at an epoch's end: every so often new thresholds,
    which leave out the share of each filter's taps that is due, or what is at or below zero anyway.
    An average is not above zero then where its filter is not. `views` are those of the training
    step's state."""
    if (at.epoch * steps + at.step) % EVERY and at.step < steps:
        return
    share = share_at(settings, at.epoch + at.step / steps)
    for name in filters:
        weights, held = views[name], views[held_name(name)]
        latent = weights + held
        out = min(round(share * latent.size), latent.size - 1)
        least = np.partition(latent, out - 1, axis=None)[out - 1] if out else np.float32(0)
        threshold = views[threshold_name(name)]
        threshold[...] = np.maximum(least, np.float32(0))
        weights[...] = np.where(latent > threshold, latent, np.minimum(latent, np.float32(0)))
        with np.errstate(invalid="ignore"):  # the loss tells of infinite weights
            held[...] = latent - weights
        if (mean := views.get(average_name(name))) is not None:
            mean[(mean > 0) & (weights <= 0)] = 0


def filters_of(graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
    """By the name of their layer, the filters of an inference graph that sparse kernels serve, and
    of the other adder layers why they are left alone.

    DataError where there are none of the first.
    """
    ranges = value_ranges(graph)
    found: dict[str, str] = {}
    alone: dict[str, str] = {}
    for node in graph.nodes:
        if not node.op.measures_distance:
            continue
        filter = _filter_of(graph, node)
        why = _left_alone(node, filter, ranges[node.inputs[0].name].nonnegative)
        (alone if why else found)[node.name] = why or filter.name
    if not found:
        told = "; ".join(f"{name}: {why}" for name, why in alone.items()) or "it has no adder layer"
        raise DataError(
            f'"{graph.name}" has no filter to train for speed ({told}): expected a 2-D adder layer '
            "with a relu in front; leave sparsity at 0"
        )
    return found, alone


def _filter_of(graph: Graph, node: Node) -> Value:
    """The filter of a layer, or what it is rounded from."""
    nodes = upstream(graph.nodes, [node.inputs[1]])
    rounded = len(nodes) == 1 and nodes[0].op.surrogate and len(nodes[0].inputs) == 1
    return nodes[0].inputs[0] if rounded else node.inputs[1]


def _left_alone(node: Node, filter: Value, nonnegative: bool) -> str:
    """Why fewer taps would not be less work, or nothing."""
    if not nonnegative:
        return "its input may be negative"
    if filter.type.rank != 4:
        return "no kernel of dense layers leaves taps out"
    channels = filter.type.sizes[2]
    if channels == 1 != node.inputs[0].type.shape[-1]:
        return "a filter for each channel has too few taps"
    trained = isinstance(filter, Parameter) and filter.trainable
    return "" if trained else "its filter is not trained"
