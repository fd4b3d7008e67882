"""The pictures of `addergraph plot` and `addergraph diagnose`; each returns a matplotlib figure.

`pictures.save(figure, path)` writes one. `of` says in the title what the numbers are of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..ir import Array
from ..tables import printable, shortened
from ..verification.layers import LayerReport
from .activations import Activation
from .distributions import LAPLACE, Shape
from .gradients import GradientHistory
from .pictures import BLACK, BLUE, CYCLE, ORANGE, SKY, VERMILION, drawable, new_figure, panels

SMALL = 8  # points
FEW = 3  # runs whose legend has room beside their curves
_TITLE = 90  # columns of its second line
LEAST = 1e-37  # of the errors that a scale has room for: below are subnormals
_PANELS = (  # of the training curves: the column, that of the validation, the axis
    ("loss", "val_loss", "mean loss of a sample"),
    ("accuracy", "val_accuracy", "accuracy (share of samples)"),
    ("learning_rate", "", "learning rate"),
    ("images_per_second", "", "speed (images/s)"),
)
_BANDS = ((0, 6, 0.18, "1 to 99 %"), (1, 5, 0.30, "10 to 90 %"), (2, 4, 0.5, "25 to 75 %"))


def plot_curves(runs: Mapping[str, Mapping[str, Sequence[float] | Array]]) -> Any:
    """Loss, accuracy, and where logged learning rate and speed, over epochs; a colour a run.

    `runs`: the columns of `read_log`, or the `history` of a `History`, by the name of the run.
    Training is a solid line, validation a dashed one. DataError without a column to draw.
    """
    shown = [p for p in _PANELS if any({p[0], p[1]} & columns.keys() for columns in runs.values())]
    if not shown:
        known = ", ".join(name for panel in _PANELS for name in panel[:2] if name)
        raise DataError(f"there is nothing to draw: expected some of the columns {known}")
    of = ", ".join(runs) if len(runs) <= FEW else f"{len(runs)} runs"
    figure, axes = panels(len(shown), _title("Training", of), "epoch", "")
    below = 0.4 if len(runs) <= FEW else 0.4 + 0.25 * len(runs)
    figure.set_size_inches(5.2 * min(2, len(shown)), 3.6 * ((len(shown) + 1) // 2) + below)
    for (training, validation, label), axis in zip(shown, axes, strict=True):
        for (run, columns), color in zip(runs.items(), _cycle(len(runs)), strict=True):
            whats = (", training", ", validation") if validation else ("", "")
            for name, what, style in zip((training, validation), whats, ("-", "--"), strict=True):
                if name in columns:
                    _curve(axis, columns, name, drawable(run) + what, color=color, linestyle=style)
        axis.set_ylabel(label, fontsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if training == "loss":
            axis.set_yscale("log")
        if training == "images_per_second":
            axis.set_ylim(0, 1.05 * axis.get_ylim()[1])  # from 0 on, its own margin is nothing
        if training in ("loss", "accuracy") and len(runs) <= FEW:
            axis.legend(fontsize=SMALL)
    if len(runs) > FEW:
        _shared_legend(figure)
    return figure


def plot_gradients(history: GradientHistory, of: str = "") -> Any:
    """The values of each layer's gradient over the steps: bands between quantiles, the median.

    Every layer has its own scale; a flat line at 0 is a gradient that has vanished.
    """
    _require_steps(history)
    figure, axes = panels(
        len(history.names), _title("Gradient values of each layer's filter over time", of),
        "training step", "loss / unit of weight",
    )  # fmt: skip
    for name, axis in zip(history.names, axes, strict=True):
        quantiles = np.asarray(history.quantiles[name])
        for low, high, alpha, label in _BANDS:
            axis.fill_between(
                history.steps, quantiles[:, low], quantiles[:, high], color=BLUE, alpha=alpha,
                linewidth=0, label=label,
            )  # fmt: skip
        axis.plot(history.steps, quantiles[:, 3], color=BLACK, linewidth=1, label="median")
        axis.set_title(name, fontsize=9)
        if any(history.rms[name]):
            _scientific(axis)
        else:
            _note(axis, "0 at every recorded step")
    _shared_legend(figure)
    return figure


def plot_gradient_norms(history: GradientHistory, of: str = "") -> Any:
    """The root mean square of each layer's gradient over the steps, on one logarithmic scale.

    Layers whose gradient is 0 cannot stand on it; they are named below.
    """
    from matplotlib import colormaps

    _require_steps(history)
    rms = {name: np.asarray(history.rms[name]) for name in history.names}
    lasting = {name: values for name, values in rms.items() if values.any()}
    figure = new_figure(8, max(4.2, 0.2 * len(lasting) + 1))
    axis = figure.subplots()
    colors = colormaps["cividis"](np.linspace(0, 0.95, max(1, len(lasting))))
    for number, (name, values) in enumerate(lasting.items()):
        style = ("-", "--", ":", "-.")[number % 4]
        drawn = np.where(values > 0, values, np.nan)
        axis.plot(history.steps, drawn, style, color=colors[number], linewidth=1.6, label=name)
    axis.set_title(_title("Size of each layer's gradient, first layer darkest", of), fontsize=11)
    axis.set(xlabel="training step", ylabel="root mean square (loss / unit of weight)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25, which="both", linewidth=0.6)
    gone = [name for name in rms if name not in lasting]
    if gone:
        figure.supxlabel(
            f"0 at every recorded step: {', '.join(gone)}", fontsize=9, color=VERMILION
        )
    if lasting:
        axis.set_yscale("log")
        axis.legend(fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axis.set_xlim(history.steps[0], history.steps[-1] + 1)
        _note(axis, "no layer has a gradient")
    return figure


def plot_filters(filters: Mapping[str, Shape], kinds: Mapping[str, str], of: str = "") -> Any:
    """Histograms of the filters' weights with the fitted Laplace and normal densities."""
    figure, axes = panels(
        len(filters), _title("Weights of each filter, and the densities fitted to them", of),
        "weight", "density (1 / unit of weight)",
    )  # fmt: skip
    for (name, shape), axis in zip(filters.items(), axes, strict=True):
        _histogram(axis, shape, BLUE, "weights")
        x = np.linspace(shape.edges[0], shape.edges[-1], 301)
        for fit in shape.fits:
            color, style = (VERMILION, "-") if fit.density == LAPLACE else (BLACK, "--")
            axis.plot(x, fit.at(x), style, color=color, linewidth=1.4, label=fit.density)
        axis.set_title(f"{name} ({kinds[name]})\n{_verdict(shape)}", fontsize=9)
    _shared_legend(figure)
    return figure


