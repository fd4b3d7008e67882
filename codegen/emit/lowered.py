"""What stands between the passes and the emitted module: a planned graph and its calls, as data.

A *call* is an op with the types and layouts of its operands (`kernels.Call`). Planning asks for the
scratch memory of each call before layouts are known; emission and the packing of weights use the
planned ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from addergraph.ir import Array, Graph, Node, Parameter, Value
from addergraph.ir.intervals import Interval, value_ranges
from addergraph.ir.plan import ALIGNMENT, Layout, MemoryPlan, Placement, align
from addergraph.ir.state import aligned_bytes
from addergraph.ir.taps import EIGHTHS, Taps
from addergraph.ir.types import u8
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.fused import Fused

from ..kernels import ALL_KEPT, Call, Kernel, Operand, kernel_for
from ..kernels.schedule import SPARSE, Choice
from ..kernels.sparse._u8_lists import MOST_BYTE
from ..targets.target import Target
from .blocks import AT_ONCE, room

MOST_BY_KINDS = 5  # eighths of the taps that need a minimum: with more, dense kernels may be faster
FEW_BYTES = 55  # four bytes of this mean mostly have a sum of at most 255


@dataclass(frozen=True)
class Lowered:
    """A graph after the passes, with everything that code generation needs.

    source   the graph as it was given (its batch may be open)
    setup    what depends on parameters alone: run once by NumPy when weights are set
    main     what runs natively, bound; where the batch of `source` is open: a block of it
    plan     where main's values live
    batched  which of main's inputs and outputs advance from block to block; None if `source` is
             bound
    kept     constant parameters: the share of elements above zero, see `share_kept`
    choices  nodes whose kernel was chosen by measuring, see `tune.py`
    samples  of a block: 1, or what `blocks.py` says
    batch    how many samples a call has; None where that is the call's
    """

    source: Graph
    setup: Graph
    main: Graph
    plan: MemoryPlan
    target: Target
    batched: tuple[bool, ...] | None
    kept: Mapping[str, Taps] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)
    samples: int = 1
    batch: int | None = None

    @cached_property
    def declared(self) -> Graph:
        """What a call computes: `source`, of the `batch` that it was bound to."""
        return self.source if self.batch is None else self.source.bind(self.batch)

    @property
    def is_open(self) -> bool:
        """Whether a call may have any number of samples."""
        return self.batched is not None and self.batch is None

    @property
    def blocks(self) -> Sequence[int] | None:
        """The first sample of each block of a call, where a bound batch has several: the last block
        moves back where they do not divide, so that some are computed twice, to the same bits."""
        if self.batch is None or self.samples == self.batch:
            return None
        last = self.batch - self.samples
        return [min(first, last) for first in range(0, self.batch, self.samples)]

    @property
    def arena_bytes(self) -> int:
        """Of one block, in whole lines of the cache."""
        return align(max(ALIGNMENT, self.plan.arena_bytes))

    @property
    def arenas(self) -> int:
        """How many blocks an exported library has arenas for: a few, as threads split the inside
        of a sample badly; where a block has several samples, no more than half of the blocks."""
        if self.blocks is None or not self.target.atomics:
            return 1
        return min(AT_ONCE, max(1, len(self.blocks) // min(self.samples, 2)))


@dataclass(frozen=True)
class Kernels:
    """The kernels that will serve a graph: what the passes ask of code generation.

    weights  where known, constant filters choose between dense and sparse kernels
    choices  nodes whose kernel was chosen by measuring, see `tune.py`
    """

    target: Target
    weights: Mapping[str, Array] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def share_kept(self, graph: Graph) -> dict[str, Taps]:
        """See `share_kept`."""
        return share_kept(graph, self.weights)

    def workspaces(self, graph: Graph, kept: Mapping[str, Taps]) -> dict[str, int]:
        """Bytes of scratch memory that each node's kernel wants, for the memory planner."""
        sizes = {node.name: self._kernel(graph, node, kept).workspace for node in graph.nodes}
        return {name: size for name, size in sizes.items() if size}

    def room(self, graph: Graph) -> int:
        """See `blocks.py`."""
        return room(graph, self.target.machine)

    def _kernel(self, graph: Graph, node: Node, kept: Mapping[str, Taps]) -> Kernel:
        """Planning asks before layouts are known: those of dense buffers."""
        inputs, outputs = (
            tuple(Operand(v.type, Layout(v.type.sizes)) for v in values)
            for values in (node.inputs, node.outputs)
        )
        fixed, share = _constants(graph, node, kept)
        choice = self.choices.get(node.name)
        return kernel_for(Call(node.op, inputs, outputs, self.target, fixed, share, choice))


@dataclass(frozen=True)
class WeightEntry:
    """A block of the read-only weights: a parameter, raw or as the kernel of `node` packs it."""

    parameter: str
    offset: int
    nbytes: int
    node: str | None = None
    operand: int = 0


@dataclass(frozen=True)
class KernelFacts:
    """The function that computes a node.

    symbol  its name in the object
    kind    which of several kernels that serve an op it is: `Kernel.kind`
    """

    symbol: str
    kind: str

    @property
    def sparse(self) -> bool:
        return self.kind == SPARSE


