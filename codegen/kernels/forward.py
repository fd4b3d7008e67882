"""Which kernel computes a forward contraction: dense, or sparse over pixels or over samples.

All of them give the same bits, so the choice may read the weights. The model counts cycles: vector
terms at the rate that each inner loop reaches, and the sparse kernels' moving of inputs and outputs
between channels in the lanes and pixels (or samples) in the lanes. Its constants were measured on
Zen 5 with 512-bit vectors.
"""

from __future__ import annotations

import math

from addergraph.ir import Graph
from addergraph.ops.adder2d import Adder2d
from addergraph.ops.adder_dense import AdderDense
from addergraph.ops.conv2d import Conv2d
from addergraph.ops.dense import Dense, Matmul

from ..target import Target
from . import ALL_KEPT, Call, Kernel, kernel
from ._geometry import MINIMUM, Geometry
from ._sparse_batch_tile import batch_tile
from ._sparse_tile import sparse_tile
from .contraction import ContractionKernel
from .sparse_adder import SparseAdderKernel
from .sparse_adder_batch import SparseBatchKernel

DENSE_RATE = 1.9  # vector terms a cycle
SPARSE_RATE = 1.45  # the same, apart from the loads of the list itself
STEP_COST = 1.6  # one step of a list, in vector terms
MOVE_PIXELS = 16.0  # cycles for a vector of inputs or outputs that changes its layout
MOVE_SAMPLES = 20.0


@kernel(Adder2d, Conv2d, AdderDense, Dense, Matmul)
def forward_contraction(call: Call, body: Graph | None = None) -> Kernel:
    """The kernel that the model expects to be the fastest."""
    dense = ContractionKernel(call, body)
    kept = call.kept[dense.operands[1]] / ALL_KEPT if call.kept else 1.0
    if not dense.is_constant or dense.g.form != MINIMUM or kept == 1.0:
        return dense
    g, target = dense.g, call.target
    over_pixels, over_samples = _pixel_cycles(g, target, kept), _sample_cycles(g, target, kept)
    if _dense_cycles(g, target) <= min(over_pixels, over_samples):
        return dense
    if over_pixels <= over_samples:
        return SparseAdderKernel(call, body)
    return SparseBatchKernel(call, body)


def _vector_terms(g: Geometry, target: Target) -> float:
    outputs = g.groups * g.samples * g.height * g.width * g.outputs
    return outputs * g.steps / target.lanes


def _moved(g: Geometry, target: Target) -> float:
    """Vectors of inputs and outputs."""
    read = math.prod(g.read) if g.kernel != (1, 1) else g.height * g.width
    elements = g.inputs * read + g.outputs * g.height * g.width
    return g.groups * g.samples * elements / target.lanes


def _dense_cycles(g: Geometry, target: Target) -> float:
    lanes = target.lanes
    waste = -(-g.outputs // lanes) * lanes / max(1, g.outputs)
    return waste * _vector_terms(g, target) / DENSE_RATE


def _pixel_cycles(g: Geometry, target: Target, kept: float) -> float:
    tile = sparse_tile(target, g)
    if tile is None:
        return math.inf
    waste = tile.pitch * tile.rows * -(-g.height // tile.rows) / (g.width * g.height)
    rate = SPARSE_RATE * tile.vectors / (tile.vectors + STEP_COST)
    return kept * waste * _vector_terms(g, target) / rate + MOVE_PIXELS * _moved(g, target)


def _sample_cycles(g: Geometry, target: Target, kept: float) -> float:
    tile = batch_tile(target, g)
    if tile is None:
        return math.inf
    waste = -(-g.samples // target.lanes) * target.lanes / g.samples
    rate = SPARSE_RATE * tile.columns / (tile.columns + STEP_COST)
    # Rows that two strips read are transposed twice.
    again = tile.rows_read / (tile.strip_rows * g.stride[0])
    moved = MOVE_SAMPLES * max(1.0, again) * _moved(g, target)
    return waste * (kept * _vector_terms(g, target) / rate + moved)
