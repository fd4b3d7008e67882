"""`addergraph bench --layers`: the layers of ResNet-20 and ResNet-18 against convolutions.

A layer is adder2d, batch norm (folded) and relu, compiled into one kernel. Its time is the slope
over programs of several such layers: a chain of 1 to 8 identical ones where the shape chains; else
1 to 4 of them side by side on one input, whose results add up, in the same kernels. The slope holds
neither the call nor the relu that proves the first input non-negative. Batch 1 runs a program whose
batch is open, batch 16 one that is bound to it. Everything runs on one thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import driver, layers, ops
from ..errors import DataError
from ..ir import Array, Graph
from ..trace import Tensor, trace
from ..types import tensor
from .bench_peers import HELD_TO, Peers
from .bench_report import Report, Row, write_json, write_markdown, write_plot
from .bench_timing import LAYERS, VISITS, Layer, Slope, Timing

BATCHES = (1, 16)
HALF, ALL = "half", "all"  # of the taps are above zero


@dataclass(frozen=True)
class LayerBench:
    """The options of `bench --layers`.

    only     leaves out the layers whose text (network and shape) does not hold it
    """

    target: str
    seconds: float
    peers: bool
    only: str
    json: str | None
    markdown: str | None
    plot: str | None

    @property
    def command(self) -> str:
        """What reproduces the tables."""
        only = f' --only "{self.only}"' if self.only else ""
        target = f"--target {self.target} --seconds {self.seconds:g}"
        return f"taskset -c 1 addergraph bench --layers {target}{only}"


def bench_layers(options: LayerBench) -> bool:
    """Prints the tables and writes the files asked for; False where a share of the peak is above
    1, which no measurement can be. DataError when `only` leaves no layer."""
    chosen = [one for one in LAYERS if options.only in f"{one.network} {one}"]
    if not chosen:
        known = "; ".join(map(str, LAYERS))
        raise DataError(f'no layer holds "{options.only}"; there are {known}')
    report = measure(chosen, BATCHES, options)
    print(report.text(), end="")
    if options.json is not None:
        write_json(report, options.json)
    if options.markdown is not None:
        write_markdown(report, options.markdown, options.command)
    if options.plot is not None:
        write_plot(report, options.plot, bandwidths())
    return report.plausible


def measure(chosen: Sequence[Layer], batches: Sequence[int], options: LayerBench) -> Report:
    """The rows of the layers. For each layer both kinds of filters, the peers and the peak have
    several turns, so that all of them meet the machine's slow and its fast spells."""
    target, machine = _target(options.target), _target("host")
    hold = None if target == machine else HELD_TO.get(target)
    peak = functools.partial(driver.measure_peak, target=options.target)
    product, rows = peak("product"), []
    with contextlib.ExitStack() as stack:
        peers = stack.enter_context(Peers(hold)) if options.peers else None
        versions = peers.versions if peers else []
        for batch in batches:
            for layer in chosen:
                _progress(f"batch {batch}, {layer}")
                subjects = [_Subject(layer, batch, f, options.target) for f in (HALF, ALL)]
                minimum, theirs = 0.0, {}
                for _ in range(VISITS):
                    if peers and versions:
                        theirs = peers.measure(layer, batch, options.seconds / VISITS)
                    for one in subjects:
                        one.slope.run(options.seconds / VISITS)
                    minimum = max(minimum, peak("minimum"))
                rows += [one.row(minimum, theirs) for one in subjects]
    product = max(product, peak("product"))
    _progress("")
    return Report(target, describe_machine(), product, versions, hold, tuple(rows))


