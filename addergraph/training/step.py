"""One training step as a callable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import border, compiler
from ..errors import RangeWarning
from ..ir import Array, Graph
from ..ir.interpreter import run_reference
from ..ir.state import State, initial_weights
from ..ir.walk import computed, returning
from ..processors import usable_processors
from ..settings import integer, number_of_threads
from .labels import count_of, inputs_of, require_trainable, rows_of, targets_for
from .memory import Need, training_need
from .objective import Objective, objective_of
from .optimizers import Optimizer, average_name
from .settings import NATIVE, rate_at, require_engine, require_optimizer
from .sparsity import Thinned
from .trainee import Trainee

# What dropouts leave out follows from the number of the step, an i32: each seed has its own range.
SEEDS, STEPS_OF_A_SEED = 1 << 10, 1 << 20


def thread_count(threads: int | None) -> int:
    """`threads`, or as many as this process may keep processors busy.

    DataError where they are not from 1 to MOST_THREADS.
    """
    return usable_processors() if threads is None else number_of_threads(threads)


def compile_silently(graph: Graph, **options: Any) -> Any:
    """`compiler.compile` without range warnings: `fit` gave them, for the inference graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        return compiler.compile(graph, **options)


def first_steps(graph: Graph, weights: Collection[str], seed: int) -> dict[str, Array]:
    """What the counters of steps in a training graph hold before the first one, beside the
    `weights` of the network: dropouts draw by them."""
    first = np.asarray(integer("seed", seed, 0) % SEEDS * STEPS_OF_A_SEED, np.int32)
    counters = {n.inputs[1].name for n in graph.nodes if n.op.training_only}
    own = {p.name for p in graph.parameters} - set(weights)
    return {name: first for name in counters & own}


