"""Runs a graph in the memory that a plan gives it, with NumPy for kernels, and checks every byte.

Each byte of the arena and of the weights remembers what was last written there. An operand must be
whole when it is read: all its bytes still bear its own stamp. Scratch memory is scribbled over
before and after its node. Results may share bytes with operands only where that is legal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from addergraph.ir import Array, Graph, Halo, Node, Value
from addergraph.ir.plan import ALIGNMENT, Layout, MemoryPlan, Placement, align
from addergraph.ir.state import State
from addergraph.ir.types import TensorType
from addergraph.passes.plan_memory import HEADER, read_in_step

GARBAGE = 0xFF  # as f32 a NaN
Key = tuple[str, int]


class Machine:
    """The buffers of one program; `run` is one call."""

    def __init__(
        self,
        graph: Graph,
        plan: MemoryPlan,
        workspaces: Mapping[str, int],
        weights: Mapping[str, Array],
    ) -> None:
        self.graph, self.plan, self.workspaces = graph, plan, workspaces
        self.state = State(graph.parameters)
        self.state.load(weights)
        self.buffers: dict[Key, Array] = {
            ("arena", 0): np.full(plan.arena_bytes, GARBAGE, np.uint8),
            ("weights", 0): self.state.blob,
        }
        for i, v in enumerate(graph.outputs):
            self.buffers["output", i] = np.full(v.type.nbytes, GARBAGE, np.uint8)
        self.stamps: dict[Key, Array] = {}
        self.owner: dict[Value, str] = {}

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs; afterwards `state` holds the updated parameters."""
        graph, plan = self.graph, self.plan
        for i, a in enumerate(inputs):
            self.buffers["input", i] = np.ascontiguousarray(a).view(np.uint8).reshape(-1)
        self.stamps = {k: np.full(b.shape, "", object) for k, b in self.buffers.items()}
        for v in (*graph.inputs, *graph.parameters):
            self.own(v, v.name)
        for node in graph.nodes:
            self.step(node)
        by_name = {v.name: v for v in graph.values()}
        for value, parameter in plan.copies:
            result = self.read(by_name[value])
            self.view(plan.placements[parameter], by_name[parameter].type)[...] = result
            self.own(by_name[parameter], f"{value} copied")
        updates = {(u.value.name, u.parameter.name) for u in graph.updates} - set(plan.copies)
        for value, parameter in updates:
            self.read(by_name[value])
            assert plan.placements[value] == plan.placements[parameter]
        return [self.read(v).copy() for v in graph.outputs]

    def step(self, node: Node) -> None:
        halos = node.op.halo([v.type for v in node.inputs])
        self.scribble(node)
        operands = [
            self.operand(node, k, v, halo)
            for k, (v, halo) in enumerate(zip(node.inputs, halos, strict=True))
        ]
        with np.errstate(all="ignore"):
            results = node.op.reference(*(a.copy() for a in operands))
        if self.is_alias(node):
            (v,) = node.outputs
            self.owner[v] = self.owner[node.inputs[0]]
            np.testing.assert_array_equal(self.read(v), results[0])
            return
        self.require_results_apart(node)
        for v, result in zip(node.outputs, results, strict=True):
            place = self.plan.placements[v.name]
            self.padded(place, v.type)[...] = 0
            self.view(place, v.type)[...] = result
            self.own(v, v.name)
        self.scribble(node)
        for v in node.outputs:
            self.read(v)

    def operand(self, node: Node, k: int, v: Value, halo: Halo) -> Array:
        """Operand k, staged where the plan says so; its halo is wide enough and zero."""
        value = self.read(v)
        place = self.plan.placements[v.name]
        if (node.name, k) in self.plan.staged:
            place = self.plan.staged[node.name, k]
            assert place.space == "arena" and place.layout == Layout(v.type.sizes, halo)
            value = value.copy()
            self.padded(place, v.type)[...] = 0
            self.view(place, v.type)[...] = value
            self.stamp(place, v.type, f"{v.name} staged")
            for other in node.inputs:
                self.read(other)
        assert place.layout.halo.union(halo) == place.layout.halo
        ring = self.padded(place, v.type).copy()
        self.view(place, v.type, ring)[...] = 0
        assert not ring.any()
        return self.view(place, v.type)

    def is_alias(self, node: Node) -> bool:
        if node.op.name not in ("reshape", "flatten") or not node.outputs[0].type.nbytes:
            return False
        x, y = (self.plan.placements[v.name] for v in (node.inputs[0], node.outputs[0]))
        return start(x) == start(y) and x.layout.dense and y.layout.dense

    def require_results_apart(self, node: Node) -> None:
        """Results share no byte with each other, nor with operands unless element by element.

        An operand of as many elements that broadcasts to the result's shape differs from it at most
        in leading ones: its elements stand where the result's do.
        """
        results = [(v, self.plan.placements[v.name]) for v in node.outputs]
        for i, (v, place) in enumerate(results):
            assert not any(overlap(place, v.type, p, w.type) for w, p in results[:i])
            for w in node.inputs:
                other = self.plan.placements[w.name]
                if overlap(place, v.type, other, w.type):
                    assert w in read_in_step(node) and v.type.dtype == w.type.dtype
                    assert v.type.elements == w.type.elements and start(place) == start(other)
                    assert place.layout == other.layout or (
                        place.layout.dense and other.layout.dense
                    )

    def scribble(self, node: Node) -> None:
        if node.name not in self.workspaces:
            return
        first = self.plan.workspaces[node.name]
        last = first + self.workspaces[node.name]
        assert first % ALIGNMENT == 0 and first >= HEADER and last <= self.plan.arena_bytes
        self.buffers["arena", 0][first:last] = GARBAGE
        self.stamps["arena", 0][first:last] = "workspace"

    def read(self, v: Value) -> Array:
        """The value's array, whole."""
        place = self.plan.placements[v.name]
        key, first, last = extent(place, v.type)
        assert (self.stamps[key][first:last] == self.owner[v]).all(), f"{v} was overwritten"
        return self.view(place, v.type)

    def own(self, v: Value, stamp: str) -> None:
        self.owner[v] = stamp
        self.stamp(self.plan.placements[v.name], v.type, stamp)

    def stamp(self, place: Placement, type: TensorType, stamp: str) -> None:
        key, first, last = extent(place, type)
        assert first >= 0 and last <= len(self.buffers[key])
        if place.space == "arena":
            assert first >= HEADER and first % ALIGNMENT == 0
        self.stamps[key][first:last] = stamp

    def padded(self, place: Placement, type: TensorType) -> Array:
        key, first, last = extent(place, type)
        raw = self.buffers[key][first:last].view(type.dtype.numpy)
        return raw.reshape(place.layout.padded)

    def view(self, place: Placement, type: TensorType, within: Array | None = None) -> Array:
        """The elements inside the halo, found by strides and origin alone."""
        layout = place.layout
        flat = (self.padded(place, type) if within is None else within).reshape(-1)
        size = type.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            flat[layout.origin :], type.sizes, [size * s for s in layout.strides]
        )


