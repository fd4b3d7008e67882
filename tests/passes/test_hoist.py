"""hoist: setup then main means the original, and everything that can move does."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.ir import Graph
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.text import parse
from addergraph.passes.fuse import fuse
from addergraph.passes.hoist import hoist
from tests.passes.random_graphs import random_data, random_graph


def split(text: str) -> tuple[Graph, Graph]:
    graph = parse(text)
    setup, main = hoist(graph)
    require_same_meaning(graph, setup, main)
    return setup, main


def require_same_meaning(graph: Graph, setup: Graph, main: Graph) -> None:
    check(setup)
    check(main)
    assert [(v.name, v.type) for v in main.inputs] == [(v.name, v.type) for v in graph.inputs]
    bound = graph.bind(2) if graph.is_open else graph
    inputs, weights = random_data(bound, 0)
    raw = {p.name: weights[p.name] for p in setup.parameters}
    made = run_reference(setup, [], raw)[0]
    known = weights | {v.name: a for v, a in zip(setup.outputs, made, strict=True)}
    mine = {p.name: known[p.name] for p in main.parameters}
    old, new = run_reference(graph, inputs, weights), run_reference(main, inputs, mine)
    for x, y in zip(old[0], new[0], strict=True):
        np.testing.assert_array_equal(x, y)


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def test_parameter_math_moves_and_its_operands_go_with_it() -> None:
    setup, main = split(
        """graph g(%x: f32[N,3]) params(%v: f32[3] init=ones, %w: f32[3,3], %unused: f32[3]) {
        %e = full() value=0.5 : f32[]
        %shifted = add(%v, %e) : f32[3]
        %s = abs(%shifted) : f32[3]
        %y = dense(%x, %w) : f32[N,3]
        %z = mul(%y, %s) : f32[N,3]
        return %z }"""
    )
    assert (names(setup), names(main)) == (["e", "shifted", "s"], ["y", "z"])
    assert [p.name for p in setup.parameters] == ["v"]
    assert [p.name for p in main.parameters] == ["w", "s"]
    made = main.parameters[1]
    assert not made.trainable and made.init.kind == "zeros"


def test_constant_that_both_need_stays_in_both() -> None:
    setup, main = split(
        """graph g(%x: f32[3]) params(%v: f32[3]) {
        %c = full() value=0.5 : f32[]
        %s = mul(%v, %c) : f32[3]
        %y = mul(%x, %c) : f32[3]
        %z = add(%y, %s) : f32[3]
        return %z }"""
    )
    assert (names(setup), names(main)) == (["c", "s"], ["c", "y", "z"])


def test_constants_alone_do_not_move() -> None:
    setup, main = split(
        """graph g(%x: f32[3]) {
        %c = full() value=0.5 shape=(3) : f32[3]
        %d = neg(%c) : f32[3]
        %z = add(%x, %d) : f32[3]
        return %z }"""
    )
    assert setup.outputs == () and names(main) == ["c", "d", "z"]


def test_parameter_only_output_stays_in_main_on_what_moved() -> None:
    setup, main = split(
        """graph g(%x: f32[3]) params(%v: f32[3]) {
        %a = abs(%v) : f32[3]
        %b = neg(%a) : f32[3]
        %c = add(%x, %b) : f32[3]
        return %b, %c }"""
    )
    assert (names(setup), names(main)) == (["a"], ["b", "c"])


def test_values_with_an_open_batch_stay() -> None:
    setup, main = split(
        """graph g(%x: f32[N,3]) params(%v: f32[3]) {
        %ones = full() value=1 shape=(N,3) : f32[N,3]
        %a = mul(%ones, %v) : f32[N,3]
        %c = add(%x, %a) : f32[N,3]
        return %c }"""
    )
    assert setup.outputs == () and names(main) == ["ones", "a", "c"]


def test_programs_with_updates_keep_raw_parameters() -> None:
    graph = parse(
        """graph g(%x: f32[3]) params(%v: f32[3], %w: f32[3]) {
        %a = abs(%v) : f32[3]
        %c = add(%x, %a) : f32[3]
        update %w <- %c
        return %c }"""
    )
    setup, main = hoist(graph)
    check(setup)
    assert main is graph and setup.outputs == () and setup.parameters == ()


def test_a_proof_that_rests_on_parameter_math_keeps_it_in_main() -> None:
    text = """graph g(%x: f32[N,3]) params(%v: f32[3], %w: f32[3,2]) {{
        %a = abs(%v) : f32[3]
        %p = maximum(%x, %a) : f32[N,3]
        %y = adder_dense(%p, %w) {claim} : f32[N,2]
        return %y }}"""
    setup, main = split(text.format(claim=""))
    assert (names(setup), names(main)) == (["a"], ["p", "y"])
    setup, main = split(text.format(claim="input_nonnegative=true"))
    assert (names(setup), names(main)) == ([], ["a", "p", "y"])


def test_a_proof_inside_a_fused_body_keeps_what_it_rests_on_too() -> None:
    graph = fuse(
        parse(
            """graph g(%x: f32[N,3]) params(%v: f32[3], %w: f32[3,2]) {
            %a = abs(%v) : f32[3]
            %p = maximum(%x, %a) : f32[N,3]
            %y = adder_dense(%p, %w) input_nonnegative=true : f32[N,2]
            %z = relu(%y) : f32[N,2]
            return %z, %p }"""
        )
    )
    setup, main = hoist(graph)
    require_same_meaning(graph, setup, main)
    assert (names(setup), names(main)) == ([], ["a", "p", "z"])


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.booleans())
def test_random_graphs(random: Random, fused: bool) -> None:
    graph = random_graph(random, nodes=20)
    graph = fuse(graph) if fused else graph
    setup, main = hoist(graph)
    require_same_meaning(graph, setup, main)
    # Nothing more could move: what depends on parameters alone computes an output. (A constant
    # that is itself an output stays in main, and so do its readers.)
    constants = {v for node in main.nodes for v in node.outputs if not node.inputs}
    constants -= set(main.outputs)
    for node in main.nodes if setup.outputs else ():
        sources = set(node.inputs) - constants
        if sources and sources.issubset(main.parameters):
            assert not set(main.outputs).isdisjoint(node.outputs)
