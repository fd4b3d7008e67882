"""Imports every kernel family, which registers it."""

from . import (
    contraction,
    contraction_grad_filter,
    contraction_grad_input,
    fused,
    movement,
    pointwise,
    pool,
    reduce,
    softmax,
)

__all__ = [
    "contraction",
    "contraction_grad_filter",
    "contraction_grad_input",
    "fused",
    "movement",
    "pointwise",
    "pool",
    "reduce",
    "softmax",
]