def start(place: Placement) -> tuple[str, int, int]:
    return place.space, place.index, place.offset


def extent(place: Placement, type: TensorType) -> tuple[Key, int, int]:
    """Buffer, first byte and end."""
    first = place.offset
    return (place.space, place.index), first, first + place.layout.nbytes(type)


def overlap(a: Placement, a_type: TensorType, b: Placement, b_type: TensorType) -> bool:
    (key, first, last), (other, start, end) = extent(a, a_type), extent(b, b_type)
    return key == other and max(first, start) < min(last, end)


def live_bytes(graph: Graph, plan: MemoryPlan, workspaces: Mapping[str, int]) -> int:
    """The most bytes that the arena buffers of live values take at any node, by brute force."""
    most = 0
    for time, node in enumerate(graph.nodes):
        live = {
            plan.placements[v.name].offset: align(plan.placements[v.name].layout.nbytes(v.type))
            for v in graph.values()
            if plan.placements[v.name].space == "arena" and is_live(graph, v, time)
            if v.type.nbytes
        }
        staged = [
            align(p.layout.nbytes(node.inputs[k].type))
            for (name, k), p in plan.staged.items()
            if name == node.name
        ]
        scratch = align(workspaces.get(node.name, 0))
        most = max(most, sum(live.values()) + sum(staged) + scratch)
    return HEADER + most


def is_live(graph: Graph, v: Value, time: int) -> bool:
    """Whether `v` is computed at or before node `time`, and read at or after it."""
    made = next(i for i, n in enumerate(graph.nodes) if v in n.outputs)
    read = [i for i, n in enumerate(graph.nodes) if v in n.inputs]
    updates = any(u.value is v for u in graph.updates)
    return made <= time and (made == time or updates or any(i >= time for i in read))
