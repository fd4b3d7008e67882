"""Native against reference: every output within what f32 rounding can explain, no tuned tolerances.

The allowance is measured, not guessed. Each op has a closed-form bound on its own rounding error
(`rounding_bound`); the reference is run again DRAWS times with every intermediate result moved by a
random amount within its bound, and the largest deviation of an output tensor, doubled, is what the
native output may differ by. Outputs that are not f32 must be equal wherever no draw changes them.

Contractions of n terms, u = 2^-24: an adder in the direct form n u / (1 - nu) sum|x-f|; in the min form
(n+1) u / (1 - (n+1)u) (2 sum min(x, f+) + sum x + sum|f|), which the first never exceeds when x >= 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import DataError, VerificationError
from .interpreter import bind_inputs
from .ir import CONTRACTION, MOVEMENT, REDUCTION, Array, Graph, Node, Op
from .state import bind_weights
from .types import f32

if TYPE_CHECKING:
    from .codegen.jit import Program

U = 2.0**-24
DRAWS = 4
PER_CALL = 16  # samples of one call of the program


@dataclass(frozen=True)
class OutputReport:
    """One output over all samples: largest difference, what was allowed, elements that differ."""

    name: str
    error: float
    allowed: float
    different: int
    elements: int
    scale: float

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True)
class Report:
    """What `verify` found. `mistrusted`: an output is almost all zeros or one value."""

    graph: str
    samples: int
    seed: int
    outputs: tuple[OutputReport, ...]
    mistrusted: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(o.ok for o in self.outputs)

    def raise_for_failure(self) -> None:
        """VerificationError when some output is beyond its bound."""
        if not self.ok:
            raise VerificationError(str(self))

    def __str__(self) -> str:
        lines = [
            f'verify "{self.graph}": {self.samples} samples, seed {self.seed}: '
            f"{'passed' if self.ok else 'FAILED'}"
        ]
        lines += [
            f"  {'ok  ' if o.ok else 'FAIL'} %{o.name}: largest error {o.error:.3g}, "
            f"allowed {o.allowed:.3g}, values up to {o.scale:.3g}, "
            f"{o.different} of {o.elements} elements differ in some bit"
            for o in self.outputs
        ]
        lines += [
            f"  mistrusted: %{name} is nearly constant on these inputs; the check says little"
            for name in self.mistrusted
        ]
        return "\n".join(lines)


def verify(
    graph: Graph,
    program: Program,
    samples: int = 100,
    seed: int = 0,
    *,
    inputs: Sequence[object] | None = None,
) -> Report:
    """Compares `program` with the NumPy reference of `graph`.

    Inputs are drawn from N(0, 1) (integers from 0 to 3) with `seed`, unless `inputs` are given.
    The program must have been compiled from `graph`, and brings the weights.
    Raises DataError for programs with updates, whose calls change what they compute.
    """
    if graph.updates:
        raise DataError(f'graph "{graph.name}" updates parameters; verify its forward graph')
    if samples < 1:
        raise DataError(f"samples={samples} must be at least 1")
    rng = np.random.default_rng(seed)
    totals = [_Total(v.name) for v in graph.outputs]
    done = 0
    while done < samples:
        count = min(PER_CALL, samples - done) if graph.is_open else 1
        given = inputs if inputs is not None else _draw(graph, count, rng)
        batch, arrays = bind_inputs(graph, given)
        _compare(graph, program, arrays, rng, totals)
        done += count if inputs is None else samples
    reports = tuple(t.report() for t in totals)
    return Report(graph.name, samples, seed, reports, tuple(t.name for t in totals if t.dull))


def _draw(graph: Graph, count: int, rng: np.random.Generator) -> list[Array]:
    drawn = []
    for v in graph.inputs:
        type = v.type.bind(count)
        array = rng.normal(size=type.sizes) if type.dtype == f32 else rng.integers(0, 4, type.sizes)
        drawn.append(array.astype(type.dtype.numpy))
    return drawn


class _Total:
    """Collects one output over several calls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error = self.allowed = self.scale = 0.0
        self.different = self.elements = self.common = 0
        self._margin = np.inf

    def add(self, native: Array, reference: Array, draws: list[Array]) -> None:
        if not reference.size:
            return
        exact = reference.astype("f8")
        finite = np.isfinite(exact)
        error = np.abs(native.astype("f8") - exact)[finite].max(initial=0.0)
        moved = [np.abs(d.astype("f8") - exact)[finite].max(initial=0.0) for d in draws]
        allowed = 2 * max(moved)
        same_kind = np.array_equal(np.isnan(native), np.isnan(reference)) and np.array_equal(
            native[np.isinf(reference)], reference[np.isinf(reference)]
        )
        if reference.dtype != np.float32:
            settled = np.logical_and.reduce([d == reference for d in draws])
            error, allowed = float((native != reference)[settled].any()), 0.0
        if not same_kind:
            error = np.inf
        self.scale = max(self.scale, float(np.abs(exact[finite]).max(initial=0.0)))
        self.different += int((native != reference).sum() - np.isnan(reference).sum())
        self.elements += reference.size
        _, counts = np.unique(reference, return_counts=True)
        self.common += int(counts.max())
        if allowed - error < self._margin:  # keep the call that came closest to failing
            self._margin, self.error, self.allowed = allowed - error, float(error), float(allowed)

    @property
    def dull(self) -> bool:
        return self.elements >= 16 and self.common > 0.95 * self.elements

    def report(self) -> OutputReport:
        return OutputReport(
            self.name, self.error, self.allowed, self.different, self.elements, self.scale
        )


