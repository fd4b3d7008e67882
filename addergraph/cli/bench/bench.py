"""`addergraph bench`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from ... import compiler
from ...errors import DataError
from ...ir import CONTRACTION, Array, Graph
from ...ir.interpreter import run_reference
from ...ir.types import TensorType, f32
from ...settings import setting
from ...tables import Table
from ...training.step import thread_count
from .. import options as shared
from ..commands.source import open_source
from .layers import LayerBench, bench_layers
from .own import operands
from .tune import tune_layers, tune_network

SMALL = "small-adder"
OF_LAYERS = ("dtype", "only", "json", "plot")  # options of --layers


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The options of the command.

    batch    None: 64 images a call, or one for a profile
    threads  0: as many as there are processors, as None of a network
    """

    file: str | None = setting(None, place=True)
    weights: str | None = setting(
        None,
        "Weights for the parameters of a .ag file, by name; with --layers, the model whose adder "
        "layers and filters are timed.",
        metavar="FILE",
        unset="those in the model file; of --layers: drawn",
    )
    batch: int | None = setting(
        None, "Images of a call.", kind=int, least=1, unset="64; of a profile: 1"
    )
    threads: int | None = setting(
        None,
        "Threads of a call.",
        kind=shared.Threads,
        metavar="N|all",
        unset="1 and all; of --layers: 1",
    )
    seconds: float = setting(2.0, "How long to time each program.", least=0)
    target: str = shared.target()
    profile: bool = setting(False, "Time each kernel inside the network, and alone.")
    tune: float | None = setting(
        None,
        "Search for the fastest kernels; compare with those that are chosen without.",
        kind=float,
        least=0,
        metavar="SECONDS",
        unset="no search",
    )
    layers: bool = setting(False, "Time the layers of ResNet-20 and ResNet-18.")
    dtype: str | None = setting(
        None,
        "Operands of the layers; u6: bytes of 6 bits.",
        choices=("f32", "u8", "u6"),
        unset="f32",
    )
    only: str | None = setting(
        None,
        "The layers that hold this, as 'ResNet-20' or '64x8'.",
        metavar="TEXT",
        unset="all",
    )
    json: str | None = setting(
        None, "Write what --layers measures.", metavar="FILE.json", unset="print only"
    )
    plot: str | None = setting(
        None,
        "Draw the layers under the machine's roofline.",
        metavar="FILE.png",
        unset="no picture",
    )


@dataclass(frozen=True)
class _Row:
    """Seconds of one call: the median and the best."""

    what: str
    threads: int
    median: float
    best: float


def run(options: Bench) -> bool:
    """The command; False where what it measured cannot be. DataError for options that do not go
    together."""
    file = options.file or SMALL
    if options.profile and options.tune is not None:
        raise DataError("--profile and --tune are two things: ask for one of them")
    if options.layers:
        return _run_layers(options)
    given = [f"--{name}" for name in OF_LAYERS if getattr(options, name) is not None]
    if given:
        verb = "goes" if len(given) == 1 else "go"
        raise DataError(f"{', '.join(given)} {verb} with --layers only")
    if options.tune is not None:
        _run_tune(file, options, options.tune)
    else:
        (bench_profile if options.profile else bench)(file, options)
    return True


def _run_layers(options: Bench) -> bool:
    if options.profile or options.file is not None:
        raise DataError(
            "--layers times layers of its own, or with --weights MODEL those of a model: leave out "
            "FILE and --profile"
        )
    if options.batch is not None:
        raise DataError("--layers times batches of 1 and 16: leave out --batch")
    dtype, own = operands(options.dtype, options.weights)
    threads = 1 if options.threads is None else thread_count(options.threads or None)
    chosen = LayerBench(
        target=options.target, dtype=dtype, threads=threads, seconds=options.seconds,
        only=options.only or "", json=options.json, plot=options.plot, own=own,
    )  # fmt: skip
    if options.tune is None:
        return bench_layers(chosen)
    if chosen.threads > 1 or chosen.plot is not None:
        raise DataError("--tune searches on one thread, and draws nothing: leave out --plot")
    tune_layers(chosen, options.tune)
    return True


def _run_tune(file: str, options: Bench, seconds: float) -> None:
    if options.threads not in (None, 1):
        raise DataError("--tune searches on one thread: leave out --threads")
    graph, numbers = _opened(file, options.weights)
    tune_network(graph, numbers, _batch_of(graph, options), options.target, seconds)


def _batch_of(graph: Graph, options: Bench) -> int | None:
    """Of a profile or a search: one where the batch cannot stay open."""
    batch = options.batch if graph.is_open else None
    return batch or 1 if graph.is_open and not graph.per_sample else batch


