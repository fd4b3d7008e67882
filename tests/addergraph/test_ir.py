"""ir: the op table, parameters, the builder, binding the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from addergraph.errors import GraphError, ShapeError
from addergraph.ir import (
    KINDS,
    MOVEMENT,
    POINTWISE,
    Array,
    Builder,
    Graph,
    Halo,
    Init,
    Op,
    Parameter,
    Update,
    op_named,
    registry,
    result_names,
)
from addergraph.ir.text import parse
from addergraph.ir.types import TensorType, tensor
from addergraph.ops.pointwise.full import Full
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.reduction.reduce import ReduceSum

X = tensor("f32", ("N", 4))


class TestOps:
    def test_every_op_states_its_rules(self) -> None:
        for name, op in registry().items():
            assert op.name == name
            assert op.kind in KINDS
            assert op.__doc__
            assert op.infer is not Op.infer
            assert op.reference is not Op.reference
            assert op.not_differentiable or op.grad is not Op.grad

    def test_an_unknown_op_gets_the_nearest_name(self) -> None:
        with pytest.raises(GraphError, match=r'unknown op "reluu" \(did you mean "relu"\?\)'):
            op_named("reluu")

    def test_a_class_without_rules_is_refused_when_it_is_defined(self) -> None:
        with pytest.raises(GraphError, match=r'op "bare" \(Bare\) lacks: infer, reference, grad'):

            class Bare(Op):
                name: ClassVar[str] = "bare"

        assert "bare" not in registry()

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(GraphError, match='op "odd": kind "magic" is not one of contraction'):

            class Odd(_Rules):
                name: ClassVar[str] = "odd"
                kind: ClassVar[str] = "magic"

        assert "odd" not in registry()

    @pytest.mark.parametrize(
        ("traits", "message"),
        [
            ({"takes_tail": True}, "takes_tail is for the kind contraction, found pointwise"),
            ({"measures_distance": True}, "measures_distance is for the kind contraction"),
            ({"kind": MOVEMENT, "rectifies": True}, "rectifies is for the kind pointwise"),
            ({"kind": MOVEMENT, "cheap": True}, "cheap is for the kind pointwise, found movement"),
            ({"aliases": 0}, "aliases is for the kind movement, found pointwise"),
            ({"multiplies": True}, "it multiplies and states no cost"),
            (
                {"gradient_of": Relu, "not_differentiable": False, "grad": Relu.grad},
                "a gradient op is not_differentiable",
            ),
        ],
    )
    def test_traits_that_contradict_each_other_are_refused(
        self, traits: dict[str, object], message: str
    ) -> None:
        with pytest.raises(GraphError, match=rf'op "torn" \(Torn\): {message}'):
            type("Torn", (_Rules,), {"name": "torn", "kind": POINTWISE, **traits})
        assert "torn" not in registry()

    def test_two_ops_of_one_name_are_refused(self) -> None:
        with pytest.raises(GraphError, match='op "relu" is defined twice'):

            class Again(_Rules):
                name: ClassVar[str] = "relu"
                kind: ClassVar[str] = POINTWISE

        assert op_named("relu") is Relu

    def test_equal_attributes_make_equal_ops(self) -> None:
        assert ReduceSum((0, 1)) == ReduceSum((0, 1))
        assert len({ReduceSum((0, 1)), ReduceSum((0, 1)), ReduceSum((0,))}) == 2

    def test_bind_replaces_n_in_attributes(self) -> None:
        assert Full(1.0, ("N", 3)).bind(5) == Full(1.0, (5, 3))
        same = Full(1.0, (2, 3))
        assert same.bind(5) is same

    def test_result_names(self) -> None:
        assert result_names(Relu(), 1) == ("",)
        assert result_names(Relu(), 3) == ("", "1", "2")


class _Rules(Op):
    not_differentiable: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return types

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return arrays


class TestInit:
    def test_unknown_kinds_get_the_nearest_name(self) -> None:
        with pytest.raises(GraphError, match=r'"norml" \(did you mean "normal"\?\)'):
            Init("norml")

    @pytest.mark.parametrize(("kind", "args"), [("normal", (1.0,)), ("zeros", (1.0,))])
    def test_counts_its_numbers(self, kind: str, args: tuple[float, ...]) -> None:
        with pytest.raises(GraphError, match=f"initializer {kind} takes"):
            Init(kind, args)

    def test_samples(self) -> None:
        rng, type = np.random.default_rng(0), tensor("f32", (1000,))
        assert not Init().sample(type, rng).any()
        assert (Init("ones").sample(type, rng) == 1).all()
        normal = Init("normal", (5.0, 2.0)).sample(type, rng)
        assert abs(normal.mean() - 5) < 0.3
        assert abs(normal.std() - 2) < 0.2
        uniform = Init("uniform", (-1.0, 3.0)).sample(type, rng)
        assert -1 <= uniform.min() < -0.9
        assert 2.9 < uniform.max() <= 3
        assert {a.dtype for a in (normal, uniform)} == {np.dtype("f4")}


class TestBuilder:
    def test_names_follow_the_op_and_stay_unique(self) -> None:
        builder = Builder("g")
        x = builder.input("x", X)
        names = [builder.add(Relu(), [x])[0].name for _ in range(3)]
        assert names == ["relu", "relu_1", "relu_2"]
        assert builder.add(Relu(), [x], "x")[0].name == "x_1"

    def test_several_results_derive_theirs(self) -> None:
        builder = Builder("g")
        x = builder.input("x", X)
        made = builder.add(op_named("batch_norm_statistics")(), [x], "bn")
        assert [v.name for v in made] == ["bn.mean", "bn.variance"]

    def test_kept_names_must_be_free(self) -> None:
        builder = Builder("g")
        x = builder.input("x", X)
        with pytest.raises(GraphError, match='graph "g" already has a value named "x"'):
            builder.add(Relu(), [x], [x])
        with pytest.raises(GraphError, match='already has a value named "x"'):
            builder.input("x", X)

    def test_parameters_are_shared_by_identity(self) -> None:
        builder = Builder("g")
        p = Parameter("p", X)
        assert builder.parameter(p) is p
        assert builder.parameter(p) is p
        with pytest.raises(GraphError, match='already has a value named "p"'):
            builder.parameter(Parameter("p", X))
        assert builder.finish([]).parameters == (p,)

    @pytest.mark.parametrize(
        ("names", "shown"), [(None, "adder2d_1"), ("conv2", "conv2"), ("adder2d", "adder2d")]
    )
    def test_shape_errors_name_the_node(self, names: str | None, shown: str) -> None:
        builder = Builder("g")
        x = builder.input("x", tensor("f32", ("N", 5, 5, 3)))
        f = builder.input("adder2d", tensor("f32", (3, 3, 2, 4)))
        with pytest.raises(ShapeError) as caught:
            builder.add(op_named("adder2d")(), [x, f], names)
        assert str(caught.value) == (
            f'adder2d "{shown}": input has 3 channels but the filter expects 2 '
            "(x: f32[N,5,5,3], f: f32[3,3,2,4])"
        )


TRAIN = parse("""graph step(%x: f32[N,4]) params(%m: f32[4] init=zeros fixed) {
  %zero = full() value=0 shape=(N,4) : f32[N,4]
  %y = maximum(%x, %zero) : f32[N,4]
  %s = reduce_sum(%y) axes=(0) : f32[4]
  update %m <- %s
  return %y
}""")


class TestGraph:
    def test_bind_gives_every_n_a_number(self) -> None:
        bound = TRAIN.bind(3)
        assert [str(v.type) for v in bound.values()] == [
            "f32[3,4]",
            "f32[4]",
            *["f32[3,4]"] * 2,
            "f32[4]",
        ]
        assert (TRAIN.is_open, bound.is_open) == (True, False)
        assert [v.name for v in bound.values()] == [v.name for v in TRAIN.values()]
        assert bound.parameters == TRAIN.parameters
        assert bound.updates == (Update(TRAIN.parameters[0], bound.nodes[-1].outputs[0]),)
        assert parse(str(bound)) == bound
        assert bound == parse(str(TRAIN).replace("N", "3"))

    def test_bind_reaches_into_fused_bodies(self) -> None:
        graph = parse("""graph g(%x: f32[N,4]) {
          %y = fused(%x) : f32[N,4] {
            graph body(%a0: f32[N,4]) {
              %v0 = relu(%a0) : f32[N,4]
              %v1 = neg(%v0) : f32[N,4]
              return %v1
            }
          }
          return %y
        }""")
        assert graph.bind(7) == parse(str(graph).replace("N", "7"))

    def test_bind_refuses_a_negative_batch(self) -> None:
        with pytest.raises(ShapeError, match="batch=-1 must be an integer of at least 0"):
            TRAIN.bind(-1)

    def test_per_sample_is_said_by_the_ops_that_see_n(self) -> None:
        def per_sample(nodes: str, result: str) -> bool:
            head = "graph g(%x: f32[N,4], %w: f32[3,4])"
            return parse(f"{head} {{ {nodes} return {result} }}").per_sample

        row = "%y = relu(%x) : f32[N,4]"
        assert per_sample(row, "%y")
        assert per_sample(f"%s = reduce_sum(%w) axes=(0) : f32[4] {row}", "%y")
        assert not per_sample(f"{row} %s = reduce_sum(%y) axes=(0) : f32[4]", "%s")
        assert not per_sample(f"%s = relu(%w) : f32[3,4] {row}", "%s")
        assert not TRAIN.per_sample

    def test_uses_and_producers(self) -> None:
        zero, y, s = TRAIN.nodes
        (x,), (m,) = TRAIN.inputs, TRAIN.parameters
        assert TRAIN.producers() == {zero.outputs[0]: zero, y.outputs[0]: y, s.outputs[0]: s}
        assert TRAIN.uses()[x] == [y]
        assert TRAIN.uses()[m] == []
        assert TRAIN.uses()[y.outputs[0]] == [s]

    def test_graphs_are_immutable(self) -> None:
        with pytest.raises(AttributeError):
            TRAIN.name = "other"  # type: ignore[misc]

    def test_a_graph_prints_itself(self) -> None:
        assert str(Graph("g", (), (), (), ())) == "graph g() {\n  return\n}"


def test_halos_unite_side_by_side() -> None:
    assert Halo(1, 0, 2, 0).union(Halo(0, 3, 1, 0)) == Halo(1, 3, 2, 0)


@dataclass(frozen=True)
class _Quiet(_Rules):
    """Leaves every optional rule at its default."""


def test_optional_rules_default_to_knowing_nothing() -> None:
    op, types = _Quiet(), (X, X)
    (found,) = op.interval((), types)
    assert (found.lo, found.hi) == (-np.inf, np.inf)
    assert op.halo(types) == (Halo(), Halo())
    assert op.cost(types).additions == 0
    with pytest.raises(GraphError, match="not differentiable"):
        op.grad((), (), ())


@pytest.mark.parametrize("rule", ["infer", "reference"])
def test_the_base_class_has_no_meaning(rule: str) -> None:
    bare: Any = Op()
    with pytest.raises(GraphError, match="has no"):
        getattr(bare, rule)()
