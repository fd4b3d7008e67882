"""Graphs out of graphs: gradients, training steps, the pipeline, quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import border
from ..errors import GraphError
from ..ir import Array, Graph, Node, Value
from ..ir.attributes import FULL_PRECISION
from ..ir.network import Network, graph_and_weights, graph_of, require_weights

if TYPE_CHECKING:
    from ..ops.pointwise.fake_quantize import Rounding
    from ..passes.clip_relus import Peak as Peak  # models name its type
    from ..passes.pipeline import Observer
    from ..passes.quantize.calibrate import Engine, Report
    from ..passes.replicas import Announced as Announced  # training names these types
    from ..passes.replicas import Segment as Segment
    from ..passes.train_step import Halves as Halves
    from ..passes.train_step import Loss, Optimizer
    from ..quantization import QuantizationSettings, Quantized
    from ..report.findings import Finding


def grad(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The gradient graph: `graph`'s inputs and an upstream gradient per output -> those of `wrt`.

    Adder layers use the paper's gradients (full precision for the filter, HardTanh for the input).
    """
    from ..passes.autodiff import grad as differentiate

    return differentiate(graph_of(graph), border.plain(Sequence[str], "wrt", wrt, GraphError))


def train_step_graph(
    graph: Graph, loss: Loss, optimizer: Optimizer, *, gradient: str = FULL_PRECISION
) -> Graph:
    """One training step as one graph; see `passes/train_step.py`."""
    from ..passes.train_step import train_step

    return train_step(graph, loss, optimizer, gradient=gradient)


def train_halves(
    graph: Graph, loss: Loss, optimizer: Optimizer, *, gradient: str, synchronize: bool
) -> Halves:
    """One training step as two graphs with the gradients between; see `passes/train_step.py`."""
    from ..passes.train_step import halves

    return halves(graph, loss, optimizer, gradient=gradient, synchronize=synchronize)


def announced(graph: Graph, sent: Sequence[Value], bucket: int) -> Announced:
    """`graph` with flags for its outputs; see `passes/replicas.py`."""
    from ..passes.replicas import announced as with_flags
    from .lowering import without_range_warnings

    with without_range_warnings():  # `compile` gives them
        return with_flags(graph, sent, bucket)


def segments(graph: Graph) -> list[Segment]:
    """`graph` cut where replicas exchange values; see `passes/replicas.py`."""
    from ..passes.replicas import segments as cut

    return cut(graph)


def require_statistics(graph: Graph) -> None:
    """ShapeError, naming the layer, where a batch norm would see one value a channel."""
    from ..passes.train_step import require_statistics as require

    require(graph)


def findings(graph: Graph) -> tuple[Finding, ...]:
    """What the ranges pass proves: dead layers, constants. `lints.lint` has all findings."""
    from ..passes.ranges import findings as find

    return find(graph)


def optimize(graph: Graph, observers: Sequence[Observer] = ()) -> Graph:
    """`graph` after the pass pipeline, its batch still as it was."""
    from ..passes.pipeline import run

    return run(graph, observers=observers)


def quantized(
    graph: Graph | Network,
    calibration: object,
    settings: QuantizationSettings,
    engine: Engine,
    *,
    weights: Mapping[str, Array] | None = None,
    levels: Array | None = None,
    report: Report,
) -> Quantized:
    """A trained network as an int8 model; see `passes/quantize/quantize.py`."""
    from ..passes.quantize.quantize import quantize

    graph, weights = graph_and_weights(graph, weights)
    weights = require_weights(graph, weights)
    return quantize(graph, weights, calibration, settings, engine, levels, report)


def roundings(
    graph: Graph,
    weights: Mapping[str, Array],
    calibration: object,
    levels: Array | None,
    engine: Engine,
    *,
    bits: int,
    quantile: float,
) -> Mapping[str, Rounding]:
    """What `quantization_aware_graph` takes, from the ranges of values on calibration data."""
    from ..passes.quantize.quantize import roundings as calibrated

    return calibrated(graph, weights, calibration, bits, quantile, engine, levels)


def quantization_aware_graph(graph: Graph, rounded: Mapping[str, Rounding]) -> Graph:
    """`graph` with the roundings of `rounded`; see `passes/quantize/rounded.py`."""
    from ..passes.quantize.rounded import quantization_aware

    return quantization_aware(graph, rounded)


def relu_peaks(
    graph: Graph,
    weights: Mapping[str, Array],
    relus: Sequence[Node],
    calibration: object,
    engine: Engine,
    *,
    quantile: float,
    report: Report,
) -> Mapping[str, Peak]:
    """What these relus give on calibration data; see `passes/clip_relus.py`."""
    from ..passes.clip_relus import relu_peaks as measured

    return measured(graph, weights, relus, calibration, quantile, engine, report)
