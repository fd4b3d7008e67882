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

from ..schedule import ceil_div, contraction_tiles
from ..target import Target
from . import ALL_KEPT, Call, Kernel, kernel
from ._bytes_lists import ENTRY_BYTES, QUAD
from ._bytes_tile import BytesTile
from ._geometry import CHANNEL_BLOCK, MINIMUM, Geometry
from ._sparse_batch_tile import BatchTile, batch_tile
from ._sparse_tile import SparseTile, sparse_tile
from .adder_u8 import AdderU8Kernel, psad_of
from .contraction import ContractionKernel
from .product_u8 import ProductU8Kernel
from .sparse_adder import SparseAdderKernel
from .sparse_adder_batch import SparseBatchKernel
from .sparse_adder_u8 import SparseU8Kernel, sparse_bytes_tile

DENSE_RATE = 1.9  # vector terms a cycle
SUM_COST = 4.0  # cycles for the channel sums of a vector of inputs
SPARSE_RATE = 1.6  # vector terms a cycle, apart from what each step of a list costs
STEP_COST = 2.2  # one step of one list, in vector terms
LIST_COST = 40.0  # cycles to begin and to end the lists of a group of filters
# Cycles for a vector of inputs or outputs that changes its layout, sums included.
PIXEL_MOVE, SAMPLE_MOVE = 9.0, 4.0
# Of bytes: vectors of distances a cycle, of minima a cycle (with 64-byte vectors, loads bind), what
# a list costs beside them, alone and per vector of its sums, an entry whose list comes from beyond
# L2, and a vector that is transposed or copied.
BYTES_DENSE_RATE, BYTES_SPARSE_RATE, BYTES_SPARSE_RATE_64 = 1.65, 1.6, 1.4
BYTES_LIST_COST, BYTES_SUM_COST, BYTES_FAR_COST, BYTES_MOVE = 30.0, 8.0, 0.5, 1.5
BYTES_MARGIN = 0.92  # of the dense kernel's time: a tail takes longer behind lists
L2_BYTES = 1 << 20


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
    g, target = dense.g, call.target
    over_pixels, over_samples = _pixel_cycles(g, target, kept), _sample_cycles(g, target, kept)
    if _dense_cycles(g, target) <= min(over_pixels, over_samples):
        return dense
    if over_pixels <= over_samples:
        return SparseAdderKernel(call, body)
    return SparseBatchKernel(call, body)


def _chosen_of_bytes(call: Call, body: Graph | None) -> Kernel:
    dense = _byte_kernel(call, body)
    tile = sparse_bytes_tile(dense)
    if tile is None or not call.kept or psad_of(call.target) is None:
        return dense
    kept = call.kept[dense.operands[1]] / ALL_KEPT
    if _sparse_bytes_cycles(tile, kept) < BYTES_MARGIN * _dense_bytes_cycles(dense.g, tile.lanes):
        return SparseU8Kernel(call, body)
    return dense


def _dense_bytes_cycles(g: Geometry, lanes: int) -> float:
    channels = ceil_div(g.outputs, lanes // 8) * lanes // 8
    pixels = g.groups * g.samples * g.height * g.width
    return pixels * channels * g.steps / lanes / BYTES_DENSE_RATE


def _sparse_bytes_cycles(tile: BytesTile, kept: float) -> float:
    g = tile.g
    lists = ceil_div(g.inputs, tile.block) * g.outputs
    entries = kept * g.kernel[0] * g.kernel[1] * min(tile.block, g.inputs) + QUAD / 2
    rate = BYTES_SPARSE_RATE_64 if tile.lanes == 64 else BYTES_SPARSE_RATE
    far = BYTES_FAR_COST if g.groups * lists * entries * ENTRY_BYTES > L2_BYTES else 0.0
    one = entries * (tile.vectors / rate + far)
    walked = lists * (one + BYTES_LIST_COST + BYTES_SUM_COST * tile.vectors)
    planes = g.inputs * (tile.plane_bytes + tile.copies * tile.copy_bytes) / tile.lanes
    moved = BYTES_MOVE * (planes + g.outputs * tile.vectors)
    strips = ceil_div(g.samples, tile.samples) * tile.strips
    return g.groups * strips * (walked + moved)


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


def _list_cycles(g: Geometry, kept: float, tile: SparseTile | BatchTile, tiles: int) -> float:
    """Walking all lists for `tiles` tiles."""
    vectors = tile.vectors if isinstance(tile, SparseTile) else tile.columns
    steps = kept * math.prod(g.kernel) * min(g.inputs, CHANNEL_BLOCK)
    lists = steps * tile.filters * (vectors + STEP_COST) / SPARSE_RATE + LIST_COST
    groups = ceil_div(g.inputs, CHANNEL_BLOCK) * ceil_div(g.outputs, tile.filters)
    return g.groups * groups * tiles * lists


def _pixel_cycles(g: Geometry, target: Target, kept: float) -> float:
    tile = sparse_tile(target, g)
    if tile is None:
        return math.inf
    moved = _input_vectors(g, target) + _output_vectors(g, target)
    tiles = g.samples * ceil_div(g.height, tile.rows)
    return _list_cycles(g, kept, tile, tiles) + PIXEL_MOVE * moved


def _sample_cycles(g: Geometry, target: Target, kept: float) -> float:
    tile = batch_tile(target, g)
    if tile is None:
        return math.inf
    samples = ceil_div(g.samples, target.lanes)
    waste = samples * target.lanes / g.samples
    # Rows that two strips read are transposed twice.
    again = max(1.0, tile.rows_read / (tile.strip_rows * g.stride[0]))
    moved = waste * (again * _input_vectors(g, target) + _output_vectors(g, target))
    tiles = samples * g.height * ceil_div(g.width, tile.columns)
    return _list_cycles(g, kept, tile, tiles) + SAMPLE_MOVE * moved
