"""fuse: what it builds, that it keeps the meaning, and that the quotient stays acyclic."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.ir import Builder, Graph, Node
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.text import parse
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, u8
from addergraph.ops import cast
from addergraph.ops.fused import Fused
from addergraph.passes.fuse import MAX_BUFFERS, fuse
from addergraph.passes.hoist import hoist
from tests.passes.acyclic import fusion_is_acyclic
from tests.passes.random_graphs import op, random_data, random_graph


def fused(text: str) -> Graph:
    """The fused form of a graph, checked and equal in meaning to the original."""
    graph = parse(text)
    made = fuse(graph)
    check(made)
    require_same_meaning(graph, made)
    return made


def require_same_meaning(graph: Graph, made: Graph) -> None:
    graph, made = (g.bind(2) if g.is_open else g for g in (graph, made))
    inputs, weights = random_data(graph, 0)
    (old, old_updates), (new, new_updates) = (
        run_reference(g, inputs, weights) for g in (graph, made)
    )
    for x, y in zip(old, new, strict=True):
        np.testing.assert_array_equal(x, y)
    assert list(old_updates) == list(new_updates)
    for name, x in old_updates.items():
        np.testing.assert_array_equal(x, new_updates[name])


def shapes_of(graph: Graph) -> list[str]:
    """Each node by its ops: `adder2d+mul+relu` for a fused one."""
    return ["+".join(n.op.name for n in _members(node)) for node in graph.nodes]


def _members(node: Node) -> tuple[Node, ...]:
    return node.op.body.nodes if isinstance(node.op, Fused) else (node,)


HEAD = "graph g(%x: f32[N,4,4,3], %r: f32[N,4,4,3]) params(%f: f32[3,3,3,3], %s: f32[3]) {"


def test_contraction_takes_its_tail_and_the_residual() -> None:
    graph = fused(
        HEAD
        + """
        %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3]
        %m = mul(%y, %s) : f32[N,4,4,3]
        %a = add(%m, %r) : f32[N,4,4,3]
        %zero = full() value=0 : f32[]
        %out = maximum(%a, %zero) : f32[N,4,4,3]
        return %out }"""
    )
    assert graph == parse(
        HEAD
        + """
        %out = fused(%x, %f, %s, %r) : f32[N,4,4,3] {
          graph body(%a0: f32[N,4,4,3], %a1: f32[3,3,3,3], %a2: f32[3], %a3: f32[N,4,4,3]) {
            %v0 = adder2d(%a0, %a1) padding=(1,1,1,1) : f32[N,4,4,3]
            %v1 = mul(%v0, %a2) : f32[N,4,4,3]
            %v2 = add(%v1, %a3) : f32[N,4,4,3]
            %v3 = full() value=0 : f32[]
            %v4 = maximum(%v2, %v3) : f32[N,4,4,3]
            return %v4
          } }
        return %out }"""
    )


def test_a_contraction_that_nobody_reads_has_no_tail() -> None:
    body = " %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3] return %r }"
    assert shapes_of(fused(HEAD + body)) == ["adder2d"]


def test_result_read_several_times_inside_the_tail() -> None:
    graph = fused(
        HEAD
        + """
        %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3]
        %on = greater(%y, %r) : bool[N,4,4,3]
        %half = mul(%y, %s) : f32[N,4,4,3]
        %out = select(%on, %y, %half) : f32[N,4,4,3]
        return %out }"""
    )
    assert shapes_of(graph) == ["adder2d+greater+mul+select"]


def test_later_of_two_contractions_takes_the_sum_and_the_earlier_keeps_its_own_tail() -> None:
    graph = fused(
        HEAD
        + """
        %y = conv2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3]
        %m = mul(%y, %s) : f32[N,4,4,3]
        %z = conv2d(%r, %f) padding=(1,1,1,1) : f32[N,4,4,3]
        %out = add(%m, %z) : f32[N,4,4,3]
        return %out }"""
    )
    assert shapes_of(graph) == ["conv2d+mul", "conv2d+add"]


def test_tail_stops_at_what_is_needed_outside() -> None:
    graph = fused(
        HEAD
        + """
        %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3]
        %m = mul(%y, %s) : f32[N,4,4,3]
        %out = relu(%m) : f32[N,4,4,3]
        return %m, %out }"""
    )
    assert shapes_of(graph) == ["adder2d+mul", "relu"]


@pytest.mark.parametrize(
    "shape", ["4,1,3", "1,1,1,3", "1", "4,3"], ids=["rows", "ones", "one", "rows and channels"]
)
def test_tail_reads_only_the_allowed_shapes(shape: str) -> None:
    graph = fused(
        f"""graph g(%x: f32[N,4,4,3]) params(%f: f32[3,3,3,3], %s: f32[{shape}]) {{
        %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,4,4,3]
        %m = mul(%y, %s) : f32[N,4,4,3]
        return %m }}"""
    )
    assert shapes_of(graph) == ["adder2d", "mul"]


def test_gradient_contractions_take_no_tail() -> None:
    graph = fused(
        """graph g(%g: f32[2,3,3,2], %x: f32[2,3,3,2], %f: f32[1,1,2,2]) {
        %y = adder2d_grad_input(%g, %x, %f) : f32[2,3,3,2]
        %m = mul(%y, %x) : f32[2,3,3,2]
        return %m }"""
    )
    assert shapes_of(graph) == ["adder2d_grad_input", "mul"]


def test_side_producer_joins_unless_the_contraction_itself_reads_it() -> None:
    text = """graph g(%x: f32[2,3]) params(%w: f32[3,3], %m: f32[3,3], %rate: f32[]) {{
        %side = mul(%m, %rate) : f32[3,3]
        %y = matmul({left}, %w) : f32[3,3]
        %out = sub(%y, %side) : f32[3,3]
        update %m <- %out
        return %x }}"""
    assert shapes_of(fused(text.format(left="%m"))) == ["matmul+mul+sub"]
    assert shapes_of(fused(text.format(left="%side"))) == ["mul", "matmul+sub"]


def test_optimizer_update_becomes_one_node_with_two_results() -> None:
    graph = fused(
        """graph g(%g: f32[3,3], %rate: f32[]) params(%p: f32[3,3], %v: f32[3,3]) {
        %decay = full() value=0.5 : f32[]
        %d = mul(%p, %decay) : f32[3,3]
        %g1 = add(%g, %d) : f32[3,3]
        %moved = mul(%v, %decay) : f32[3,3]
        %v1 = add(%moved, %g1) : f32[3,3]
        %step = mul(%v1, %rate) : f32[3,3]
        %p1 = sub(%p, %step) : f32[3,3]
        update %v <- %v1
        update %p <- %p1
        return %rate }"""
    )
    (node,) = graph.nodes
    assert [v.name for v in node.outputs] == ["v1", "p1"]
    assert len(node.inputs) == 4


def test_mask_goes_to_the_gradient_that_reads_it() -> None:
    graph = fused(
        """graph g(%x: f32[3,3], %w: f32[3,3]) {
        %a = mul(%x, %x) : f32[3,3]
        %y = relu(%a) : f32[3,3]
        %zero = full() value=0 : f32[]
        %on = greater(%y, %zero) : bool[3,3]
        %sum = reduce_mean(%y) axes=(0) : f32[3]
        %g = mul(%w, %sum) : f32[3,3]
        %dx = select(%on, %g, %zero) : f32[3,3]
        return %dx, %y }"""
    )
    assert shapes_of(graph) == ["mul+relu", "reduce_mean", "full+greater+mul+select"]
    assert graph.outputs[1].name == "y"


def test_merging_that_would_close_a_cycle_is_refused() -> None:
    graph = fused(
        """graph g(%x: f32[3,3]) {
        %a = relu(%x) : f32[3,3]
        %sum = reduce_mean(%a) axes=(0) : f32[3]
        %b = sub(%a, %sum) : f32[3,3]
        return %b }"""
    )
    assert shapes_of(graph) == ["relu", "reduce_mean", "sub"]


def test_earlier_merges_count_when_later_ones_are_judged() -> None:
    # %y and %u merge first; then %b -> %s -> {%u, %y} -> %r -> %a keeps %a and %b apart.
    graph = fused(
        """graph g(%x: f32[3,3], %z: f32[3,3]) {
        %u = relu(%x) : f32[3,3]
        %r = reduce_mean(%u) axes=(0) : f32[3]
        %a = sub(%z, %r) : f32[3,3]
        %b = neg(%z) : f32[3,3]
        %s = reduce_mean(%b) axes=(0) : f32[3]
        %y = sub(%u, %s) : f32[3,3]
        return %a, %y }"""
    )
    assert shapes_of(graph) == ["neg", "reduce_mean", "relu+sub", "reduce_mean", "sub"]


def test_siblings_that_share_an_operand_merge() -> None:
    graph = fused(
        """graph g(%x: f32[3,3], %s: f32[]) {
        %a = relu(%x) : f32[3,3]
        %b = neg(%x) : f32[3,3]
        %c = neg(%s) : f32[]
        return %a, %b, %c }"""
    )
    assert shapes_of(graph) == ["relu+neg", "neg"]
    assert [v.name for v in graph.nodes[0].outputs] == ["a", "b"]


def test_channel_math_stays_out_of_larger_bodies() -> None:
    graph = fused(
        HEAD
        + """
        %a = abs(%s) : f32[3]
        %b = neg(%a) : f32[3]
        %c = mul(%x, %b) : f32[N,4,4,3]
        %d = relu(%c) : f32[N,4,4,3]
        return %d }"""
    )
    assert shapes_of(graph) == ["abs+neg", "mul+relu"]


def test_number_of_buffers_is_capped() -> None:
    names = [f"%x{i}" for i in range(2 * MAX_BUFFERS)]
    lines, last = [], names[0]
    for i, name in enumerate(names[1:]):
        lines.append(f"%s{i} = add({last}, {name}) : f32[3]")
        last = f"%s{i}"
    header = ", ".join(f"{n}: f32[3]" for n in names)
    graph = fused(f"graph g({header}) {{ {chr(10).join(lines)} return {last} }}")
    sizes = [len(n.inputs) + len(n.outputs) for n in graph.nodes]
    assert len(sizes) == 3 and max(sizes) == MAX_BUFFERS


def test_scalar_constant_is_copied_into_each_body_and_kept_where_a_lone_node_reads_it() -> None:
    graph = fused(
        """graph g(%x: f32[3], %y: f32[2]) {
        %c = full() value=2 : f32[]
        %a = mul(%x, %c) : f32[3]
        %b = relu(%a) : f32[3]
        %d = mul(%y, %c) : f32[2]
        return %b, %d }"""
    )
    assert sorted(shapes_of(graph)) == ["full", "full+mul+relu", "mul"]
    assert graph == parse(str(graph))


def test_what_hoist_moves_shares_no_body_with_the_rest() -> None:
    graph = fused(
        """graph g(%x: f32[3]) params(%p: f32[3]) {
        %a = abs(%p) : f32[3]
        %b = neg(%a) : f32[3]
        %c = add(%x, %b) : f32[3]
        %d = relu(%c) : f32[3]
        return %d }"""
    )
    assert shapes_of(graph) == ["abs+neg", "add+relu"]
    setup, main = hoist(graph)
    assert (shapes_of(setup), shapes_of(main)) == (["abs+neg"], ["add+relu"])


def test_a_tail_takes_no_producer_that_hoist_moves() -> None:
    graph = fused(
        """graph g(%x: f32[2,3]) params(%w: f32[3,3], %m: f32[2,3]) {
        %side = abs(%m) : f32[2,3]
        %y = dense(%x, %w) : f32[2,3]
        %z = add(%y, %side) : f32[2,3]
        return %z }"""
    )
    assert shapes_of(graph) == ["abs", "dense+add"]


def test_group_moves_before_an_early_reader() -> None:
    graph = fused(
        """graph g(%x: f32[3,3]) {
        %a = relu(%x) : f32[3,3]
        %m = transpose(%a) permutation=(1,0) : f32[3,3]
        %b = neg(%x) : f32[3,3]
        %c = reduce_mean(%b) axes=(0) : f32[3]
        return %m, %c }"""
    )
    assert shapes_of(graph) == ["relu+neg", "transpose", "reduce_mean"]


NORM = """graph g(%x: f32[8,3], %m: f32[3], %p: f32[8,3], %f: f32[3,3]) {
    %c = sub(%x, %m) : f32[8,3]
    %y = relu(%c) : f32[8,3]
    %z = dense(%y, %f) : f32[8,3]
    %zero = full() value=0 : f32[]
    %on = greater(%y, %zero) : bool[8,3]
    %g = select(%on, %p, %zero) : f32[8,3]
    %s = reduce_sum(%g) axes=(0) : f32[3]
    %gc = mul(%g, %c) : f32[8,3]
    %t = reduce_sum(%gc) axes=(0) : f32[3]
    %q = mul(%c, %t) : f32[8,3]
    %dx = add(%g, %q) : f32[8,3]
    return %z, %dx, %s }"""


def test_normalization_reads_twice_in_the_backward_pass_and_saves_nothing_forward() -> None:
    graph = fused(NORM)
    assert shapes_of(graph) == [
        "sub+relu",
        "dense",
        "sub+relu+full+greater+select+reduce_sum+mul+reduce_sum",
        "sub+relu+full+greater+select+mul+add",
    ]
    forward, *_, sums, gradient = graph.nodes
    assert [v.name for v in forward.outputs] == ["y"]
    assert {v.name for v in sums.inputs} == {"x", "m", "p"}
    assert {v.name for v in gradient.inputs} == {"x", "m", "p", "t"}


def test_a_value_that_something_else_reads_is_not_computed_again_for_nothing() -> None:
    for kept in ("%z, %dx, %s, %c", "%z, %dx, %s, %g"):  # outputs: written anyway
        graph = fused(NORM.replace("%z, %dx, %s", kept))
        name = kept[-1]
        assert sum(name in [v.name for v in node.outputs] for node in graph.nodes) == 1
        reads = [{v.name for v in node.inputs} for node in graph.nodes]
        assert any(name in read for read in reads)


def test_expensive_values_are_read() -> None:
    graph = fused(NORM.replace("%c = sub(%x, %m)", "%e = exp(%x) : f32[8,3] %c = sub(%e, %m)"))
    assert shapes_of(graph)[0] == "exp+sub+relu"
    assert "c" in [v.name for v in graph.nodes[0].outputs]


def test_sums_join_groups_only_over_all_axes_but_the_last() -> None:
    for axes, shape in (("(1)", "[8,3]"), ("(0,1,2)", "[]"), ("(0,2)", "[3]")):
        graph = fused(
            f"""graph g(%x: f32[8,3,3]) {{
            %y = relu(%x) : f32[8,3,3]
            %s = reduce_sum(%y) axes={axes} : f32{shape}
            return %s, %y }}"""
        )
        assert shapes_of(graph) == ["relu", "reduce_sum"]


def test_sums_of_integers_join_no_group() -> None:
    text = """graph g(%x: f32[8,3]) {
        %y = cast(%x) dtype=i32 : i32[8,3]
        %z = neg(%y) : i32[8,3]
        %s = reduce_sum(%z) axes=(0) : i32[3]
        return %s, %z }"""
    assert shapes_of(fused(text)) == ["cast+neg", "reduce_sum"]
    assert shapes_of(fused(text.replace("i32", "f32"))) == ["cast+neg+reduce_sum"]


def test_a_sum_of_an_operand_joins_the_group_that_reads_it_unless_that_needs_the_sum() -> None:
    text = """graph g(%x: f32[8,3], %r: f32[8,3]) {
        %s = reduce_sum(%x) axes=(0) : f32[3]
        %y = add(%x, %r) : f32[8,3]
        return %y, %s }"""
    assert shapes_of(fused(text)) == ["reduce_sum+add"]
    assert shapes_of(fused(text.replace("add(%x, %r)", "mul(%x, %s)"))) == ["reduce_sum", "mul"]


def test_dead_nodes_and_open_constants_are_left_alone() -> None:
    graph = fused(
        """graph g(%x: f32[N,3]) {
        %ones = full() value=1 shape=(N,3) : f32[N,3]
        %two = add(%ones, %ones) : f32[N,3]
        %dead = relu(%x) : f32[N,3]
        %y = sub(%x, %two) : f32[N,3]
        return %y }"""
    )
    assert shapes_of(graph) == ["full", "relu", "add+sub"]


@pytest.mark.slow
@given(st.randoms(use_true_random=False), st.booleans())
def test_random_graphs_keep_their_meaning(random: Random, updates: bool) -> None:
    graph = random_graph(random, nodes=20, updates=updates)
    made = fuse(graph)
    check(made)
    require_same_meaning(graph, made)
    assert [(v.name, v.type) for v in made.outputs] == [(v.name, v.type) for v in graph.outputs]
    require_contract(graph, made)
    assert fuse(made) == made


def require_contract(graph: Graph, made: Graph) -> None:
    """Fused nodes are as docs/design.md has it, and the groups' quotient is acyclic."""
    groups = groups_of(graph, made)
    assert fusion_is_acyclic(graph, [g for g in groups if len(g) > 1])
    for node in made.nodes:
        if not isinstance(node.op, Fused):
            continue
        body = node.op.body
        assert len(body.nodes) >= 2
        assert [v.name for v in body.inputs] == [f"a{i}" for i in range(len(body.inputs))]
        assert [n.name for n in body.nodes] == [f"v{i}" for i in range(len(body.nodes))]
        if node.op.contraction is None:
            assert len(node.inputs) + len(node.outputs) <= MAX_BUFFERS


