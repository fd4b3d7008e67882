"""autodiff: names and text, the paper's gradients, true gradients against differences, errors."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import GraphError
from addergraph.ir import Array, Graph
from addergraph.ir.check import check
from addergraph.ir.interpreter import interpret
from addergraph.ir.text import parse
from addergraph.passes.autodiff import grad


def test_text_of_a_small_gradient() -> None:
    graph = parse(
        """graph net(%x: f32[2,4,4,1]) params(%f: f32[3,3,1,8] init=zeros, %b: f32[8] init=zeros) {
             %c = adder2d(%x, %f) : f32[2,2,2,8]
             %s = add(%c, %b) : f32[2,2,2,8]
             %y = mul(%s, %s) : f32[2,2,2,8]
             update %b <- %b
             return %y }"""
    )
    expected = parse(
        """graph net_grad(%x: f32[2,4,4,1], %dy: f32[2,2,2,8]) params(
             %f: f32[3,3,1,8] init=zeros, %b: f32[8] init=zeros) {
             %c = adder2d(%x, %f) : f32[2,2,2,8]
             %s = add(%c, %b) : f32[2,2,2,8]
             %y.grad.mul = mul(%dy, %s) : f32[2,2,2,8]
             %y.grad.mul_1 = mul(%dy, %s) : f32[2,2,2,8]
             %s.grad = add(%y.grad.mul, %y.grad.mul_1) : f32[2,2,2,8]
             %b.grad = reduce_sum(%s.grad) axes=(0,1,2) : f32[8]
             %f.grad = adder2d_grad_filter(%s.grad, %x, %f) : f32[3,3,1,8]
             return %f.grad, %b.grad }"""
    )
    assert grad(graph, ["f", "b"]) == expected


def adder_net() -> tuple[Graph, Array, dict[str, Array]]:
    graph = parse(
        """graph net(%x: f32[5,3]) params(%f: f32[3,4] init=zeros, %h: f32[4,2] init=zeros) {
             %a = adder_dense(%x, %f) : f32[5,4]
             %y = adder_dense(%a, %h) : f32[5,2]
             return %y }"""
    )
    rng = np.random.default_rng(0)
    weights = {"f": rng.normal(size=(3, 4)).astype("f4"), "h": rng.normal(size=(4, 2)).astype("f4")}
    weights["h"] -= 3.0  # within reach of the first layer's results, so that clip does not saturate
    return graph, rng.normal(size=(5, 3)).astype("f4"), weights


def test_the_paper_s_gradients_chain() -> None:
    graph, x, weights = adder_net()
    dy = np.random.default_rng(1).normal(size=(5, 2)).astype("f4")
    f, h = weights["f"], weights["h"]
    a = -np.abs(x[:, :, None] - f).sum(1)
    da = (dy[:, None, :] * np.clip(h - a[:, :, None], -1, 1)).sum(2)
    expected = (
        (da[:, None, :] * np.clip(f - x[:, :, None], -1, 1)).sum(2),
        (da[:, None, :] * (x[:, :, None] - f)).sum(0),
        (dy[:, None, :] * (a[:, :, None] - h)).sum(0),
    )
    found = interpret(grad(graph, ["x", "f", "h"]), x, dy, weights=weights)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_nothing_is_computed_for_what_is_not_asked() -> None:
    graph, _, _ = adder_net()
    assert [n.op.name for n in grad(graph, ["h"]).nodes] == [
        "adder_dense",
        "adder_dense_grad_filter",
    ]
    assert {p.name for p in grad(graph, ["h"]).parameters} == {"f", "h"}


def test_polynomials_equal_their_central_differences() -> None:
    # Quadratic in each of x, w and b: a difference over +-1 is the derivative, with no rounding.
    graph = parse(
        """graph p(%x: f32[3,2]) params(%w: f32[2,4] init=zeros, %b: f32[4] init=zeros) {
             %m = matmul(%x, %w) : f32[3,4]
             %s = add(%m, %b) : f32[3,4]
             %t = transpose(%s) permutation=(1,0) : f32[4,3]
             %r = reshape(%t) shape=(3,4) : f32[3,4]
             %q = mul(%s, %r) : f32[3,4]
             %k = sub(%q, %b) : f32[3,4]
             %c = concat(%k, %s) axis=1 : f32[3,8]
             %l = slice(%c) start=(0,1) stop=(3,7) : f32[3,6]
             %y = reduce_sum(%l) axes=(1) : f32[3]
             return %y, %s, %y }"""
    )
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> Array:
        return rng.integers(-4, 5, shape).astype("f4")

    values = {"x": draw(3, 2), "w": draw(2, 4), "b": draw(4)}
    upstream = [draw(3), draw(3, 4), draw(3)]
    gradients = grad(graph, list(values))
    assert [v.name for v in gradients.inputs] == ["x", "dy", "ds", "dy_1"]
    found = interpret(gradients, values["x"], *upstream, weights=values)

    def loss(name: str, index: tuple[int, ...], step: float) -> float:
        moved = {key: array.copy() for key, array in values.items()}
        moved[name][index] += step
        outputs = interpret(graph, moved["x"], weights=moved)
        return sum(float((g * y).sum()) for g, y in zip(upstream, outputs, strict=True))

    for name, gradient in zip(values, found, strict=True):
        for index in np.ndindex(*gradient.shape):
            difference = (loss(name, index, 1.0) - loss(name, index, -1.0)) / 2
            assert gradient[index] == difference, (name, index)


def test_values_that_the_outputs_do_not_depend_on_get_zeros() -> None:
    graph = parse(
        """graph g(%x: f32[N,2], %z: f32[N,3]) {
             %i = argmax(%z) axis=1 : i32[N]
             %c = cast(%i) dtype=f32 : f32[N]
             %r = reshape(%c) shape=(N,1) : f32[N,1]
             %y = mul(%x, %r) : f32[N,2]
             return %y }"""
    )
    made = grad(graph, ["z", "x"])
    check(made)
    x, z, dy = np.ones((4, 2)), np.eye(4, 3), np.full((4, 2), 5.0)
    dz, dx = interpret(made, x, z, dy)
    np.testing.assert_array_equal(dz, np.zeros((4, 3)))
    np.testing.assert_array_equal(dx, 5.0 * np.array([[0, 0], [1, 1], [2, 2], [0, 0]]))


def test_an_output_that_is_an_input() -> None:
    graph = parse("graph g(%x: f32[2]) { return %x, %x }")
    found = interpret(grad(graph, ["x"]), np.zeros(2), np.array([1, 2]), np.array([10, 20]))
    np.testing.assert_array_equal(found, [11, 22])


def test_second_results_take_part() -> None:
    graph = parse(
        """graph g(%x: f32[4,2]) {
             %s.mean, %s.variance = batch_norm_statistics(%x) : f32[2], f32[2]
             return %s.variance }"""
    )
    x = np.array([[1, 0], [3, 0], [5, 4], [7, 4]], "f4")
    found = interpret(grad(graph, ["x"]), x, np.ones(2))
    np.testing.assert_array_equal(found, 2 * (x - x.mean(0)) / 4)


GRADIENT_OP = """graph g(%x: f32[2,3], %g: f32[2,4]) params(%f: f32[3,4] init=zeros) {
    %back = adder_dense_grad_input(%g, %x, %f) : f32[2,3]
    return %back }"""
INTEGER = "graph g(%x: f32[2], %i: i32[2]) { %r = relu(%x) : f32[2] return %r }"
MASK = "graph g(%x: f32[2]) { %m = greater(%x, %x) : bool[2] return %m }"


@pytest.mark.parametrize(
    ("text", "wrt", "message"),
    [
        (INTEGER, ["xs"], r'"g" with respect to "xs" \(did you mean "x"\?\).*: x, i'),
        (INTEGER, ["r"], "with respect to"),
        (INTEGER, ["i"], r"%i is i32\[2\]; only f32"),
        (MASK, ["x"], r"output %m is bool\[2\]"),
        (GRADIENT_OP, ["x"], 'adder_dense_grad_input "back" has no gradient'),
    ],
)
def test_errors(text: str, wrt: list[str], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        grad(parse(text), wrt)
