"""Networks with their weights: `Model` and its file."""

from .model import CHUNK, DEFAULT_OPTIMIZER, Model, inference_graph

__all__ = ["CHUNK", "DEFAULT_OPTIMIZER", "Model", "inference_graph"]
