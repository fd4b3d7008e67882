"""Blocks of samples: the second body of a program whose batch is open.

The first body computes one sample at a time: its kernels read every filter for each sample, and a
small image leaves lanes idle. The second is the same program for a block of samples, as it would be
bound to them, in the loop that `emit_program` puts around either. A sample's results depend on it
alone, so both give the same bits, and a call may be of blocks first, then of single samples.

* A block is the largest of SIZES whose arena fits L2, since what a kernel writes the next one
  reads; or a share of the filters, where these come from farther away than the values do. Networks
  of larger images have none: a sample or two fill the cache, and a larger arena is slower.
* Contractions of bytes gain little by blocks and take LLVM twice as long, products of f32 gain
  nothing (docs/laboratory.md): without distances of f32 only large filters make a block.
* It costs what the first body did, so it is compiled late: after calls of many samples have taken
  PATIENCE seconds, or by `Program.prepare`. Exported libraries never have one.
* With several threads each has whole blocks, as many as the others.
"""

from __future__ import annotations

from addergraph.ir import Node
from addergraph.ir.types import f32
from addergraph.ops.fused import contraction_of

from ..emit.lowered import Lowered

SIZES = (16, 8, 4)  # samples of a block; calls of fewer than the first, a thread, compile none
PATIENCE = 0.1
FILTERS = 16  # times what the values take, from which on filters are what memory is busy with


def sizes(one: Lowered) -> tuple[int, ...]:
    """How many samples a block of the program of `one` may have, those to try first in front."""
    if SIZES[-1] * one.plan.arena_bytes > _room(one):
        return ()
    far = _room(one) > one.target.machine.l2
    return SIZES if far or any(map(_idles, one.main.nodes)) else ()


def fits(block: Lowered) -> bool:
    """Whether a block of so many samples is not slower for where its values lie."""
    return block.plan.arena_bytes <= _room(block)


def _room(lowered: Lowered) -> int:
    filters = sum(p.type.nbytes for p in lowered.main.parameters)
    return max(lowered.target.machine.l2, filters // FILTERS)


def _idles(node: Node) -> bool:
    """Whether its kernel for one sample may leave lanes idle."""
    inner = contraction_of(node)
    if inner is None:
        return False
    return inner.op.measures_distance and inner.inputs[0].type.dtype == f32