def plot_activations(found: Sequence[Activation], of: str = "") -> Any:
    """Histograms of each layer's results; of a relu with the share of zeros and dead channels."""
    figure, axes = panels(
        len(found), _title("Results of each layer: filters blue, relus orange", of),
        "value", "density (1 / unit of value)",
    )  # fmt: skip
    for one, axis in zip(found, axes, strict=True):
        _histogram(axis, one.shape, ORANGE if one.dead is not None else BLUE, "")
        title = f"{one.node} ({one.op})"
        if one.dead is not None:
            title += f"\n{one.shape.zeros:.0%} zeros, {one.dead:.0%} of channels dead"
        axis.set_title(title, fontsize=9)
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter("")
    return figure


def plot_dead(found: Iterable[Activation], of: str = "") -> Any:
    """The share of dead channels and of zeros of each relu, in per cent. DataError without one."""
    relus = [one for one in found if one.dead is not None]
    if not relus:
        raise DataError("the network has no relu, so no share of dead ones")
    figure = new_figure(7, 0.34 * len(relus) + 1.6)
    axis = figure.subplots()
    places = np.arange(len(relus))
    zeros = [100 * one.shape.zeros for one in relus]
    dead = [100 * (one.dead or 0.0) for one in relus]
    shares = ((-0.2, zeros, BLUE, "zeros among its results"),
              (0.2, dead, VERMILION, "channels that are always zero"))  # fmt: skip
    for offset, values, color, label in shares:
        bars = axis.barh(places + offset, values, 0.38, color=color, label=label)
        axis.bar_label(bars, fmt="%.0f %%", fontsize=SMALL, padding=2)
    axis.set_yticks(places, [one.node for one in relus], fontsize=SMALL)
    axis.set(xlabel="share (%)", xlim=(0, 108), xticks=range(0, 101, 20))
    axis.set_ylim(len(relus) - 0.5, -0.5)  # the first one on top
    axis.set_title(_title("Zeros behind each relu, first layer on top", of), fontsize=11)
    axis.grid(alpha=0.25, axis="x", linewidth=0.6)
    _shared_legend(figure)
    return figure


