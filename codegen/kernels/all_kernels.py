"""Imports every kernel family, which registers it."""

from . import fused, lookup, movement, pointwise
from .forward import choice as forward
from .gradient import filter, input
from .reduction import filter_grid, pool, reduce, softmax

__all__ = [
    "filter",
    "filter_grid",
    "forward",
    "fused",
    "input",
    "lookup",
    "movement",
    "pointwise",
    "pool",
    "reduce",
    "softmax",
]
