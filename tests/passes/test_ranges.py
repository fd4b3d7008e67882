"""ranges: licenses, constants, warnings."""

from __future__ import annotations

import warnings
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import RangeWarning
from addergraph.ir import Graph
from addergraph.ir.check import check
from addergraph.ir.text import parse
from addergraph.passes.ranges import findings, ranges
from tests.passes.meaning import require_same_bits
from tests.passes.random_graphs import random_graph

HEADER = "graph g(%x: f32[N,4,4,2]) params(%f: f32[3,3,2,2] init=zeros, %b: f32[2] init=zeros)"


def graph_of(body: str) -> Graph:
    return parse(f"{HEADER} {{ {body} }}")


def quiet(graph: Graph) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        made = ranges(graph)
    check(made)
    return made


def test_an_adder_behind_relu_and_pool_is_licensed() -> None:
    body = """%r = relu(%x) : f32[N,4,4,2]
      %p = max_pool2d(%r) window=(2,2) stride=(1,1) : f32[N,3,3,2]
      %a = adder2d(%p, %f){} : f32[N,1,1,2]
      %z = flatten(%p) : f32[N,18]
      return %a"""
    graph = graph_of(body.format(""))
    assert quiet(graph) == graph_of(body.format(" input_nonnegative=true"))
    require_same_bits(graph, quiet(graph), special=False)


def test_a_bare_input_gives_no_license() -> None:
    graph = graph_of("%a = adder2d(%x, %f) : f32[N,2,2,2] return %a")
    assert quiet(graph) == graph


def test_bytes_get_no_license() -> None:
    graph = parse(
        """graph g(%x: f32[N,4,4,2]) params(%f: u8[3,3,2,2] init=zeros fixed) {
           %r = relu(%x) : f32[N,4,4,2]
           %q = cast(%r) dtype=u8 : u8[N,4,4,2]
           %a = adder2d(%q, %f) : i32[N,2,2,2]
           return %a }"""
    )
    assert quiet(graph) == graph


def test_relu_behind_an_adder_is_zero_and_warned_about() -> None:
    graph = graph_of(
        """%adder1 = adder2d(%x, %f) : f32[N,2,2,2]
           %flat = flatten(%adder1) : f32[N,8]
           %act = relu(%flat) : f32[N,8]
           return %act"""
    )
    with pytest.warns(RangeWarning) as caught:
        made = ranges(graph)
    check(made)
    assert [str(w.message) for w in caught] == [
        'relu "act" is always 0: the values of adder2d "adder1" are never positive; '
        'add a batch norm between adder2d "adder1" and relu "act"'
    ]
    assert made == graph


def test_a_bias_leaves_the_relu_alone() -> None:
    graph = graph_of(
        """%a = adder2d(%x, %f, %b) : f32[N,2,2,2]
           %r = relu(%a) : f32[N,2,2,2]
           return %r"""
    )
    assert findings(graph) == ()
    assert quiet(graph) == graph


def test_what_follows_a_constant_is_no_finding_of_its_own() -> None:
    graph = graph_of(
        """%a = adder2d(%x, %f) : f32[N,2,2,2]
           %r = relu(%a) : f32[N,2,2,2]
           %p = max_pool2d(%r) window=(2,2) stride=(1,1) : f32[N,1,1,2]
           %m = mul(%p, %b) : f32[N,1,1,2]
           return %m"""
    )
    assert [f.node for f in findings(graph)] == ["r"]


def test_other_constants_are_found() -> None:
    graph = graph_of(
        """%c = full() value=0 : f32[]
           %y = mul(%x, %c) : f32[N,4,4,2]
           %k = clip(%x) lo=2 hi=2 : f32[N,4,4,2]
           return %y, %k"""
    )
    found = findings(graph)
    assert [(f.node, f.message) for f in found] == [
        ("y", 'mul "y" is always 0, whatever %x holds'),
        ("k", 'clip "k" is always 2, whatever %x holds'),
    ]
    assert quiet(graph) == graph


@given(seed=st.integers(0, 2**32))
def test_random_graphs_keep_their_bits(seed: int) -> None:
    graph = random_graph(Random(seed), updates=seed % 2 == 0)
    made = quiet(graph)
    require_same_bits(graph, made, seed)
    assert [n.name for n in made.nodes] == [n.name for n in graph.nodes]
