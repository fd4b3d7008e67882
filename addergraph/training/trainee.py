"""What training asks of the network that it trains: `Model` is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from ..data.preprocessing import Preprocessing
from ..ir import Array, Graph
from .losses import LossFunction


class Trainee(Protocol):
    """A network with its weights and its loss; every member is as `Model` documents it."""

    loss: str | LossFunction
    preprocessing: Preprocessing | None

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def output_shape(self) -> tuple[int, ...]: ...

    @property
    def weights(self) -> dict[str, Array]: ...

    def graph(self, training: bool, batch: int | None = None) -> Graph: ...

    def build(self, input_shape: Sequence[int]) -> None: ...

    def attach(self, views: dict[str, Array]) -> None: ...

    def save(self, path: str | os.PathLike[str]) -> None: ...

    def entering(self, x: object) -> Array: ...

    def predict(self, x: object, *, engine: str, threads: int | None) -> Array: ...

    def prepare(self, samples: int, *, threads: int | None) -> None: ...
