"""The compiled training step of ResNet-20 with its gradients and activations to be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from addergraph import compiler
from addergraph.ir import Array, Graph
from addergraph.ir.state import State, initial_weights
from addergraph.model import Model
from addergraph.ops.pointwise.relu import Relu
from addergraph.training.losses import loss_of
from addergraph.training.optimizers import SGD
from addergraph.zoo import build

Arrays = dict[str, Array]


class Seen(NamedTuple):
    """What one native step found: `masks` says of each relu what it let through."""

    loss: float
    gradients: Arrays
    masks: Arrays


class SeenStep:
    """The training step of a model, whose graph also returns every gradient and activation."""

    def __init__(self, model: Model, batch: int, threads: int) -> None:
        step = compiler.train_step_graph(
            model.graph(training=True, batch=batch), loss_of(model.loss_name), SGD()
        )
        trained = [p.name for p in step.parameters if p.trainable]
        self._gradients = [f"{name}.grad" for name in trained]
        self._relus = [node.name for node in step.nodes if isinstance(node.op, Relu)]
        graph = returning(step, ["loss", *self._gradients, *self._relus])
        self.state = State(graph.parameters)
        self.state.load(initial_weights(graph) | model.weights)
        self._program = compiler.compile(graph, state=self.state, threads=threads)

    @property
    def velocities(self) -> Arrays:
        """By the name of the parameter, as they are now."""
        names = (name.removesuffix(".grad") for name in self._gradients)
        return {name: self.state.views[f"{name}.velocity"] for name in names}

    def __call__(self, x: Array, targets: Array, rate: float) -> Seen:
        loss, *found = self._program.run([x, targets, np.float32(rate)])
        count = len(self._gradients)
        gradients = {
            name.removesuffix(".grad"): g
            for name, g in zip(self._gradients, found[:count], strict=True)
        }
        masks = {name: y > 0 for name, y in zip(self._relus, found[count:], strict=True)}
        return Seen(float(loss), gradients, masks)


def returning(graph: Graph, names: list[str]) -> Graph:
    """`graph` with the values of these names as its outputs."""
    values = {v.name: v for node in graph.nodes for v in node.outputs}
    return dataclasses.replace(graph, outputs=tuple(values[name] for name in names))


def resnet20(size: int, seed: int = 0) -> Model:
    """For images of `size` x `size`, with batch norms that are no identities."""
    model = build("resnet20", (size, size, 3), 10, seed)
    rng = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "mean": (-1.0, 1.0), "variance": (0.5, 1.5)}
    weights = dict(model.weights)
    for name, array in weights.items():
        field = name.rpartition(".")[2]
        if field in ranges:
            low, high = ranges[field]
            drawn = rng.uniform(low, high, array.shape)
            weights[name] = np.asarray(drawn, np.float32)
    model.weights = weights
    return model


def batches(steps: int, batch: int, size: int, seed: int = 1) -> list[tuple[Array, Array]]:
    """Images, normalized as the recipe has them, and one-hot labels."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(steps):
        images = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
        labels = rng.integers(10, size=batch)
        made.append((images, np.eye(10, dtype=np.float32)[labels]))
    return made


def deviations(found: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    """||found - expected||_2 / ||expected||_2 of each array that is expected."""
    return {
        name: float(np.linalg.norm(found[name] - e.astype(np.float64)) / np.linalg.norm(e))
        for name, e in expected.items()
    }