def groups_of(graph: Graph, made: Graph) -> list[set[str]]:
    """The original nodes of each node of `made`: walks back from its results to its operands.

    A node that several groups compute counts for the first of them.
    """
    producer = {v.name: n for n in graph.nodes for v in n.outputs}
    groups: list[set[str]] = []
    for node in made.nodes:
        group, todo = set[str](), [v.name for v in node.outputs]
        stop = {v.name for v in node.inputs}
        while todo:
            name = todo.pop()
            if name in stop - {v.name for v in node.outputs} or name not in producer:
                continue
            original = producer[name]
            if original.name in group or _is_scalar_constant(original):
                continue
            group.add(original.name)
            todo += [v.name for v in original.inputs]
        groups.append(group.difference(*groups))
    return groups


def _is_scalar_constant(node: Node) -> bool:
    return not node.inputs and node.outputs[0].type.shape == ()


def test_bytes_between_layers_stay_bytes() -> None:
    """A cast of bytes joins the tail that reads it, and not the one that wrote the bytes."""
    builder = Builder("bytes")
    x = Tensor(builder, builder.input("x", TensorType(u8, ("N", 4, 4, 3))))
    f, g = (Tensor(builder, builder.input(n, TensorType(u8, (1, 1, 3, 3)))) for n in "fg")
    first = cast(op("adder2d", x, f) + 900, "u8")
    second = cast(op("adder2d", x, g) + cast(first, "i32"), "u8")
    made = fuse(builder.finish([second.value]))
    assert [v.type.dtype for node in made.nodes for v in node.outputs] == [u8, u8]
