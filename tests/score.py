"""`make score`: how many planted changes of a network does `verify` report?

    python -m tests.score [-n CHANGES] [--samples N] [NETWORK[:int8] ...]

Each network of the zoo, with the numbers of a trained one (`enlivened`), is compiled with one of
its weights, biases, attributes or casts changed (`changes`), and `ag.verify` is asked, by its
defaults but for the number of samples: of fewer samples it can report less, not more. Networks for
224x224 images are built for 64x64.

A survivor counts as excused where its effect is provably nothing: the report names a constant on
every way from the change to an output. The exit status is 1 where fewer than 95 in 100 of all
others are reported.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar
from unittest import mock

import numpy as np

import addergraph as ag
from addergraph import zoo
from addergraph.errors import AdderGraphError, RangeWarning
from addergraph.ir import CONTRACTION, Array, Graph, Node, Op, Value
from addergraph.ir.check import check
from addergraph.ir.graph import Builder
from addergraph.ir.state import initial_weights
from addergraph.ir.types import bool_, f32, i8, i32, u8
from addergraph.ir.walk import downstream, evaluate
from addergraph.model.quantization import quantize
from addergraph.ops._elementwise import INTEGER_BOUNDS
from addergraph.ops.pointwise.cast import Cast
from addergraph.ops.pointwise.requantize import Requantize
from addergraph.verification import nodes, outputs, reference
from addergraph.verification.outputs import Report

WANTED = 0.95
SAMPLES = 4  # of float networks; integers need no draws of corners, and get four times as many
SCORED = (*zoo.NETWORKS, "small-adder:int8", "all-adder:int8", "lenet5_bn:int8", "resnet20:int8")
SMALLER = {"resnet18": (64, 64, 3), "resnet50": (64, 64, 3), "vgg_small": (16, 16, 3)}

Weights = Mapping[str, Array]


@dataclass(frozen=True)
class Change:
    """A wrong network, and the node of the right one that it changes."""

    what: str
    node: str
    graph: Graph
    weights: Weights


@dataclass(frozen=True)
class Verdict:
    change: Change
    reported: bool
    excused: bool

    def __str__(self) -> str:
        state = "reported" if self.reported else "no effect" if self.excused else "MISSED"
        return f"{state:9} {self.change.what}"


# --- networks -------------------------------------------------------------------------------------


def enlivened(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Weights as training leaves them: batch norms have the statistics of what they read."""
    rng = np.random.default_rng(seed)
    weights = {name: array.copy() for name, array in initial_weights(graph, seed).items()}
    bound = graph.bind(4)
    for p in bound.parameters:
        if p.type.rank == 1:
            weights[p.name] += 0.2 * rng.normal(size=p.type.sizes).astype("f4")

    def step(node: Node, operands: list[Array]) -> Sequence[Array]:
        if node.op.normalizes:
            x, axes = operands[0].astype("f8"), tuple(range(operands[0].ndim - 1))
            mean, variance = node.inputs[1:3]
            weights[mean.name][...], weights[variance.name][...] = x.mean(axes), x.var(axes)
        return node.op.reference(*operands)

    images = [rng.random(v.type.sizes).astype("f4") for v in bound.inputs]
    evaluate(bound, [*images, *(weights[p.name] for p in bound.parameters)], step)
    return weights


def network(name: str) -> tuple[Graph, dict[str, Array]]:
    """Of the zoo; with ":int8" behind the name, as `ag.quantize` makes it."""
    name, _, form = name.partition(":")
    shape = SMALLER.get(name.removesuffix("-conv"))
    graph = zoo.build(name, shape).graph(training=False)
    weights = enlivened(graph)
    if not form:
        return graph, weights
    images = np.random.default_rng(1).random((8, *graph.inputs[0].type.shape[1:]))  # type: ignore[arg-type]
    made = quantize(graph, images.astype("f4"), weights=weights)
    return made.graph, dict(made.weights)


# --- changes --------------------------------------------------------------------------------------


