"""canonicalize: each rule's text before and after, and equal bits, also of special values."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.ir.text import parse
from addergraph.passes.canonicalize import RULES, canonicalize
from addergraph.passes.eliminate import eliminate
from tests.passes.meaning import require_same_bits
from tests.passes.random_graphs import random_graph

X = "%x: f32[N,4,3]"

# rule: (inputs, body before, body after)
REWRITES = {
    "same reshape": (X, "%y = reshape(%x) shape=(N,4,3) : f32[N,4,3] return %y", "return %x"),
    "same flatten": (
        "%x: f32[N,3]",
        "%y = flatten(%x) : f32[N,3] return %y",
        "return %x",
    ),
    "same broadcast": (
        X,
        "%y = broadcast_to(%x) shape=(N,4,3) : f32[N,4,3] return %y",
        "return %x",
    ),
    "whole slice": (
        X,
        "%y = slice(%x) start=(0,0,0) stop=(N,4,3) : f32[N,4,3] return %y",
        "return %x",
    ),
    "same cast": (X, "%y = cast(%x) dtype=f32 : f32[N,4,3] return %y", "return %x"),
    "pad by nothing": (
        X,
        "%y = pad(%x) before=(0,0,0) after=(0,0,0) value=7 : f32[N,4,3] return %y",
        "return %x",
    ),
    "max of one": (
        "%x: f32[N,2,2,1]",
        "%y = max_pool2d(%x) window=(1,1) stride=(1,1) : f32[N,2,2,1] return %y",
        "return %x",
    ),
    "transpose in order": (
        X,
        "%y = transpose(%x) permutation=(0,1,2) : f32[N,4,3] return %y",
        "return %x",
    ),
    "transposed back": (
        X,
        """%t = transpose(%x) permutation=(0,2,1) : f32[N,3,4]
        %y = transpose(%t) permutation=(0,2,1) : f32[N,4,3] return %y""",
        "return %x",
    ),
    "transposed twice": (
        "%x: f32[2,3,4]",
        """%t = transpose(%x) permutation=(1,2,0) : f32[3,4,2]
        %y = transpose(%t) permutation=(0,2,1) : f32[3,2,4] return %y""",
        "%y = transpose(%x) permutation=(1,0,2) : f32[3,2,4] return %y",
    ),
    "reshape of reshape": (
        X,
        """%r = reshape(%x) shape=(N,2,6) : f32[N,2,6]
        %s = flatten(%r) : f32[N,12]
        %y = reshape(%s) shape=(N,6,2) : f32[N,6,2] return %y""",
        "%y = reshape(%x) shape=(N,6,2) : f32[N,6,2] return %y",
    ),
    "flatten of reshape": (
        X,
        """%r = reshape(%x) shape=(N,2,6) : f32[N,2,6]
        %y = flatten(%r) : f32[N,12] return %y""",
        "%y = flatten(%x) : f32[N,12] return %y",
    ),
    "reshape of nothing": (  # any shape without elements fits: flattening gives (0,12)
        "%x: f32[0,3,4]",
        """%r = reshape(%x) shape=(0,5) : f32[0,5]
        %y = reshape(%r) shape=(0,7) : f32[0,7] return %y""",
        "%y = reshape(%x) shape=(0,7) : f32[0,7] return %y",
    ),
    "reshaped back": (
        X,
        """%r = flatten(%x) : f32[N,12]
        %y = reshape(%r) shape=(N,4,3) : f32[N,4,3] return %y""",
        "return %x",
    ),
    "moved full": (
        "%x: f32[N,2]",
        """%c = full() value=0.5 shape=(2,1) : f32[2,1]
        %d = full() value=0.5 shape=(2,2) : f32[2,2]
        %j = concat(%c, %d) axis=1 : f32[2,3]
        %p = pad(%j) before=(0,1) after=(0,0) value=0.5 : f32[2,4]
        %y = transpose(%p) permutation=(1,0) : f32[4,2] return %y""",
        "%y = full() value=0.5 shape=(4,2) : f32[4,2] return %y",
    ),
    "computed full": (
        "%x: f32[N,2]",
        """%c = full() value=3 : f32[]
        %d = full() value=0.1 shape=(2) : f32[2]
        %y = mul(%c, %d) : f32[2] return %y""",
        "%y = full() value=0.30000001192092896 shape=(2) : f32[2] return %y",
    ),
    "mask of full": (
        X,
        """%c = full() value=3 : f32[]
        %m = greater(%c, %c) : bool[]
        %y = select(%m, %x, %x) : f32[N,4,3] return %y""",
        "return %x",
    ),
    "chosen for good": (
        "%x: f32[N,2]",
        """%t = full() value=1 dtype=bool : bool[]
        %f = full() value=0 dtype=bool : bool[]
        %c = full() value=3 : f32[]
        %a = select(%t, %x, %c) : f32[N,2]
        %b = select(%f, %x, %c) : f32[N,2] return %a, %b""",
        "%b = full() value=3 shape=(N,2) : f32[N,2] return %x, %b",
    ),
    "times one": (
        X,
        "%c = full() value=1 : f32[] %y = mul(%c, %x) : f32[N,4,3] return %y",
        "return %x",
    ),
    "divided by one": (
        X,
        "%c = full() value=1 : f32[] %y = div(%x, %c) : f32[N,4,3] return %y",
        "return %x",
    ),
    "minus zero": (
        X,
        "%c = full() value=0 : f32[] %y = sub(%x, %c) : f32[N,4,3] return %y",
        "return %x",
    ),
    "plus minus zero": (
        X,
        "%c = full() value=-0 : f32[] %y = add(%x, %c) : f32[N,4,3] return %y",
        "return %x",
    ),
    "integer plus zero": (
        "%x: i32[N,2]",
        "%c = full() value=0 dtype=i32 : i32[] %y = add(%c, %x) : i32[N,2] return %y",
        "return %x",
    ),
    "neg of neg": (
        X,
        "%n = neg(%x) : f32[N,4,3] %y = neg(%n) : f32[N,4,3] return %y",
        "return %x",
    ),
    "abs of neg": (
        X,
        "%n = neg(%x) : f32[N,4,3] %y = abs(%n) : f32[N,4,3] return %y",
        "%y = abs(%x) : f32[N,4,3] return %y",
    ),
    "relu of relu": (
        X,
        "%r = relu(%x) : f32[N,4,3] %y = relu(%r) : f32[N,4,3] return %y",
        "%r = relu(%x) : f32[N,4,3] return %r",
    ),
    "minus neg": (
        "%x: f32[N,2], %b: f32[N,2]",
        "%n = neg(%b) : f32[N,2] %y = sub(%x, %n) : f32[N,2] return %y",
        "%y = add(%x, %b) : f32[N,2] return %y",
    ),
    "plus neg": (
        "%x: f32[N,2], %b: f32[N,2]",
        "%n = neg(%b) : f32[N,2] %y = add(%x, %n) : f32[N,2] return %y",
        "%y = sub(%x, %b) : f32[N,2] return %y",
    ),
    "neg plus": (
        "%x: f32[N,2], %b: f32[N,2]",
        "%n = neg(%b) : f32[N,2] %y = add(%n, %x) : f32[N,2] return %y",
        "%y = sub(%x, %b) : f32[N,2] return %y",
    ),
    "broadcast operand": (
        "%x: f32[N,2], %b: f32[2]",
        """%w = broadcast_to(%b) shape=(N,2) : f32[N,2]
        %y = mul(%w, %x) : f32[N,2] return %y""",
        "%y = mul(%b, %x) : f32[N,2] return %y",
    ),
    "full operand": (
        "%x: f32[N,2]",
        """%w = full() value=3 shape=(N,2) : f32[N,2]
        %y = maximum(%x, %w) : f32[N,2] return %y""",
        "%const = full() value=3 : f32[] %y = maximum(%x, %const) : f32[N,2] return %y",
    ),
}

KEPT = {
    "-0.0 + 0.0 is +0.0": (
        X,
        "%c = full() value=0 : f32[] %y = add(%x, %c) : f32[N,4,3] return %y",
    ),
    "-0.0 - -0.0 is +0.0": (
        X,
        "%c = full() value=-0 : f32[] %y = sub(%x, %c) : f32[N,4,3] return %y",
    ),
    "a sum starts at +0.0": (X, "%y = reduce_sum(%x) axes=() : f32[N,4,3] return %y"),
    "a largest zero is +0.0": (X, "%y = reduce_max(%x) axes=() : f32[N,4,3] return %y"),
    "an average starts at +0.0": (
        "%x: f32[N,2,2,1]",
        "%y = avg_pool2d(%x) window=(1,1) stride=(1,1) : f32[N,2,2,1] return %y",
    ),
    "one widens": (
        "%x: f32[2]",
        "%c = full() value=1 shape=(3,2) : f32[3,2] %y = mul(%c, %x) : f32[3,2] return %y",
    ),
    "pads of another value": (
        X,
        """%c = full() value=0 shape=(2) : f32[2]
        %y = pad(%c) before=(1) after=(0) value=-0 : f32[3] return %y""",
    ),
    "-(a - b) is not b - a for a = b": (
        "%x: f32[N,2], %b: f32[N,2]",
        "%d = sub(%x, %b) : f32[N,2] %y = neg(%d) : f32[N,2] return %y",
    ),
    "the broadcast gives the shape": (
        "%b: f32[2]",
        """%w = broadcast_to(%b) shape=(3,2) : f32[3,2]
        %y = mul(%w, %w) : f32[3,2] return %y""",
    ),
    "there are no constants of bytes": (
        X,
        "%c = full() value=3 : f32[] %y = cast(%c) dtype=u8 : u8[] return %y",
    ),
}


@pytest.mark.parametrize("name", REWRITES)
def test_rewrites(name: str) -> None:
    inputs, before, after = REWRITES[name]
    graph, expected = (parse(f"graph g({inputs}) {{ {body} }}") for body in (before, after))
    made = canonicalize(graph)
    assert eliminate(made) == expected
    require_same_bits(graph, made)


@pytest.mark.parametrize("name", KEPT)
def test_keeps_what_is_not_exact(name: str) -> None:
    inputs, body = KEPT[name]
    graph = parse(f"graph g({inputs}) {{ {body} }}")
    assert eliminate(canonicalize(graph)).outputs[0].name == "y"
    require_same_bits(graph, canonicalize(graph))


@given(seed=st.integers(0, 2**32))
def test_random_graphs_keep_their_bits_and_settle(seed: int) -> None:
    graph = random_graph(Random(seed), updates=seed % 2 == 0)
    made = canonicalize(graph)
    require_same_bits(graph, made, seed)
    assert canonicalize(made) == made
    # A scalar constant may come beside a large one that other readers still need; nothing else.
    old, new = ([n for n in eliminate(g).nodes if n.inputs] for g in (graph, made))
    assert len(new) <= len(old)


def test_rules_have_distinct_names() -> None:
    assert len({rule.__name__ for rule in RULES}) == len(RULES)
