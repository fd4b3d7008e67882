"""eliminate: common subexpressions and dead nodes go, nothing else changes."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from addergraph.ir.text import parse
from addergraph.passes.eliminate import eliminate, without_dead
from tests.passes.meaning import require_same_bits
from tests.passes.random_graphs import random_graph


def test_equal_nodes_merge_and_dead_nodes_go() -> None:
    graph = parse(
        """graph g(%x: f32[N,4], %unread: f32[]) params(
             %s: f32[4] init=zeros, %dead: f32[4] init=zeros, %kept: f32[4] init=zeros) {
             %a = mul(%x, %s) : f32[N,4]
             %b = mul(%x, %s) : f32[N,4]
             %c = exp(%b) : f32[N,4]
             %d = exp(%a) : f32[N,4]
             %e = mul(%d, %dead) : f32[N,4]
             %f = mul(%s, %s) : f32[4]
             %y = sub(%c, %d) : f32[N,4]
             update %kept <- %f
             return %y }"""
    )
    made = eliminate(graph)
    assert made == parse(
        """graph g(%x: f32[N,4], %unread: f32[]) params(
             %s: f32[4] init=zeros, %kept: f32[4] init=zeros) {
             %a = mul(%x, %s) : f32[N,4]
             %c = exp(%a) : f32[N,4]
             %f = mul(%s, %s) : f32[4]
             %y = sub(%c, %c) : f32[N,4]
             update %kept <- %f
             return %y }"""
    )
    require_same_bits(graph, made)


def test_zeros_of_two_signs_differ() -> None:
    graph = parse(
        """graph g(%x: f32[N]) {
             %p = full() value=0 : f32[]
             %m = full() value=-0 : f32[]
             %o = full() value=0 : f32[]
             %a = div(%x, %p) : f32[N]
             %b = div(%x, %m) : f32[N]
             %c = div(%x, %o) : f32[N]
             return %a, %b, %c }"""
    )
    made = eliminate(graph)
    assert [v.name for v in made.outputs] == ["a", "b", "a"]
    require_same_bits(graph, made)


def test_attributes_and_order_of_operands_count() -> None:
    graph = parse(
        """graph g(%x: f32[2], %z: f32[2]) {
             %a = clip(%x) lo=0 hi=1 : f32[2]
             %b = clip(%x) lo=0 hi=2 : f32[2]
             %c = sub(%a, %b) : f32[2]
             %d = sub(%b, %a) : f32[2]
             return %c, %d }"""
    )
    assert eliminate(graph) == graph


def test_all_results_of_a_live_node_stay() -> None:
    graph = parse(
        """graph g(%x: f32[2,3]) {
             %s.mean, %s.variance = batch_norm_statistics(%x) : f32[3], f32[3]
             return %s.variance }"""
    )
    assert eliminate(graph) == graph


def test_without_dead_can_keep_parameters() -> None:
    graph = parse("graph g(%x: f32[]) params(%p: f32[] init=ones) { return %x }")
    assert without_dead(graph, keep_parameters=True) == graph
    assert without_dead(graph).parameters == ()


@given(seed=st.integers(0, 2**32))
def test_random_graphs_keep_their_bits(seed: int) -> None:
    graph = random_graph(Random(seed), updates=seed % 2 == 0)
    made = eliminate(graph)
    require_same_bits(graph, made, seed)
    assert eliminate(made) == made
    needed = {*made.outputs, *(u.value for u in made.updates)}
    needed |= {v for node in made.nodes for v in node.inputs}
    assert all(needed.intersection(node.outputs) for node in made.nodes)
    assert len({(node.op, node.inputs) for node in made.nodes}) == len(made.nodes)
