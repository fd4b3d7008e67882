"""check: each rule, broken once."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from addergraph.errors import GraphError, ParseError
from addergraph.ir import Builder, Graph, Init, Node, Op, Parameter, Update, Value, op_named
from addergraph.ir.check import check
from addergraph.ir.text import parse
from addergraph.ir.types import tensor

X = tensor("f32", ("N", 4))
FUSED = """graph net(%x: f32[N,4,4,2], %f: f32[1,1,2,3]) {
  %p = relu(%x) : f32[N,4,4,2]
  %y = fused(%p, %f) : f32[N,4,4,3] {
    graph body(%a0: f32[N,4,4,2], %a1: f32[1,1,2,3]) {
      %v0 = adder2d(%a0, %a1) input_nonnegative=true : f32[N,4,4,3]
      %v1 = neg(%v0) : f32[N,4,4,3]
      return %v1
    }
  }
  return %y
}"""


def op(name: str) -> Op:
    return op_named(name)()


@functools.cache
def chain() -> Graph:
    """x -> a -> b, with a parameter m; the same values on every call."""
    builder = Builder("chain")
    x = builder.input("x", X)
    builder.parameter(Parameter("m", tensor("f32", (4,))))
    (a,) = builder.add(op("relu"), [x], "a")
    (b,) = builder.add(op("relu"), [a], "b")
    return builder.finish([b])


def replaced(**fields: object) -> Graph:
    return dataclasses.replace(chain(), **fields)  # type: ignore[arg-type]


def refuses(graph: Graph, *fragments: str) -> None:
    with pytest.raises(GraphError) as caught:
        check(graph)
    for fragment in (f'graph "{graph.name}"', *fragments):
        assert fragment in str(caught.value)


def test_a_built_graph_is_well_formed() -> None:
    check(chain())


def test_operands_stand_before_their_node() -> None:
    graph = chain()
    refuses(replaced(nodes=graph.nodes[::-1], outputs=()), 'relu "b" uses %a before')


def test_operands_belong_to_the_graph() -> None:
    stranger = Value("x", X)  # the same name is not enough
    node = Node(op("relu"), (stranger,), (Value("a", X),))
    refuses(replaced(nodes=(node,), outputs=node.outputs), 'relu "a" uses %x, which is not a value')


def test_a_node_does_not_use_itself() -> None:
    itself = Value("a", X)
    node = Node(op("relu"), (itself,), (itself,))
    refuses(replaced(nodes=(node,), outputs=(itself,)), "before it is defined")


def test_outputs_are_values_of_the_graph() -> None:
    refuses(replaced(outputs=(Value("b", X),)), "return uses %b, which is not a value")


def test_nodes_have_results() -> None:
    refuses(replaced(nodes=(Node(op("relu"), (), ()),), outputs=()), '"relu" has no results')


def test_names_are_unique() -> None:
    graph = chain()
    node = Node(op("relu"), graph.inputs, (Value("x", X),))
    refuses(replaced(nodes=(node,), outputs=()), "two values are named %x")


@pytest.mark.parametrize("name", ["", "a b", "a-b", 'a"', "%a"])
def test_value_names_can_be_printed(name: str) -> None:
    refuses(replaced(inputs=(Value(name, X),), nodes=(), outputs=()), f'value name "{name}"')


@pytest.mark.parametrize("name", ["", "two words", "3d"])
def test_graph_names_are_words(name: str) -> None:
    refuses(replaced(name=name), "one word")


def test_ranks_are_bounded() -> None:
    deep = Value("x", tensor("f32", [1] * 33))
    refuses(replaced(inputs=(deep,), nodes=(), outputs=()), "33 dimensions, at most 32")


def test_names_and_elements_are_bounded() -> None:
    for value, said in (
        (Value("a" * 1001, X), "more than 1000 letters"),
        (Value("x", tensor("f32", ("N", 1 << 20, (1 << 20) + 1))), "more than 1,099,511,627,776"),
    ):
        refuses(replaced(inputs=(value,), nodes=(), outputs=()), said)
    longest = (Value("a" * 1000, X), Value("x", tensor("f32", ("N", 1 << 20, 1 << 20))))
    check(replaced(inputs=longest, nodes=(), outputs=()))


def test_types_are_those_of_the_shape_rule() -> None:
    graph = chain()
    node = Node(op("relu"), graph.inputs, (Value("a", tensor("f32", ("N", 5))),))
    refuses(
        replaced(nodes=(node,), outputs=()),
        'relu "a": stated (f32[N,5]), but the op gives (f32[N,4]) for operands (f32[N,4])',
    )


def test_a_shape_rule_that_refuses_names_the_node() -> None:
    graph = chain()
    node = Node(op("adder2d"), (*graph.inputs, *graph.inputs), (Value("y", X),))
    refuses(replaced(nodes=(node,), outputs=()), 'adder2d "y": input must be NHWC')


@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_wrong_number_of_operands_is_refused(count: int) -> None:
    graph = chain()
    node = Node(op("relu"), graph.inputs * count, (Value("y", X),))
    refuses(replaced(nodes=(node,), outputs=()), 'relu "y"')


def test_parameters_have_no_open_batch() -> None:
    refuses(replaced(parameters=(Parameter("m", X),)), "parameter %m: f32[N,4] may not have")


def test_the_batch_comes_from_an_input() -> None:
    full = op_named("full")(shape=("N", 2), value=0.0)  # type: ignore[call-arg]
    node = Node(full, (), (Value("z", tensor("f32", ("N", 2))),))
    refuses(replaced(inputs=(), nodes=(node,), outputs=node.outputs), "uses the batch N")


@pytest.mark.parametrize("eta", [0.0, -1.0, float("nan"), float("inf")])
def test_eta_is_positive_and_finite(eta: float) -> None:
    parameter = Parameter("m", tensor("f32", (4,)), Init(), True, eta)
    refuses(replaced(parameters=(parameter,)), "parameter %m: eta=")


class TestUpdates:
    def test_of_a_parameter_with_itself(self) -> None:
        graph = chain()
        (m,) = graph.parameters
        check(replaced(parameters=(m,), updates=(Update(m, m),)))

    def test_target_a_parameter_of_this_graph(self) -> None:
        other = Parameter("m", tensor("f32", (4,)))
        refuses(replaced(updates=(Update(other, other),)), "%m, which is not a parameter of this")

    def test_take_a_value_of_this_graph(self) -> None:
        graph = chain()
        (m,) = graph.parameters
        update = Update(m, Value("z", m.type))
        refuses(replaced(parameters=(m,), updates=(update,)), "with %z, which is not a value")

    def test_keep_the_type(self) -> None:
        graph = chain()
        update = Update(graph.parameters[0], graph.outputs[0])
        refuses(
            dataclasses.replace(graph, updates=(update,)), "%m: f32[4] with %b: f32[N,4]", "equal"
        )

    def test_come_once_a_parameter(self) -> None:
        (m,) = chain().parameters
        twice = (Update(m, m), Update(m, m))
        refuses(replaced(parameters=(m,), updates=twice), "parameter %m is updated twice")


class TestInputNonnegative:
    TEXT = """graph net(%x: f32[N,4,4,2], %f: f32[1,1,2,3]) {
      %p = relu(%x) : f32[N,4,4,2]
      %y = adder2d(%p, %f) input_nonnegative=true : f32[N,4,4,3]
      return %y
    }"""

    def test_is_accepted_where_the_ranges_prove_it(self) -> None:
        parse(self.TEXT)
        parse(FUSED)

    def test_is_refused_elsewhere(self) -> None:
        with pytest.raises(
            GraphError, match=r'adder2d "y": input_nonnegative=true is not provable'
        ):
            parse(self.TEXT.replace("adder2d(%p", "adder2d(%x"))

    def test_is_refused_in_a_body_whose_operands_do_not_prove_it(self) -> None:
        with pytest.raises(
            GraphError, match=r'fused "y": graph "body": adder2d "v0": input_nonneg'
        ):
            parse(FUSED.replace("fused(%p", "fused(%x"))


class TestBodies:
    @staticmethod
    def body(graph: Graph) -> Graph:
        return graph.nodes[1].op.body  # type: ignore[attr-defined, no-any-return]

    def broken(self, **fields: object) -> Graph:
        """FUSED, with `fields` of its body replaced."""
        graph = parse(FUSED)
        relu, node = graph.nodes
        body = dataclasses.replace(self.body(graph), **fields)  # type: ignore[arg-type]
        fused = dataclasses.replace(node.op, body=body)  # type: ignore[type-var]
        return dataclasses.replace(graph, nodes=(relu, Node(fused, node.inputs, node.outputs)))

    def test_are_well_formed_themselves(self) -> None:
        check(self.broken())
        refuses(self.broken(name="two words"), 'fused "y": graph "two words": a graph\'s name')

    def test_use_their_own_values_alone(self) -> None:
        graph = parse(FUSED)
        relu, node = graph.nodes
        refuses(
            dataclasses.replace(
                self.body(graph), name="b", inputs=relu.inputs, nodes=(node,), outputs=node.outputs
            ),
            'fused "y" uses %p, which is not a value of this graph',
        )

    def test_have_the_types_of_the_node(self) -> None:
        with pytest.raises(ParseError, match=r'fused "y": .*\(f32\[N,4,4,2\], f32\[1,1,2,3\]\)'):
            parse(FUSED.replace("fused(%p, %f)", "fused(%f, %p)"))
        graph = parse(FUSED)
        relu, node = graph.nodes
        lying = Node(node.op, node.inputs, (Value("y", X),))
        refuses(
            dataclasses.replace(graph, nodes=(relu, lying), outputs=()),
            'fused "y": stated (f32[N,4])',
        )


def test_integers_of_different_scales_never_meet() -> None:
    text = """graph g(%x: i32[N,4] scale=0.5, %y: i32[N,4] scale=0.25) {
  %z = add(%x, %y) : i32[N,4]
  return %z
}"""
    with pytest.raises(GraphError, match=r'graph "g": add "z": .* scale=0.5 and scale=0.25'):
        parse(text)


def test_a_shape_rule_that_cannot_unpack_its_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    def infer(self: Op, *operands: object) -> None:
        (_,) = operands[1:]

    graph = chain()
    monkeypatch.setattr(type(op("relu")), "infer", infer)
    refuses(graph, 'relu "a"', "does not take operands of types (f32[N,4])")
