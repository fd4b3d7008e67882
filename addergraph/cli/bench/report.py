"""What `bench --layers` found, as text, JSON and a roofline plot."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...diagnostics import pictures
from ...files.storage import atomic_write
from ...tables import Table
from .graphs import KINDS
from .timing import Layer, Timing

WORDS = ("layer", "kernel", "best convolution")  # the columns that hold no numbers
BYTE_PEAKS = "u8 distances; in sparse kernels u8 minima"
PEAKS = {"f32": "integer min, add", "u8": BYTE_PEAKS, "u6": BYTE_PEAKS}


@dataclass(frozen=True)
class Row:
    """One layer, batch and kind (`bench_graphs.KINDS`).

    kernel    its function; sparse: whether it leaves out taps
    terms     of the layer; executed: those that the kernel computes
    nbytes    input, packed filter and output, each once
    peak      G terms/s of all threads in registers, measured between the layer's runs, of what the
              kernels execute
    """

    layer: Layer
    batch: int
    kind: str
    kernel: str
    sparse: bool
    timing: Timing
    terms: int
    executed: int
    nbytes: int
    peak: float

    @property
    def rate(self) -> float:
        """G terms/s of the layer."""
        return self.terms / self.timing.best / 1e9

    @property
    def executed_rate(self) -> float:
        return self.executed / self.timing.best / 1e9

    @property
    def share(self) -> float:
        """Of the peak, counting executed terms only."""
        return self.executed_rate / self.peak

    @property
    def plausible(self) -> bool:
        return 0 < self.share <= 1


@dataclass(frozen=True)
class Report:
    """One run.

    dtype    of the operands
    threads  of each call
    product  the peak of multiply-adds of f32, in G terms/s of all threads
    filters  the model that the filters are of; nothing where they are drawn
    notes    what else is to be said
    """

    target: str
    dtype: str
    threads: int
    machine: str
    product: float
    rows: tuple[Row, ...]
    filters: str = ""
    notes: Sequence[str] = ()

    @property
    def plausible(self) -> bool:
        return all(row.plausible for row in self.rows)

    @property
    def setting(self) -> str:
        """What tells one run's tables from another's."""
        threads = "one thread" if self.threads == 1 else f"{self.threads} threads"
        of_model = f", filters of {self.filters}" if self.filters else ""
        return f"{self.dtype}, {self.target}, {threads}{of_model}"

    def text(self) -> str:
        lines = [f"{self.machine}; {time.strftime('%Y-%m-%d')}", *self.facts()]
        for title, table, summary in self.tables():
            lines += ["", title, *table.lines()]
            lines += summary
        if not self.plausible:
            lines += ["", "FAILED: a share of the peak is not between 0 and 1; measure again"]
        return "\n".join(lines) + "\n"

    def facts(self) -> list[str]:
        """What holds for all tables."""
        peaks = [row.peak for row in self.rows]
        return [
            f"{self.setting}; peak {min(peaks):.1f} to {max(peaks):.1f} G terms/s "
            f"({PEAKS[self.dtype]}), {self.product:.1f} (multiply-add of f32).",
            "A rate counts all terms of the layer, a share of the peak those executed; times are "
            "the best, in slopes over several layers.",
            *self.notes,
        ]

    def tables(self) -> Iterator[tuple[str, Table, list[str]]]:
        """Title, table, and the lines under it, of each batch and kind."""
        for batch in sorted({row.batch for row in self.rows}):
            for kind, what in KINDS[self.dtype].items():
                rows = [r for r in self.rows if (r.batch, r.kind) == (batch, kind)]
                if rows:
                    table = Table(self.heads(), [self.cells(row) for row in rows], WORDS)
                    yield f"batch {batch}, {what}", table, self.summary(rows)

    def heads(self) -> list[str]:
        return ["layer", "kernel", "us", "G terms/s", "executed", "of peak", "kB moved"]

    def cells(self, row: Row) -> list[str]:
        return [
            str(row.layer), row.kernel, f"{1e6 * row.timing.best:.1f}", f"{row.rate:.1f}",
            f"{row.executed_rate:.1f}", f"{row.share:.2f}", f"{row.nbytes / 1e3:.0f}",
        ]  # fmt: skip

    def summary(self, rows: Sequence[Row]) -> list[str]:
        shares = [row.share for row in rows]
        line = (
            f"of peak: {geometric_mean(shares):.3f} in the geometric mean, {min(shares):.3f} at "
            "least"
        )
        wide = [r.share for r in rows if min(r.layer.inputs, r.layer.outputs) >= 64]
        if wide:
            line += f", {min(wide):.3f} where inputs and outputs are 64 or more"
        return [line]

    def setup(self) -> dict[str, object]:
        """What holds for all rows, for `write_json`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rows"}

    def numbers(self, row: Row) -> dict[str, object]:
        """All that was measured of a layer, for `write_json`."""
        return {
            **asdict(row), "g_terms_per_second": row.rate, "share_of_peak": row.share,
        }  # fmt: skip


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; of none: 1."""
    if min(values, default=1.0) <= 0:  # a slope that the machine's noise turned around
        return 0.0
    return math.exp(sum(map(math.log, values)) / max(1, len(values)))


def write_json(report: Report, file: str) -> None:
    """Everything measured; seconds, bytes, G terms/s. StorageError where it cannot be written."""
    rows = [report.numbers(row) for row in report.rows]
    everything = {**report.setup(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
    atomic_write(file, f"{json.dumps(everything, indent=1)}\n".encode())


def write_plot(report: Report, file: str, bandwidths: Mapping[str, float]) -> None:
    """The roofline: executed G terms/s over executed terms per byte moved, and for sparse kernels
    the layer's own terms as well. UnsupportedError without matplotlib.

    bandwidths  measured GB/s by the name of the memory
    """
    figure = pictures.new_figure(9, 6)
    from matplotlib import ticker

    axes = figure.subplots()
    networks = dict.fromkeys(row.layer.network for row in report.rows)
    _draw_roof(axes, report, bandwidths)
    _draw_rows(axes, report)
    axes.set(
        xscale="log", yscale="log", xlabel="executed terms per byte moved", ylabel="G terms/s",
        title=f"Adder layers of {report.filters or ' and '.join(networks)}, "
        f"{report.setting}\n{report.machine}",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(which="both", alpha=0.2)
    axes.legend(loc="lower right", fontsize="small")
    pictures.save(figure, file)


def _draw_roof(axes: Any, report: Report, bandwidths: Mapping[str, float]) -> None:
    peak = max(row.peak for row in report.rows)
    densities = [row.executed / row.nbytes for row in report.rows]
    low, high = min(densities) / 4, max(densities) * 2
    for (where, bandwidth), style in zip(bandwidths.items(), ("-", "--", ":"), strict=False):
        ends = [low, min(high, peak / bandwidth)]
        if ends[0] < ends[1]:
            label = f"{where}, {bandwidth:.0f} GB/s"
            axes.plot(ends, [bandwidth * x for x in ends], "k", ls=style, lw=1, label=label)
    label = f"peak, {peak:.0f} G terms/s"
    axes.plot([low, high], [peak] * 2, "r", lw=1.2, label=label)


def _draw_rows(axes: Any, report: Report) -> None:
    for batch, marker in zip(sorted({r.batch for r in report.rows}), "os^v", strict=False):
        for sparse, color in ((False, "tab:blue"), (True, "tab:orange")):
            rows = [r for r in report.rows if (r.batch, r.sparse) == (batch, sparse)]
            if not rows:
                continue
            x = [r.executed / r.nbytes for r in rows]
            label = f"{'sparse' if sparse else 'dense'}, batch {batch}"
            axes.scatter(
                x, [r.executed_rate for r in rows], marker=marker, c=color, s=26, label=label
            )
            if sparse:
                axes.scatter(
                    x, [r.rate for r in rows], marker=marker, facecolors="none",
                    edgecolors=color, s=26, label=f"{label}: terms of the layer",
                )  # fmt: skip
