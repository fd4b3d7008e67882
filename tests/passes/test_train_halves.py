"""A training step in two halves, and the first of them cut where replicas exchange values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from addergraph import compiler, layers, zoo
from addergraph.codegen.targets.lookup import target_named
from addergraph.errors import GraphError, ShapeError
from addergraph.ir import Array, Graph, Value
from addergraph.ir.attributes import SIGN
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.state import initial_weights
from addergraph.ir.text import parse
from addergraph.model import Model
from addergraph.ops.pointwise.replica_mean import ReplicaMean
from addergraph.ops.reduction.completed import Completed
from addergraph.passes.replicas import announced, segments, synchronized
from addergraph.passes.train_step import Halves, halves, train_step
from addergraph.training.losses import CatCrossEntropy, MeanSquared
from addergraph.training.objective import objective_of
from addergraph.training.optimizers import SGD, Adam

pytestmark = pytest.mark.usefixtures("quick_objects")

NORMED = """graph net(%x: f32[4,3]) params(
    %f: f32[3,5] init=normal(0,1) eta=0.2, %g: f32[5] init=ones, %b: f32[5] init=zeros,
    %r: f32[5] init=zeros fixed, %count: i32[] init=zeros fixed
) {
    %a = adder_dense(%x, %f) : f32[4,5]
    %s.mean, %s.variance = batch_norm_statistics(%a) : f32[5], f32[5]
    %n = batch_norm(%a, %s.mean, %s.variance, %g, %b) : f32[4,5]
    %half = full() value=0.5 : f32[]
    %kept = mul(%r, %half) : f32[5]
    %moved = mul(%s.mean, %half) : f32[5]
    %new = add(%kept, %moved) : f32[5]
    %one = full() value=1 dtype=i32 : i32[]
    %next = add(%count, %one) : i32[]
    update %r <- %new
    update %count <- %next
    return %n
}"""
OPTIMIZERS = (SGD(clip_norm=0.1, average=0.9), Adam(weight_decay=0.01, decoupled=False))


def bound(text: str, samples: int) -> Graph:
    return parse(text.replace("[4,", f"[{samples},"))


def numbers(graph: Graph, seed: int = 3) -> dict[str, Array]:
    return initial_weights(graph, seed)


def of_parts(
    made: Sequence[Halves], inputs: Sequence[Sequence[Array]], weights: dict[str, Array]
) -> list[Array]:
    """The outputs of the backward halves for the parts, all but the predictions, as means."""
    count = sum(len(part[0]) for part in inputs)
    shares = [len(part[0]) / count for part in inputs]
    cuts = [segments(half.backward) for half in made]
    known = []
    for half, part in zip(made, inputs, strict=True):
        given = [*part, *(weights[name] for name in half.read)]
        known.append(dict(zip((v.name for v in half.backward.inputs), given, strict=True)))
    for at in range(len(cuts[0])):
        for cut, values in zip(cuts, known, strict=True):
            check(cut[at].graph)
            found, _ = run_reference(cut[at].graph, [values[n] for n in cut[at].reads], {})
            values.update(zip(cut[at].gives, found, strict=True))
        for name, called in cuts[0][at].means:
            mean = sum(w * v[name] for w, v in zip(shares, known, strict=True))
            for values in known:
                values[called] = np.asarray(mean, np.float32)
    wanted = [v.name for v in made[0].backward.outputs]
    del wanted[made[0].losses : made[0].losses + made[0].predictions]
    return [
        np.asarray(sum(w * v[n] for w, v in zip(shares, known, strict=True)), np.float32)
        for n in wanted
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("synchronize", [False, True])
def test_halves_of_a_whole_batch_are_the_step(optimizer: SGD | Adam, synchronize: bool) -> None:
    graph = bound(NORMED, 4)
    step = train_step(graph, MeanSquared(), optimizer)
    made = halves(graph, MeanSquared(), optimizer, synchronize=synchronize)
    check(made.backward)
    check(made.update)
    assert not made.backward.parameters and not made.backward.updates
    assert [*map(str, made.update.parameters)] == [*map(str, step.parameters)]  # one state for both
    assert made.exchanged == ("f", "g", "b", "r")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)).astype("f4"), rng.normal(size=(4, 5)).astype("f4")
    weights = numbers(step)
    (loss, _), expected = run_reference(step, [x, y, np.float32(0.1)], weights)
    mean_loss, *means = of_parts([made], [[x, y]], weights)
    _, updated = run_reference(made.update, [*means, np.float32(0.1)], weights)
    assert mean_loss == loss
    assert updated.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(updated[name], expected[name], err_msg=name)
    assert updated["count"] == 1


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (1, 6, 1)])
def test_synchronized_parts_give_what_the_whole_batch_gives(sizes: tuple[int, ...]) -> None:
    rng, count = np.random.default_rng(1), sum(sizes)
    x, y = rng.normal(size=(count, 3)).astype("f4"), rng.normal(size=(count, 5)).astype("f4")
    whole = halves(bound(NORMED, count), MeanSquared(), SGD())
    weights = numbers(whole.update)
    expected = of_parts([whole], [[x, y]], weights)
    ends = np.cumsum((0, *sizes))
    parts = [[x[a:b], y[a:b]] for a, b in pairwise(ends)]
    made = [halves(bound(NORMED, n), MeanSquared(), SGD(), synchronize=True) for n in sizes]
    for found, right in zip(of_parts(made, parts, weights), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-6)
    alone = [halves(bound(NORMED, n), MeanSquared(), SGD()) for n in sizes]
    if min(sizes) > 1:  # statistics of their own give something else
        assert not np.allclose(of_parts(alone, parts, weights)[1], expected[1], rtol=1e-3)


def test_segments_end_at_exchanges_and_share_texts() -> None:
    model = Model(input_shape=(8, 8, 1), seed=1)
    for _ in range(3):
        model.add(layers.Adder(4, 3, padding=1))
        model.add(layers.BatchNorm())
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    graph = model.graph(training=True, batch=4)
    made = halves(graph, CatCrossEntropy(), SGD(), synchronize=True)
    exchanges = sum(isinstance(n.op, ReplicaMean) for n in made.backward.nodes)
    cut = segments(made.backward)
    assert exchanges == 3 * 4 == sum(len(one.means) for one in cut)
    assert not any(isinstance(n.op, ReplicaMean) for one in cut for n in one.graph.nodes)
    assert not cut[-1].means and all(one.means for one in cut[:-1])
    assert len({str(one.graph) for one in cut}) < len(cut)  # equal layers, equal code
    local = halves(graph, CatCrossEntropy(), SGD())
    assert len(segments(local.backward)) == 1


def backward_of(model: Model) -> tuple[Graph, list[Value]]:
    """The backward half for four samples, and what is sent of it."""
    made = halves(model.graph(training=True, batch=4), CatCrossEntropy(), SGD())
    return made.backward, [made.backward.outputs[0], *made.backward.outputs[2:]]


def test_flags_are_set_once_a_bucket_is_computed() -> None:
    model = Model(input_shape=(8, 8, 1), seed=1)
    for _ in range(3):
        model.add(layers.Adder(4, 3, padding=1))
        model.add(layers.BatchNorm())
    model.add(layers.Flatten())
    model.add(layers.Dense(10, name="completed"))
    whole, sent = backward_of(model)
    made = announced(whole, sent, 600)
    graph, buckets = made.graph, made.buckets
    check(graph)
    assert sorted(name for names in buckets for name in names) == sorted(v.name for v in sent)
    sizes = {v.name: v.type.nbytes for v in sent}
    assert len(buckets) > 2 and all(sum(sizes[n] for n in b) >= 600 for b in buckets[:-1])
    assert made.flags == tuple(v.name for v in graph.outputs[len(whole.outputs) :])
    assert len(made.flags) == len(buckets) - 1
    at = {v.name: i for i, node in enumerate(graph.nodes) for v in node.outputs}
    for flag, names, after in zip(made.flags, buckets, buckets[1:], strict=False):
        assert max(at[name] for name in names) == at[flag] - 1
        assert min(at[name] for name in after) > at[flag]
    again = announced(whole, sent, 1 << 30)
    assert str(again.graph) == str(whole) and len(again.buckets) == 1 and not again.flags
    assert announced(whole, [], 1).buckets == ()


@pytest.mark.parametrize("name", ["resnet20", "resnet20-conv", "mobilenet_small", "deck"])
def test_what_a_flag_tells_of_is_in_the_memory_of_its_output(name: str) -> None:
    """Also where two gradients are the same, as those of two norms before a sum: of these the
    compiler copies one in the end."""
    whole, sent = backward_of(zoo.build(name, (16, 16, 3)))
    made = announced(whole, sent, 1)
    main = compiler.lower(made.graph, target_named("x86-64-v3")).main
    written = {v for node in main.nodes if node.op.aliases is None for v in node.outputs}
    told = [node for node in main.nodes if isinstance(node.op, Completed)]
    assert len(told) == len(made.flags) > 4
    for node, names in zip(told, made.buckets[:-1], strict=True):
        assert len(set(node.inputs)) == len(names)
        for v in node.inputs:
            assert main.outputs.count(v) == 1 and v in written
    copied = {v.name for v in sent} - {name for names in made.buckets for name in names}
    assert bool(copied) == name.startswith("resnet")


def test_a_value_that_leaves_twice_has_no_flag() -> None:
    text = """graph g(%x: f32[4]) {
        %a = relu(%x) : f32[4]
        %b = neg(%a) : f32[4]
        %c = neg(%a) : f32[4]
        %d = exp(%a) : f32[4]
        %e = full() value=1 : f32[]
        return %a, %b, %a, %x, %c, %d, %e }"""
    graph = parse(text)
    assert announced(graph, graph.outputs, 1).buckets == (("d",),)


def test_synchronized_statistics_of_one_replica_are_its_own() -> None:
    graph = bound(NORMED, 4)
    x = np.random.default_rng(2).normal(size=(4, 3)).astype("f4")
    own, same = (run_reference(g, [x], numbers(graph)) for g in (graph, synchronized(graph)))
    np.testing.assert_array_equal(own[0][0], same[0][0])
    assert own[1].keys() == same[1].keys()


def test_signs_reach_the_backward_half() -> None:
    graph = bound(NORMED, 4)
    made = halves(graph, MeanSquared(), SGD(), gradient=SIGN)
    assert "gradient=sign" in str(made.backward)
    with pytest.raises(ShapeError, match="unknown gradient"):
        halves(graph, MeanSquared(), SGD(), gradient="signs")


def test_dropouts_count_in_the_update() -> None:
    model = Model(input_shape=(6,), seed=1)
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10))
    made = halves(model.graph(training=True, batch=4), objective_of(model), SGD())
    counters = {p.name for p in made.update.parameters if p.type.dtype.name == "i32"}
    assert len(counters) == 1 and counters <= {*made.read}
    assert not counters & {*made.exchanged}


def test_a_batch_that_moves_an_integer_is_refused() -> None:
    text = """graph net(%x: f32[4,3]) params(%w: f32[3,2] init=zeros, %n: i32[] init=zeros fixed) {
        %y = dense(%x, %w) : f32[4,2]
        %top = argmax(%y) axis=1 : i32[4]
        %sum = reduce_sum(%top) axes=(0) : i32[]
        update %n <- %sum
        return %y }"""
    with pytest.raises(GraphError, match="mean of f32 alone, it is i32"):
        halves(parse(text), MeanSquared(), SGD())
    with pytest.raises(GraphError, match="open batch"):
        halves(
            parse(NORMED.replace("[4,", "[N,").split("%s.mean")[0] + "return %a }"),
            MeanSquared(),
            SGD(),
        )
