"""What `ag.quantize` takes and makes: its settings, and an int8 model with its file."""

from .quantized import Quantized, is_quantized, load_quantized
from .settings import MULTIPLY, SHIFT, QuantizationSettings

__all__ = [
    "MULTIPLY",
    "SHIFT",
    "QuantizationSettings",
    "Quantized",
    "is_quantized",
    "load_quantized",
]
