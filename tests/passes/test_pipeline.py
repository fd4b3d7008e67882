"""The pipeline: its order, its meaning on random graphs, what it checks, and the observers."""

from __future__ import annotations

import dataclasses
import warnings
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import PassError, RangeWarning, VerificationError
from addergraph.ir import Builder, Graph, Init, Parameter, Value
from addergraph.ir.text import parse
from addergraph.ir.types import TensorType, f32
from addergraph.ops.pointwise.relu import Relu
from addergraph.ops.pointwise.unary import Neg
from addergraph.passes.canonicalize import canonicalize
from addergraph.passes.eliminate import eliminate
from addergraph.passes.fold_batch_norm import fold_batch_norm
from addergraph.passes.lowering import Lowering
from addergraph.passes.pipeline import PIPELINE, run
from addergraph.passes.rewrite import rebuild
from addergraph.passes.train_step import train_step
from addergraph.training.losses import CatCrossEntropy
from addergraph.training.optimizers import SGD
from tests.passes.compare import Compare
from tests.passes.meaning import require_same_bits
from tests.passes.random_graphs import random_graph

GRAPH = parse(
    """graph g(%x: f32[N,3]) params(%p: f32[] init=zeros) {
         %a = neg(%x) : f32[N,3]
         %b = neg(%a) : f32[N,3]
         %y = relu(%b) : f32[N,3]
         %q = neg(%p) : f32[]
         update %p <- %q
         return %y }"""
)
NETWORK = parse(
    """graph net(%x: f32[N,6,6,2]) params(
         %f: f32[3,3,2,4] init=normal(0,1), %m: f32[4] init=zeros fixed, %v: f32[4] init=ones fixed,
         %gamma: f32[4] init=ones, %beta: f32[4] init=zeros, %h: f32[3,3,4,4] init=normal(0,1),
         %w: f32[16,3] init=normal(0,1)) {
         %c = adder2d(%x, %f) : f32[N,4,4,4]
         %n = batch_norm(%c, %m, %v, %gamma, %beta) : f32[N,4,4,4]
         %r = relu(%n) : f32[N,4,4,4]
         %d = adder2d(%r, %h) : f32[N,2,2,4]
         %k = flatten(%d) : f32[N,16]
         %z = dense(%k, %w) : f32[N,3]
         %y = softmax(%z) : f32[N,3]
         return %y }"""
)


def test_the_order_is_explicit() -> None:
    assert [p.__name__ for p in PIPELINE] == [
        "canonicalize", "fold_batch_norm", "ranges", "eliminate",
        "forget_scales", "fuse",
    ]  # fmt: skip


def test_inference_and_training_of_a_network_keep_their_meaning() -> None:
    inference = run(NETWORK, observers=[Compare()])
    assert [n.op.name for n in inference.nodes].count("batch_norm") == 0
    licensed = [n for n in inference.nodes if "input_nonnegative=True" in repr(n.op)]
    assert len(licensed) == 1
    step = train_step(NETWORK.bind(4), CatCrossEntropy(), SGD())
    run(step, observers=[Compare()])


@given(seed=st.integers(0, 2**32))
def test_random_graphs_keep_their_bits(seed: int) -> None:
    graph = random_graph(Random(seed), updates=seed % 2 == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        made = run(graph)
    require_same_bits(graph, made, seed, special=False)


def drops_update(graph: Graph) -> Graph:
    return dataclasses.replace(graph, updates=())


def renames_input(graph: Graph) -> Graph:
    builder = Builder("g")
    x = builder.input("z", graph.inputs[0].type)
    p = builder.parameter(graph.parameters[0])
    builder.update(p, p)
    return builder.finish(builder.add(Relu(), [x]))


def widens_output(graph: Graph) -> Graph:
    return dataclasses.replace(graph, outputs=(graph.updates[0].value,))


def adds_parameter(graph: Graph) -> Graph:
    made = Parameter("new", TensorType(f32, ()), Init("zeros"))
    return dataclasses.replace(graph, parameters=(*graph.parameters, made))


def loses_definition(graph: Graph) -> Graph:
    return dataclasses.replace(graph, nodes=graph.nodes[1:])


def breaks_shape_rule(graph: Graph) -> Graph:
    return rebuild(graph, lambda draft, node: draft.add(Neg(), [*node.inputs, *node.inputs]))


def sign_lost(graph: Graph) -> Graph:
    return rebuild(graph, lambda draft, n: n.inputs if isinstance(n.op, Relu) else None)


def update_lost(graph: Graph) -> Graph:
    p = graph.parameters[0]
    return dataclasses.replace(graph, updates=(dataclasses.replace(graph.updates[0], value=p),))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (drops_update, r"changed the updated parameters from \(%p\) to \(\)"),
        (renames_input, r"changed the inputs from \(%x: .*\) to \(%z: "),
        (widens_output, r"changed the output types from \(f32\[N,3\]\) to \(f32\[\]\)"),
        (adds_parameter, "made new parameters: new"),
        (loses_definition, "%a, which is not a value"),
        (breaks_shape_rule, 'neg "neg": takes 1 operands'),
    ],
)
def test_a_pass_that_does_wrong_is_named(step: object, message: str) -> None:
    with pytest.raises(PassError, match=message) as caught:
        run(GRAPH, [canonicalize_nothing, step])  # type: ignore[list-item]
    text = str(caught.value)
    assert f'pass "{step.__name__}"' in text  # type: ignore[attr-defined]
    assert f"before:\n{GRAPH}" in text
    assert ("after:" in text) == (step is not breaks_shape_rule)


def canonicalize_nothing(graph: Graph) -> Graph:
    return graph


def test_observers_see_each_pass() -> None:
    seen: list[tuple[str, Lowering, Lowering, float]] = []
    made = run(GRAPH, (canonicalize, eliminate, eliminate), [lambda *call: seen.append(call)])
    assert [name for name, *_ in seen] == ["canonicalize", "eliminate", "eliminate"]
    assert all(seconds >= 0 for *_, seconds in seen)
    assert seen[0][1].main == GRAPH
    assert all(after is before for (_, _, after, _), (_, before, _, _) in pairwise(seen))
    assert seen[-1][2].main is made


def test_compare_finds_a_changed_output_and_a_changed_update() -> None:
    with pytest.raises(VerificationError, match='pass "sign_lost" changed output %y'):
        run(GRAPH, [sign_lost], [Compare()])
    with pytest.raises(VerificationError, match='"update_lost" changed the update of %p'):
        run(GRAPH, [update_lost], [Compare(exact=True)])


def test_compare_is_exact_only_when_asked() -> None:
    rounds = dataclasses.replace(NETWORK, outputs=NETWORK.nodes[1].outputs)
    run(rounds, [fold_batch_norm], [Compare(seed=3)])
    with pytest.raises(VerificationError, match="expected at most 0"):
        run(rounds, [fold_batch_norm], [Compare(seed=3, exact=True)])


def test_a_pass_with_options_is_named_by_its_class() -> None:
    @dataclasses.dataclass(frozen=True)
    class Returns:
        value: Value

        def __call__(self, graph: Graph) -> Graph:
            return dataclasses.replace(graph, outputs=(self.value,))

    with pytest.raises(PassError, match='pass "Returns"'):
        run(GRAPH, [Returns(Value("stray", TensorType(f32, ("N", 3))))])
