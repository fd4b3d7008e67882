"""The graph and its meaning: values, ops, text, checks, interpreter. Read `graph.py` first."""

from .graph import Builder, Graph, Init, Node, Parameter, Update, Value, free_name
from .op import (
    CONTRACTION,
    KINDS,
    MOVEMENT,
    POINTWISE,
    REDUCTION,
    Array,
    Bound,
    Canonical,
    Cost,
    Gradients,
    Halo,
    Intervals,
    Op,
    Source,
    Tensors,
    Types,
    op_named,
    registry,
    result_names,
)

__all__ = [
    "CONTRACTION", "KINDS", "MOVEMENT", "POINTWISE", "REDUCTION", "Array", "Bound", "Builder",
    "Canonical", "Cost", "Gradients", "Graph", "Halo", "Init", "Intervals", "Node", "Op",
    "Parameter", "Source", "Tensors", "Types", "Update", "Value", "free_name", "op_named",
    "registry", "result_names",
]  # fmt: skip
