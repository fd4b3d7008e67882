"""`addergraph bench --layers`: the layers of ResNet-20 and ResNet-18 against the machine's peak.

A layer's time is the slope over programs of several (`graphs.py`): a chain of 1 to 8
identical ones where the shape chains; else 1 to 4 of them side by side on one input, whose results
add up, in the same kernels. The slope holds neither the call nor, of f32, the relu that proves the
first input non-negative. Batch 1 on one thread runs a program whose batch is open, everything else
one that is bound. Everything runs on the same processors, as many as there are threads.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import compiler, ops
from ...errors import DataError
from ...ir import Array
from ...ir.trace import trace
from ...ir.types import tensor
from ...stages import is_terminal
from .graphs import (
    BOUNDED,
    BYTES,
    DRAWN_KINDS,
    FEW_BYTES,
    OF_BYTES,
    arranged,
    input_of,
    layers_graph,
    weights_of,
)
from .own import Own
from .report import Report, Row, write_json, write_plot
from .timing import LAYERS, MOST_VISITS, VISITS, Layer, Slope, pinned

BATCHES = (1, 16)


@dataclass(frozen=True)
class LayerBench:
    """The options of `bench --layers`.

    dtype    of the operands: f32, u8, or u6 for bytes of 6 bits
    threads  of a call
    only     leaves out the layers whose text (network and shape) does not hold it
    own      the layers and filters of a model instead; its dtype is `dtype`
    """

    target: str
    dtype: str
    threads: int
    seconds: float
    only: str
    json: str | None
    plot: str | None
    own: Own | None = None

    @property
    def kinds(self) -> Sequence[str]:
        return DRAWN_KINDS[self.dtype] if self.own is None else self.own.kinds

    def filters_of(self, layer: Layer) -> Sequence[Array] | None:
        """Those of the model; None: they are drawn."""
        return None if self.own is None else self.own.filters[layer]


def bench_layers(options: LayerBench) -> bool:
    """Prints the tables and writes the files asked for; False where a share of the peak is above
    1, which no measurement can be. DataError when `only` leaves no layer."""
    chosen = chosen_layers(options.only, options.own)
    with pinned(options.threads):
        report = measure(chosen, BATCHES, options)
    print(report.text(), end="")
    if options.json is not None:
        write_json(report, options.json)
    if options.plot is not None:
        write_plot(report, options.plot, bandwidths())
    return report.plausible


def chosen_layers(only: str, own: Own | None = None) -> list[Layer]:
    """Those that hold the text. DataError when there are none."""
    layers = LAYERS if own is None else tuple(own.filters)
    chosen = [one for one in layers if only in f"{one.network} {one}"]
    if not chosen:
        known = "; ".join(map(str, layers))
        raise DataError(f'no layer holds "{only}"; there are {known}')
    return chosen


def measure(
    chosen: Sequence[Layer],
    batches: Sequence[int],
    options: LayerBench,
    turn: Callable[[Layer, int, float], object] = lambda layer, batch, seconds: None,
) -> Report:
    """The rows of the layers. For each layer all kinds and the peak have several turns, so that all
    of them meet the machine's slow and its fast spells; `turn` is called for a layer, a batch and
    some seconds to time something else in turns with them.
    """
    peak = functools.partial(compiler.measure_peak, target=options.target, threads=options.threads)
    product, rows = peak("product"), []
    for batch in batches:
        for layer in chosen:
            progress(f"batch {batch}, {layer}")
            rows += _rows(layer, batch, options, turn, peak)
    product = max(product, peak("product"))
    progress("")
    return Report(
        target_name(options.target), options.dtype, options.threads, describe_machine(), product,
        tuple(rows), "" if options.own is None else options.own.name,
        [] if options.own is None else options.own.notes(),
    )  # fmt: skip


def _rows(
    layer: Layer,
    batch: int,
    options: LayerBench,
    turn: Callable[[Layer, int, float], object],
    peak: Callable[[str], float],
) -> list[Row]:
    """One layer, all kinds. The slope of the smallest may need more turns than that of others."""
    subjects = [_Subject(layer, batch, kind, options) for kind in options.kinds]
    most = dict.fromkeys((one.form for one in subjects), 0.0)
    rows: list[Row] = []
    for visit in range(1, MOST_VISITS + 1):
        turn(layer, batch, options.seconds / VISITS)
        for one in subjects:
            one.slope.run(options.seconds / VISITS)
        most = {form: max(known, peak(form)) for form, known in most.items()}
        rows = [one.row(most[one.form]) for one in subjects]
        if visit >= VISITS and all(row.plausible for row in rows):
            break
    return rows


class _Subject:
    """A layer of one kind, compiled and ready to be timed."""

    def __init__(self, layer: Layer, batch: int, kind: str, options: LayerBench) -> None:
        self.layer, self.batch, self.kind = layer, batch, kind
        placed, x, programs = arranged(layer, kind), input_of(layer, batch, kind), {}
        self.weights = weights_of(placed, kind, options.filters_of(layer))
        # An open batch shares samples among threads: of one sample, a bound one shares the inside.
        bound = None if batch == options.threads == 1 else batch
        for count in placed.counts:
            graph = layers_graph(placed, count, kind)
            programs[count] = compiler.compile(
                graph, weights={p.name: self.weights[p.name] for p in graph.parameters},
                batch=bound, target=options.target, threads=options.threads, cache=False,
            )  # fmt: skip
        calls = {n: functools.partial(p.run, [x]) for n, p in programs.items()}
        self.slope = Slope(calls, options.threads)
        self.facts = programs[max(programs)].built.facts
        # All layers have the same kernel; the others have no kind.
        self.kernel = next(k for k in self.facts.kernels.values() if k.kind)

    @property
    def form(self) -> str:
        """The peak of what the kernel executes; see `compiler.measure_peak`."""
        if self.kind not in OF_BYTES:
            return "minimum"
        return "minima" if self.kernel.sparse else "distances"

    def row(self, peak: float) -> Row:
        layer, batch = self.layer, self.batch
        packed = max(entry.nbytes for entry in self.facts.weights if entry.node is not None)
        into = 1 if self.kind in OF_BYTES else 4
        out = 1 if self.kind in (BYTES, FEW_BYTES) else 4
        image = into * layer.inputs * layer.size**2 + out * layer.outputs * layer.made**2
        terms = layer.terms(batch)
        filters = [a for a in self.weights.values() if a.ndim == 4]
        return Row(
            layer, batch, self.kind, self.kernel.symbol, self.kernel.sparse, self.slope.timing,
            terms, executed_terms(self.kernel.sparse, layer, terms, filters, self.kind == BOUNDED),
            packed + batch * image, peak,
        )  # fmt: skip


def executed_terms(
    sparse: bool, layer: Layer, terms: int, filters: Sequence[Array], bounded: bool = False
) -> int:
    """The terms that a kernel computes: of the sparse ones, those of taps above zero, where inputs
    are bounded by 1 half of those from 1 on, which have no minimum; of the dense one, all but those
    of kernel rows in the padding, which it leaves out. Idle lanes do not count.
    """
    if not sparse:
        pad = layer.kernel // 2
        first = [row * layer.stride - pad for row in range(layer.made)]
        inside = sum(0 <= top + i < layer.size for top in first for i in range(layer.kernel))
        return round(terms * inside / (layer.made * layer.kernel))
    above = sum(int(np.count_nonzero(f > 0)) for f in filters)
    saturated = sum(int(np.count_nonzero(f >= 1)) for f in filters)
    work = above - saturated / 2 if bounded else above
    return round(terms * work / sum(f.size for f in filters))


def target_name(name: str) -> str:
    """The name of the target that `name` selects."""
    graph = trace(ops.relu, tensor("f32", ("N", 1)))
    return compiler.build(graph, target=name).lowered.target.name


def progress(text: str) -> None:
    """What is being measured, on a terminal."""
    if is_terminal(sys.stderr):
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


# -- the machine -----------------------------------------------------------------------------------


def describe_machine() -> str:
    """The processor as the system names it, with its family and model where there are any, as one
    name may cover several generations; and how many there are."""
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
        pairs = (line.partition(":") for line in first.splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model')})"
    return f"{name}, {os.cpu_count()} processors, {platform.system()}"


def bandwidths(seconds: float = 0.3) -> dict[str, float]:
    """GB/s of copies between buffers of these sizes: bytes read plus bytes written."""
    found = {}
    for where, nbytes in (("L2", 1 << 18), ("L3", 1 << 22), ("memory", 1 << 27)):
        source, into = (np.ones(nbytes, np.uint8) for _ in range(2))
        best, end = 0.0, time.perf_counter() + seconds
        repeats = max(1, (1 << 24) // nbytes)
        while time.perf_counter() < end:
            start = time.perf_counter()
            for _ in range(repeats):
                np.copyto(into, source)
            best = max(best, 2 * nbytes * repeats / (time.perf_counter() - start) / 1e9)
        found[where] = best
    return found
