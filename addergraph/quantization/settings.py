"""The settings of `ag.quantize`, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.attributes import BITS
from ..settings import require_valid, setting

SHIFT, MULTIPLY = "shift", "multiply"
MOST_TERMS = 3


@dataclass(frozen=True, kw_only=True)
class QuantizationSettings:
    """How a network is quantized; DataError for a setting out of range.

    bits        of activations and filters, 2 to 8; the image has 8. None: 8, or what
                `quantization_aware` made the network for
    requantize  "shift": factors are sums of signed powers of two, so that nothing multiplies;
                "multiply": one integer multiplication each, for CPUs where that is faster
    terms       powers of two in a factor, 1 to 3; None: the fewest whose relative RMS error on the
                calibration data is at most 5 % above that of "multiply"
    quantile    share of an activation's values that its range covers, above 0.5; 1 for all of them.
                A network that `quantization_aware` made keeps the ranges that it was trained with
    reestimate  move batch norms' statistics by what quantization changed on the calibration data
    """

    bits: int | None = setting(
        None,
        "Of activations and filters; the image has 8.",
        kind=int,
        least=BITS[0],
        most=BITS[1],
        unset="8, or what the model was trained for",
    )
    requantize: str = setting(
        SHIFT,
        "Requantize by sums of powers of two (shifts), or by an integer multiplication.",
        choices=(SHIFT, MULTIPLY),
    )
    terms: int | None = setting(
        None,
        "Powers of two in a factor.",
        kind=int,
        least=1,
        most=MOST_TERMS,
        unset="the fewest within 5 % of multiply's error",
    )
    quantile: float = setting(
        0.9997, "Share of an activation's values that its range covers.", above=0.5, most=1
    )
    reestimate: bool = setting(True, "Move batch norms' statistics by what quantization changed.")

    def __post_init__(self) -> None:
        require_valid(self)
