"""All that `addergraph diagnose` finds of one network on some data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import display
from ..ir import CONTRACTION
from ..ops.pointwise.fake_quantize import unrounded
from ..report.findings import Finding
from ..report.lints import lint
from ..tables import Table
from .activations import Activation, activations, dead_relus
from .distributions import Shape, shape_of
from .gradients import DEFAULT, GradientHistory, Recording, record_gradients, vanished

if TYPE_CHECKING:
    from ..model import Model

_FILTERS = (
    "filter", "op", "weights", "deviation", "zeros", "Laplace\n- normal",
    "gradient\nrms, first", "\nand last",
)  # fmt: skip
_MEANING = (
    "Laplace - normal: log-likelihood of a weight; above 0, the Laplace density fits",
    "better, as in trained adder filters. Gradient: root mean square, in the first",
    "and in the last step.",
)
_RESULTS = ("results of", "op", "mean", "deviation", "zeros", "dead channels")
SAMPLES = 256  # that activations are measured on, at most


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Numbers and findings.

    filters      distribution of each layer's filter, by its parameter's name, in order
    kinds        the op that each filter belongs to
    activations  of the network as it was given
    gradients    while it was trained for some steps
    """

    name: str
    filters: Mapping[str, Shape]
    kinds: Mapping[str, str]
    activations: tuple[Activation, ...]
    gradients: GradientHistory
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        return f'<Diagnosis of "{self.name}": {len(self.findings)} findings>'

    def _repr_html_(self) -> str:
        found = display.text(*(f"warning: {finding}" for finding in self.findings))
        return display.head(self) + "".join(map(display.table, self._tables())) + found

    def _tables(self) -> tuple[Table, Table]:
        filters = [self._filter_row(name, shape) for name, shape in self.filters.items()]
        results = [_activation_row(one) for one in self.activations]
        named = Table(_FILTERS, filters, _FILTERS[:2])
        return named, Table(_RESULTS, results, _RESULTS[:2])

    def text(self) -> str:
        """Tables for the terminal: filters with their gradients, activations, findings."""
        filters, results = self._tables()
        lines = [self.name, *filters.lines(), *_MEANING, "", *results.lines()]
        lines += [f"warning: {finding}" for finding in self.findings]
        return "\n".join(lines)

    def _filter_row(self, name: str, shape: Shape) -> list[str]:
        rms = self.gradients.rms[name]
        return [
            name, self.kinds[name], f"{shape.count:,}", f"{shape.std:.3g}", f"{shape.zeros:.0%}",
            f"{shape.advantage:+.3f}" if shape.fits else "constant", f"{rms[0]:.2e}",
            f"{rms[-1]:.2e}",
        ]  # fmt: skip

    def numbers(self) -> dict[str, Any]:
        """Everything but the histograms, for JSON."""
        history = self.gradients
        return {
            "network": self.name,
            "filters": {
                name: {"op": self.kinds[name], **_numbers(shape)}
                for name, shape in self.filters.items()
            },
            "activations": {
                a.node: {"op": a.op, "dead_channels": a.dead, **_numbers(a.shape)}
                for a in self.activations
            },
            "gradients": {
                "steps": history.steps,
                **{
                    name: {
                        "rms": history.rms[name],
                        "norm": history.norm[name],
                        "zeros": history.zeros[name],
                        "quantiles": [q.tolist() for q in history.quantiles[name]],
                    }
                    for name in history.names
                },
            },
            "findings": [
                {"node": f.node, "message": f.message, "hint": f.hint} for f in self.findings
            ],
        }


def diagnose(model: Model, x: object, y: object, settings: Recording = DEFAULT) -> Diagnosis:
    """Measures `model` as it is, then trains it as `record_gradients` does; its weights are then
    what they were. `x` is as the model takes it.

    Raises as `activations` and `record_gradients` do.
    """
    inputs = model.inputs(x, known=False)
    model.build({name: samples.shape[1:] for name, samples in inputs.items()})
    before = {name: array.copy() for name, array in model.weights.items()}
    graph = model.graph(training=False)
    some = {name: samples[:SAMPLES] for name, samples in inputs.items()}
    found = activations(model, some, threads=settings.threads)
    try:
        history = record_gradients(model, inputs, y, settings)
    finally:
        model.weights = before
    under = unrounded(graph)
    kinds = {
        under.get(v, v).name: node.op.name
        for node in graph.nodes
        if node.op.kind == CONTRACTION
        for v in node.inputs[1:]
    }
    filters = {name: shape_of(before[name], f'filter "{name}"') for name in history.names}
    known = lint(graph)
    nodes = {finding.node for finding in known}
    dead = [finding for finding in dead_relus(found) if finding.node not in nodes]
    findings = (*known, *dead, *vanished(history))
    return Diagnosis(model.name, filters, kinds, found, history, findings)


def _activation_row(one: Activation) -> list[str]:
    shape, dead = one.shape, "" if one.dead is None else f"{one.dead:.0%}"
    return [
        one.node, one.op, f"{shape.mean:.3g}", f"{shape.std:.3g}", f"{shape.zeros:.0%}", dead,
    ]  # fmt: skip


def _numbers(shape: Shape) -> dict[str, Any]:
    return {
        "count": shape.count,
        "mean": shape.mean,
        "std": shape.std,
        "zeros": shape.zeros,
        "fits": {
            fit.density: {
                "location": fit.location,
                "scale": fit.scale,
                "log_likelihood": fit.log_likelihood,
            }
            for fit in shape.fits
        },
    }
