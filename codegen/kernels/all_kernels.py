"""Imports every kernel family, which registers it."""

from . import dropout, fused, lookup, movement, pointwise
from .forward import choice as forward
from .gradient import choice as gradient
from .reduction import completed, filter_grid, pool, reduce, softmax

__all__ = [
    "completed",
    "dropout",
    "filter_grid",
    "forward",
    "fused",
    "gradient",
    "lookup",
    "movement",
    "pointwise",
    "pool",
    "reduce",
    "softmax",
]
