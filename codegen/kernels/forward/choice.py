"""Which kernel computes a forward contraction: dense, sparse or depthwise.

All give the same bits, so the choice may read the weights. The model counts cycles: vector terms
at the rate that each inner loop reaches, what lists cost beside them, and the sparse kernels'
moving of inputs and outputs between channels in the lanes and pixels in the lanes. What depends on
the CPU is read from the target's machine; the constants here are of the emitted loops, fitted on
Zen 5. Those of f32 lists are in `_f32_choice.py`, as the tile depends on them.
"""

from __future__ import annotations

import math

from addergraph.ir import Graph
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.ops.contraction.conv2d import Conv2d
from addergraph.ops.contraction.dense import Dense, Matmul

from ...targets.target import Target
from .. import Call, Kernel, kernel, taps_of
from ..schedule import DENSE, DEPTHWISE, SPARSE, Choice, ceil_div, contraction_tiles
from ..sparse._f32_choice import sparse_cycles, sparse_tile, tells_kinds
from ..sparse._f32_tile import SparseTile
from ..sparse._u8_choice import cycles as sparse_bytes_cycles
from ..sparse._u8_tile import BytesTile
from ..sparse.sparse_f32 import SparseAdderKernel
from ..sparse.sparse_u8 import SparseU8Kernel, sparse_bytes_tile
from .dense import DenseKernel
from .depthwise import DepthwiseKernel, serves
from .geometry import Geometry
from .terms import BYTES, MINIMUM, ByteTerm

BYTES_DENSE_SHARE = 0.825  # of the machine's rate
SUM_TERMS = 8.0  # in whose time a vector of inputs is added to the channel sums
TAIL_TERMS = 4.8  # in whose time a vector of i32 sums becomes bytes


@kernel(Adder2d, Conv2d, AdderDense, Dense, Matmul)
def forward_contraction(call: Call, body: Graph | None = None) -> Kernel:
    """The kernel of `call.choice`, or the one that the model expects to be the fastest."""
    dense = DenseKernel(call, body)
    measured = None if _by_kinds(dense) else call.choice
    return _made(dense, measured or _expected(dense))


def expected_choice(call: Call, body: Graph | None = None) -> Choice:
    """What the model chooses, whatever `call.choice` is."""
    return _expected(DenseKernel(call, body))


def candidates(call: Call, body: Graph | None = None) -> dict[Choice, Kernel]:
    """Every kernel that serves the call. All give the same bits."""
    dense = DenseKernel(call, body)
    if _by_kinds(dense):
        only = _expected(dense)
        return {only: _made(dense, only)}
    g, tiles = dense.g, [dense.tile]
    if not _of_bytes(dense):
        together = g.term.joins_steps
        tiles = contraction_tiles(call.target, g.height, g.width, g.outputs, together=together)
    choices = [Choice(DENSE, tile) for tile in tiles]
    if serves(g, call.target):
        choices.append(Choice(DEPTHWISE))
    if _sparse_tile(dense) is not None:
        choices.append(Choice(SPARSE))
    return {choice: _made(dense, choice) for choice in choices}


def _by_kinds(dense: DenseKernel) -> bool:
    """Whether the sums of f32 add saturated taps behind the others, which one kernel does."""
    known = tells_kinds(dense.g, taps_of(dense.call, dense.operands[1]))
    return known and _sparse_tile(dense) is not None


def _of_bytes(dense: DenseKernel) -> bool:
    return isinstance(dense.g.term, ByteTerm)


def _sparse_tile(dense: DenseKernel) -> SparseTile | BytesTile | None:
    """The sparse kernel's tile, or None where it does not serve the call."""
    if _of_bytes(dense):
        return sparse_bytes_tile(dense)
    taps = taps_of(dense.call, dense.operands[1])
    return sparse_tile(dense.target, dense.g, taps) if dense.is_constant else None


def _made(dense: DenseKernel, choice: Choice) -> Kernel:
    call, body = dense.call, dense.body
    if choice.kind == DEPTHWISE:
        return DepthwiseKernel(call, body)
    if choice.kind == SPARSE:
        return SparseU8Kernel(call, body) if _of_bytes(dense) else SparseAdderKernel(call, body)
    if choice.tile in (None, dense.tile):
        return dense
    return DenseKernel(call, body, choice.tile)


def _expected(dense: DenseKernel) -> Choice:
    call, g, sparse = dense.call, dense.g, False
    if _by_kinds(dense):
        return Choice(SPARSE)
    if serves(g, call.target):
        return Choice(DEPTHWISE)  # no shape was found where another was faster
    kept, saturated = taps_of(call, dense.operands[1]).shares
    if g.term == BYTES and call.kept and call.target.byte_distances:
        found = sparse_bytes_tile(dense)
        sparse = found is not None and (
            sparse_bytes_cycles(call.target, found, kept, saturated)
            < _dense_bytes_cycles(g, call.target)
        )
    elif g.term == MINIMUM and dense.is_constant and kept < 1.0:
        tile = _sparse_tile(dense)
        sparse = isinstance(tile, SparseTile) and (
            sparse_cycles(call.target, tile, kept) < _dense_cycles(g, call.target)
        )
    return Choice(SPARSE) if sparse else Choice(DENSE, dense.tile)


def _dense_bytes_cycles(g: Geometry, target: Target) -> float:
    lanes, rates = target.vector_bytes, target.rates
    channels = ceil_div(g.outputs, lanes // 8) * lanes // 8
    outputs = g.groups * g.samples * g.height * g.width * channels
    distances = outputs * g.steps / lanes / (BYTES_DENSE_SHARE * rates.distances)
    return distances + 4 * outputs / lanes * (TAIL_TERMS / rates.terms)


def _vector_terms(g: Geometry, target: Target) -> float:
    outputs = g.groups * g.samples * g.height * g.width * g.outputs
    return outputs * g.steps / target.lanes


def _input_vectors(g: Geometry, target: Target) -> float:
    pixels = math.prod(g.read) if g.kernel != (1, 1) else g.height * g.width
    return g.groups * g.samples * g.inputs * pixels / target.lanes


def _dense_cycles(g: Geometry, target: Target) -> float:
    lanes = target.lanes
    waste = -(-g.outputs // lanes) * lanes / max(1, g.outputs)
    terms, rates = waste * _vector_terms(g, target), target.rates
    outputs = terms / max(1, g.steps)
    sums = SUM_TERMS / rates.terms * _input_vectors(g, target)
    return terms / (rates.dense * rates.terms) + sums + rates.finish * outputs
