"""Gradient graphs of random f32 networks.

Exact numbers stay exact only as long as a rule bounds every sum, and `grad` sums by itself. So the
results are held to the bounds of rounding (`differential.within_rounding`), and half of the cases
have real numbers, which round everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import count
from random import Random

import numpy as np

from addergraph.errors import GraphError
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.types import f32
from addergraph.passes.autodiff import grad
from tests.strategies import MOST_NODES, Case, Drawing, is_dull
from tests.strategies_layers import layer
from tests.strategies_nodes import average_image, movement, pointwise, pool, reduction, results


def gradient_case(seed: int, nodes: int | None = None) -> Case:
    """The gradient graph of a network of so many nodes, or up to half of MOST_NODES.

    The outputs are the gradients of its f32 inputs and parameters. Networks without a gradient, or
    whose gradients hardly vary, are drawn again, from seeds of their own.
    """
    drawn = (_gradients(Random(f"{seed} {again}"), nodes) for again in count())
    return dataclasses.replace(next(case for case in drawn if case), seed=seed)


def _gradients(random: Random, nodes: int | None) -> Case | None:
    d = Drawing(random.getrandbits(32))
    d.open, d.batch = False, d.batch or 1
    wanted = nodes or d.integer(1, MOST_NODES // 2)
    layer(d)
    while len(d.builder.nodes) < wanted:
        d.one_of(_KINDS)(d)
    outputs = [v for v in results(d) if v.type.dtype == f32]
    if not outputs:
        return None
    network = d.finish(outputs, [])
    wrt = [
        v.name for v in (*network.graph.inputs, *network.graph.parameters) if v.type.dtype == f32
    ]
    try:
        graph = grad(network.graph, wrt)
    except GraphError:  # an op without a gradient is on the way
        return None
    known = dict(zip((v.name for v in network.graph.inputs), network.inputs, strict=True))
    arrays = [
        known[v.name] if v.name in known else _upstream(d, v.type.sizes) for v in graph.inputs
    ]
    weights = {p.name: network.weights[p.name] for p in graph.parameters}
    if d.chance(50):
        arrays = [_real(d, a) for a in arrays]
        weights = {name: _real(d, a) for name, a in weights.items()}
    case = Case(d.seed, graph, tuple(arrays), weights)
    found, _ = run_reference(graph, arrays, weights)
    return case if any(not is_dull(a) and a.any() for a in found) else None


def _upstream(d: Drawing, sizes: tuple[int, ...]) -> Array:
    return np.asarray(d.rng.integers(-4, 5, sizes), np.float32)


def _real(d: Drawing, array: Array) -> Array:
    """Numbers of the same signs and about the same size, so that no divisor comes near zero."""
    if array.dtype != np.float32:
        return array
    return np.asarray(array * d.rng.uniform(0.75, 1.25, array.shape), np.float32)


_KINDS: tuple[Callable[[Drawing], None], ...] = (
    layer, layer, layer, layer, pointwise, pointwise, pool, pool, reduction,
    reduction, movement, movement, average_image,
)  # fmt: skip
