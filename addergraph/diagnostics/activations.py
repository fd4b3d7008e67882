"""What the layers of a network give for some samples: their distribution, and what is dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import border
from ..ir import CONTRACTION, Array, Node
from ..ir.state import initial_weights
from ..ir.walk import returning
from ..report.findings import Finding
from ..training.labels import count_of, require_trainable
from ..training.step import compile_silently, thread_count
from .distributions import Shape, shape_of

if TYPE_CHECKING:
    from ..model import Model

KEPT = 1 << 18  # values of a layer that its distribution is made of, at most


@dataclass(frozen=True, eq=False)
class Activation:
    """The results of one node over all samples and positions.

    dead  relu alone, bounded or not: the share of channels that are 0 for every sample and
          position
    """

    node: str
    op: str
    shape: Shape
    dead: float | None

    @property
    def label(self) -> str:
        return f'{self.op} "{self.node}"'


def activations(model: Model, x: object, *, threads: int | None = None) -> tuple[Activation, ...]:
    """The relus and the layers with filters, in order, on samples `x` as one batch.

    In training form: batch norms use the statistics of this batch, as training sees them. The
    running statistics do not change. Where a layer has more than `KEPT` values, its distribution is
    that of so many random ones; `dead` is over all of them. Raises DataError for samples that do
    not fit or results that are not finite, UnsupportedError for a model that cannot train.
    """
    inputs = border.by_name("x", model.entering(x), [*model.input_shapes])
    require_trainable(inputs)
    graph = model.graph(training=True, batch=count_of(inputs))
    shown = [n for n in graph.nodes if _rectifies(n) or n.op.kind == CONTRACTION]
    outputs = tuple(node.outputs[0] for node in shown)
    whole = returning(graph, outputs)
    weights = initial_weights(whole) | model.weights  # dropouts count steps, from 0
    program = compile_silently(whole, weights=weights, threads=thread_count(threads))
    found = program.run([np.ascontiguousarray(x, np.float32) for x in inputs.values()])
    return tuple(_activation(node, array) for node, array in zip(shown, found, strict=True))


def dead_relus(found: tuple[Activation, ...]) -> tuple[Finding, ...]:
    """A finding for each relu of which every channel is dead on the samples."""
    return tuple(
        Finding(
            one.node,
            f"{one.label} is 0 for every sample: nothing in front of it learns",
            "look at the layer in front of it (`addergraph check`), lower the learning rate, or "
            "start again with another seed",
        )
        for one in found
        if one.dead == 1.0
    )


def _rectifies(node: Node) -> bool:
    """Also where `ag.activation_bounds` made it clip(x, 0, c)."""
    return node.op.rectifies or getattr(node.op, "lo", None) == 0


def _activation(node: Node, values: Array) -> Activation:
    dead = None
    if _rectifies(node):
        dead = float(np.mean(~values.reshape(-1, values.shape[-1]).any(axis=0)))
    flat = values.reshape(-1)
    if flat.size > KEPT:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, KEPT)]
    return Activation(node.name, node.op.name, shape_of(flat, node.label), dead)