def _compare(
    graph: Graph,
    program: Program,
    arrays: Sequence[Array],
    rng: np.random.Generator,
    totals: Sequence[_Total],
) -> None:
    native = program.run(arrays)
    exact = _evaluate(graph, arrays, program.weights, None)
    draws = [_evaluate(graph, arrays, program.weights, rng) for _ in range(DRAWS)]
    for k, total in enumerate(totals):
        total.add(native[k], exact[k], [d[k] for d in draws])


def _evaluate(
    graph: Graph,
    arrays: Sequence[Array],
    weights: Mapping[str, Array],
    noise: np.random.Generator | None,
) -> list[Array]:
    """The outputs by NumPy, each result moved by random rounding errors if `noise` is given."""
    batch, _ = bind_inputs(graph, arrays)
    bound = graph if batch is None else graph.bind(batch)
    known = {v.name: a for v, a in zip(bound.inputs, arrays, strict=True)}
    known |= bind_weights(f'graph "{graph.name}"', bound.parameters, weights)
    for node in bound.nodes:
        operands = [known[v.name] for v in node.inputs]
        with np.errstate(all="ignore"):
            results = node.op.reference(*operands)
            if noise is not None:
                results = _moved(node, operands, results, noise)
        known |= {v.name: r for v, r in zip(node.outputs, results, strict=True)}
    return [known[v.name] for v in bound.outputs]


def _moved(
    node: Node, operands: Sequence[Array], results: Sequence[Array], rng: np.random.Generator
) -> tuple[Array, ...]:
    moved = []
    for result in results:
        if result.dtype != np.float32:
            moved.append(result)
            continue
        bound = rounding_bound(node.op, operands, result)
        shift = rng.uniform(-1.0, 1.0, result.shape) * bound
        moved.append(np.where(np.isfinite(shift), result + shift, result).astype(np.float32))
    return tuple(moved)


def rounding_bound(op: Op, operands: Sequence[Array], result: Array) -> Array | float:
    """How far f32 evaluation of `op` may be from `result`, element by element."""
    size = np.abs(result.astype("f8"))
    if op.kind == MOVEMENT:
        return 0.0
    if op.kind == CONTRACTION:
        return _contraction_bound(op, operands, size)
    if op.kind == REDUCTION:
        return _reduction_bound(op, operands, size)
    if op.name == "batch_norm":
        x, mean, variance, gamma, beta = (np.abs(a.astype("f8")) for a in operands)
        scale = gamma / np.sqrt(variance + getattr(op, "epsilon", 0.0))
        return np.asarray(8 * U * ((x + mean) * scale + beta))
    if op.name in ("add", "sub"):
        # A tail is computed as y * scale + shift: cancellation leaves the operands' rounding.
        a, b = (np.abs(v.astype("f8")) for v in operands)
        return np.asarray(2 * U * (a + b))
    return np.asarray(4 * U * size)


def _contraction_bound(op: Op, operands: Sequence[Array], size: Array) -> Array | float:
    """n terms summed in some order: n u / (1 - nu) times the sum of their magnitudes."""
    arrays = [np.abs(a) for a in operands]
    if op.name.startswith("adder"):
        sums = _adder_magnitude(op, operands, arrays, size)
    else:
        sums = op.reference(*arrays)[0].astype("f8")
    terms = max(a.size // max(1, a.shape[-1]) for a in operands)
    if not op.name.endswith("_filter"):
        terms = operands[-1 if "grad" in op.name else 1].size // max(1, operands[1].shape[-1])
    n = terms + 4
    return np.asarray(n * U / (1 - n * U) * sums)


def _adder_magnitude(
    op: Op, operands: Sequence[Array], arrays: Sequence[Array], size: Array
) -> Array:
    """The sum that multiplies n u in an adder op's bound."""
    if op.name.endswith("_grad_input"):
        g, x, f = arrays
        return op.reference(g, np.zeros_like(x), np.full_like(f, 2.0))[0].astype("f8")
    if op.name.endswith("_grad_filter"):
        g, x, f = arrays
        return op.reference(g, x, -f)[0].astype("f8")
    x, f = operands[:2]
    if x.size and not x.min() >= 0:
        return size
    # sum x + sum|f| = sum|x - (-|f|)|, and 2 sum min(x, f+) is at most twice that.
    return -3.0 * op.reference(x, -np.abs(f))[0].astype("f8")


def _reduction_bound(op: Op, operands: Sequence[Array], size: Array) -> Array | float:
    x = operands[0]
    reduced = x.size / max(1, size.size)
    if op.name in ("reduce_max", "max_pool2d"):
        return 0.0
    if op.name in ("reduce_sum", "reduce_mean", "avg_pool2d", "global_avg_pool"):
        n = reduced + 4
        return np.asarray(n * U * op.reference(np.abs(x))[0].astype("f8"))
    if op.name == "softmax":
        return np.asarray((x.shape[-1] + 16) * U * size)
    largest = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
    return np.asarray((reduced + 16) * U * (size + largest))
