"""trace: functions of symbolic tensors become graphs."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import ops
from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Builder, Init, Parameter
from addergraph.ir.trace import Tensor, new_parameter
from addergraph.ir.types import TensorType, f32

X = ag.tensor("f32", ("N", 4))


def test_the_functional_form_of_the_readme() -> None:
    def block(x: Tensor, f: Tensor) -> Tensor:
        return ops.relu(ops.adder2d(x, f, stride=1, padding=1))

    graph = ag.trace(block, ag.tensor("f32", ("N", 8, 8, 16)), ag.tensor("f32", (3, 3, 16, 32)))
    assert str(graph) == (
        "graph block(%x: f32[N,8,8,16], %f: f32[3,3,16,32]) {\n"
        "  %adder2d = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,8,8,32]\n"
        "  %relu = relu(%adder2d) : f32[N,8,8,32]\n"
        "  return %relu\n"
        "}"
    )
    assert ag.parse(str(graph)) == graph


OPERATORS: list[tuple[Callable[[Any, Any], Any], str]] = [
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.truediv, "div"),
    (operator.gt, "greater"),
    (operator.lt, "greater"),
]


@pytest.mark.parametrize(("apply", "name"), OPERATORS)
@pytest.mark.parametrize("side", ["tensors", "number right", "number left", "numpy left"])
def test_operators_mean_what_numpy_does(
    apply: Callable[[Any, Any], Any], name: str, side: str
) -> None:
    def function(a: Tensor, b: Tensor) -> Any:
        left = {"number left": 2.5, "numpy left": np.float32(2.5)}.get(side, a)
        return apply(left, 1.5 if side == "number right" else b)

    graph = ag.trace(function, X, X)
    assert graph.nodes[-1].op.name == name
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 3, (2, 5, 4)).astype("f4")
    found = ag.interpret(graph, a, b)
    np.testing.assert_array_equal(np.asarray(found), function(a, b))


def test_unary_operators_and_matmul() -> None:
    graph = ag.trace(
        lambda a, b: (-a, abs(a), a @ b), ag.tensor("f32", (2, 3)), ag.tensor("f32", (3, 4))
    )
    assert [n.op.name for n in graph.nodes] == ["neg", "abs", "matmul"]
    a, b = np.array([[1, -2, 3], [0, 5, -6]], "f4"), np.eye(3, 4, dtype="f4")
    negative, absolute, product = ag.interpret(graph, a, b)
    np.testing.assert_array_equal(negative, -a)
    np.testing.assert_array_equal(absolute, abs(a))
    np.testing.assert_array_equal(product, a @ b)


def test_powers_are_products_and_one_half_is_the_root() -> None:
    graph = ag.trace(lambda x: (x**1, x**2, x ** np.int64(3), x**0.5), X)
    assert [n.op.name for n in graph.nodes] == ["mul", "mul", "mul", "sqrt"]
    x = np.random.default_rng(0).uniform(1, 3, (5, 4)).astype("f4")
    for found, expected in zip(ag.interpret(graph, x), (x, x * x, x * x * x, x**0.5), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


FOREIGN: list[tuple[Callable[[Any], Any], str]] = [
    (lambda x: x**0, r"x \*\* 0: powers"),
    (lambda x: x**1.5, r"x \*\* 1.5: powers.*ops.exp"),
    (lambda x: x**x, "powers"),
    (lambda x: 2**x, "__rpow__.*ops.exp"),
    (lambda x: np.float32(2) ** x, "power"),
    (np.mean, "numpy's mean.*addergraph.ops: use ops.reduce_mean"),
    (np.exp, "numpy's exp.*use ops.exp"),
    (np.square, "use x \\* x"),
    (lambda x: np.maximum(x, 0), "use ops.maximum"),
    (lambda x: np.add.reduce(x), "numpy's add"),
    (lambda x: np.add(x, x, out=np.zeros(4)), "numpy's add"),
    (lambda x: np.concatenate([x, x]), "use ops.concat"),
    (lambda x: x.mean(), 'no "mean".*use ops.reduce_mean'),
    (lambda x: x.sum(axis=1), "use ops.reduce_sum"),
    (lambda x: x.reshape(2, 2), "use ops.reshape"),
    (lambda x: x.T, "use ops.transpose"),
    (lambda x: x.sigmoidal, 'did you mean "sigmoid"'),
    (lambda x: x[0], "__getitem__.*ops.slice"),
    (lambda x: [*x], "__iter__"),
    (lambda x: 3 in x, "__iter__.*ops.slice"),
    (lambda x: x.__setitem__(0, 1.0), "__setitem__.*do not change"),
    (lambda x: x == 0, "__eq__.*x > y"),
    (lambda x: x != 0, "__ne__.*x is not y"),
    (lambda x: pow(x, 2, 3), "powers"),
    (lambda x: divmod(x, 2), "__divmod__.*docs/ops.md"),
    (lambda x: 1 << x, "__rlshift__"),
    (lambda x: True & x, "__rand__.*ops.mul"),
    (math.floor, "__floor__"),
    (lambda x: x >= 0, "__ge__.*ops.greater"),
    (lambda x: 2 % x, "__rmod__; what takes symbolic tensors is in addergraph.ops; docs/ops.md"),
    (len, "x.shape"),
    (float, "__float__"),
    (lambda x: np.ones(4) * x, "ndarray is no operand"),
]


@pytest.mark.parametrize(("function", "said"), FOREIGN)
def test_what_tensors_cannot_do_is_an_error_of_ours(
    function: Callable[[Any], Any], said: str
) -> None:
    with pytest.raises(GraphError, match=said):
        ag.trace(lambda x: function(x), X)


def test_a_tensor_is_asked_for_attributes_as_python_does() -> None:
    def net(x: Tensor) -> Tensor:
        assert not hasattr(x, "mean") and not hasattr(x, "__array__")
        return x

    assert ag.trace(net, X).outputs[0].name == "x"


def test_a_symbolic_tensor_has_no_truth_value() -> None:
    with pytest.raises(
        GraphError, match=r"Tensor\(%greater: bool\[N,4\]\) is symbolic.*ops.select"
    ):
        ag.trace(lambda x: x if x > 0 else -x, X)


def test_inputs_take_the_names_of_the_arguments() -> None:
    def named(image: Tensor, scale: Tensor, unused: int = 3) -> Tensor:
        return image * scale

    assert [v.name for v in ag.trace(named, X, X).inputs] == ["image", "scale"]
    assert [v.name for v in ag.trace(lambda a, *rest: a, X, X, X).inputs] == ["a", "x0", "x1"]
    assert [v.name for v in ag.trace(lambda x1, *x: x1, X, X, X).inputs] == ["x1", "x0", "x2"]
    assert [v.name for v in ag.trace(max_of, X, X).inputs] == ["x0", "x1"]


def max_of(*tensors: Tensor) -> Tensor:
    return ops.maximum(*tensors)


def test_graphs_take_the_name_of_the_function_or_the_one_given() -> None:
    assert ag.trace(max_of, X, X).name == "max_of"
    assert ag.trace(lambda x: x, X).name == "lambda"
    assert ag.trace(lambda x: x, X, name="net").name == "net"


@pytest.mark.parametrize(
    ("function", "types", "message"),
    [
        (lambda x: x, (), "needs the type of each argument"),
        (lambda x: x, (X, X), "takes 1 tensors, 2 types given"),
        (lambda x, *, y: x + y, (X, X), 'takes "y" by name only.*leave out the'),
        (lambda x, y, z=1: x, (X,), r"takes 2 tensors \(x, y\), the types of 1 are given"),
        (lambda x: 3, (X,), 'function "lambda" returned 3; expected symbolic tensors'),
        (lambda x: [x, None], (X,), "returned None"),
        (lambda x: None, (X,), "returned None"),
    ],
)
def test_what_cannot_be_traced_is_refused(
    function: Callable[..., Any], types: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        ag.trace(function, *types)


def test_tensors_of_another_graph_are_refused() -> None:
    leaked: list[Tensor] = []
    ag.trace(lambda x: leaked.append(x) or x, X)  # type: ignore[func-returns-value]
    with pytest.raises(GraphError, match="belong to different graphs"):
        ag.trace(lambda x: x + leaked[0], X)
    with pytest.raises(GraphError, match="expected symbolic tensors of its graph"):
        ag.trace(lambda x: leaked[0], X)


def test_shape_errors_name_the_op_and_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r'add "sum".*\[N,4\].*\[3\]'):
        ag.trace(lambda x, y: ops.add(x, y, name="sum"), X, ag.tensor("f32", (3,)))


def test_layers_create_parameters() -> None:
    def scaled(x: Tensor) -> Tensor:
        init = Init("normal", (0.0, 1.0))
        return x * new_parameter(x, "scale", ag.tensor("f32", (4,)), init, trainable=False)

    (parameter,) = ag.trace(scaled, X).parameters
    assert (parameter.name, parameter.trainable, parameter.eta) == ("scale", False, None)


@pytest.mark.parametrize("name", ["my act", "", "a%b", "a\n", "a-b"])
def test_names_are_checked_where_they_are_given(name: str) -> None:
    builder = Builder("net")
    given: list[Callable[[], object]] = [
        lambda: builder.input(name, X),
        lambda: builder.parameter(Parameter(name, TensorType(f32, (3,)))),
        lambda: builder.fresh(name),
        lambda: ag.trace(lambda x: ops.relu(x, name=name), X),
    ]
    for give in given:
        with pytest.raises(GraphError, match="may hold only letters"):
            give()
    with pytest.raises(GraphError, match="a graph's name is one word"):
        Builder(name)


@pytest.mark.parametrize("name", [None, 5, [1]])
def test_names_are_words(name: Any) -> None:
    with pytest.raises(GraphError, match="may hold only letters"):
        Builder("net").input(name, X)
    with pytest.raises(GraphError, match="a graph's name is one word"):
        Builder(name)


def test_what_changes_nothing_leaves_no_node() -> None:
    assert not ag.trace(lambda x: (+x) ** 1, X).nodes


def test_arrays_are_no_operands() -> None:
    with pytest.raises(GraphError, match="ndarray is no operand.*inputs of the graph"):
        ag.trace(lambda x: x + np.ones(4, np.float32), X)


def test_numpy_scalars_are_numbers() -> None:
    assert ag.trace(lambda x: np.float32(2) * x, X) == ag.trace(lambda x: 2.0 * x, X)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"stride": (1, 2, 3)}, r"stride=\(1, 2, 3\) must be an int or a pair of ints"),
        ({"stride": "a"}, "stride='a' must be an int or a pair"),
        ({"dilation": (1.5, 1)}, "dilation=1.5 must be an integer of at least 1"),
        (
            {"padding": (1, 2, 3)},
            r"padding=\(1, 2, 3\) must be numbers of zeros: an int, \(vertical, horizontal\)",
        ),
        ({"padding": -1}, "padding=-1 must be an integer of at least 0"),
        ({"groups": 0}, "groups=0 must be an integer of at least 1"),
    ],
)
@pytest.mark.parametrize("op", [ops.adder2d, ops.conv2d])
def test_attributes_of_windows_are_checked(
    op: Callable[..., Tensor], attributes: dict[str, Any], said: str
) -> None:
    types = ag.tensor("f32", ("N", 8, 8, 4)), ag.tensor("f32", (3, 3, 4, 2))
    with pytest.raises(ShapeError, match=f'2d "c": {said}'):
        ag.trace(lambda x, f: op(x, f, name="c", **attributes), *types)


@pytest.mark.parametrize("shape", [3, "N", (3.5,), ("M", 3), (None,), (-1,)])
def test_shapes_are_sizes(shape: Any) -> None:
    with pytest.raises(ShapeError, match="size"):
        ag.tensor("f32", shape)


def test_an_unknown_op_suggests_the_nearest() -> None:
    with pytest.raises(GraphError, match=r'unknown op "addr2d" \(did you mean "adder2d"\?\)'):
        _ = ops.addr2d  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda o, x: o.concat(x, x, axis=1), "concat: multiple values for argument 'axis'"),
        (lambda o, x: o.relu(), "relu: missing a required argument: 'x'"),
        (lambda o, x: o.relu(x, x), "relu: too many positional arguments"),
        (lambda o, x: o.relu(x, axis=1), "relu: got an unexpected keyword argument 'axis'"),
    ],
)
def test_a_call_with_other_arguments_is_told_of_which_function(call: Any, says: str) -> None:
    name = says.partition(":")[0]
    with pytest.raises(TypeError, match=rf"^{re.escape(says)}; it is {name}\(.*name=None\)$"):
        ag.trace(lambda x: call(ops, x), ag.tensor("f32", (2, 2)))
