"""Gradients of a training run, layer by layer and step by step.

A probe differentiates the loss that a training step computes, so it sees the gradients that the
step makes (the paper's own for adder layers), before clipping, adaptive rate and weight decay:

    step = model.train_step(64)
    probe, history = GradientProbe(step, 64), GradientHistory()
    for number, (x, y) in enumerate(batches):
        if number % 10 == 0:
            history.record(number, probe(x, y))
        step(x, y, 0.1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .. import border, compiler
from ..data.loader import Loader
from ..errors import DataError, GraphError
from ..ir import Array, Graph
from ..ir.walk import upstream
from ..report.findings import Finding
from ..settings import like, require_valid, setting
from ..stages import Stages
from ..training.labels import count_of, require_trainable, rows_of, targets_for
from ..training.settings import Fit
from ..training.step import compile_silently

if TYPE_CHECKING:
    from ..model import Model
    from ..training.step import TrainStep

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
VANISHED = 1e-6  # of the median root mean square of the other layers


class GradientProbe:
    """`gradients = probe(x, y)`: the gradient of the mean loss by every filter, f32, by name.

    step   whose weights, loss and gradient rules are used; nothing of it changes
    batch  how many samples a call takes

    Filters are the trainable parameters of rank 2 or more. GraphError where there are none.
    """

    def __init__(self, step: TrainStep, batch: int) -> None:
        self.step, self.batch = step, batch
        loss = _loss_graph(step.graph(batch))
        self.filters = tuple(p for p in loss.parameters if p.trainable and p.type.rank >= 2)
        if not self.filters:
            raise GraphError(f'"{loss.name}" has no filters to differentiate with respect to')
        gradients = compiler.grad(loss, [p.name for p in self.filters])
        self._program = compile_silently(gradients, weights=self._weights(), threads=step.threads)

    def _weights(self) -> dict[str, Array]:
        """Those of the model, and the counters of its dropouts."""
        return self.step.state.views | self.step.model.weights

    def __call__(self, x: object, y: object) -> dict[str, Array]:
        """x and y as `Model.fit` takes them. DataError for data that does not fit."""
        model = self.step.model
        inputs = border.by_name("x", model.entering(x), [*model.input_shapes])
        require_trainable(inputs)
        if (count := count_of(inputs)) != self.batch:
            raise DataError(f"the probe takes {self.batch} samples, found {count}")
        targets = rows_of(targets_for(model, y, count), slice(None))
        self._program.set_weights(self._weights())
        arrays = [np.ascontiguousarray(samples, np.float32) for samples in inputs.values()]
        found = self._program.run([*arrays, *targets, 1.0])
        return {p.name: g for p, g in zip(self.filters, found, strict=True)}


@dataclass
class GradientHistory:
    """Statistics of the gradients at the recorded steps; by the name of the filter, one a record.

    quantiles  f64[7], the QUANTILES of the values of the gradient
    rms        root of the mean square: norm / sqrt(k) for k elements, so that layers compare
    norm       L2
    zeros      share of elements that are exactly 0
    """

    steps: list[int] = field(default_factory=list)
    quantiles: dict[str, list[Array]] = field(default_factory=dict)
    rms: dict[str, list[float]] = field(default_factory=dict)
    norm: dict[str, list[float]] = field(default_factory=dict)
    zeros: dict[str, list[float]] = field(default_factory=dict)

    def record(self, step: int, gradients: Mapping[str, Array]) -> None:
        """Adds the gradients of one step. DataError, naming the first, for NaN or Inf, and for
        other filters than before."""
        if self.steps and gradients.keys() != self.rms.keys():
            raise DataError(
                f"step {step} has gradients of {', '.join(gradients)}; those before had "
                f"{', '.join(self.rms)}"
            )
        for name, array in gradients.items():
            if not np.isfinite(array).all():
                raise DataError(
                    f'the gradient of "{name}" holds NaN or Inf at step {step}: training diverged; '
                    "lower the learning rate"
                )
        self.steps.append(step)
        for name, array in gradients.items():
            values = np.asarray(array, np.float64).reshape(-1)
            norm = float(np.linalg.norm(values))
            self.quantiles.setdefault(name, []).append(np.quantile(values, QUANTILES))
            self.norm.setdefault(name, []).append(norm)
            self.rms.setdefault(name, []).append(norm / float(np.sqrt(values.size)))
            self.zeros.setdefault(name, []).append(float(np.mean(values == 0)))

    @property
    def names(self) -> tuple[str, ...]:
        """The filters, in the order of the network."""
        return tuple(self.rms)


@dataclass(frozen=True)
class Recording:
    """How `record_gradients` trains and what it records; DataError for counts below 1.

    steps    of training, with the default optimizer and a constant `learning_rate`
    every    the gradients of every so-many-th batch are recorded, the first included
    batch    samples of a step, at most
    seed     of the order of the samples
    threads  all processors unless given
    verbose  1: how far it is, on a terminal a bar
    """

    steps: int = setting(100, "How many steps to train.", least=1)
    every: int = setting(5, "Record the gradients every so many steps.", least=1)
    batch: int = setting(64, "Samples of a step.", least=1)
    learning_rate: float = setting(0.1, "Of every step.")
    seed: int = setting(0, "Of the order of the samples.", least=0)
    threads: int | None = like(Fit, "threads")
    verbose: int = 0

    def __post_init__(self) -> None:
        require_valid(self)


DEFAULT = Recording()


def record_gradients(
    model: Model, x: object, y: object, settings: Recording = DEFAULT
) -> GradientHistory:
    """Trains `model` and records its gradients, each before the update that it makes.

    Raises DataError for data that does not fit or is less than a batch, and when training diverges.
    """
    inputs = model.inputs(x)
    require_trainable(inputs)
    count, outputs = count_of(inputs), [*model.output_shapes]
    labels = {
        name: border.array(border.called("y", name, outputs), given)
        for name, given in border.by_name("y", y, outputs).items()
    }
    targets_for(model, labels, count)
    batch, rate = min(settings.batch, count), settings.learning_rate
    step = model.train_step(batch, threads=settings.threads)
    probe, history = GradientProbe(step, batch), GradientHistory()
    batches = _batches(next(iter(inputs.values())), batch, settings.seed)
    with Stages(settings.verbose) as say:
        for number, index in zip(range(settings.steps), batches, strict=False):
            rows, wanted = ({n: a[index] for n, a in given.items()} for given in (inputs, labels))
            if number % settings.every == 0:
                history.record(number, probe(rows, wanted))
            loss, _ = step(model.entering(rows), wanted, rate)
            if not np.isfinite(loss):
                raise DataError(
                    f"the loss is {loss} at step {number}: training diverged; lower the learning "
                    f"rate (it was {rate:g})"
                )
            say("training, steps", number + 1, settings.steps)
    return history


def _batches(x: Array, batch: int, seed: int) -> Iterable[Array]:
    """Sample numbers of whole batches without end, in a new order each epoch."""
    loader, epoch = Loader(x, batch_size=batch, seed=seed), 0
    while True:
        order = loader.order(epoch)
        yield from (order[at : at + batch] for at in range(0, len(order) - batch + 1, batch))
        epoch += 1


def vanished(history: GradientHistory) -> tuple[Finding, ...]:
    """A finding for each filter whose gradient has vanished in the last record.

    That is one whose root mean square is 0, or less than VANISHED times the median of those of the
    other filters: at one learning rate it moves a million times slower. (The adaptive rate of an
    adder layer amends a small gradient, but what is 1e-6 of the others is mostly rounding.)
    """
    if not history.steps:
        return ()
    last = {name: values[-1] for name, values in history.rms.items()}
    found = []
    for name, value in last.items():
        others = [rms for other, rms in last.items() if other != name]
        usual = float(np.median(others)) if others else 0.0
        if value == 0 or value < VANISHED * usual:
            found.append(_vanished(name, value, usual, history.steps[-1]))
    return tuple(found)


def _vanished(name: str, value: float, usual: float, step: int) -> Finding:
    layer = name.rpartition(".")[0] or name
    compared = f"{value:.1e}, that of the other layers {usual:.1e} in the median"
    return Finding(
        name,
        f'the gradient of "{name}" has vanished at step {step}: its root mean square is '
        f"{compared if value else '0'}",
        f'look for a dead relu beside layer "{layer}", and put a batch norm between the two; let '
        "the loss take logits, not a softmax that is saturated",
    )


def _loss_graph(step: Graph) -> Graph:
    """(inputs, targets) -> loss: what a training step computes of them, without its updates."""
    loss = step.outputs[0]
    nodes = tuple(upstream(step.nodes, [loss]))
    read = {v for node in nodes for v in node.inputs}
    parameters = tuple(p for p in step.parameters if p in read)
    return Graph(step.name, step.inputs[:-1], parameters, nodes, (loss,))
