"""Upper bounds of activations from calibration data, and the model that has them.

A relu becomes clip(x, 0, c), c the quantile of its results. Behind it a tap f >= c of an adder
layer has min(x, f) = x for every x, as one f <= 0 has min(x, f) = f: a sparse kernel needs no
minimum for either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import border, compiler, display
from ..errors import GraphError, UnsupportedError, some
from ..ir import Graph, Node
from ..ops.pointwise.fake_quantize import stated
from ..quantization import Quantized
from ..settings import like, require_valid, setting
from ..stages import Stages
from ..tables import Table
from ..training.settings import NATIVE, Fit
from .changes import relus_of
from .engines import engine_for
from .model import Model
from .quantization import entering
from .samples import the_only

if TYPE_CHECKING:
    from ..compiler.graphs import Peak

HEADS = ("relu", "bound", "largest", "above")


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """How bounds are found; DataError for a setting out of range.

    quantile  share of a relu's results that its bound covers, above 0; 1 for all of them
    engine    "native", or "reference": NumPy, slow. NumPy does it, with an EnvironmentWarning,
              where the system runs no native code
    threads   all processors unless given; the same bits for any number
    verbose   1: a bar on a terminal, elsewhere a line every half minute
    """

    quantile: float = setting(
        0.9997, "Share of a relu's results that its bound covers.", above=0, most=1
    )
    engine: str = like(Fit, "engine", help="Compiled code, or NumPy (slow).")
    threads: int | None = like(Fit, "threads")
    verbose: int = 0

    def __post_init__(self) -> None:
        require_valid(self)


@dataclass(frozen=True, repr=False)
class ActivationBounds:
    """What `ag.activation_bounds` found, of the relus in the order of the network.

    model     its name
    samples   how many there were
    quantile  the share of the results that a bound covers
    peaks     by the name of a relu's result in the inference graph: its `bound`, the quantile of
              its results, a number of f32; `most`, the largest; `above`, the share of them that is
              above the bound, 0 to 1
    """

    model: str
    samples: int
    quantile: float
    peaks: Mapping[str, Peak]

    def clip(self, model: Model) -> Model:
        """A copy of `model` of which each of these relus is clip(x, 0, bound).

        Weights, preprocessing, names and what is frozen are the model's. The copy is trained,
        saved, quantized and exported as any other; the gradient of clip is that of what comes in
        from 0 to its bound, and 0 elsewhere. Raises what `ag.activation_bounds` does for a model
        that has nothing to bound, GraphError where its relus have other names.
        """
        _require_open(model)
        made = model.bounded({name: peak.bound for name, peak in self.peaks.items()})
        made.graph(training=False)  # it says what does not fit
        return made

    def __repr__(self) -> str:
        return f"<ActivationBounds {self._head()}>"

    def __str__(self) -> str:
        return "\n".join([self._head(), *self._table().lines()])

    def _repr_html_(self) -> str:
        return display.head(self) + display.table(self._table())

    def _head(self) -> str:
        count = f"{len(self.peaks)} relu{'s' * (len(self.peaks) != 1)}"
        return f'of "{self.model}": {count}, quantile {self.quantile:g} of {self.samples:,} samples'

    def _table(self) -> Table:
        rows = [
            (f"%{name}", f"{peak.bound:.4g}", f"{peak.most:.4g}", f"{peak.above:.3%}")
            for name, peak in self.peaks.items()
        ]
        return Table(HEADS, rows, HEADS[:1])


def activation_bounds(
    model: Model,
    x: object,
    *,
    quantile: float = 0.9997,
    engine: str = NATIVE,
    threads: int | None = None,
    verbose: int = 0,
) -> ActivationBounds:
    """The `quantile` of each relu's results on samples `x`: over samples, pixels and channels.
    `activation_bounds(model, x).clip(model)` is the model whose every relu is clip(x, 0, c), c this
    quantile (docs/quantization.md, section 9).

    x           samples as the model takes them, some thousand, without labels: images as they are
                where it has a preprocessing. Memory does not grow with their number, but for the
                samples themselves
    the others  as `Clipping` says (addergraph/model/clipping.py)

    A quantile is that of `np.quantile`, interpolated between two neighbours, and rounded to f32.
    Raises DataError for settings out of range, for samples as `ag.quantize` does, for results that
    are not finite, a relu that is never above 0, and a quantile that is 0; GraphError for a model
    without relus and for one whose relus are bounded; UnsupportedError for several inputs, integer
    models and models that round (`ag.quantization_aware`).
    """
    known = Clipping(quantile=quantile, engine=engine, threads=threads, verbose=verbose)
    relus = _require_open(model)
    computing = engine_for(known.engine, known.threads)
    samples = border.array("calibration", entering(model, x))
    with Stages(known.verbose) as report:
        peaks = compiler.relu_peaks(
            model.graph(training=False), model.weights, relus, samples, computing,
            quantile=known.quantile, report=report,
        )  # fmt: skip
    return ActivationBounds(model.name, len(samples), known.quantile, peaks)


def _require_open(model: object) -> list[Node]:
    """The relus; an error for what has none to bound."""
    if isinstance(model, Quantized):
        raise UnsupportedError(
            "this model is of integers, which their bytes bound: clip the activations of the float "
            "model, then quantize that"
        )
    if not isinstance(model, Model):
        raise GraphError(f"expected a model, found {border.shown(model)}")
    the_only(model.input_shapes, "input")
    graph = model.graph(training=False)
    if stated(graph):
        raise UnsupportedError(
            "this model rounds by scales that were calibrated for its activations: clip those of "
            "the model before, then make it quantization-aware"
        )
    relus = relus_of(graph)
    if relus:
        return relus
    bounded = _bounded(graph)
    if bounded:
        raise GraphError(
            f'"{graph.name}" is bounded already, by {some(bounded)}: there is nothing to do'
        )
    raise GraphError(
        f'"{graph.name}" has no relu: there is no activation to bound (leaky_relu and others are '
        "not bounded)"
    )


def _bounded(graph: Graph) -> list[str]:
    """The nodes that limit what they read from above: clips, and relu6."""
    limits = ((node, getattr(node.op, "hi", math.inf)) for node in graph.nodes)
    return [node.label for node, hi in limits if node.op.rectifies or hi < math.inf]
