"""Post-training quantization: a trained network becomes an int8 graph.

    quantize(graph, weights, calibration, settings, engine) -> Quantized

The graph is walked once, forward, by the rules of `rules.py`; `docs/quantization.md` has the
equations. Calibration data run through both networks on the way: the float one for the ranges of
its values, the integer one for its statistics.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from addergraph.errors import DataError, GraphError, QuantizationWarning, UnsupportedError
from addergraph.ir import Array, Graph, Node, Value, walk
from addergraph.ir.check import check
from addergraph.ir.interpreter import evaluate, same_for_all
from addergraph.ir.quantization import Quantization
from addergraph.ir.types import f32
from addergraph.ops.pointwise.fake_quantize import (
    FakeQuantize,
    FakeQuantizeFilter,
    Rounding,
    stated,
    trained_bits,
)
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.softmax import Softmax
from addergraph.quantization import MULTIPLY, SHIFT, QuantizationSettings, Quantized
from addergraph.quantization.settings import MOST_TERMS

from .calibrate import Engine, Report, Statistics, calibrate, silent
from .image import IMAGE_BITS, grid_of_bytes
from .integers import IntegerEmitter
from .rounded import as_trained, rounded_values, without_roundings
from .samples import samples_of

FAR = 0.5  # of the spread of the outputs: from there on classes are mistaken for each other
FEW = 8  # samples that show where a network died
SEARCHED = 256  # samples, spread over all, by which the number of powers of two is chosen
TRAIN_FIRST = "train it until it tells samples apart (`addergraph diagnose`), then quantize"
WORSE = 1.05  # how much more error fewer powers of two may make


def quantize(
    graph: Graph,
    weights: Mapping[str, Array],
    calibration: object,
    settings: QuantizationSettings,
    engine: Engine,
    levels: Array | None = None,
    report: Report = silent,
) -> Quantized:
    """`graph` in integers, from the image to the logits; a last softmax is left out.

    `calibration` holds samples as the graph takes them, a few hundred, without labels. `engine`
    computes. `levels` f32[C,256] has what each byte of an image becomes in each
    channel where the integer graph is to take images as they are. Raises DataError for calibration
    data that do not fit the graph, are empty, not finite or all zero; UnsupportedError, naming the
    nodes, for ops that have no integer form; GraphError for a graph that is no network. Warns
    (QuantizationWarning) of outputs that are off by more than FAR of their spread over the samples.
    """
    graph = _logits(_require_network(graph))
    samples = samples_of(graph, calibration)
    plain, trained, names = as_trained(graph)
    _require_known(plain)
    _require_trained(graph, settings.bits)

    def statistics(some: Array) -> Statistics:
        found = calibrate(graph, weights, some, settings.quantile, engine, report)
        moments = {names.get(n, n): m for n, m in found.moments.items()} | {**found.moments}
        return replace(found, stated=trained, moments=moments)

    found = statistics(samples)
    dead = _dead(graph, weights, samples, found.outputs)
    work = _Work(plain, weights, samples, found, settings, engine, levels, report, dead)
    if settings.requantize == MULTIPLY or settings.terms is not None:
        chosen, far = work.made(None if settings.requantize == MULTIPLY else settings.terms)
    elif len(samples) <= SEARCHED:
        chosen, far = work.of_fewest_terms()
    else:
        some = samples[:: math.ceil(len(samples) / SEARCHED)]
        search = replace(work, samples=some, found=replace(statistics(some), ranges=found.ranges))
        first, _ = search.of_fewest_terms()
        chosen, far = work.made(int(first.chosen.removeprefix(SHIFT)))
        chosen = replace(chosen, errors={**first.errors, **chosen.errors})
    if far > FAR:
        said = f"{dead}; {TRAIN_FIRST}" if dead else (
            f"the outputs in integers are off by {far:.0%} of how much the float outputs differ "
            f"between the calibration samples (from {FAR:.0%} on, classes are taken for each "
            "other); look for inputs with a large offset or a few huge values (Normalize), for a "
            "network that hardly tells these samples apart, or take more bits, more terms or "
            "quantile=1"
        )  # fmt: skip
        warnings.warn(said, QuantizationWarning, stacklevel=4)
    return chosen


@dataclass(frozen=True)
class _Work:
    """What int8 models that differ by their requantization are made from; `dead` is of `_dead`."""

    graph: Graph
    weights: Mapping[str, Array]
    samples: Array
    found: Statistics
    settings: QuantizationSettings
    engine: Engine
    levels: Array | None
    report: Report
    dead: str

    def made(self, terms: int | None) -> tuple[Quantized, float]:
        """The model whose factors have so many powers of two, or are integers, and how far its
        outputs are off beside their spread."""
        emitter = IntegerEmitter(
            self.graph, self.weights, self.samples, self.found, self.settings, terms, self.engine,
            self.levels,
        )  # fmt: skip
        try:
            return _converted(emitter, self.report)
        except DataError as error:
            if not self.dead:
                raise
            what = f"{self.dead}: what is behind it has no range; {TRAIN_FIRST}"
            raise DataError(what) from error

    def of_fewest_terms(self) -> tuple[Quantized, float]:
        """That of the fewest powers of two that are hardly worse than integer factors."""
        exact, _ = self.made(None)
        errors: dict[str, float] = {}
        for terms in range(1, MOST_TERMS + 1):
            chosen, far = self.made(terms)
            errors |= chosen.errors
            if chosen.error <= WORSE * exact.error:
                break  # more terms cost time, and could not be chosen
        return replace(chosen, errors={**errors, **exact.errors}), far


def _dead(
    graph: Graph, weights: Mapping[str, Array], samples: Array, outputs: Sequence[Array]
) -> str:
    """Where the network died, in words, if its outputs are the same for every sample; else ""."""
    if not all(map(same_for_all, outputs)):
        return ""
    values = evaluate(graph, [samples[:FEW]], weights)
    of_samples = (n for n in graph.nodes if n.outputs[0].type.is_open)
    first = next((n for n in of_samples if same_for_all(values[n.name])), None)
    where = "" if first is None else f": {first.label} is the first whose result is, it has died"
    return f"the float outputs are the same for every calibration sample{where}"


def roundings(
    graph: Graph,
    weights: Mapping[str, Array],
    calibration: object,
    bits: int,
    quantile: float,
    engine: Engine,
    levels: Array | None = None,
) -> dict[str, Rounding]:
    """What `quantization_aware` takes for an inference graph: name of a value or filter -> the
    integers that `quantize` would give it, values by their range on the calibration data. Raises
    what `quantize` does.
    """
    QuantizationSettings(bits=bits, quantile=quantile)
    graph, _ = without_roundings(_require_network(graph))
    samples = samples_of(graph, calibration)
    of_filters = FakeQuantizeFilter(bits)
    # Ops that cannot be trained so are refused before the long work.
    rounded_values(graph, lambda v: FakeQuantize(1.0), lambda f: of_filters)
    ranges = calibrate(graph, weights, samples, quantile, engine).ranges

    def grid(value: Value) -> FakeQuantize:
        used = IMAGE_BITS if value in graph.inputs else bits
        known = Quantization.of_range(*ranges[value.name], (1 << used) - 1)
        if value in graph.inputs and levels is not None:
            known = grid_of_bytes(levels, known) or known
        return FakeQuantize(known.scale, known.zero_point, used)

    return stated(rounded_values(graph, grid, lambda f: of_filters))


def _converted(emitter: IntegerEmitter, report: Report) -> tuple[Quantized, float]:
    """The int8 model that `emitter` writes, and its error beside the spread of the outputs."""
    nodes = emitter.graph.nodes
    kind = MULTIPLY if emitter.terms is None else f"{SHIFT}{emitter.terms}"
    for number, node in enumerate(nodes, 1):
        emitter.write(node)
        report(f"quantizing, {kind}", number, len(nodes))
    made, arrays = emitter.finish()
    check(made)
    quantized = Quantized(made, arrays, {kind: emitter.output_error()}, kind)
    return quantized, emitter.error_in_spread()


def _require_trained(graph: Graph, bits: int | None) -> None:
    """DataError unless `bits`, where given, are those that the network was trained for."""
    trained = trained_bits(graph)
    if bits is not None and trained and trained != (bits,):
        raise DataError(
            f"bits={bits}, but this network was trained for {', '.join(map(str, trained))} bits: "
            f"leave bits out, or train it by ag.quantization_aware(model, x, bits={bits})"
        )


def _require_known(graph: Graph) -> None:
    """UnsupportedError, naming all of it, for what has no integer form."""
    IntegerEmitter.require_known(graph.nodes)
    IntegerEmitter.require_centers(graph.nodes)
    reached = walk.downstream(graph.nodes, graph.inputs)
    for v in graph.outputs:
        if v not in reached:
            raise UnsupportedError(f"output {v} does not depend on the image: it is no integer")


def _require_network(graph: Graph) -> Graph:
    if len(graph.inputs) > 1:
        raise UnsupportedError(
            f'graph "{graph.name}" has {len(graph.inputs)} inputs, '
            f"{', '.join(map(str, graph.inputs))}: quantize takes one, of which the calibration "
            "data are samples; keep this network in f32, or join its inputs into one"
        )
    if graph.updates or len(graph.inputs) != 1 or not graph.outputs:
        raise GraphError(
            f'graph "{graph.name}" is no network: quantize takes one input, at least one output '
            "and no updates, as model.graph(training=False) gives"
        )
    (x,) = graph.inputs
    if x.type.dtype != f32 or not x.type.is_open or x.type.rank < 2:
        raise GraphError(
            f"input {x} is {x.type}: quantize takes f32 samples with an open batch N and channels"
        )
    return graph


def _logits(graph: Graph) -> Graph:
    """The graph without softmax before outputs and argmax: the largest logit is where it was."""
    producers = graph.producers()

    def logits(v: Value) -> Value:
        node = producers.get(v)
        return node.inputs[0] if node and isinstance(node.op, Softmax) else v

    def of_logits(node: Node) -> Node:
        last = isinstance(node.op, Argmax) and node.op.axis == node.inputs[0].type.rank - 1
        return replace(node, inputs=(logits(node.inputs[0]),)) if last else node

    outputs = tuple(logits(v) for v in graph.outputs)
    nodes = tuple(walk.upstream([of_logits(node) for node in graph.nodes], outputs))
    read = {*outputs, *(v for node in nodes for v in node.inputs)}
    parameters = tuple(p for p in graph.parameters if p in read)
    return Graph(graph.name, graph.inputs, parameters, nodes, outputs)
