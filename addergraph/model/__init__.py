"""Networks with their weights: `Model`, its file, and `Quantized`, a network of integers."""

from .model import CHUNK, Model, inference_graph

__all__ = ["CHUNK", "Model", "inference_graph"]
