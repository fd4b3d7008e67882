"""Which kernel computes a forward contraction: dense or sparse.

Both give the same bits, so the choice may read the weights. The model counts cycles: vector terms
at the rate that each inner loop reaches, what lists cost beside them, and the sparse kernels'
moving of inputs and outputs between channels in the lanes and pixels in the lanes. What depends on
the CPU is read from the target's machine; the constants here are of the emitted loops, fitted on
Zen 5. Those of f32 lists are in `_sparse_choice.py`, as the tile depends on them.
"""

from __future__ import annotations

import math

from addergraph.ir import Graph
from addergraph.ir.types import u8
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense, Matmul

from ...targets.target import Target
from .. import ALL_KEPT, Call, Kernel, kernel
from ..schedule import ceil_div, contraction_tiles
from ..sparse._bytes_tile import cycles as sparse_bytes_cycles
from ..sparse._sparse_choice import sparse_cycles, sparse_tile
from ..sparse.sparse_f32 import SparseAdderKernel
from ..sparse.sparse_u8 import SparseU8Kernel, sparse_bytes_tile
from .dense import ContractionKernel
from .dense_u8 import AdderU8Kernel
from .geometry import MINIMUM, Geometry
from .product_u8 import ProductU8Kernel

DENSE_SHARE, BYTES_DENSE_SHARE = 0.95, 0.825  # of the machine's rate
SUM_TERMS = 8.0  # in whose time a vector of inputs is added to the channel sums
TAIL_TERMS = 4.8  # in whose time a vector of i32 sums becomes bytes


@kernel(Adder2d, Conv2d, AdderDense, Dense, Matmul)
def forward_contraction(call: Call, body: Graph | None = None) -> Kernel:
    """The kernel that `call.choice` names, or the one that the model expects to be the fastest."""
    if call.choice:
        return candidates(call, body)[call.choice]
    if _of_bytes(call, body):
        return _chosen_of_bytes(call, body)
    dense = ContractionKernel(call, body)
    kept = call.kept[dense.operands[1]] / ALL_KEPT if call.kept else 1.0
    if not dense.is_constant or dense.g.form != MINIMUM or kept == 1.0:
        return dense
    tile = sparse_tile(call.target, dense.g)
    if tile is None or _dense_cycles(dense.g, call.target) <= sparse_cycles(
        call.target, tile, kept
    ):
        return dense
    return SparseAdderKernel(call, body)


def _chosen_of_bytes(call: Call, body: Graph | None) -> Kernel:
    dense = _byte_kernel(call, body)
    tile = sparse_bytes_tile(dense)
    if tile is None or not call.kept or not call.target.byte_distances:
        return dense
    kept = call.kept[dense.operands[1]] / ALL_KEPT
    if sparse_bytes_cycles(call.target, tile, kept) < _dense_bytes_cycles(dense.g, call.target):
        return SparseU8Kernel(call, body)
    return dense


def _dense_bytes_cycles(g: Geometry, target: Target) -> float:
    lanes, rates = target.vector_bytes, target.rates
    channels = ceil_div(g.outputs, lanes // 8) * lanes // 8
    outputs = g.groups * g.samples * g.height * g.width * channels
    distances = outputs * g.steps / lanes / (BYTES_DENSE_SHARE * rates.distances)
    return distances + 4 * outputs / lanes * (TAIL_TERMS / rates.terms)


def _of_bytes(call: Call, body: Graph | None) -> bool:
    first = call.inputs[0].type if body is None else body.nodes[0].inputs[0].type
    return first.dtype == u8


def _byte_kernel(call: Call, body: Graph | None) -> AdderU8Kernel:
    op = call.op if body is None else body.nodes[0].op
    adds = isinstance(op, Adder2d | AdderDense)
    return AdderU8Kernel(call, body) if adds else ProductU8Kernel(call, body)


def candidates(call: Call, body: Graph | None = None) -> dict[str, Kernel]:
    """Every kernel that serves the call, by the name of its choice. All give the same bits."""
    if _of_bytes(call, body):
        of_bytes = _byte_kernel(call, body)
        sparse = sparse_bytes_tile(of_bytes) is not None
        return {
            "dense bytes": of_bytes,
            **({"sparse bytes": SparseU8Kernel(call, body)} if sparse else {}),
        }
    dense = ContractionKernel(call, body)
    g, target = dense.g, call.target
    found: dict[str, Kernel] = {}
    for tile in contraction_tiles(target, g.height, g.width, g.outputs):
        name = f"dense {tile.rows}x{tile.columns}x{tile.vectors}"
        found[name] = ContractionKernel(call, body, tile)
    if dense.is_constant and sparse_tile(target, g) is not None:
        found["sparse"] = SparseAdderKernel(call, body)
    return found


def _vector_terms(g: Geometry, target: Target) -> float:
    outputs = g.groups * g.samples * g.height * g.width * g.outputs
    return outputs * g.steps / target.lanes


def _input_vectors(g: Geometry, target: Target) -> float:
    pixels = math.prod(g.read) if g.kernel != (1, 1) else g.height * g.width
    return g.groups * g.samples * g.inputs * pixels / target.lanes


def _dense_cycles(g: Geometry, target: Target) -> float:
    lanes = target.lanes
    waste = -(-g.outputs // lanes) * lanes / max(1, g.outputs)
    terms, rate = waste * _vector_terms(g, target), target.rates.terms
    return terms / (DENSE_SHARE * rate) + SUM_TERMS / rate * _input_vectors(g, target)
