"""The rewrite driver: fixpoint, names, and what it says about rules that do wrong."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import PassError
from addergraph.ir import Graph, Node, Value
from addergraph.ir.text import parse
from addergraph.ir.walk import renamed
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.pointwise.unary import Abs, Exp, Neg
from addergraph.passes.rewrite import Draft, rebuild, rewrite
from tests.passes.random_graphs import random_graph


def neg_to_abs(draft: Draft, node: Node) -> Sequence[Value] | None:
    return draft.add(Abs(), node.inputs, node.outputs) if isinstance(node.op, Neg) else None


def abs_to_neg(draft: Draft, node: Node) -> Sequence[Value] | None:
    return draft.add(Neg(), node.inputs, node.outputs) if isinstance(node.op, Abs) else None


def relu_to_exp_of_exp(draft: Draft, node: Node) -> Sequence[Value] | None:
    if not isinstance(node.op, Relu):
        return None
    inner = draft.add(Exp(), node.inputs)
    return draft.add(Exp(), inner, node.outputs)


def neg_to_scalar(draft: Draft, node: Node) -> Sequence[Value] | None:
    return [draft.inputs[0]] if isinstance(node.op, Neg) else None


def too_many_operands(draft: Draft, node: Node) -> Sequence[Value] | None:
    return draft.add(Abs(), [*node.inputs, *node.inputs]) if isinstance(node.op, Neg) else None


def before_its_definition(draft: Draft, node: Node) -> Sequence[Value] | None:
    return [Value("ghost", node.outputs[0].type)] if isinstance(node.op, Neg) else None


def chain(body: str) -> Graph:
    return parse(f"graph g(%s: f32[], %x: f32[2]) {{ {body} }}")


NEG = chain("%y = neg(%x) : f32[2] return %y")


@given(seed=st.integers(0, 2**32))
def test_rebuild_that_changes_nothing_gives_an_equal_graph(seed: int) -> None:
    graph = random_graph(Random(seed), updates=True)
    made = rebuild(graph, lambda draft, node: None)
    assert made == graph
    assert made is not graph
    assert made.parameters == graph.parameters  # by identity: models share them


def test_replaced_nodes_keep_their_names() -> None:
    made = rewrite("p", NEG, [neg_to_abs])
    assert made == chain("%y = abs(%x) : f32[2] return %y")


def test_new_names_leave_those_of_later_nodes_free() -> None:
    graph = chain("%r = relu(%x) : f32[2] %exp = neg(%r) : f32[2] return %exp")
    made = rewrite("p", graph, [relu_to_exp_of_exp])
    assert [node.name for node in made.nodes] == ["exp_1", "r", "exp"]


def test_updates_follow_replaced_values() -> None:
    graph = parse(
        """graph g(%x: f32[2]) params(%p: f32[2] init=zeros) {
             %n = neg(%p) : f32[2]
             update %p <- %n
             return %n }"""
    )
    made = rebuild(graph, lambda draft, node: node.inputs)
    assert str(made).splitlines()[1:] == ["  update %p <- %p", "  return %p", "}"]


def test_renamed() -> None:
    made = renamed(NEG, {NEG.outputs[0]: "z"})
    assert made == chain("%z = neg(%x) : f32[2] return %z")


def test_no_rule_that_fires_gives_back_the_same_graph() -> None:
    assert rewrite("p", NEG, [abs_to_neg]) is NEG


def test_rules_that_undo_each_other_are_named() -> None:
    with pytest.raises(PassError, match="(?s)p did not settle.*abs_to_neg, neg_to_abs") as caught:
        rewrite(
            "p",
            chain("%a = neg(%x) : f32[2] %y = abs(%a) : f32[2] return %y"),
            [neg_to_abs, abs_to_neg],
        )
    assert "graph g(" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (neg_to_scalar, r'neg_to_scalar at neg "y".*type f32\[\]; expected f32\[2\]'),
        (too_many_operands, 'too_many_operands at neg "y"'),
        (before_its_definition, "(?s)before_its_definition made an invalid graph.*ghost.*before:"),
    ],
)
def test_a_rule_that_does_wrong_is_named(rule: object, message: str) -> None:
    with pytest.raises(PassError, match=message):
        rewrite("p", NEG, [rule])  # type: ignore[list-item]