def changes(graph: Graph, weights: Weights, count: int, seed: int = 0) -> Iterator[Change]:
    """`count` changes: weights, biases, attributes, casts in turn, each of a random node."""
    rng = np.random.default_rng(seed)
    sources = [_of_filters, _of_vectors, _of_attributes, _of_casts]
    made = 0
    while made < count:
        source = sources[made % len(sources)]
        change = source(graph, weights, rng)
        if change is None:
            sources.remove(source)  # the network has none of these
            continue
        made += 1
        yield change


def _of_filters(graph: Graph, weights: Weights, rng: np.random.Generator) -> Change | None:
    filters = [p for p in graph.parameters if p.type.rank > 1]
    return _of_numbers(graph, weights, filters, FILTERS, rng)


def _of_vectors(graph: Graph, weights: Weights, rng: np.random.Generator) -> Change | None:
    vectors = [p for p in graph.parameters if p.type.rank < 2]
    return _of_numbers(graph, weights, vectors, VECTORS, rng)


def _of_numbers(
    graph: Graph,
    weights: Weights,
    parameters: Sequence[Value],
    kinds: Mapping[str, Callable[[Array, np.random.Generator], None]],
    rng: np.random.Generator,
) -> Change | None:
    if not parameters:
        return None
    while True:
        p = parameters[int(rng.integers(len(parameters)))]
        kind = list(kinds)[int(rng.integers(len(kinds)))]
        changed = weights[p.name].copy()
        kinds[kind](changed, rng)
        if not np.array_equal(changed, weights[p.name]):
            reader = graph.uses()[p][0]
            return Change(f"{kind} of {p}", reader.name, graph, {**weights, p.name: changed})


def _channel(f: Array, rng: np.random.Generator) -> Array:
    return f[..., rng.integers(f.shape[-1])]


def _double(f: Array, rng: np.random.Generator) -> None:
    channel = _channel(f, rng)
    channel[...] = np.clip(channel.astype("f8") * 2, *_ends(f))


def _zero(f: Array, rng: np.random.Generator) -> None:
    _channel(f, rng)[...] = 0


def _roll(f: Array, rng: np.random.Generator) -> None:
    axis = int(np.argmax(f.shape[:-1]))
    channel = _channel(f, rng)
    channel[...] = np.roll(channel, 1, axis)


def _exchange(f: Array, rng: np.random.Generator) -> None:
    a, b = rng.integers(f.shape[-1], size=2)
    f[..., [a, b]] = f[..., [b, a]]


