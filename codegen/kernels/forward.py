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
from addergraph.types import u8

from ..schedule import contraction_tiles
from ..target import Target
from . import ALL_KEPT, Call, Kernel, kernel
from ._geometry import MINIMUM, Geometry
from ._sparse_batch_tile import batch_tile
from ._sparse_tile import sparse_tile
from .adder_u8 import AdderU8Kernel
from .contraction import ContractionKernel
from .sparse_adder import SparseAdderKernel
from .sparse_adder_batch import SparseBatchKernel

DENSE_RATE = 1.9  # vector terms a cycle
SUM_COST = 15.0  # cycles for the channel sums of a vector of inputs
SPARSE_RATE = 1.6  # vector terms a cycle, apart from what each step of a list costs
STEP_COST = 2.2  # one step, in vector terms
MOVE_COST = 14.0  # cycles for a vector of inputs or outputs that changes its layout, sums included


@kernel(Adder2d, Conv2d, AdderDense, Dense, Matmul)
def forward_contraction(call: Call, body: Graph | None = None) -> Kernel:
    """The kernel that `call.choice` names, or the one that the model expects to be the fastest."""
    if call.choice:
        return candidates(call, body)[call.choice]
    if _of_bytes(call, body):
        return AdderU8Kernel(call, body)
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


def _of_bytes(call: Call, body: Graph | None) -> bool:
    first = call.inputs[0].type if body is None else body.nodes[0].inputs[0].type
    return first.dtype == u8


def candidates(call: Call, body: Graph | None = None) -> dict[str, Kernel]:
    """Every kernel that serves the call, by the name of its choice. All give the same bits."""
    if _of_bytes(call, body):
        return {"bytes": AdderU8Kernel(call, body)}
    dense = ContractionKernel(call, body)
    g, target = dense.g, call.target
    found: dict[str, Kernel] = {}
    for tile in contraction_tiles(target, g.height, g.width, g.outputs):
        name = f"dense {tile.rows}x{tile.columns}x{tile.vectors}"
        found[name] = ContractionKernel(call, body, tile)
    if dense.is_constant and g.form == MINIMUM:
        if sparse_tile(target, g) is not None:
            found["sparse over pixels"] = SparseAdderKernel(call, body)
        if batch_tile(target, g) is not None:
            found["sparse over samples"] = SparseBatchKernel(call, body)
    return found


def _vector_terms(g: Geometry, target: Target) -> float:
    outputs = g.groups * g.samples * g.height * g.width * g.outputs
    return outputs * g.steps / target.lanes


def _input_vectors(g: Geometry, target: Target) -> float:
    pixels = math.prod(g.read) if g.kernel != (1, 1) else g.height * g.width
    return g.groups * g.samples * g.inputs * pixels / target.lanes


def _output_vectors(g: Geometry, target: Target) -> float:
    return g.groups * g.samples * g.outputs * g.height * g.width / target.lanes


def _dense_cycles(g: Geometry, target: Target) -> float:
    lanes = target.lanes
    waste = -(-g.outputs // lanes) * lanes / max(1, g.outputs)
    terms = waste * _vector_terms(g, target)
    return terms / DENSE_RATE + SUM_COST * _input_vectors(g, target)


def _list_cycles(g: Geometry, target: Target, kept: float, vectors: int) -> float:
    """Walking all lists, with tiles of `vectors` vectors."""
    rate = SPARSE_RATE * vectors / (vectors + STEP_COST)
    return kept * _vector_terms(g, target) / rate


def _pixel_cycles(g: Geometry, target: Target, kept: float) -> float:
    tile = sparse_tile(target, g)
    if tile is None:
        return math.inf
    waste = tile.pitch * tile.rows * -(-g.height // tile.rows) / (g.width * g.height)
    moved = _input_vectors(g, target) + _output_vectors(g, target)
    return waste * _list_cycles(g, target, kept, tile.vectors) + MOVE_COST * moved


def _sample_cycles(g: Geometry, target: Target, kept: float) -> float:
    tile = batch_tile(target, g)
    if tile is None:
        return math.inf
    waste = -(-g.samples // target.lanes) * target.lanes / g.samples
    # Rows that two strips read are transposed twice.
    again = max(1.0, tile.rows_read / (tile.strip_rows * g.stride[0]))
    moved = again * _input_vectors(g, target) + _output_vectors(g, target)
    return waste * (_list_cycles(g, target, kept, tile.columns) + MOVE_COST * moved)
