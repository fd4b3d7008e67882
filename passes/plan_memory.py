"""plan_memory: liveness intervals over the node order become offsets into one arena.

A value lives from the node that computes it to its last reader, both included. Values share a
buffer where one is a reshape of the other or is computed in place of it; a buffer is live while
one of its values is. Scratch memory and staged copies are buffers that live during one node.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from addergraph.errors import GraphError
from addergraph.ir import Graph, Halo, Node, Parameter, Value
from addergraph.ir.plan import ALIGNMENT, Layout, MemoryPlan, Placement, align, layout_with_halo
from addergraph.ir.state import parameter_offsets
from addergraph.ops.movement.reshape import Reshape

from .rewrite import Draft

HEADER = ALIGNMENT  # the arena's first bytes are the barrier's
DENSE = Halo()


def plan_memory(graph: Graph, workspaces: Mapping[str, int] | None = None) -> MemoryPlan:
    """The place of every value of `graph`, whose batch is bound and outputs are normalized.

    `workspaces` has the bytes of scratch memory that the kernels of some nodes need, by node name.
    Updates are computed in the parameter's place where every read of the old value comes before,
    or in the same node element by element; the others are listed in `copies`. A reshape whose
    placement starts where its operand's does is an alias: there is nothing to run.

    The plan is a function of the arguments alone. Raises GraphError for an open batch, for outputs
    and updates that `normalize_outputs` would change, and for workspaces of unknown nodes.
    """
    workspaces = workspaces or {}
    _require_plannable(graph, workspaces)
    planner = _Planner(graph)
    for time, node in enumerate(graph.nodes):
        planner.place_results(time, node)
        planner.stage_operands(time, node)
        if node.name in workspaces:
            planner.workspaces[node.name] = planner.new_buffer(workspaces[node.name], time, time)
    return planner.finish()


def normalize_outputs(graph: Graph) -> Graph:
    """The same graph with identity reshapes so that each output has a buffer of its own.

    rewrite:  graph g(%x: f32[2]) params(%p: .., %q: ..) {
                %y = relu(%x)  update %p <- %q  return %y, %y, %x }
    ->        ... %y = relu(%x)  %y.out = reshape(%y)  %x.out = reshape(%x)  %q.new = reshape(%q)
                  update %p <- %q.new  return %y, %y.out, %x.out

    Afterwards each output is a distinct computed value, and each update takes a computed value:
    copies at the end of a call never read a parameter that another copy has changed.
    """
    produced = graph.producers()
    if _is_normal(graph, produced):
        return graph
    draft = Draft(graph)
    draft.copy()
    new = draft.new

    def computed(value: Value, suffix: str) -> Value:
        identity = Reshape(value.type.shape)
        return draft.add(identity, [new[value]], f"{value.name}.{suffix}")[0]

    outputs: dict[Value, None] = {}
    for v in graph.outputs:
        own = v in produced and new[v] not in outputs
        outputs[new[v] if own else computed(v, "out")] = None
    for update in graph.updates:
        v = update.value
        draft.update(update.parameter, new[v] if v in produced else computed(v, "new"))
    return draft.finish(outputs)


def read_in_step(node: Node) -> tuple[Value, ...]:
    """The operands of which a node reads element e when it writes element e, and nothing else.

    Of those, one with the result's type may share its buffer.
    """
    in_step = [node.inputs[i] for i in node.op.in_step(len(node.inputs))]
    return tuple(v for v in in_step if node.inputs.count(v) == in_step.count(v))


def _is_normal(graph: Graph, produced: Container[Value]) -> bool:
    """Whether `normalize_outputs` has nothing to do."""
    ends = (*graph.outputs, *(u.value for u in graph.updates))
    return len(set(graph.outputs)) == len(graph.outputs) and all(v in produced for v in ends)


def _require_plannable(graph: Graph, workspaces: Mapping[str, int]) -> None:
    if graph.is_open:
        raise GraphError(
            f'graph "{graph.name}": the batch N is open; bind it before planning memory'
        )
    if not _is_normal(graph, graph.producers()):
        raise GraphError(
            f'graph "{graph.name}": each output must be a computed value of its own and each '
            "update take a computed value; apply normalize_outputs before planning memory"
        )
    unknown = set(workspaces) - {node.name for node in graph.nodes}
    if unknown:
        raise GraphError(f'graph "{graph.name}": workspace of unknown node "{min(unknown)}"')


@dataclass(eq=False)
class _Buffer:
    """Bytes of the arena that are in use from node `start` to node `end`, both included."""

    nbytes: int
    start: int
    end: int
    offset: int = HEADER


@dataclass(frozen=True)
class _InArena:
    """A placement whose offset is not known yet."""

    buffer: _Buffer
    layout: Layout

    def placement(self) -> Placement:
        return Placement("arena", self.layout, offset=self.buffer.offset)


class _Planner:
    """Walks the nodes in order; `places` grows with each."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.places: dict[Value, Placement | _InArena] = {}
        self.staged: dict[tuple[str, int], _InArena] = {}
        self.workspaces: dict[str, _Buffer] = {}
        self.buffers: list[_Buffer] = []
        self.last = last_uses(graph)
        self.halos = _wanted_halos(graph)
        self.outputs = {v: i for i, v in enumerate(graph.outputs)}
        self.updated: dict[Value, list[Parameter]] = {}
        for update in graph.updates:
            self.updated.setdefault(update.value, []).append(update.parameter)
        # The values that look into each parameter's memory: itself and its reshapes.
        self.views: dict[Value, list[Value]] = {p: [p] for p in graph.parameters}
        self.parameter_of: dict[Value, Value] = {p: p for p in graph.parameters}
        self.in_place: set[tuple[str, str]] = set()
        self.offsets = parameter_offsets(graph.parameters)[0]
        for i, v in enumerate(graph.inputs):
            self.places[v] = Placement("input", Layout(v.type.sizes), index=i)
        for p in graph.parameters:
            self.places[p] = self._in_weights(p)

    def place_results(self, time: int, node: Node) -> None:
        taken: set[_Buffer] = set()
        for v in node.outputs:
            self.places[v] = self._place(time, node, v, taken)

    def _place(self, time: int, node: Node, v: Value, taken: set[_Buffer]) -> Placement | _InArena:
        if v in self.outputs:
            return Placement("output", Layout(v.type.sizes), index=self.outputs[v])
        halo = self.halos.get(v, DENSE)
        if parameter := self._replaced_parameter(time, node, v, halo):
            self.in_place.add((v.name, parameter.name))
            return self._in_weights(parameter)
        if (alias := self._alias(node, v)) is not None:
            return alias
        layout = layout_with_halo(v.type, halo)
        buffer = self._dying_operand(time, node, v, layout, taken)
        if buffer is None:
            return _InArena(self.new_buffer(layout.nbytes(v.type), time, self.last[v]), layout)
        taken.add(buffer)
        buffer.end = max(buffer.end, self.last[v])
        return _InArena(buffer, layout)

    def _in_weights(self, parameter: Parameter) -> Placement:
        layout = Layout(parameter.type.sizes)
        return Placement("weights", layout, offset=self.offsets[parameter.name])

    def _replaced_parameter(self, time: int, node: Node, v: Value, halo: Halo) -> Parameter | None:
        """A parameter whose memory `v` may be computed into, where it is an update's value."""
        if halo != DENSE:
            return None
        for parameter in self.updated.get(v, []):
            views = self.views[parameter]
            reads_now = [operand for operand in node.inputs if operand in views]
            elementwise = node.op.elementwise and all(r.type == v.type for r in reads_now)
            read_later = any(self.last[view] > time for view in views)
            if not read_later and (elementwise or not reads_now):
                return parameter
        return None

    def _alias(self, node: Node, v: Value) -> Placement | _InArena | None:
        """The operand's own memory, where `v` is a reshape of a dense buffer.

        Not for the value of an update: it must outlive changes of what it would look into.
        """
        if node.op.aliases is None or v in self.updated:
            return None
        operand = node.inputs[node.op.aliases]
        place, layout = self.places[operand], Layout(v.type.sizes)
        if not place.layout.dense:
            return None
        if isinstance(place, _InArena):
            place.buffer.end = max(place.buffer.end, self.last[v])
            return _InArena(place.buffer, layout)
        if operand in self.parameter_of:
            self.parameter_of[v] = self.parameter_of[operand]
            self.views[self.parameter_of[v]].append(v)
        return Placement(place.space, layout, place.index, place.offset)

    def _dying_operand(
        self, time: int, node: Node, v: Value, layout: Layout, taken: set[_Buffer]
    ) -> _Buffer | None:
        """The buffer of an operand that `v` may be computed in place of."""
        in_step = read_in_step(node)
        # A window may read a reshape of what the tail reads: the same buffer, in another order.
        others = [self.places[operand] for operand in node.inputs if operand not in in_step]
        blocked = taken.union(p.buffer for p in others if isinstance(p, _InArena))
        for operand in in_step:
            place = self.places[operand]
            if not isinstance(place, _InArena) or place.buffer in blocked:
                continue
            equal = place.layout == layout and operand.type == v.type
            if equal and place.buffer.end == time:
                return place.buffer
        return None

    def stage_operands(self, time: int, node: Node) -> None:
        """A copy with a halo for each operand that needs one its own buffer does not have."""
        for k, (v, halo) in enumerate(zip(node.inputs, _operand_halos(node), strict=True)):
            if halo == DENSE or self.places[v].layout.halo != DENSE:
                continue
            layout = layout_with_halo(v.type, halo)
            buffer = self.new_buffer(layout.nbytes(v.type), time, time)
            self.staged[node.name, k] = _InArena(buffer, layout)

    def new_buffer(self, nbytes: int, start: int, end: int) -> _Buffer:
        self.buffers.append(_Buffer(nbytes, start, end))
        return self.buffers[-1]

    def finish(self) -> MemoryPlan:
        _assign_offsets(self.buffers)
        updates = ((u.value.name, u.parameter.name) for u in self.graph.updates)
        return MemoryPlan(
            placements={
                v.name: p.placement() if isinstance(p, _InArena) else p
                for v, p in self.places.items()
            },
            staged={key: p.placement() for key, p in self.staged.items()},
            workspaces={name: b.offset for name, b in self.workspaces.items()},
            copies=tuple(pair for pair in updates if pair not in self.in_place),
            arena_bytes=max((b.offset + align(b.nbytes) for b in self.buffers), default=HEADER),
            lower_bound_bytes=HEADER + _most_live(self.buffers),
        )


