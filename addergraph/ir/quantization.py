"""Scale and zero point of integer tensors, and how they travel through a graph.

    value = scale (q - zero_point)

An adder layer needs one quantization for its input and its filter: then |x - f| = scale |qx - qf|,
and the zero point cancels. `value_quantizations` walks a graph from its inputs and parameters,
whose types state scale and zero point, by each op's `quantization` rule; `check` runs it, so that
integers of different scales never meet in a difference or a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from .walk import evaluate

if TYPE_CHECKING:
    from .graph import Graph, Node

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Quantization:
    """value = scale (q - zero_point). ShapeError unless scale is positive and finite."""

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ShapeError(f"scale={self.scale} must be positive and finite")

    @classmethod
    def of_range(cls, least: float, most: float, top: int) -> Quantization:
        """That of the integers 0 .. top on a range, 0.0 always included and one of their values."""
        least, most = min(least, 0.0), max(most, 0.0)
        scale = (most - least) / top if most > least else 1.0 / top  # all zero: any scale serves
        return cls(scale, round(-least / scale))

    def quantized(self, values: Array, low: int, high: int) -> Array:
        """The integers in [low, high] nearest to `values` (ties to even, NaN as 0.0), as i64."""
        wide = values.astype("f8")
        whole = np.rint(np.where(np.isnan(wide), 0.0, wide) / self.scale)
        return np.asarray(np.clip(whole + self.zero_point, low, high), np.int64)

    def values(self, integers: Array) -> Array:
        """`integers`, dequantized to float64."""
        return np.asarray(self.scale * (integers.astype("f8") - self.zero_point))

    def ends(self, top: int) -> tuple[float, float]:
        """The numbers of the integers 0 and `top`."""
        return -self.scale * self.zero_point, self.scale * (top - self.zero_point)

    def __str__(self) -> str:
        shown = f"scale={self.scale!r}"
        return f"{shown} zero_point={self.zero_point}" if self.zero_point else shown


def symmetric(filters: Array, bits: int) -> tuple[Array, Array]:
    """Integers and scales of a conv2d or dense filter: f[...,t] = scale[t] q[...,t], both f64.

        scale[t] = max |f[...,t]| / (2^(bits-1) - 1),   q = round(f / scale[t])

    Ties go to even; a channel of zeros has the scale 1 / (2^(bits-1) - 1), one with a NaN or an
    infinity is NaN.
    """
    wide, end = filters.astype("f8"), (1 << (bits - 1)) - 1
    largest = np.abs(wide).max(tuple(range(wide.ndim - 1)), initial=0.0)
    scale = np.where(largest == 0, 1.0, largest) / end
    with np.errstate(invalid="ignore"):
        return np.rint(wide / scale), scale


Known = Sequence[Quantization | None]


def common(what: str, known: Known) -> Quantization | None:
    """The one quantization of operands that meet; None where none of them says.

    ShapeError, with both, where two of them differ. An operand that says nothing fits any.
    """
    stated = [q for q in known if q is not None]
    for other in stated[1:]:
        if other != stated[0]:
            raise ShapeError(
                f"{what} need one scale and one zero point, found {stated[0]} and {other}; "
                "quantize both alike, or requantize one of them"
            )
    return stated[0] if stated else None


def value_quantizations(
    graph: Graph, inputs: Known | None = None
) -> dict[str, Quantization | None]:
    """Scale and zero point of every value of `graph`, by name; None where they are unknown.

    `inputs` are those of the graph's inputs where they are known, as for a fused body. ShapeError,
    naming the node, where operands of different quantizations meet.
    """

    def step(node: Node, operands: Known) -> Sequence[Quantization | None]:
        try:
            return node.op.quantization(operands)
        except ShapeError as error:
            raise ShapeError(f"{node.label}: {error}") from None

    given = [v.type.quantization for v in graph.inputs] if inputs is None else inputs
    stated = [p.type.quantization for p in graph.parameters]
    known = evaluate(graph, [*given, *stated], step)
    return {v.name: quantization for v, quantization in known.items()}
