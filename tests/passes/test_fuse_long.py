"""fuse: long graphs, in steps that grow about as they do."""

from __future__ import annotations

import pytest

from addergraph.ir import Builder, Node, Value, op_named
from addergraph.ir.check import check
from addergraph.ir.trace import Tensor
from addergraph.ir.types import TensorType, f32
from addergraph.ops.fused import Fused
from addergraph.ops.pointwise.select import select
from addergraph.passes import fuse as fusing
from addergraph.passes.fuse import fuse
from tests.passes.random_graphs import op


def test_long_training_graphs_fuse_in_time() -> None:
    builder = Builder("long")
    x = Tensor(builder, builder.input("x", TensorType(f32, (4, 3))))
    saved = []
    for _ in range(150):
        y = op("relu", x * 2.0)
        x = y - op("reduce_mean", y, axes=(0,))
        saved.append(y)
    for y in reversed(saved):
        x = select(y > 0.0, x, 0.0) * 0.5
        x = x - op("reduce_mean", x, axes=(0,))
    graph = builder.finish([x.value])
    made = fuse(graph)
    check(made)
    assert len(graph.nodes) > 1200
    assert len(made.nodes) == 300 + 301  # the means, and one group before, between and after them


def test_a_body_is_bounded_and_long_chains_are_fused_in_about_linear_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 nodes in a row took 49 s: each merge walked the whole group, and all groups."""
    walked = []
    original = fusing.Fusion.results

    def results(self: fusing.Fusion, members: list[Node]) -> list[Value]:
        walked.append(len(members))
        return original(self, members)

    monkeypatch.setattr(fusing.Fusion, "results", results)
    costs = []
    for count in (1000, 2000):
        b = Builder("chain")
        x = b.input("x", TensorType(f32, (4, 8)))
        for k in range(count):
            (x,) = b.add(op_named(("relu", "neg")[k % 2])(), [x])
        walked.clear()
        made = fuse(b.finish([x]))
        costs.append(sum(walked))
        sizes = [len(n.op.body.nodes) for n in made.nodes if isinstance(n.op, Fused)]
        assert max(sizes) <= fusing.MOST_NODES and sum(sizes) == count
    assert costs[1] < 2.5 * costs[0]