def last_uses(graph: Graph) -> dict[Value, int]:
    """The index of each value's last reader; of its own node where nothing reads it.

    Values of updates are read after the last node. An input or parameter that nothing reads has -1.
    """
    last: dict[Value, int] = {v: -1 for v in (*graph.inputs, *graph.parameters)}
    for time, node in enumerate(graph.nodes):
        last.update(dict.fromkeys((*node.inputs, *node.outputs), time))
    last.update({u.value: len(graph.nodes) for u in graph.updates})
    return last


def _operand_halos(node: Node) -> tuple[Halo, ...]:
    return node.op.halo([v.type for v in node.inputs])


def _wanted_halos(graph: Graph) -> dict[Value, Halo]:
    """The largest halo that any reader of each value asks for."""
    wanted: dict[Value, Halo] = {}
    for node in graph.nodes:
        for v, halo in zip(node.inputs, _operand_halos(node), strict=True):
            wanted[v] = wanted.get(v, DENSE).union(halo)
    return wanted


def _assign_offsets(buffers: Iterable[_Buffer]) -> None:
    """Best fit, largest first: each buffer takes the smallest gap that is free while it lives."""
    # One row for each buffer that has its place, by offset: start, end, offset, first byte behind.
    # All that a training step keeps for its backward pass conflicts: the search is NumPy's.
    placed = np.empty((4, 0), np.int64)
    for buffer in sorted((b for b in buffers if b.nbytes), key=lambda b: (-b.nbytes, b.start)):
        starts, ends, offsets, _ = placed
        _, _, tops, behind = placed[:, (starts <= buffer.end) & (buffer.start <= ends)]
        free = np.maximum.accumulate(np.append(HEADER, behind))  # before each, and after the last
        size = align(buffer.nbytes)
        gaps = tops - free[:-1]
        fitting = np.flatnonzero(gaps >= size)
        gap = fitting[gaps[fitting].argmin()] if fitting.size else -1
        buffer.offset = int(free[gap])
        row = buffer.start, buffer.end, buffer.offset, buffer.offset + size
        placed = np.insert(placed, np.searchsorted(offsets, buffer.offset), row, axis=1)