def bench(file: str, options: Bench) -> None:
    """Prints what an image takes in NumPy and natively, beside the measured peak."""
    graph, numbers = _opened(file, options.weights)
    images = (options.batch or 64) if graph.is_open else 1
    bound = graph.bind(images) if graph.is_open else graph
    rng = np.random.default_rng(0)
    arrays = [_drawn(rng, v.type) for v in bound.inputs]
    most = thread_count(options.threads or None)
    programs = [
        compiler.compile(graph, weights=numbers, target=options.target, threads=threads)
        for threads in sorted({1, most})
    ]
    rows = [_timed("NumPy reference", 1, lambda: run_reference(graph, arrays, numbers), 0.0)]
    # The machine may be shared: the peak is measured on both sides of what is compared with it.
    peak = compiler.measure_peak("product", options.target)
    for program in programs:
        what = f"native, {program.threads} thread{'s' if program.threads > 1 else ''}"
        call = lambda program=program: program.run(arrays)  # noqa: E731
        rows.append(_timed(what, program.threads, call, options.seconds))
    peak = max(peak, compiler.measure_peak("product", options.target))
    target = programs[0].built.lowered.target.name
    print(
        f"{graph.name}, batch {images}, {target} on a machine with {os.cpu_count()} processors; "
        f"multiply-add peak {peak:.1f} G terms/s a core"
    )
    _print_table(rows, images, _terms(bound) / images, peak)


def bench_profile(file: str, options: Bench) -> None:
    """Prints what each kernel takes inside the network, beside its time alone."""
    graph, numbers = _opened(file, options.weights)
    batch = _batch_of(graph, options)
    found = compiler.profile(
        graph, numbers, batch=batch, target=options.target, seconds=options.seconds
    )
    inside, alone = (sum(getattr(k, what) for k in found.kernels) for what in ("inside", "alone"))
    images = f"batch {batch}" if batch else "one image"
    if found.samples is not None:
        images = f"a block of {found.samples} of {images}"
    print(f"{graph.name}, {images}, one thread; a kernel's best time, in the network and alone")
    rows = []
    for k in found.kernels:
        share, rate = k.inside / inside, f"{k.terms / k.inside / 1e9:.2f}" if k.terms else ""
        rows.append([
            k.node, k.result, k.symbol, f"{1e6 * k.inside:.2f}", f"{100 * share:.1f} %",
            f"{1e6 * k.alone:.2f}", rate,
        ])  # fmt: skip
    heads = ["node", "result", "kernel", "us", "share", "alone us", "G terms/s"]
    print("\n".join(Table(heads, rows, ("node", "result", "kernel")).lines()))
    print(
        f"sum {1e6 * inside:.2f} us in the network, {1e6 * alone:.2f} us alone "
        f"({inside / alone:.2f} times); the fastest whole run took {1e6 * found.seconds:.2f} us"
    )


def _opened(file: str, weights: str | None) -> tuple[Graph, Mapping[str, Array]]:
    """The network and its numbers, drawn where there are none."""
    source = open_source(file, weights)
    if source.graph.updates:
        raise DataError(f'graph "{source.graph.name}" updates parameters; bench its forward graph')
    numbers, note = source.some_weights()
    if note:
        print(note)
    return source.graph, numbers


def _drawn(rng: np.random.Generator, type: TensorType) -> Array:
    drawn = rng.normal(size=type.sizes) if type.dtype == f32 else rng.integers(0, 2, type.sizes)
    return drawn.astype(type.dtype.numpy)


def _timed(what: str, threads: int, call: Callable[[], object], seconds: float) -> _Row:
    """Calls for `seconds`, three times at least, after one call to warm up."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return _Row(what, threads, median(times), min(times))


def _terms(graph: Graph) -> int:
    """The |x - f| and multiply-adds of a bound graph's contractions: two operations each."""
    costs = [
        node.op.cost([v.type for v in node.inputs])
        for node in graph.nodes
        if node.op.kind == CONTRACTION
    ]
    return sum(c.additions + c.multiplications for c in costs) // 2


def _print_table(rows: list[_Row], images: int, terms: float, peak: float) -> None:
    cells = []
    for row in rows:
        middle, best = 1e6 * row.median / images, 1e6 * row.best / images
        rate = terms / best / 1e3
        cells.append([
            row.what, f"{middle:,.1f}", f"{best:,.1f}", f"{rate:.2f}",
            f"{100 * rate / (peak * row.threads):.1f} %", f"{rows[0].best / row.best:,.1f}x",
        ])  # fmt: skip
    heads = ["an image", "median us", "best us", "G terms/s", "of peak", "speed-up"]
    print("\n".join(Table(heads, cells, ("an image",)).lines()))
    print(
        f"{terms / 1e6:.3f} million terms an image, |x - f| or multiply-add; rate, share and "
        "speed-up are of the best time"
    )
