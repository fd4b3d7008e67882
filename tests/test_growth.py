"""Compiling takes steps that grow with the network, not with its square. Counted, not timed."""

from __future__ import annotations

import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Graph, compiler
from addergraph.codegen.emit import module as emission
from addergraph.codegen.emit.lowered import Kernels
from addergraph.codegen.targets.lookup import target_named
from addergraph.layers import Activation, Adder, Dense, Flatten, Residual
from addergraph.passes import pipeline
from addergraph.training.losses import loss_of
from addergraph.training.optimizers import SGD

MOST = 2.3  # times the steps for twice the network
FEW = 3000  # steps of a function that do not matter
WALKED = ("passes", "ir/check.py", "emit/lowered.py")


def network(blocks: int) -> ag.Model:
    model = ag.Model(input_shape=(4, 4, 4))
    for _ in range(blocks):
        model.add(Residual([Adder(4, 1)]))
        model.add(Activation("relu"))
    model.add(Flatten())
    model.add(Dense(3))
    return model


def step(blocks: int) -> Graph:
    training = network(blocks).graph(training=True, batch=2)
    loss = loss_of("mean_squared_error", 0.0)
    return compiler.train_step_graph(training, loss, SGD(momentum=0.9))


def lines(graph: Graph) -> Counter[CodeType]:
    """How many lines of each function run while `graph` goes through passes and lowering."""
    found: Counter[CodeType] = Counter()

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        found[frame.f_code] += event == "line"
        return line

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return line if any(part in frame.f_code.co_filename for part in WALKED) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        pipeline.lower(graph, Kernels(target_named("x86-64-v3")))
    finally:
        sys.settrace(before)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_no_function_takes_steps_that_grow_with_the_square(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 blocks took 238 s, 50 took 4 s: merging told all groups of each merge, the check looked
    for each updated parameter among all, a buffer's place was sought among all buffers."""
    # Each update fails to merge with so many others; a small network has fewer than sixteen.
    monkeypatch.setattr("addergraph.passes.fuse.PATIENCE", 3)
    made = step if training else lambda blocks: network(blocks).graph(training=False)
    small, large = lines(made(16)), lines(made(32))
    assert sum(large.values()) < MOST * sum(small.values())
    steep = {
        code.co_qualname: (small[code], count)
        for code, count in large.items()
        if count > FEW and count > MOST * small[code]
    }
    assert not steep


@pytest.mark.slow
def test_long_bodies_are_cut_and_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM's time for one function grows with the square of what it calls."""
    model = network(4)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype("f4")
    whole = compiler.compile(model, target="x86-64", cache=False)
    monkeypatch.setattr(emission, "MOST_CALLS", 2)
    cut = compiler.compile(model, target="x86-64", cache=False)
    text = str(emission.emit_program(cut.built.lowered)[0])
    functions = text.split("\ndefine ")[1:]
    (body,) = (f for f in functions if '@"body"' in f.splitlines()[0])
    assert body.count('call void @"body_part') == 2
    assert all(f.count('call void @"barrier') <= 2 for f in functions if '@"body' in f[:40])
    np.testing.assert_array_equal(cut(x), whole(x))