def _most_live(buffers: Iterable[_Buffer]) -> int:
    """The most bytes (in whole cache lines) that are live at one time."""
    change: dict[int, int] = {}
    for b in buffers:
        change[b.start] = change.get(b.start, 0) + align(b.nbytes)
        change[b.end + 1] = change.get(b.end + 1, 0) - align(b.nbytes)
    return max(accumulate(change[time] for time in sorted(change)), default=0)


def render(plan: MemoryPlan, graph: Graph) -> str:
    """The plan as a table: what stands in the arena, where, and while which nodes run.

    Rows are ordered by offset and time. Node indices count from 0; values of updates live to the
    end. The last lines have the bytes of the arena and what no plan can be smaller than.
    """
    time = {node.name: i for i, node in enumerate(graph.nodes)}
    start = {v: i for i, node in enumerate(graph.nodes) for v in node.outputs}
    last = last_uses(graph)
    rows: list[tuple[int, int, int, int, str]] = []
    for v, first in start.items():
        place = plan.placements[v.name]
        if place.space == "arena":
            rows.append((place.offset, first, last[v], place.layout.nbytes(v.type), f"%{v.name}"))
    for (name, k), place in plan.staged.items():
        now, operand = time[name], graph.nodes[time[name]].inputs[k]
        size = place.layout.nbytes(operand.type)
        rows.append((place.offset, now, now, size, f"%{operand.name} staged for {name}"))
    for name, offset in plan.workspaces.items():
        rows.append((offset, time[name], time[name], 0, f"workspace of {name}"))
    lines = [f"{'offset':>10} {'bytes':>10} {'nodes':>11}  buffer"]
    for offset, first, end, size, what in sorted(rows):
        lines.append(f"{offset:>10} {size or '-':>10} {first:>5}-{end:<5}  {what}")
    lines += [f"update %{parameter} <- %{value} copies" for value, parameter in plan.copies]
    ratio = plan.arena_bytes / plan.lower_bound_bytes if plan.lower_bound_bytes else 1.0
    lines.append(
        f"arena {plan.arena_bytes} bytes, lower bound {plan.lower_bound_bytes} ({ratio:.3f}x)"
    )
    return "\n".join(lines)
