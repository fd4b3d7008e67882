"""Networks with their weights: `Model` and its file."""

from .model import CHUNK, DEFAULT_OPTIMIZER, Model

__all__ = ["CHUNK", "DEFAULT_OPTIMIZER", "Model"]
