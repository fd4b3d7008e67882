"""Imports every kernel family, which registers it."""

from . import contraction, contraction_grad, fused, movement, pointwise, pool, reduce, softmax

__all__ = [
    "contraction",
    "contraction_grad",
    "fused",
    "movement",
    "pointwise",
    "pool",
    "reduce",
    "softmax",
]
