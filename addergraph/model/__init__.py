"""Networks with their weights: `Model`, its file, and `Quantized`, a network of integers."""

from .model import CHUNK, DEFAULT_OPTIMIZER, Model

__all__ = ["CHUNK", "DEFAULT_OPTIMIZER", "Model"]