def plot_layer_errors(report: LayerReport) -> Any:
    """The largest error of each layer beside its bound, on one logarithmic scale.

    Errors of 0 (and subnormal ones) stand on the left edge, those that are not finite on the right
    one; those of a wrong layer are red. DataError without a layer.
    """
    if not report.rows:
        raise DataError(f'graph "{report.graph}" has no layers to draw')
    figure = new_figure(8, 0.24 * len(report.rows) + 1.8)
    axis = figure.subplots()
    places = np.arange(len(report.rows))
    own = np.array([row.own.error for row in report.rows])
    bounds = np.array([row.own.allowed for row in report.rows])
    network = np.array([row.network.error for row in report.rows])
    wrong = np.array([not row.ok for row in report.rows])
    low, high = _decades(np.concatenate([own, bounds, network]))
    axis.hlines(places, low, np.clip(bounds, low, high), color=SKY, linewidth=5, alpha=0.5,
                label="bound of the layer")  # fmt: skip
    for values, chosen, marker, color, label in (
        (network, np.ones_like(wrong), "|", BLACK, "error in the network"),
        (own, ~wrong, "o", BLUE, "error on its own inputs"),
        (own, wrong, "X", VERMILION, "error beyond the bound"),
    ):
        if chosen.any():
            shown = np.clip(values, low, high)
            axis.plot(
                shown[chosen],
                places[chosen],
                marker,
                color=color,
                label=label,
                clip_on=False,
                markersize=13 if marker == "|" else 6,
            )
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_yticks(places, [row.name for row in report.rows], fontsize=SMALL)
    axis.set_ylim(len(places) - 0.4, -0.6)  # the first layer on top
    axis.set_xlabel(
        "largest absolute error (unit of the layer's results; left edge: 0)", fontsize=9
    )
    axis.set_title(f"Native against reference, layers of {report.graph}", fontsize=11)
    axis.grid(alpha=0.25, axis="x", linewidth=0.6)
    _shared_legend(figure)
    return figure


# --- parts ----------------------------------------------------------------------------------------


def _title(what: str, of: str) -> str:
    """What is shown, and of what."""
    return f"{what}\n{drawable(shortened(printable(of), _TITLE))}" if of else what


def _decades(values: Array) -> tuple[float, float]:
    """Ends of a logarithmic scale with room for all finite values above 0.

    Bounds of results that are all zero are subnormal, and would take the whole width.
    """
    shown = values[np.isfinite(values) & (values > LEAST)]
    if not shown.size:
        return 1e-8, 1.0
    return 10.0 ** (np.floor(np.log10(shown.min())) - 1), 10.0 ** (
        np.ceil(np.log10(shown.max())) + 1
    )


def _cycle(count: int) -> list[str]:
    return [CYCLE[i % len(CYCLE)] for i in range(count)]


def _curve(axis: Any, columns: Mapping[str, Any], name: str, label: str, **style: Any) -> None:
    values = np.asarray(columns[name], np.float64)
    epochs = np.asarray(columns.get("epoch", np.arange(1, len(values) + 1)))
    if len(values) == 1:  # a line of one point shows nothing: a disk, for validation a ring
        style |= {"marker": "o", "fillstyle": "full" if style["linestyle"] == "-" else "none"}
    axis.plot(epochs, values, linewidth=1.5, label=label, **style)


def _histogram(axis: Any, shape: Shape, color: str, label: str) -> None:
    axis.stairs(shape.density, shape.edges, fill=True, color=color, alpha=0.45, label=label)


def _verdict(shape: Shape) -> str:
    better = shape.better
    if better is None:
        return "all the same"
    return f"{better.density} fits better by {abs(shape.advantage):.3f} nats a weight"


def _scientific(axis: Any) -> None:
    """Tick labels such as 2 with 1e-4 above the axis."""
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axis.yaxis.get_offset_text().set_fontsize(SMALL)


def _note(axis: Any, text: str) -> None:
    """A word in the middle of axes that have no scale."""
    axis.set_yticks([])
    axis.text(0.5, 0.6, text, transform=axis.transAxes, ha="center", fontsize=10, color=VERMILION)


def _shared_legend(figure: Any) -> None:
    """One legend below all panels, of all that is drawn in any of them."""
    found: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    figure.legend(
        found.values(), found.keys(), loc="outside lower center",
        ncols=len(found) if len(found) <= 2 * FEW else 2, fontsize=9,
    )  # fmt: skip


def _require_steps(history: GradientHistory) -> None:
    if not history.steps:
        raise DataError("no gradients are recorded: call history.record(step, probe(x, y)) first")
