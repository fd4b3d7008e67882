"""Imports every kernel family, which registers it."""

from . import (
    contraction_grad_filter,
    contraction_grad_input,
    filter_grid,
    forward,
    fused,
    movement,
    pointwise,
    pool,
    reduce,
    softmax,
)

__all__ = [
    "contraction_grad_filter",
    "contraction_grad_input",
    "filter_grid",
    "forward",
    "fused",
    "movement",
    "pointwise",
    "pool",
    "reduce",
    "softmax",
]