@dataclass(frozen=True)
class ProgramFacts:
    """What a loader has to know of an emitted program, as plain data.

    weights        the blocks of the read-only weights, `weights_bytes` in all
    kernels        node name -> the function that computes it
    """

    weights: tuple[WeightEntry, ...]
    weights_bytes: int
    kernels: Mapping[str, KernelFacts]


def computed_by(facts: ProgramFacts) -> dict[str, list[str]]:
    """Function -> the nodes that it computes."""
    nodes: dict[str, list[str]] = {}
    for name, kernel in facts.kernels.items():
        nodes.setdefault(kernel.symbol, []).append(name)
    return nodes


def share_kept(graph: Graph, weights: Mapping[str, Array]) -> dict[str, Taps]:
    """The taps of each constant filter that a sparse kernel could use.

    The choice between dense and sparse kernels reads it; of results of f32 the order of a sum
    depends on whether there are saturated taps (`kernels/sparse/sparse_f32.py`), and nothing else.
    It is coarse, so that layers that differ in their numbers alone still share one kernel.
    """
    if graph.updates:
        return {}
    tops: dict[Parameter, float] = {}
    ranges: Mapping[str, Interval] | None = None
    for x, value in _sparse_filters(graph):
        if isinstance(value, Parameter) and value.name in weights:
            ranges = ranges or value_ranges(graph)
            tops[value] = max(tops.get(value, 0.0), ranges[x.name].hi)
    return {v.name: _taps(np.asarray(weights[v.name]), top) for v, top in tops.items()}


def _taps(filter: Array, top: float) -> Taps:
    """Of a filter and values of at most `top`."""
    if filter.dtype == np.uint8:
        return _taps_of_bytes(filter)
    above, saturated = filter > 0, filter >= top
    both = _eighths(above)
    rest, apart = _eighths(above & ~saturated), _eighths(saturated)
    if not apart or rest > MOST_BY_KINDS:
        return Taps(max(1, both))
    return Taps(max(1, rest), apart, float(top))


def _eighths(chosen: Array) -> int:
    return round(EIGHTHS * np.count_nonzero(chosen) / max(1, chosen.size))


def _taps_of_bytes(filter: Array) -> Taps:
    """Bytes whose mean is above FEW_BYTES count more, up to twice: few of them fit one sum
    (`sparse/_u8_lists.py`)."""
    saturated = filter == MOST_BYTE
    above = filter[(filter > 0) & ~saturated]
    share = above.size / max(1, filter.size)
    if above.size:
        share *= 2 - min(1.0, FEW_BYTES / float(above.mean()))
    return Taps(min(EIGHTHS, max(1, round(EIGHTHS * share))), _eighths(saturated))


def _sparse_filters(graph: Graph) -> Iterator[tuple[Value, Value]]:
    """Input and filter of the adders in the min form or of bytes, fused or not."""
    for node in graph.nodes:
        inner, operands = node, node.inputs
        if isinstance(node.op, Fused):
            inner = node.op.body.nodes[0]
            position = {v: i for i, v in enumerate(node.op.body.inputs)}
            operands = tuple(node.inputs[position[v]] for v in inner.inputs if v in position)
        if isinstance(inner.op, Adder2d):
            x, filter = operands[:2]
            if inner.op.input_nonnegative or filter.type.dtype == u8:
                yield x, filter


def is_constant(graph: Graph, value: Value) -> bool:
    """Whether a value's numbers are fixed: a parameter, unless the program updates some."""
    return isinstance(value, Parameter) and not graph.updates


def planned_call(lowered: Lowered, node: Node) -> Call:
    """The call of `node` on the buffers that the plan gives it."""
    plan = lowered.plan
    inputs = tuple(
        Operand(v.type, operand_place(plan, node, i).layout) for i, v in enumerate(node.inputs)
    )
    outputs = tuple(Operand(v.type, plan.placements[v.name].layout) for v in node.outputs)
    fixed, share = _constants(lowered.main, node, lowered.kept)
    choice = lowered.choices.get(node.name)
    return Call(node.op, inputs, outputs, lowered.target, fixed, share, choice)


def _constants(
    graph: Graph, node: Node, kept: Mapping[str, Taps]
) -> tuple[frozenset[int], tuple[Taps, ...]]:
    """Which operands are constant, and the taps of each."""
    fixed = frozenset(i for i, v in enumerate(node.inputs) if is_constant(graph, v))
    own = enumerate(v.name for v in node.inputs)
    return fixed, tuple(kept.get(v, ALL_KEPT) if i in fixed else ALL_KEPT for i, v in own)


def operand_place(plan: MemoryPlan, node: Node, operand: int) -> Placement:
    """Where a node reads an operand: its staged copy, or the value's own buffer."""
    staged = plan.staged.get((node.name, operand))
    return staged or plan.placements[node.inputs[operand].name]


def pack_weights(facts: ProgramFacts, lowered: Lowered, weights: Mapping[str, Array]) -> Array:
    """The read-only weights blob of a program, 64-byte aligned."""
    nodes = {node.name: node for node in lowered.main.nodes}
    blob = aligned_bytes(facts.weights_bytes)
    for entry in facts.weights:
        raw = np.ascontiguousarray(weights[entry.parameter])
        block = blob[entry.offset : entry.offset + entry.nbytes]
        if entry.node is None:
            block[...] = raw.reshape(-1).view(np.uint8)
        else:
            call = planned_call(lowered, nodes[entry.node])
            kernel_for(call).packs[entry.operand].pack(raw, block)
    return blob
