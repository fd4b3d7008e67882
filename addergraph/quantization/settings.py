"""The settings of `ag.quantize`, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DataError, nearest
from ..ir.attributes import BITS, is_bits

SHIFT, MULTIPLY = "shift", "multiply"
MOST_TERMS = 3


@dataclass(frozen=True)
class QuantizationSettings:
    """How a network is quantized; DataError for a setting out of range.

    bits        of activations and filters, 2 to 8; the image has 8. None: 8, or what
                `quantization_aware` made the network for
    requantize  "shift": factors are sums of signed powers of two, so that nothing multiplies;
                "multiply": an integer product each, for CPUs where that is faster
    terms       powers of two in a factor, 1 to 3; None: the fewest whose outputs are about as good
                as those of integer products on the calibration data
    quantile    of an activation's values that its range has to hold, above 0.5; 1 for all of them.
                A network that `quantization_aware` made keeps the ranges that it was trained with
    reestimate  move batch norms' statistics by what quantization changed on the calibration data
    """

    bits: int | None = None
    requantize: str = SHIFT
    terms: int | None = None
    quantile: float = 0.9997
    reestimate: bool = True

    def __post_init__(self) -> None:
        if self.bits is not None and not is_bits(self.bits):
            raise DataError(f"bits={self.bits!r} must be an integer from {BITS[0]} to {BITS[1]}")
        if self.requantize not in (SHIFT, MULTIPLY):
            known = nearest(str(self.requantize), (SHIFT, MULTIPLY))
            raise DataError(
                f'requantize={self.requantize!r}{known} must be "{SHIFT}" or "{MULTIPLY}"'
            )
        if self.terms is not None and self.terms not in range(1, MOST_TERMS + 1):
            raise DataError(f"terms={self.terms!r} must be 1, 2, 3 or None")
        if not 0.5 < self.quantile <= 1:
            raise DataError(f"quantile={self.quantile!r} must be above 0.5 and at most 1")