def _row(f: Array, rng: np.random.Generator) -> None:
    """One tap, or one input, of all filters counts as zero."""
    f[tuple(rng.integers(n) for n in f.shape[: f.ndim // 2])] = 0


def _element(a: Array, rng: np.random.Generator) -> None:
    """One number becomes another one, further off than the numbers spread."""
    at = tuple(rng.integers(n) for n in a.shape)
    step = max(1.0, 3 * float(np.std(a.astype("f8")))) * (1 if a[at] <= a.mean() else -1)
    a[at] = np.clip(float(a[at]) + (round(step) if a.dtype.kind in "iu" else step), *_ends(a))


def _some(a: Array, rng: np.random.Generator) -> None:
    """A hundredth of one number is lost, of an integer at least one."""
    at = tuple(rng.integers(n) for n in a.shape)
    a[at] = a[at] * np.float32(0.99) if a.dtype == np.float32 else a[at] - max(1, abs(a[at]) // 100)


def _ends(a: Array) -> tuple[float, float]:
    return (
        (-np.inf, np.inf)
        if a.dtype == np.float32
        else (np.iinfo(a.dtype).min, np.iinfo(a.dtype).max)
    )


FILTERS = {
    "one filter doubled": _double, "one filter zeroed": _zero, "one filter rolled": _roll,
    "two filters exchanged": _exchange, "one tap lost": _row, "one number": _element,
}  # fmt: skip
VECTORS = {"one number": _element, "a hundredth of one number": _some}


def _of_attributes(graph: Graph, weights: Weights, rng: np.random.Generator) -> Change | None:
    found = [(node, what, op) for node in graph.nodes for what, op in _other_ops(node)]
    if not found:
        return None
    node, what, op = found[rng.integers(len(found))]
    changed = _rewritten(graph, node, lambda b, operands: b.add(op, operands, node.outputs))
    return Change(f"{what} of {node.label}", node.name, changed, weights)


def _other_ops(node: Node) -> Iterator[tuple[str, Op]]:
    """The op with one attribute changed, where it still gives results of the same type."""
    for f in fields(node.op):  # type: ignore[arg-type]
        value = getattr(node.op, f.name)
        for other in _other_values(f.name, value):
            try:
                op = replace(node.op, **{f.name: other})  # type: ignore[type-var]
                types = op.infer(*(v.type for v in node.inputs))
            except (AdderGraphError, ValueError):
                continue
            if types == tuple(v.type for v in node.outputs):
                yield f"{f.name}={other} for {value}", op


def _other_values(name: str, value: object) -> Iterator[object]:
    if name in ("input_nonnegative", "gradient", "scale", "zero_point"):
        return  # no meaning of their own
    if name == "padding" and isinstance(value, tuple):
        top, bottom, left, right = value
        yield from ((top + 1, bottom - 1, left, right), (top, bottom, left - 1, right + 1))
    elif isinstance(value, float):
        # An epsilon of 0.5 beside the variance of sums of distances is less than they round by.
        yield from (value * 10 + 10, value / 2 - 0.5)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from (value + 7, value - 1)
    elif isinstance(value, tuple) and value and all(isinstance(n, int) for n in value):
        yield from ((value[0] + 1, *value[1:]), (*value[:-1], max(0, value[-1] - 1)))


def _of_casts(graph: Graph, weights: Weights, rng: np.random.Generator) -> Change | None:
    """A result goes through another dtype and back, which loses some of it."""
    losing = {f32: (i32, u8), i32: (u8, i8, bool_), u8: (bool_, i8)}
    found = [n for n in graph.nodes if n.op.constant is None and n.outputs[0].type.dtype in losing]
    node = found[rng.integers(len(found))]
    (y,) = node.outputs
    through = losing[y.type.dtype][rng.integers(len(losing[y.type.dtype]))]
    half = through == i8 and y.type.dtype == u8  # u8 -> i8 -> u8 gives all bits back

    def cast(b: Builder, operands: Sequence[Value]) -> Sequence[Value]:
        (raw,) = b.add(node.op, operands, f"{y.name}.raw")
        (less,) = b.add(Cast(through), [raw], f"{y.name}.less")
        if half:
            (less,) = b.add(Cast(f32), [less], f"{y.name}.signed")
        return b.add(Cast(y.type.dtype), [less], node.outputs)

    changed = _rewritten(graph, node, cast)
    return Change(f"{y} through {through}", node.name, changed, weights)


def _rewritten(
    graph: Graph, changed: Node, add: Callable[[Builder, Sequence[Value]], Sequence[Value]]
) -> Graph:
    builder, new = Builder(graph.name), {}
    for v in graph.inputs:
        new[v] = builder.input(v.name, v.type)
    for p in graph.parameters:
        new[p] = builder.parameter(p)
    for node in graph.nodes:
        operands = [new[v] for v in node.inputs]
        made = (
            add(builder, operands)
            if node is changed
            else builder.add(node.op, operands, node.outputs)
        )
        new.update(zip(node.outputs, made, strict=True))
    made_graph = builder.finish([new[v] for v in graph.outputs])
    check(made_graph)
    return made_graph


# --- verdicts -------------------------------------------------------------------------------------


class _Remembered(reference.Reference):
    """References do not depend on the program, so all changes of a network share them."""

    known_ones: ClassVar[dict[bytes, reference.Reference]] = {}

    def __new__(
        cls, graph: Graph, arrays: Sequence[Array], weights: Weights, rng: np.random.Generator
    ):
        key = hashlib.blake2b(str(graph).encode())
        for array in arrays:
            key.update(np.ascontiguousarray(array).tobytes())
        found = cls.known_ones.get(key.digest())
        if found is None:
            found = cls.known_ones[key.digest()] = reference.Reference(graph, arrays, weights, rng)
        return found


def judge(graph: Graph, weights: Weights, change: Change, samples: int) -> Verdict:
    program = ag.compile(change.graph, weights=change.weights)
    report = ag.verify(graph, program, samples, weights=weights)
    return Verdict(change, not report.ok, report.ok and _without_effect(graph, change, report))


def _without_effect(graph: Graph, change: Change, report: Report) -> bool:
    """Whether every way from the changed node to an output leads through a constant, or the node
    gives the same on all that it can read."""
    start = next(n for n in graph.nodes if n.name == change.node)
    if change.what.startswith("stride") and start.outputs[0].type.shape[1:3] == (1, 1):
        return True  # one window has no next
    if change.what.startswith("dilation") and start.inputs[1].type.shape[:2] == (1, 1):
        return True  # nor one tap
    if start.name in report.constant or _same_at_the_ends(graph, start, change):
        return True
    open_nodes = [n for n in graph.nodes if n.name not in report.constant]
    return downstream(open_nodes, start.outputs).isdisjoint(graph.outputs)


def _same_at_the_ends(graph: Graph, node: Node, change: Change) -> bool:
    """Whether a requantization with other ends of its result, behind a contraction of bytes, agrees
    with the right one on the least and the largest sum of each channel: it is monotone."""
    other = next(n.op for n in change.graph.nodes if n.name == node.name)
    made = graph.producers().get(node.inputs[0])
    if not isinstance(other, Requantize) or other == node.op or made is None:
        return False
    x, f = made.inputs[0].type, change.weights.get(made.inputs[1].name)
    if made.op.kind != CONTRACTION or made.op.measures_distance or x.dtype != u8 or f is None:
        return False
    high = INTEGER_BOUNDS[x.dtype][1]
    axes = tuple(range(f.ndim - 1))
    ends = [np.where(f > 0, f, 0).sum(axes) * high, np.where(f < 0, f, 0).sum(axes) * high]
    rest = [
        change.weights[v.name] if v.name in change.weights
        else np.full((), graph.producers()[v].op.constant, np.int32)
        for v in node.inputs[1:]
    ]  # fmt: skip
    sums = np.stack(ends).astype(np.int32)
    return np.array_equal(node.op.reference(sums, *rest)[0], other.reference(sums, *rest)[0])


def score(name: str, count: int, samples: int = SAMPLES) -> list[Verdict]:
    """The verdicts on `count` changes of a network; AssertionError unless the right one passes."""
    graph, weights = network(name)
    _Remembered.known_ones = {}
    if ":" in name:
        samples *= 4
    with (
        mock.patch.object(outputs, "Reference", _Remembered),
        mock.patch.object(nodes, "Reference", _Remembered),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RangeWarning)
        right = ag.verify(graph, ag.compile(graph, weights=weights), samples)
        assert right.ok, right
        return [judge(graph, weights, c, samples) for c in changes(graph, weights, count)]


def share(verdicts: Sequence[Verdict]) -> float:
    counted = [v for v in verdicts if not v.excused]
    return sum(v.reported for v in counted) / max(1, len(counted))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.score")
    parser.add_argument("-n", type=int, default=100, help="changes of each network")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("networks", nargs="*", default=SCORED)
    options = parser.parse_args()
    failed = 0
    for name in options.networks:
        start = time.perf_counter()
        verdicts = score(name, options.n, options.samples)
        for verdict in verdicts:
            if not verdict.reported:
                print(f"  {verdict}")
        excused = sum(v.excused for v in verdicts)
        failed += share(verdicts) < WANTED
        print(
            f"{name}: {sum(v.reported for v in verdicts)} of {len(verdicts)} reported, {excused} "
            f"provably without effect ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
