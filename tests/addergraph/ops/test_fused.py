"""fused: a body means what its nodes mean, and only two forms of body are allowed."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Builder, Cost, Graph, Halo, Init, Parameter
from addergraph.ir.interpreter import interpret
from addergraph.ir.intervals import Interval
from addergraph.ir.text import parse
from addergraph.ir.trace import trace
from addergraph.ir.types import TensorType, tensor
from addergraph.ops.contraction.adder2d import adder2d
from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.binary import add, maximum, mul
from addergraph.ops.pointwise.full import full
from addergraph.ops.pointwise.relu import relu
from addergraph.ops.reduction.reduce import reduce_sum
from tests.addergraph.ops.naive import normal

X, F, S = tensor("f32", ("N", 4, 4, 2)), tensor("f32", (3, 3, 2, 5)), tensor("f32", (5,))


def contraction_body(x: TensorType = X) -> Graph:
    def body(a0, a1, a2):
        return relu(mul(adder2d(a0, a1, padding=1), a2))

    return trace(body, x, F, S)


def pointwise_body() -> Graph:
    def body(a0, a1):
        v0 = add(a0, a1)
        return v0, maximum(v0, 1.0)

    return trace(body, tensor("f32", ("N", 5)), S)


def outer(body: Graph) -> Graph:
    builder = Builder("outer")
    inputs = [builder.input(f"x{i}", v.type) for i, v in enumerate(body.inputs)]
    return builder.finish(builder.add(Fused(body), inputs))


def types(body: Graph) -> list[TensorType]:
    return [v.type for v in body.inputs]


@pytest.mark.parametrize("body", [contraction_body(), pointwise_body()])
def test_it_means_what_its_body_means(body: Graph) -> None:
    arrays = [normal(i, *v.type.bind(2).sizes) for i, v in enumerate(body.inputs)]
    graph = outer(body)
    assert [v.type for v in graph.outputs] == [v.type for v in body.outputs]
    assert parse(str(graph)) == graph
    found, expected = interpret(graph.bind(2), *arrays), interpret(body.bind(2), *arrays)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert np.ptp(np.asarray(found)) > 0


def test_several_outputs_have_names() -> None:
    graph = outer(pointwise_body())
    assert [v.name for v in graph.nodes[0].outputs] == ["fused", "fused.1"]


def test_bind() -> None:
    op = Fused(contraction_body()).bind(3)
    assert op == Fused(contraction_body(X.bind(3)))
    assert hash(op) == hash(Fused(contraction_body(X.bind(3))))
    assert op != Fused(contraction_body())


def test_facts_come_from_the_body() -> None:
    body = contraction_body(X.bind(2))
    op = Fused(body)
    assert op.contraction is body.nodes[0]
    assert op.per_sample
    assert op.halo(types(body)) == (Halo(1, 1, 1, 1), Halo(), Halo())
    terms = 2 * 4 * 4 * 5 * 3 * 3 * 2
    assert op.cost(types(body)) == Cost(additions=2 * terms, multiplications=160)
    assert Fused(pointwise_body()).contraction is None
    assert Fused(pointwise_body()).halo(types(pointwise_body())) == (Halo(), Halo())


def test_ranges_walk_the_body() -> None:
    body = pointwise_body()
    found = Fused(body).interval([Interval(0, 1), Interval(-3, 2)], types(body))
    assert found == (Interval(-3, 3), Interval(1, 3))


def test_operands_must_have_the_types_of_the_inputs() -> None:
    with pytest.raises(ShapeError, match=r"as the body's inputs, \(f32\[N,5\], f32\[5\]\), found"):
        Fused(pointwise_body()).infer(tensor("f32", ("N", 5)), tensor("f32", (1, 5)))


def with_reduction(x):
    return reduce_sum(relu(x))


def with_two_shapes(x, y):
    return add(relu(y), x)


def with_wide_input(x, f):
    y = adder2d(x, f)
    return add(y, x)


def with_two_outputs(x, f):
    y = adder2d(x, f)
    return y, relu(y)


def with_late_contraction(x, f):
    return adder2d(relu(x), f)


def with_a_fused_node(x):
    return fused_relu(x)


def fused_relu(x):
    from addergraph.ir.trace import apply

    return apply(Fused(trace(lambda a: relu(a), x.type)), x)


def with_a_big_constant(x, f):
    return add(adder2d(x, f), full(x, 1.0, (5,)))


@pytest.mark.parametrize(
    ("function", "operands", "message"),
    [
        (with_reduction, [S], 'found reduce_sum "reduce_sum"'),
        (with_two_shapes, [tensor("f32", (3, 5)), S], r"one shape, found \[3,5\] and \[5\]"),
        (with_two_outputs, [X, F], "one output, its last node"),
        (with_late_contraction, [X, F], 'found adder2d "adder2d"'),
        (with_a_fused_node, [S], 'found fused "fused"'),
        (with_a_big_constant, [X, F], r'full "const" in a fused body has shape \[5\]'),
        (
            with_wide_input,
            [tensor("f32", ("N", 1, 1, 1)), tensor("f32", (1, 1, 1, 5))],
            r'add "add" in a fused body reads %x: f32\[N,1,1,1\]; expected the shape \[N,1,1,5\]',
        ),
    ],
)
def test_other_forms_are_refused(function, operands, message) -> None:
    with pytest.raises(GraphError, match=message):
        Fused(trace(function, *operands))


def test_a_body_has_inputs_only() -> None:
    builder = Builder("body")
    p = builder.parameter(Parameter("p", S, Init()))
    with pytest.raises(GraphError, match="inputs only, found parameters"):
        Fused(builder.finish([p]))
    with pytest.raises(GraphError, match="at least one node and one output"):
        Fused(trace(lambda x: x, S))
