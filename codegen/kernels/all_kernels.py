"""Imports every kernel family, which registers it."""

from . import fused, movement, pointwise
from .forward import choice as forward
from .gradient import contraction_grad_filter, contraction_grad_input
from .reduction import filter_grid, pool, reduce, softmax

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
