"""The parameters that layers make: their names, how they start, and what is asked of them."""

from __future__ import annotations

import math

from ..errors import ShapeError
from ..ir import Init
from ..ir.attributes import real
from ..ir.trace import Tensor, new_parameter
from ..ir.types import TensorType, f32
from .base import scope_of

ZEROS, ONES, STANDARD_NORMAL = Init("zeros"), Init("ones"), Init("normal", (0.0, 1.0))


def parameter(
    x: Tensor,
    name: str,
    shape: tuple[int, ...],
    init: Init,
    *,
    trainable: bool = True,
    eta: float | None = None,
) -> Tensor:
    """The parameter `name` of the graph of `x`; made on first use, shared afterwards."""
    scope = scope_of(x.builder)
    known = scope.parameters
    if name not in known:
        made = new_parameter(
            x, name, TensorType(f32, shape), init, trainable=trainable, eta=eta, frozen=scope.frozen
        )
        known[name] = made.value
    return Tensor(x.builder, known[name])


def bias(x: Tensor, name: str, channels: int, wanted: bool) -> Tensor | None:
    """The parameter `name`.b, f32[channels], where one is wanted."""
    return parameter(x, f"{name}.b", (channels,), ZEROS) if wanted else None


def require_rank(x: Tensor, rank: int, kind: str, name: str, hint: str) -> None:
    if x.type.rank != rank:
        raise ShapeError(f'{kind} "{name}": input must be {hint} (rank {rank}), found {x.type}')


def plain_eta(where: str, eta: object) -> float | None:
    return None if eta is None else real(where, "eta", eta, 0.0)


def he_normal(inputs: int) -> Init:
    return Init("normal", (0.0, math.sqrt(2.0 / max(inputs, 1))))