class _Subject:
    """A layer with one kind of filters, compiled and ready to be timed."""

    def __init__(self, layer: Layer, batch: int, filters: str, target: str) -> None:
        self.layer, self.batch, self.filters = layer, batch, filters
        self.weights = _weights(layer, filters)
        rng = np.random.default_rng(1)
        x = np.abs(rng.standard_normal((batch, *_image(layer)), np.float32))
        programs = {}
        for count in layer.counts:
            graph = layers_graph(layer, count)
            programs[count] = driver.compile(
                graph, weights={p.name: self.weights[p.name] for p in graph.parameters},
                batch=None if batch == 1 else batch, target=target, cache=False,
            )  # fmt: skip
        self.slope = Slope({n: functools.partial(p.run, [x]) for n, p in programs.items()})
        self.facts = programs[max(programs)].built.facts

    def row(self, peak: float, peers: Mapping[str, Timing]) -> Row:
        layer, batch = self.layer, self.batch
        kernel = next(k for k in self.facts.kernels.values() if k.startswith("adder2d"))
        packed = max(entry.nbytes for entry in self.facts.weights if entry.node is not None)
        images = layer.inputs * layer.size**2 + layer.outputs * layer.made**2
        terms = layer.terms(batch)
        filters = [a for name, a in self.weights.items() if name.endswith(".f")]
        return Row(
            layer, batch, self.filters, kernel, self.slope.timing, terms,
            executed_terms(kernel, layer, terms, filters), packed + 4 * batch * images, peak,
            dict(peers),
        )  # fmt: skip


def executed_terms(kernel: str, layer: Layer, terms: int, filters: Sequence[Array]) -> int:
    """The terms that a kernel computes: of the sparse ones, those of taps above zero; of the dense
    one, all but those of kernel rows in the padding, which it leaves out. Idle lanes do not count.
    """
    if "_sparse_" not in kernel:
        pad = layer.kernel // 2
        first = [row * layer.stride - pad for row in range(layer.made)]
        inside = sum(0 <= top + i < layer.size for top in first for i in range(layer.kernel))
        return round(terms * inside / (layer.made * layer.kernel))
    above = sum(int(np.count_nonzero(f > 0)) for f in filters)
    return round(terms * above / sum(f.size for f in filters))


def layers_graph(layer: Layer, count: int) -> Graph:
    """`count` layers in a chain, or side by side: see the module's docstring."""
    pairs = [
        (
            layers.Adder(
                layer.outputs, kernel_size=layer.kernel, stride=layer.stride,
                padding=layer.padding, name=f"adder{i}",
            ),
            layers.BatchNorm(name=f"bn{i}"),
        )
        for i in range(layer.filters)
    ]  # fmt: skip

    def net(x: Tensor) -> Tensor:
        x = total = ops.relu(x)
        for i in range(count):
            adder, norm = pairs[i % layer.filters]
            y = ops.relu(norm(adder(total if layer.chains else x)))
            total = y if layer.chains or i == 0 else y + total
        return total

    return trace(net, tensor("f32", ("N", *_image(layer))), name="layers")


def _image(layer: Layer) -> tuple[int, int, int]:
    return layer.size, layer.size, layer.inputs


def _weights(layer: Layer, filters: str) -> dict[str, Array]:
    """Filters from N(0,1) or their absolute values; statistics that keep a chain's values near 1.

    A layer returns 1 + (the mean distance of 1 to f) - (the mean distance of x to f), and so comes
    back to 1 from both sides.
    """
    rng = np.random.default_rng(0)
    shape = (layer.kernel, layer.kernel, layer.inputs, layer.outputs)
    distance = 1.167 if filters == HALF else 0.536
    channel = np.ones(layer.outputs, np.float32)
    weights: dict[str, Array] = {}
    for i in range(layer.filters):
        f = rng.standard_normal(shape, np.float32)
        weights[f"adder{i}.f"] = f if filters == HALF else np.abs(f)
        weights[f"bn{i}.gamma"], weights[f"bn{i}.beta"] = channel, channel
        weights[f"bn{i}.mean"] = -distance * layer.window * channel
        weights[f"bn{i}.variance"] = np.float32(layer.window) ** 2 * channel
    return weights


def _target(name: str) -> str:
    """The name of the target that `name` stands for."""
    graph = trace(ops.relu, tensor("f32", ("N", 1)))
    return driver.build(graph, target=name).lowered.target.name


def _progress(text: str) -> None:
    """What is being measured, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


# -- the machine -----------------------------------------------------------------------------------


def describe_machine() -> str:
    """The processor as the system names it, and how many there are."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
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
