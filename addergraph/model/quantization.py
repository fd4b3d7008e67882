"""From a trained network to integers, and a model that trains for them (docs/quantization.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import compiler
from ..errors import GraphError
from ..ir import Array, Graph
from ..ir.attributes import DEFAULT_BITS
from ..ir.network import Network
from ..quantization import QuantizationSettings, Quantized
from ..settings import like
from ..stages import Stages
from ..training.settings import NATIVE, Fit
from .engines import engine_for
from .model import Model
from .samples import the_only


@dataclass(frozen=True, kw_only=True)
class Quantizing(QuantizationSettings):
    """How a network is quantized, and what computes on the calibration data.

    engine   "native", or "reference": NumPy, slow. NumPy does it, with an EnvironmentWarning, where
             the system runs no native code. The float network then differs by rounding, and what is
             computed of integers not at all
    threads  all processors unless given; the same bits for any number
    verbose  1: a bar on a terminal, elsewhere a line every half minute
    """

    engine: str = like(Fit, "engine", help="Compiled code, or NumPy (slow).")
    threads: int | None = like(Fit, "threads")
    verbose: int = 0


def quantize(
    graph: Graph | Network,
    calibration: object,
    *,
    weights: Mapping[str, Array] | None = None,
    bits: int | None = None,
    requantize: str = "shift",
    terms: int | None = None,
    quantile: float = 0.9997,
    reestimate: bool = True,
    engine: str = NATIVE,
    threads: int | None = None,
    verbose: int = 0,
) -> Quantized:
    """A trained network as an int8 model, from the image to the logits (docs/quantization.md).

    calibration  samples as the model takes them, a few hundred, without labels: images as they are
                 where it has a preprocessing, and then the int8 model takes the same bytes
    weights      the numbers of the graph's parameters; a model brings its own
    the others   as `Quantizing` says, and `QuantizationSettings`
                 (addergraph/quantization/settings.py)

    Raises DataError for settings out of range and for calibration data that are of another shape,
    empty, not finite or all zero; UnsupportedError, naming the node, for an op without an integer
    form; GraphError for an unknown engine. Warns (QuantizationWarning) where the integers answer
    far off: by more than half of how much the float outputs differ between the calibration samples.
    """
    settings = Quantizing(
        bits=bits, requantize=requantize, terms=terms, quantile=quantile, reestimate=reestimate,
        engine=engine, threads=threads, verbose=verbose,
    )  # fmt: skip
    computing = engine_for(settings.engine, settings.threads)
    with Stages(settings.verbose) as report:
        if not isinstance(graph, Model) or weights is not None:
            return compiler.quantized(
                graph, calibration, settings, computing, weights=weights, report=report
            )
        known, entered = graph.preprocessing, entering(graph, calibration)
        levels = None if known is None else known.levels()
        core, weights = graph.graph(training=False), graph.weights
        made = compiler.quantized(
            core, entered, settings, computing, weights=weights, levels=levels, report=report
        )
    return replace(made, preprocessing=known)


def quantization_aware(
    model: Model, calibration: object, *, bits: int = DEFAULT_BITS, quantile: float = 0.9997
) -> Model:
    """A copy of a trained model that rounds where its int8 model will, to be trained on.

    `fit`, `evaluate` and `predict` then see values rounded to so many bits,
    gradients pass straight through the rounding (docs/quantization.md, section 7), and `quantize`
    keeps the scales and zero points.

    calibration  samples as the model takes them, a few hundred, without labels: they fix the
                 scale of each activation
    bits         of activations and filters, 2 to 8; the image has 8
    quantile     share of an activation's values that its range covers; 1 for all of them

    Raises DataError and UnsupportedError as `quantize` does.
    """
    if not isinstance(model, Model):
        raise GraphError(f"expected a model, found {type(model).__name__}")
    known, entered = model.preprocessing, entering(model, calibration)
    levels = None if known is None else known.levels()
    core, weights, computing = model.graph(training=False), model.weights, engine_for(NATIVE, None)
    return model.rounded(
        compiler.roundings(core, weights, entered, levels, computing, bits=bits, quantile=quantile)
    )


def entering(model: Model, calibration: object) -> object:
    """The calibration data as the network takes them; UnsupportedError for several inputs."""
    the_only(model.input_shapes, "input")
    return calibration if model.preprocessing is None else model.entering(calibration)
