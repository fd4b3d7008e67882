"""Dropout: some elements are left out while a network trains."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from .. import ops
from ..errors import ShapeError
from ..ir import Init, free_name
from ..ir.attributes import integer, real
from ..ir.trace import Tensor, apply, new_parameter
from ..ir.types import TensorType, i32
from ..ops.pointwise.dropout import MOST_SEED
from ..ops.pointwise.dropout import Dropout as DropoutOp
from .base import Layer

COUNTER = ".steps"  # ends the name of the parameter that counts a dropout's steps


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """In training Y = X / (1 - rate) where an element stays, which it does with 1 - rate, else 0;
    in inference Y = X, and the layer leaves no node in the graph.

    x f32 of any shape -> f32 of that shape. What stays is a pure function of (seed, the layer's
    name, the number of the training step, the element's place), computed where it is used: see
    `ops.dropout`. A second call in one trace has a name, `dropout1_1`, and so a mask of its own.
    The number of the step is a fixed parameter of the training graph, `.steps` i32[], which begins
    where the seed of `fit` says (0: at 0) and is in checkpoints, so that a resumed run has the bits
    of one that was never interrupted. Raises ShapeError unless 0 <= rate < 1 and seed is 0 or more.
    """

    prefix: ClassVar[str] = "dropout"
    makes_node: ClassVar[bool] = False
    rate: float
    seed: int = 0

    def validate(self) -> None:
        rate = real(self.where, "rate", self.rate, 0.0, 1.0)
        if DropoutOp(rate).least == DropoutOp(1.0).least:
            raise ShapeError(f"{self.where}: rate={rate!r} leaves out all elements: give below 1")
        self._store("rate", rate)
        self._store("seed", integer(self.where, "seed", self.seed, 0))

    def build(self, x: Tensor, name: str) -> Tensor:
        if not x.builder.training:
            return x
        calls = {p.removesuffix(COUNTER) for p in x.builder.parameters if p.endswith(COUNTER)}
        name = free_name(name, calls)
        return dropped(x, DropoutOp(self.rate, self._key(name)), name)

    def _key(self, name: str) -> int:
        """The seed of the op: another one for each layer of a network."""
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % MOST_SEED


def dropped(x: Tensor, op: DropoutOp, name: str) -> Tensor:
    """`op` as node `name` of a training graph, with the parameter that counts its steps."""
    zeros = Init("zeros")
    steps = new_parameter(x, f"{name}{COUNTER}", TensorType(i32, ()), zeros, trainable=False)
    following = ops.add(steps, 1, name=f"{name}.next_steps")
    x.builder.update(steps.value, following.value)  # type: ignore[arg-type]
    return apply(op, x, steps, name=name)