class TrainStep:
    """`loss, prediction = step(x, y, learning_rate)`: one update of the weights of a model. Of
    several outputs the prediction is a dict by name.

    Forward, loss, backward and the optimizer's update are one compiled program for each batch
    size, made when that size is first seen; all of them work on one `State`, which also holds the
    optimizer's. `model.weights` are views of it. With several steps of one model each keeps its
    own optimizer state and goes on from the model's weights. `thinned` are the filters that
    `sparsity.py` leaves taps out of; `before_compiling` is called when the graph of the step is
    known to be right.
    """

    def __init__(
        self,
        model: Trainee,
        batch: int,
        optimizer: Optimizer,
        *,
        label_smoothing: float,
        gradient: str,
        engine: str,
        threads: int | None,
        seed: int,
        thinned: Sequence[str] = (),
        before_compiling: Callable[[], object] | None = None,
    ) -> None:
        require_engine(engine)
        require_optimizer(optimizer)
        batch = integer("batch", batch, 1)
        self.model, self.optimizer, self.engine = model, optimizer, engine
        self.label_smoothing, self.gradient = label_smoothing, gradient
        self.threads, self.thinned = thread_count(threads), tuple(thinned)
        self._graphs: dict[int, Graph] = {}
        self._counters: dict[str, int] = {}  # of steps, for dropouts: where each began
        self._runs: dict[int, Callable[..., Any]] = {}
        graph = self.graph(batch)
        self.state = State(graph.parameters)
        self.state.load(initial_weights(graph) | model.weights)
        forward = model.graph(training=True, batch=batch)
        for name, first in first_steps(forward, model.weights, seed).items():
            self.state.views[name][...] = first
            self._counters[name] = int(first)
        self._weights = {name: self.state.views[name] for name in model.weights}
        if before_compiling is not None:
            before_compiling()
        self._program(batch)
        model.attach(self._weights)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, by `copy` or pickle: a state of its own. It compiles again."""
        return vars(self) | {"_runs": {}, "_weights": [*self._weights], "state": self.state.copy()}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved)
        self._weights = {name: self.state.views[name] for name in saved["_weights"]}
        self.model.attach(self._weights)

    def __call__(self, x: object, y: object, learning_rate: float) -> tuple[float, Any]:
        """The mean loss and the predictions, both before the update.

        x and y as `Model.fit` takes them. Raises DataError for data or a learning rate that does
        not fit.
        """
        shapes = self.model.input_shapes
        inputs = inputs_of(x, [*shapes], shapes)
        require_trainable(inputs)
        targets = targets_for(self.model, y, count_of(inputs))
        rate = rate_at(learning_rate, 0)
        losses, found = self.run([*inputs.values()], rows_of(targets, slice(None)), rate)
        return losses[0], border.bare(dict(zip(targets, found, strict=True)))

    def graph(self, batch: int) -> Graph:
        """(inputs, targets, learning_rate) -> (loss, predictions), with updates, for `batch`
        samples; of several outputs the loss of each stands behind that of all.

        Raises ShapeError, naming the layer, where batch statistics would be of one value.
        """
        if batch not in self._graphs:
            self._graphs[batch] = compiler.train_step_graph(
                self.model.graph(training=True, batch=batch),
                *self._minimizing(),
                gradient=self.gradient,
            )
        return self._graphs[batch]

    def _minimizing(self) -> tuple[Objective, Thinned | Optimizer]:
        """What a step minimizes, and the optimizer, which leaves out taps of `thinned` filters."""
        thinned = Thinned(self.optimizer, self.thinned) if self.thinned else self.optimizer
        return objective_of(self.model, self.label_smoothing), thinned

    def run(
        self,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        learning_rate: float,
        whole: int | None = None,
    ) -> tuple[list[float], list[Array]]:
        """The losses and the predictions, for data that is already checked and f32 targets; both of
        each output, behind the loss of all where there are several. `whole`: samples of the batch,
        which are all here."""
        self._take_weights()
        run = self._program(len(inputs[0]))
        rate = np.asarray(learning_rate, np.float32)
        arrays = [np.ascontiguousarray(x, np.float32) for x in inputs]
        found = run(*arrays, *targets, rate)
        losses = len(found) - len(targets)
        return [float(loss) for loss in found[:losses]], list(found[losses:])

    def _take_weights(self) -> None:
        if self.model.weights is self._weights:
            return
        for name, view in self._weights.items():  # another step worked on the model since
            view[...] = self.model.weights[name]
        self.model.attach(self._weights)

    @property
    def evaluated(self) -> dict[str, Array]:
        """The weights that count: the running averages where the optimizer keeps them."""
        views = self.state.views
        return {name: views.get(average_name(name), view) for name, view in self._weights.items()}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The model has the weights of `evaluated` meanwhile."""
        self.model.attach(self.evaluated)
        try:
            yield
        finally:
            self.model.attach(self._weights)

    def arena_bytes(self, batch: int) -> int:
        """Working memory of the compiled step for `batch` samples (not of the reference's)."""
        program: Any = self._program(batch)
        return int(program.arena_bytes)

    def need(self, batches: Sequence[int]) -> Need:
        """Bytes of a run with batches of so many samples."""
        arenas = [self.arena_bytes(batch) for batch in batches]
        return training_need([self.graph(batch) for batch in batches], arenas)

    def probe(self, inputs: Sequence[Array]) -> Iterator[tuple[str, Array]]:
        """Every value of the training forward pass on these, in order: how to call it, numbers."""
        graph = self.model.graph(training=True, batch=len(inputs[0]))
        whole = returning(graph, computed(graph))
        weights = {p.name: self.state.views[p.name] for p in graph.parameters}
        if self.engine == NATIVE:
            found = compile_silently(whole, weights=weights, threads=self.threads).run(inputs)
        else:
            found, _ = run_reference(whole, inputs, weights)
        labels = (node.label for node in graph.nodes for _ in node.outputs)
        return zip(labels, found, strict=True)

    def _program(self, batch: int) -> Callable[..., Any]:
        if batch not in self._runs:
            self._runs[batch] = self._build(self.graph(batch))
        return self._runs[batch]

    def _build(self, graph: Graph) -> Callable[..., Any]:
        if self.engine == NATIVE:
            return compile_silently(graph, state=self.state, threads=self.threads)  # type: ignore[no-any-return]

        def interpret(*inputs: Array) -> Sequence[Array]:
            outputs, updated = run_reference(graph, inputs, self.state.views)
            for name, value in updated.items():
                self.state.views[name][...] = value
            return outputs

        return interpret
