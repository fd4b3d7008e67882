"""The layers of `addergraph bench --layers` beside convolutions of PyTorch and ONNX Runtime.

    python -m benchmarks.layers_against_peers --seconds 0.15 --markdown docs/laboratory.md
    python -m benchmarks.layers_against_peers --dtype u8 --threads all --only ResNet-20
    python -m benchmarks.layers_against_peers --weights resnet20.safetensors
    python -m benchmarks.layers_against_peers --tune 60 --markdown docs/laboratory.md

Layers and peers have several turns each, on the same processors. `--tune` compares the model's
choice of kernels with a search instead, without peers. Needs `pip install addergraph[bench]`; peers
that are not installed are left out. Ends with status 1 where a share of the peak is above 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from addergraph.cli.bench.layers import (
    BATCHES,
    LayerBench,
    bandwidths,
    chosen_layers,
    describe_machine,
    measure,
    target_name,
)
from addergraph.cli.bench.own import operands
from addergraph.cli.bench.report import Report, Row, geometric_mean, write_json, write_plot
from addergraph.cli.bench.timing import Layer, Timing, pinned
from addergraph.cli.bench.tune import search, summary, table
from addergraph.errors import DataError
from addergraph.files.storage import atomic_write, read_bytes
from addergraph.training.step import thread_count
from benchmarks.peers import HELD_TO, Peers

OPERANDS = {"f32": "f32", "u8": "u8", "u6": "u8"}  # of the peers, by those of the layers
COMMAND = "python -m benchmarks.layers_against_peers"


@dataclass(frozen=True)
class Theirs:
    """Convolutions of a layer's shape, by peer."""

    timings: Mapping[str, Timing]

    @property
    def best(self) -> str:
        """The fastest peer, by its best time."""
        return min(self.timings, key=lambda name: self.timings[name].best)

    def ratio(self, row: Row) -> float:
        """How many times as fast as the fastest peer the layer is, both at their best."""
        return self.timings[self.best].best / row.timing.best

    def median_ratio(self, row: Row) -> float:
        return min(t.median for t in self.timings.values()) / row.timing.median


@dataclass(frozen=True)
class PeerReport(Report):
    """A report with the peers' times.

    peers   versions
    hold    the instruction set that the peers are held to
    theirs  by layer and batch
    """

    peers: Sequence[str] = ()
    hold: str | None = None
    theirs: Mapping[tuple[Layer, int], Theirs] = field(default_factory=dict)

    def facts(self) -> list[str]:
        first, *rest = super().facts()
        held = f", oneDNN held to {self.hold}; what cannot be is left out" if self.hold else ""
        return [f"{first.removesuffix('.')}; peers: {', '.join(self.peers)}{held}.", *rest]

    def heads(self) -> list[str]:
        return [*super().heads(), "ratio", "median", "peer us", "best convolution"]

    def cells(self, row: Row) -> list[str]:
        theirs = self._of(row)
        return [
            *super().cells(row), f"{theirs.ratio(row):.2f}", f"{theirs.median_ratio(row):.2f}",
            f"{1e6 * theirs.timings[theirs.best].best:.1f}", theirs.best,
        ]  # fmt: skip

    def summary(self, rows: Sequence[Row]) -> list[str]:
        ratios = [self._of(row).ratio(row) for row in rows]
        return [
            *super().summary(rows),
            f"ratio to the best convolution: {geometric_mean(ratios):.3f} in the geometric mean, "
            f"{min(ratios):.3f} at least",
        ]

    def setup(self) -> dict[str, object]:
        return {name: value for name, value in super().setup().items() if name != "theirs"}

    def numbers(self, row: Row) -> dict[str, object]:
        theirs = self._of(row)
        return {
            **super().numbers(row),
            "peers": {name: vars(timing) for name, timing in theirs.timings.items()},
            "ratio": theirs.ratio(row),
            "median_ratio": theirs.median_ratio(row),
        }

    def _of(self, row: Row) -> Theirs:
        return self.theirs[row.layer, row.batch]


