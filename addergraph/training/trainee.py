"""What training asks of the network that it trains: `Model` is one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..data.preprocessing import Preprocessing
from ..ir import Array, Graph
from .losses import LossFunction

Losses = str | LossFunction | Mapping[str, str | LossFunction] | Sequence[str | LossFunction]
Weights = Mapping[str, float] | Sequence[float]  # of losses


class Trainee(Protocol):
    """A network with its weights and its loss; every member is as `Model` documents it."""

    loss: Losses
    loss_weights: Weights | None
    preprocessing: Preprocessing | None

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def weights(self) -> dict[str, Array]: ...

    def graph(self, training: bool, batch: int | None = None) -> Graph: ...

    def build(self, input_shape: object) -> None: ...

    def attach(self, views: dict[str, Array]) -> None: ...

    def save(self, path: str | os.PathLike[str]) -> None: ...

    def inputs(self, x: object, what: str = "x") -> dict[str, Array]: ...

    def entering(self, x: object) -> Any: ...

    def predict(self, x: object, *, engine: str, threads: int | None) -> Any: ...

    def prepare(self, samples: int, *, threads: int | None) -> None: ...
