"""A network that learns where there is no Python: its step, and the graph that predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .graph import Graph, Parameter
from .op import Array


@dataclass(frozen=True)
class LearningStep:
    """What is compiled of a training run.

    step      bound: (inputs, targets, learning_rate f32[]) -> (loss f32[], ..., predictions), with
              updates
    forward   of the same inputs, its batch open: what predicts
    numbers   name of a parameter, of either graph -> what it holds before the first step
    labelled  for each target, whether its rows f32[T] are classes, one-hot: a caller then gives
              numbers of classes
    stands    parameter of `forward` -> that of `step` which holds its number, where the names
              differ: running averages
    """

    step: Graph
    forward: Graph
    numbers: Mapping[str, Array]
    labelled: Sequence[bool]
    stands: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> tuple[Parameter, ...]:
        """The parameters that a step changes, in the order of the step's: all others are
        constants."""
        updated = {u.parameter for u in self.step.updates}
        return tuple(p for p in self.step.parameters if p in updated)
