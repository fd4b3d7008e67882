"""The ordered list of passes, the runner that checks after each of them, and observers.

Every pass is a function `Graph -> Graph`: valid in, valid out, same meaning; inputs and outputs
keep their types and order. Training graphs are differentiated (`train_step`) before they come here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from addergraph.errors import AdderGraphError, GraphError, PassError, VerificationError
from addergraph.ir import Array, Graph, Parameter, Value
from addergraph.ir.check import check
from addergraph.ir.interpreter import run_reference
from addergraph.ir.types import f32

from .canonicalize import canonicalize
from .eliminate import eliminate
from .fold_batch_norm import fold_batch_norm
from .fuse import fuse
from .quantize.forget_scales import forget_scales
from .ranges import ranges

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Graph, Graph, float], None]
"""Called after each checked pass: (pass name, graph before, graph after, seconds of the pass)."""

PIPELINE: tuple[Pass, ...] = (
    canonicalize,  # one form for what can be written in several ways, so that later passes see one
    fold_batch_norm,  # before ranges and fuse: they see a multiplication and an addition
    ranges,  # before eliminate: what it proves constant leaves dead nodes and parameters
    canonicalize,  # constants that ranges found move through reshapes and broadcasts
    eliminate,  # before fuse: a dead reader would keep a value from being fused
    forget_scales,  # before fuse: bodies that differ in them alone become one kernel
    fuse,  # last: no pass but memory planning looks into fused bodies
)


def run(
    graph: Graph, passes: Sequence[Pass] = PIPELINE, observers: Sequence[Observer] = ()
) -> Graph:
    """`graph` after each of `passes` in turn, checked after every one.

    Raises PassError, naming the pass and showing the graph before and after, when a pass fails or
    its result is not well formed or changes what it may not: inputs, types of outputs, parameters
    (unused ones may go), which parameters are updated.
    """
    for step in passes:
        name = pass_name(step)
        after: Graph | None = None
        start = time.perf_counter()
        try:
            after = step(graph)
            seconds = time.perf_counter() - start
            check(after)
            _check_interface(graph, after)
        except AdderGraphError as error:
            result = "" if after is None else f"\nafter:\n{after}"
            raise PassError(f'pass "{name}": {error}\nbefore:\n{graph}{result}') from error
        for observe in observers:
            observe(name, graph, after, seconds)
        graph = after
    return graph


def pass_name(step: Pass) -> str:
    """The name of a pass: of the function, or of the class of a pass with options."""
    return getattr(step, "__name__", type(step).__name__)


def _check_interface(before: Graph, after: Graph) -> None:
    """GraphError unless `after` can stand where `before` did."""
    for what, old, new in (
        ("inputs", _declared(before), _declared(after)),
        ("output types", _output_types(before), _output_types(after)),
        ("updated parameters", _updated(before), _updated(after)),
    ):
        if old != new:
            raise GraphError(f"changed the {what} from ({old}) to ({new})")
    made = [p.name for p in after.parameters if p not in before.parameters]
    if made:
        raise GraphError(f"made new parameters: {', '.join(made)}")


def _declared(graph: Graph) -> str:
    return ", ".join(f"{v}: {v.type}" for v in graph.inputs)


def _output_types(graph: Graph) -> str:
    return ", ".join(str(v.type) for v in graph.outputs)


def _updated(graph: Graph) -> str:
    return ", ".join(str(u.parameter) for u in graph.updates)


@dataclass(frozen=True)
class Compare:
    """Observer: interprets the graph before and after on random data.

    With `exact` the data are small integers times 2^-2, on which short sums, products and
    comparisons do not round, and results have to be equal; otherwise data are normal and an element
    may differ by `tolerance` times the largest magnitude of its tensor (at least `tolerance`).
    Parameters that start at one (variances, scales) get positive numbers. An open batch is
    `batch`. NaN equals NaN, and -0.0 equals 0.0.
    Raises VerificationError, naming the pass and the output or update.
    """

    tolerance: float = 1e-4
    exact: bool = False
    seed: int = 0
    batch: int = 3

    def __call__(self, name: str, before: Graph, after: Graph, seconds: float) -> None:
        rng = np.random.default_rng(self.seed)
        inputs = [self._sample(rng, v) for v in before.inputs]
        weights = {p.name: self._sample(rng, p) for p in before.parameters}
        kept = {p.name: weights[p.name] for p in after.parameters}
        old, old_updates = run_reference(before, inputs, weights)
        new, new_updates = run_reference(after, inputs, kept)
        for v, x, y in zip(before.outputs, old, new, strict=True):
            self._require_equal(f'pass "{name}" changed output {v}', x, y)
        for parameter, x in old_updates.items():
            what = f'pass "{name}" changed the update of %{parameter}'
            self._require_equal(what, x, new_updates[parameter])

    def _sample(self, rng: np.random.Generator, value: Value) -> Array:
        type = value.type.bind(self.batch)
        small = rng.integers(-8, 9, type.sizes)
        if type.dtype != f32:
            return np.abs(small).astype(type.dtype.numpy)
        drawn = small / 4 if self.exact else rng.normal(size=type.sizes)
        if isinstance(value, Parameter) and value.init.kind == "ones":
            drawn = np.abs(drawn) + 1  # a variance, or a scale
        return drawn.astype(np.float32)

    def _require_equal(self, what: str, x: Array, y: Array) -> None:
        finite = np.abs(x[np.isfinite(x)])
        largest = float(finite.max()) if finite.size else 0.0
        allowed = 0.0 if self.exact else self.tolerance * max(1.0, largest)
        if not np.allclose(y, x, rtol=0.0, atol=allowed, equal_nan=True):
            difference = np.nanmax(np.abs(x.astype("f8") - y.astype("f8")))
            raise VerificationError(
                f"{what}: results differ by up to {difference:g}, expected at most {allowed:g} "
                f"(random data of seed {self.seed})"
            )
