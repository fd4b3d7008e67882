"""The statistics of batch norms, estimated for the weights as they are.

A running statistic r <- k r + c s, of a batch's statistic s, is a mean over the last 1 / (1 - k)
steps. Their weights were others: while the learning rate is high, the sums of an adder layer move
by several of their deviations in that time, and inference normalizes by what no longer holds. For
weights that rest, r tends to the mean of c s / (1 - k). That is what is computed here, from
training batches (the "precise" statistics of Wu and Johnson 2021, arXiv:2105.07576, section 3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

from ..ir import Array, Graph, Node, Value
from ..ir.interpreter import run_reference
from ..ir.state import State
from ..ir.walk import upstream
from .feed import Feed
from .labels import count_of
from .replicas import Replicas
from .settings import NATIVE
from .step import TrainStep, compile_silently


def at_rest(training: Graph) -> dict[str, tuple[Value, float]]:
    """By the name of a running statistic: the batch's statistic s, and the factor of its mean to
    which the running one tends. Updates of another form, and those that never move, are left out.
    """
    statistics = {v for n in training.nodes if n.op.normalizes for v in n.outputs}
    found = {}
    for update in training.updates:
        nodes = upstream(training.nodes, [update.value], statistics)
        read = {v for n in nodes for v in n.inputs}.difference(*(n.outputs for n in nodes))
        if len(read) != 2 or update.parameter not in read or not read & statistics:
            continue
        running, (batch,) = update.parameter, read - {update.parameter}
        kept, moved, both = (
            _result(nodes, update.value, {running: r, batch: s})
            for r, s in ((1, 0), (0, 1), (1, 1))
        )
        if kept < 1.0 and math.isclose(both, kept + moved, rel_tol=1e-6):
            found[running.name] = batch, moved / (1.0 - kept)
    return found


def _result(nodes: Iterable[Node], wanted: Value, given: Mapping[Value, float]) -> float:
    """The number that the `wanted` tensor is full of, where those that are `given` are full of
    these numbers."""
    known: dict[Value, Array] = {
        v: np.full(v.type.sizes, number, np.float32) for v, number in given.items()
    }
    for node in nodes:
        found = node.op.reference(*(known[v] for v in node.inputs))
        known.update(zip(node.outputs, found, strict=True))
    return float(known[wanted].flat[0])


def _without_dropouts(training: Graph) -> Graph:
    """The training form in which all elements stay, as in inference, which takes the statistics."""
    seen: dict[Value, Value] = {}
    nodes = []
    for node in training.nodes:
        inputs = tuple(seen.get(v, v) for v in node.inputs)
        if node.op.training_only:
            seen[node.outputs[0]] = inputs[0]
        else:
            nodes.append(dataclasses.replace(node, inputs=inputs))
    outputs = tuple(seen.get(v, v) for v in training.outputs)
    return dataclasses.replace(training, nodes=tuple(nodes), outputs=outputs)


class Statistics:
    """`statistics(epoch)` gives the weights of `step` that count (`TrainStep.evaluated`) the
    statistics that they have over the first batches of that epoch of `feed`: about `samples`
    samples, in whole batches, which the `replicas` deal out among them. Nothing else of a step's
    state changes.
    """

    def __init__(self, step: TrainStep, feed: Feed, samples: int, replicas: Replicas) -> None:
        count = count_of(feed.inputs)
        batch = min(feed.loader.batch_size, count)
        graph = _without_dropouts(step.model.graph(training=True, batch=batch))
        self.step, self.feed, self.replicas = step, feed, replicas
        self.batches = min(-(-samples // batch), count // batch)
        self._resting = at_rest(graph) if self.batches else {}
        values = tuple(value for value, _ in self._resting.values())
        self._graph = dataclasses.replace(
            graph, name=f"{graph.name}_statistics", outputs=values or graph.outputs
        )
        self._state = State(graph.parameters)
        self._program: Any = None
        if self._resting and step.engine == NATIVE:
            self._program = compile_silently(self._graph, state=self._state, threads=step.threads)

    @property
    def arena_bytes(self) -> int:
        """Working memory of the compiled pass."""
        return 0 if self._program is None else int(self._program.arena_bytes)

    def __call__(self, epoch: int) -> None:
        if not self._resting:
            return
        evaluated, others = self.step.evaluated, self.step.state.views
        self._state.load({n: evaluated.get(n, others[n]) for n in self._state.views})
        each = self._of_batches(epoch)
        start = 0
        for name, (value, factor) in self._resting.items():
            end = start + value.type.elements
            total = np.zeros(end - start)
            for row in each[:, start:end]:
                total += row
            evaluated[name][...] = (factor * total / self.batches).reshape(value.type.sizes)
            start = end

    def _of_batches(self, epoch: int) -> Array:
        """f32[batches, n]: the statistics of each batch, in a row."""
        size, rank = self.replicas.size, self.replicas.rank
        length = sum(value.type.elements for value, _ in self._resting.values())
        mine = np.zeros((-(-self.batches // size), length), np.float32)
        with closing(self.feed.epoch(epoch, whole=True)) as batches:
            for number, (inputs, _) in enumerate(islice(batches, self.batches)):
                if number % size == rank:
                    found = [array.reshape(-1) for array in self._run(inputs)]
                    mine[number // size] = np.concatenate(found)
        every = self.replicas.gather(mine)  # batch `number` is that of process `number` % size
        return every.swapaxes(0, 1).reshape(-1, length)[: self.batches]

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        if self._program is not None:
            return list(self._program.run(inputs))
        found, _ = run_reference(self._graph, inputs, self._state.views)
        return list(found)
