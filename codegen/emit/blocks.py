"""Blocks of samples: how many of a batch the body of a program computes at once.

A body of few samples reads every filter for each, and a small image leaves lanes idle; one of many
has an arena that leaves the cache, where what a kernel writes the next one reads it. Where samples
are independent, blocks of any size give the same bits, and `emit_program` puts a loop around the
body. So a block is the largest whose arena fits L2; or a share of the filters, where these come
from farther away than the values do. For larger images that is one sample.

* A bound batch is one block where it fits; else half of it, a quarter, and so on, down to a sample.
  Blocks that do not divide it end with one that is moved back: WASTE says how many samples may be
  computed twice. Each thread has as many blocks, and they split the inside of those that are left.
  So do exported libraries, whose threads have at most AT_ONCE arenas.
* An open batch has a body for one sample, and a second one for blocks of SIZES. It costs what the
  first one did, so it is compiled late: after calls of many samples have taken PATIENCE seconds, or
  by `Program.prepare`; exported libraries never have it. A call is of blocks first, as many for
  each thread, then of single samples.
* Contractions of bytes gain little by blocks and take LLVM twice as long, products of f32 gain
  nothing (docs/laboratory.md): without distances of f32 only large filters make a second body.
"""

from __future__ import annotations

from addergraph.ir import Graph, Node
from addergraph.ir.plan import MemoryPlan
from addergraph.ir.types import f32
from addergraph.ops.fused import contraction_of

from ..targets.machine import Machine

SIZES = (16, 8, 4)  # samples of a block; calls of fewer than the first, a thread, compile none
PATIENCE = 0.1
FILTERS = 16  # times what the values take, from which on filters are what memory is busy with
AT_ONCE = 4
WASTE = 16  # times as many samples as may be computed twice, a batch has


def room(graph: Graph, machine: Machine) -> int:
    """Bytes of an arena with which a block of so many samples is not slower for where they lie."""
    return max(machine.l2, sum(p.type.nbytes for p in graph.parameters) // FILTERS)


def of_batch(batch: int) -> tuple[int, ...]:
    """How many samples a block of a batch of so many may have, those to try first in front."""
    halves = dict.fromkeys(-(-batch >> times) for times in range(batch.bit_length() + 1))
    return tuple(size for size in halves if WASTE * (-batch % size) <= batch)


def of_calls(one: Graph, plan: MemoryPlan, machine: Machine) -> tuple[int, ...]:
    """The same of calls of many samples, where `one` computes one sample; empty where they do not
    pay."""
    space = room(one, machine)
    if SIZES[-1] * plan.arena_bytes > space:
        return ()
    return SIZES if space > machine.l2 or any(map(_idles, one.nodes)) else ()


def _idles(node: Node) -> bool:
    """Whether its kernel for one sample may leave lanes idle."""
    inner = contraction_of(node)
    if inner is None:
        return False
    return inner.op.measures_distance and inner.inputs[0].type.dtype == f32
