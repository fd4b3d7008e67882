"""Networks with their weights: `Model` and its file."""

from .model import CHUNK, Model

__all__ = ["CHUNK", "Model"]
