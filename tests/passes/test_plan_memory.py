"""plan_memory: every byte of every value is intact when it is read, and sharing happens."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import GraphError
from addergraph.ir import Graph, Halo
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.plan import MemoryPlan, align
from addergraph.ir.text import parse
from addergraph.passes.fuse import fuse
from addergraph.passes.plan_memory import HEADER, normalize_outputs, plan_memory, render
from tests.passes.memory_machine import Machine, live_bytes
from tests.passes.random_graphs import random_data, random_graph


def planned(text: str, workspaces: dict[str, int] | None = None) -> MemoryPlan:
    """The plan of a graph, after running the graph in it and comparing with the reference."""
    graph = normalize_outputs(parse(text))
    plan = plan_memory(graph, workspaces)
    require_right(graph, plan, workspaces or {})
    return plan


def require_right(graph: Graph, plan: MemoryPlan, workspaces: dict[str, int]) -> None:
    inputs, weights = random_data(graph, 0)
    outputs, updates = run_reference(graph, inputs, weights)
    machine = Machine(graph, plan, workspaces, weights)
    for x, y in zip(outputs, machine.run(inputs), strict=True):
        np.testing.assert_array_equal(x, y)
    for name, x in (weights | updates).items():
        np.testing.assert_array_equal(x, machine.state.views[name])


def arena_offsets(plan: MemoryPlan) -> dict[str, int]:
    return {n: p.offset for n, p in plan.placements.items() if p.space == "arena"}


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_random_graphs_run_in_their_plans(random: Random, fused: bool, updates: bool) -> None:
    graph = random_graph(random, nodes=18, updates=updates)
    graph = normalize_outputs(fuse(graph) if fused else graph)
    check(graph)
    chosen = [n.name for n in graph.nodes if random.random() < 0.3]
    workspaces = {name: random.randint(0, 500) for name in chosen}
    plan = plan_memory(graph, workspaces)
    require_right(graph, plan, workspaces)
    assert plan == plan_memory(parse(str(graph)), workspaces)
    assert plan.lower_bound_bytes == live_bytes(graph, plan, workspaces) <= plan.arena_bytes


@given(st.randoms(use_true_random=False))
def test_normalized_outputs_mean_the_same(random: Random) -> None:
    graph = random_graph(random, nodes=8, updates=True)
    made = normalize_outputs(graph)
    check(made)
    inputs, weights = random_data(graph, 0)
    (old, old_updates), (new, new_updates) = (
        run_reference(g, inputs, weights) for g in (graph, made)
    )
    for x, y in zip(old, new, strict=True):
        np.testing.assert_array_equal(x, y)
    for name, x in (weights | old_updates).items():
        np.testing.assert_array_equal(x, (weights | new_updates)[name])
    assert normalize_outputs(made) == made


def test_a_chain_works_in_one_buffer_and_ends_in_the_output() -> None:
    plan = planned(
        """graph g(%x: f32[4,5]) {
        %a = relu(%x) : f32[4,5]
        %b = neg(%a) : f32[4,5]
        %c = abs(%b) : f32[4,5]
        %d = neg(%c) : f32[4,5]
        return %d }"""
    )
    assert arena_offsets(plan) == {"a": HEADER, "b": HEADER, "c": HEADER}
    assert plan.placements["d"].space == "output"
    assert plan.arena_bytes == plan.lower_bound_bytes == HEADER + align(80)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("%b = transpose(%a) permutation=(1,0) : f32[4,4]", "not pointwise"),
        ("%b = greater(%a, %x) : bool[4,4]", "another dtype"),
        ("%b = sub(%a, %x) : f32[4,4] %keep = mul(%a, %b) : f32[4,4]", "read later"),
    ],
)
def test_not_in_place(step: str, why: str) -> None:
    plan = planned(
        f"""graph g(%x: f32[4,4]) {{
        %a = relu(%x) : f32[4,4]
        {step}
        %s = reduce_max(%x) axes=(0) : f32[4]
        return %s }}"""
    )
    offsets = arena_offsets(plan)
    assert offsets["a"] != offsets["b"], why


def test_a_broadcast_operand_is_not_overwritten() -> None:
    plan = planned(
        """graph g(%x: f32[1,4], %y: f32[4,1]) {
        %a = relu(%x) : f32[1,4]
        %b = relu(%y) : f32[4,1]
        %c = add(%a, %b) : f32[4,4]
        %d = relu(%c) : f32[4,4]
        %s = reduce_max(%d) axes=(0) : f32[4]
        return %s }"""
    )
    offsets = arena_offsets(plan)
    assert len({offsets[n] for n in "abc"}) == 3
    assert offsets["c"] == offsets["d"]


def test_channel_sums_overwrite_nothing_and_values_beside_them_may() -> None:
    plan = plan_memory(
        normalize_outputs(
            fuse(
                parse(
                    """graph g(%x: f32[8,4]) params(%p: f32[4] init=zeros) {
                    %t = transpose(%x) permutation=(0,1) : f32[8,4]
                    %y = sub(%t, %p) : f32[8,4]
                    %s = reduce_sum(%y) axes=(0) : f32[4]
                    %u = softmax(%y) : f32[8,4]
                    update %p <- %s
                    return %u }"""
                )
            )
        )
    )
    assert plan.copies == (("s", "p"),)
    offsets = arena_offsets(plan)
    assert offsets["t"] == offsets["y"]


def test_reshapes_of_dense_buffers_are_aliases_and_keep_them_alive() -> None:
    plan = planned(
        """graph g(%x: f32[2,3,4]) params(%p: f32[4,6]) {
        %a = neg(%x) : f32[2,3,4]
        %b = flatten(%a) : f32[2,12]
        %c = reshape(%b) shape=(24) : f32[24]
        %i = reshape(%x) shape=(24) : f32[24]
        %w = flatten(%p) : f32[4,6]
        %v = reshape(%w) shape=(24) : f32[24]
        %other = neg(%i) : f32[24]
        %d = add(%c, %other) : f32[24]
        %e = mul(%d, %v) : f32[24]
        return %e }"""
    )
    offsets = arena_offsets(plan)
    assert offsets["a"] == offsets["b"] == offsets["c"] == offsets["d"] != offsets["other"]
    assert (plan.placements["i"].space, plan.placements["v"].space) == ("input", "weights")
    assert plan.placements["b"].layout.shape == (2, 12)


PADDED = """graph g(%x: f32[1,4,4,2]) params(%f: f32[3,3,2,2], %h: f32[2,1,2,2]) {{
    {first}
    %y = adder2d(%a, %f) padding=(1,1,1,1) : f32[1,4,4,2]
    %z = conv2d(%a, %h) padding=(0,1,0,0) : f32[1,4,4,2]
    %sum = add(%y, %z) : f32[1,4,4,2]
    %flat = flatten(%a) : f32[1,32]
    return %sum, %flat {more} }}"""


def test_halo_is_the_largest_that_a_reader_wants() -> None:
    plan = planned(PADDED.format(first="%a = relu(%x) : f32[1,4,4,2]", more=""))
    assert plan.placements["a"].layout.halo == Halo(1, 1, 1, 1)
    assert plan.staged == {}
    assert all(p.layout.dense for n, p in plan.placements.items() if n != "a")


@pytest.mark.parametrize("first", ["%a = relu(%x) : f32[1,4,4,2]", ""])
def test_inputs_and_outputs_are_staged_with_what_each_reader_wants(first: str) -> None:
    more = ", %a" if first else ""
    text = PADDED.format(first=first, more=more)
    plan = planned(text if first else text.replace("%a", "%x"))
    assert {k: p.layout.halo for k, p in plan.staged.items()} == {
        ("y", 0): Halo(1, 1, 1, 1),
        ("z", 0): Halo(0, 1, 0, 0),
    }


def test_a_reshape_of_a_haloed_buffer_copies() -> None:
    plan = planned(
        """graph g(%x: f32[1,4,4,2]) params(%f: f32[3,3,2,2]) {
        %a = relu(%x) : f32[1,4,4,2]
        %flat = flatten(%a) : f32[1,32]
        %s = reduce_max(%flat) axes=(1) : f32[1]
        %y = adder2d(%a, %f) padding=(1,1,1,1) : f32[1,4,4,2]
        return %s, %y }"""
    )
    offsets = arena_offsets(plan)
    assert offsets["a"] != offsets["flat"] and not plan.placements["a"].layout.dense


def test_two_results_never_take_one_operand() -> None:
    plan = planned(
        """graph g(%x: f32[4]) {
        %a = relu(%x) : f32[4]
        %dead, %b = fused(%a) : f32[4], f32[4] {
          graph body(%a0: f32[4]) {
            %v0 = neg(%a0) : f32[4]
            %v1 = abs(%a0) : f32[4]
            return %v0, %v1
          } }
        %c = neg(%b) : f32[4]
        return %c }"""
    )
    offsets = arena_offsets(plan)
    assert offsets["a"] == offsets["dead"] != offsets["b"]


def test_a_fused_contraction_reads_its_residual_inside_the_halo() -> None:
    text = """graph g(%x: f32[1,4,4,2]) params(%f: f32[3,3,2,2]) {
        %a = relu(%x) : f32[1,4,4,2]
        %y = adder2d(%a, %f) padding=(1,1,1,1) : f32[1,4,4,2]
        %sum = add(%y, %a) : f32[1,4,4,2]
        return %sum }"""
    plan = planned(str(fuse(parse(text))))
    assert plan.placements["a"].layout.halo == Halo(1, 1, 1, 1)


def test_a_residual_whose_reshape_the_window_reads_is_not_overwritten() -> None:
    text = """graph g(%x: f32[1,2,4,4]) params(%f: f32[3,1,2,4]) {
        %a = relu(%x) : f32[1,2,4,4]
        %r = reshape(%a) shape=(1,4,4,2) : f32[1,4,4,2]
        %y = conv2d(%r, %f) : f32[1,2,4,4]
        %sum = add(%y, %a) : f32[1,2,4,4]
        %t = transpose(%sum) permutation=(0,2,1,3) : f32[1,4,2,4]
        return %t }"""
    plan = planned(str(fuse(parse(text))))
    offsets = arena_offsets(plan)
    assert offsets["a"] == offsets["r"] != offsets["sum"]


def test_in_place_between_equal_halos_only() -> None:
    text = """graph g(%x: f32[1,4,4,2]) params(%f: f32[3,3,2,2]) {{
        %a = relu(%x) : f32[1,4,4,2]
        {y}
        %b = neg(%a) : f32[1,4,4,2]
        %z = conv2d(%b, %f) padding=(1,1,1,1) : f32[1,4,4,2]
        return {result} }}"""
    both = text.format(y="%y = conv2d(%a, %f) padding=(1,1,1,1) : f32[1,4,4,2]", result="%y, %z")
    offsets = arena_offsets(planned(both))
    assert offsets["a"] == offsets["b"]
    offsets = arena_offsets(planned(text.format(y="", result="%z")))
    assert offsets["a"] != offsets["b"]


def test_updates_are_computed_in_the_parameters_place() -> None:
    plan = planned(
        """graph g(%g: f32[3,3]) params(%p: f32[3,3], %v: f32[3,3], %m: f32[3]) {
        %y = matmul(%g, %p) : f32[3,3]
        %next = reduce_max(%y) axes=(0) : f32[3]
        %v1 = sub(%v, %y) : f32[3,3]
        %p1 = add(%p, %v1) : f32[3,3]
        update %v <- %v1
        update %p <- %p1
        update %m <- %next
        return %y }"""
    )
    assert plan.copies == ()
    for value, parameter in (("v1", "v"), ("p1", "p"), ("next", "m")):
        assert plan.placements[value] == plan.placements[parameter]


@pytest.mark.parametrize(
    "nodes",
    [
        "%v = neg(%p) : f32[3,3] %y = add(%p, %x) : f32[3,3]",  # read later
        "%v = matmul(%p, %x) : f32[3,3] %y = relu(%x) : f32[3,3]",  # read out of step
        "%v = neg(%p) : f32[3,3] %w = reshape(%p) shape=(9) : f32[9] %y = neg(%x) : f32[3,3]",
        "%w = reshape(%p) shape=(9) : f32[9] %v = neg(%p) : f32[3,3] %y = neg(%w) : f32[9]",
    ],
)
def test_updates_that_must_be_copied(nodes: str) -> None:
    text = f"graph g(%x: f32[3,3]) params(%p: f32[3,3], %q: f32[3,3]) {{ {nodes} "
    plan = planned(f"{text} update %p <- %v return %y }}")
    assert ("v", "p") in plan.copies


def test_of_two_parameters_with_one_new_value_one_is_copied() -> None:
    plan = planned(
        """graph g(%x: f32[3]) params(%p: f32[3], %q: f32[3]) {
        %v = neg(%p) : f32[3]
        %y = abs(%v) : f32[3]
        update %p <- %v
        update %q <- %v
        return %y }"""
    )
    assert plan.copies == (("v", "q"),)


def test_an_update_that_is_also_an_output_is_copied_from_there() -> None:
    plan = planned(
        """graph g(%x: f32[3]) params(%p: f32[3]) {
        %v = add(%x, %p) : f32[3]
        update %p <- %v
        return %v }"""
    )
    assert plan.placements["v"].space == "output" and plan.copies == (("v", "p"),)


def test_parameters_change_places() -> None:
    plan = planned(
        """graph g(%x: f32[3]) params(%p: f32[3], %q: f32[3], %r: f32[3], %s: f32[3]) {
        update %p <- %q
        update %q <- %r
        update %r <- %p
        update %s <- %x
        return %x }"""
    )
    assert len(plan.copies) < 4  # all but the ends of the cycle go straight to their places


def test_workspaces_live_during_their_node() -> None:
    text = """graph g(%x: f32[8,8]) {
        %a = matmul(%x, %x) : f32[8,8]
        %b = matmul(%a, %x) : f32[8,8]
        return %b }"""
    plan = planned(text, {"a": 1000, "b": 1000})
    assert plan.arena_bytes == plan.lower_bound_bytes == HEADER + 256 + 1024


def test_empty_tensors_take_no_room() -> None:
    plan = planned(
        """graph g(%x: f32[0,4]) {
        %a = relu(%x) : f32[0,4]
        %b = reshape(%a) shape=(4,0) : f32[4,0]
        %c = neg(%b) : f32[4,0]
        return %c, %x }"""
    )
    assert plan.arena_bytes == plan.lower_bound_bytes == HEADER


def test_gaps_are_filled_best_first() -> None:
    plan = planned(
        """graph g(%x: f32[16], %y: f32[64]) {
        %a = reduce_max(%y) axes=(0) keepdims=true : f32[1]
        %b = concat(%y, %y) axis=0 : f32[128]
        %c = concat(%x, %x) axis=0 : f32[32]
        %d = concat(%c, %a, %b) axis=0 : f32[161]
        %e = reduce_max(%d) axes=(0) keepdims=true : f32[1]
        %f = concat(%e, %d) axis=0 : f32[162]
        return %f }"""
    )
    assert plan.arena_bytes == plan.lower_bound_bytes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("%a = relu(%x) : f32[N,3] return %a", "batch N is open"),
        ("%a = relu(%y) : f32[3] return %a, %a", "normalize_outputs"),
        ("%a = relu(%y) : f32[3] return %y", "normalize_outputs"),
        ("%a = relu(%y) : f32[3] update %p <- %y return %a", "normalize_outputs"),
    ],
)
def test_what_cannot_be_planned_is_refused(body: str, message: str) -> None:
    x = "%x: f32[N,3], " if "%x" in body else ""
    graph = parse(f"graph g({x}%y: f32[3]) params(%p: f32[3]) {{ {body} }}")
    with pytest.raises(GraphError, match=message):
        plan_memory(graph)


def test_workspace_of_an_unknown_node_is_refused() -> None:
    graph = parse("graph g(%x: f32[3]) { %a = relu(%x) : f32[3] return %a }")
    with pytest.raises(GraphError, match='unknown node "b"'):
        plan_memory(graph, {"b": 1})


def test_render_shows_every_buffer_of_the_arena() -> None:
    graph = normalize_outputs(
        parse(
            """graph g(%x: f32[1,4,4,2]) params(%f: f32[3,3,2,2], %p: f32[1,4,4,2]) {
            %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[1,4,4,2]
            %z = neg(%y) : f32[1,4,4,2]
            %w = abs(%p) : f32[1,4,4,2]
            update %p <- %z
            return %w }"""
        )
    )
    lines = render(plan_memory(graph, {"y": 100}), graph).splitlines()
    assert [line.split()[1:] for line in lines] == [  # %z works in place of %y
        ["bytes", "nodes", "buffer"],
        ["288", "0-0", "%x", "staged", "for", "y"],
        ["128", "0-1", "%y"],
        ["128", "1-3", "%z"],
        ["-", "0-0", "workspace", "of", "y"],
        ["%p", "<-", "%z", "copies"],
        ["640", "bytes,", "lower", "bound", "640", "(1.000x)"],
    ]