def measured(options: LayerBench) -> Report:
    """The layers and, where there are any, the peers."""
    target = target_name(options.target)
    hold = None if target == target_name("host") else HELD_TO.get(target)
    theirs: dict[tuple[Layer, int], Theirs] = {}
    chosen = chosen_layers(options.only, options.own)
    with pinned(options.threads), Peers(hold, options.threads) as peers:

        def turn(layer: Layer, batch: int, seconds: float) -> None:
            found = peers.measure(layer, batch, OPERANDS[options.dtype], seconds)
            theirs[layer, batch] = Theirs(found)

        if not peers.versions:
            return measure(chosen, BATCHES, options)
        made = measure(chosen, BATCHES, options, turn)
        known = {f.name: getattr(made, f.name) for f in fields(made)}
        return PeerReport(**known, peers=peers.versions, hold=hold, theirs=theirs)


# --- documents ------------------------------------------------------------------------------------


def write_markdown(report: Report, file: str, command: str) -> None:
    """The tables for documentation; errors as of `replace_section`."""
    lines = [
        f"## Layers of {report.setting}, {time.strftime('%Y-%m-%d')}", "",
        f"Machine: {report.machine}.", "", " ".join(report.facts()), "", f"    {command}", "",
    ]  # fmt: skip
    for title, cells, under in report.tables():
        lines += [f"### {title[0].upper()}{title[1:]}", "", *cells.markdown()]
        lines += ["", *(f"* {line}" for line in under), ""]
    replace_section(file, f"layers of {report.setting}; {report.machine}", lines)


def replace_section(file: str, name: str, lines: Sequence[str]) -> None:
    """Puts `lines` in the place of the file's former section of that name, or at its end. Names
    hold the machine: a run on one leaves the tables of another.

    StorageError when the file cannot be read or written, DataError when it holds no text.
    """
    begin, end = (f"<!-- {what} of {name} -->" for what in ("begin", "end"))
    section = "\n".join([begin, *lines, end])
    try:
        before = read_bytes(file).decode() if Path(file).exists() else ""
    except UnicodeDecodeError as error:
        raise DataError(f'cannot read "{file}" as text: {error}') from None
    head, found, rest = before.partition(begin)
    if found:
        _, found, rest = rest.partition(end)
    if found:
        atomic_write(file, (head + section + rest).encode())
    else:
        atomic_write(file, (before + ("\n" if before else "") + section + "\n").encode())


def write_search(options: LayerBench, seconds: float, file: str | None) -> None:
    """Prints what a search finds for the layers, and writes its section."""
    found = search(options, seconds)
    target = target_name(options.target)
    print("\n".join([f"{describe_machine()}; {target}", *table(found).lines(), summary(found)]))
    if file is None:
        return
    only = f' --only "{options.only}"' if options.only else ""
    lines = [
        f"## The model against a search, {target}, {time.strftime('%Y-%m-%d')}", "",
        f"Machine: {describe_machine()}.", "",
        f"    {COMMAND} --tune {seconds:g} --target {options.target}{only}", "",
        *table(found).markdown(), "", f"* {summary(found)}", "",
    ]  # fmt: skip
    replace_section(file, f"search, {target}; {describe_machine()}", lines)


def command(options: LayerBench) -> str:
    """What reproduces the tables."""
    only = f' --only "{options.only}"' if options.only else ""
    what = f"--dtype {options.dtype} --target {options.target} --threads {options.threads}"
    weights = f" --weights {options.own.name}" if options.own else ""
    return f"{COMMAND} {what} --seconds {options.seconds:g}{only}{weights}"


def threads_named(text: str) -> int:
    return thread_count(None if text == "all" else int(text))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", choices=sorted(OPERANDS), help="f32, or that of --weights")
    parser.add_argument("--weights", metavar="MODEL", help="whose layers and filters are timed")
    parser.add_argument("--threads", type=threads_named, default=1, metavar="N|all")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--target", default="host")
    parser.add_argument("--only", default="")
    parser.add_argument("--tune", type=float, metavar="SECONDS")
    for name in ("json", "markdown", "plot"):
        parser.add_argument(f"--{name}", metavar="FILE")
    given = vars(parser.parse_args(arguments))
    seconds, markdown, weights = (given.pop(name) for name in ("tune", "markdown", "weights"))
    given["dtype"], own = operands(given["dtype"], weights)
    options = LayerBench(**given, own=own)
    if seconds is not None:
        write_search(options, seconds, markdown)
        return 0
    report = measured(options)
    print(report.text(), end="")
    if options.json is not None:
        write_json(report, options.json)
    if markdown is not None:
        write_markdown(report, markdown, command(options))
    if options.plot is not None:
        write_plot(report, options.plot, bandwidths())
    return 0 if report.plausible else 1


if __name__ == "__main__":
    sys.exit(main())
