"""Accuracy against microseconds: adders with ever fewer taps to compute, and convolutions.

    python -m benchmarks.sparsity --data cifar10:FOLDER --network resnet20 --recipe quick
    python -m benchmarks.sparsity --data digits --network small-adder       # a minute, to try it

`addergraph train` makes the network as it comes, one for each of --shares by its option --sparsity,
the same of NETWORK-centered for each of --centered, and the network with convolutions; `addergraph
quantize` makes int8 models. Test images give the accuracies. Then all programs take turns at one
image on one thread, each at the best of many calls from Python; beside them, of resnet20, ONNX
Runtime at convolutions of these shapes, where it is installed. Of the network as it comes there is
a program, too, whose kernels leave no tap out. Interrupted, the same command goes on: what is in
the output folder is not trained again.

Prints a markdown table, and writes it as table.md and pareto.svg into the output folder. Ends with
status 1 where no share is REQUIRED times as fast in f32 as the network as it comes, at LOST less.
"""  # fmt: skip

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import Model, compiler
from addergraph.data import Dataset, load
from addergraph.diagnostics import pictures
from addergraph.quantization import load_quantized
from addergraph.training.sparsity import filters_of
from benchmarks.mnist import command
from benchmarks.network import best, onnx_call, onnx_resnet20

REQUIRED, LOST = 1.4, 0.01
F32, INT8 = "f32", "int8"
AS_IT_COMES, DENSE, CONV, ONNX = "adders", "adders, none left out", "convolutions", "ONNX Runtime"
CENTERED = "centered adders"


@dataclass
class Row:
    """Of one network: the share of taps that need work, and by f32 and int8 the accuracy, what runs
    one image, and its microseconds."""

    name: str
    above: float | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    calls: dict[str, Callable[[], object]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)


def trained(given: argparse.Namespace, name: str, network: str, *options: object) -> Path:
    """The model file, made where there is none; beside it that of the int8 model."""
    model = Path(given.output) / f"{name}.safetensors"
    if not model.exists():
        run = ("--recipe", given.recipe, "--epochs", given.epochs, "--seed", given.seed)
        command(
            "train", "--data", given.data, "--model", network, *run, *options, "--resume",
            *(("--threads", given.threads) if given.threads else ()), "-o", model,
        )  # fmt: skip
    if not integers_of(model).exists():
        command("quantize", model, "--data", given.data, "-o", integers_of(model), "--force")
    return model


def integers_of(model: Path) -> Path:
    return model.with_suffix(".int8.safetensors")


def measured(name: str, file: Path, data: Dataset, *, dense: bool = False) -> Row:
    """A row without times; `dense` kernels serve any filter."""
    model = Model.load(file)
    graph, weights = model.graph(training=False), dict(model.weights)
    row = Row(name)
    if any(node.op.measures_distance for node in graph.nodes):
        filters = [weights[f].ravel() for f in dict.fromkeys(filters_of(graph)[0].values())]
        row.above = 1.0 if dense else float(np.mean(np.concatenate(filters) > 0))
    made = {F32: (graph, weights, model.entering(data.x_test))}
    if integers_of(file).exists():
        integers = load_quantized(integers_of(file))
        made[INT8] = integers.graph, integers.weights, integers.inputs(data.x_test)
    for kind, (one, numbers, images) in made.items():
        program: Any = ag.compile(one, weights=numbers)
        if dense:
            program = compiler.load(compiler.without_weights(one), numbers, 1)
        (answers,) = program.run([images])
        row.accuracy[kind] = float(np.mean(answers.argmax(1) == data.y_test.ravel()))
        row.calls[kind] = lambda program=program, image=images[:1]: program(image)  # type: ignore[misc]
    return row


def of_onnx(conv: Row, shape: Sequence[int]) -> Row:
    """Convolutions of ResNet-20's shapes, drawn filters: the accuracy is that of ours."""
    run, image = onnx_call(onnx_resnet20()), np.zeros((1, shape[2], *shape[:2]), np.float32)
    return Row(ONNX, accuracy={F32: conv.accuracy[F32]}, calls={F32: lambda: run(image)})


def all_rows(given: argparse.Namespace, data: Dataset) -> list[Row]:
    plain = trained(given, "adders", given.network)
    plan = [(AS_IT_COMES, given.network, share) for share in given.shares]
    plan += [(CENTERED, f"{given.network}-centered", share) for share in given.centered]
    others = {
        f"{kind}{f', sparsity {share:g}' if share else ''}": trained(
            given, f"{kind.split()[0]}-{share:g}", network, "--sparsity", share
        )
        for kind, network, share in plan
    }
    twin = {"small-adder": "small-conv"}.get(given.network, f"{given.network}-conv")
    conv = measured(CONV, trained(given, "convolutions", twin), data)
    rows = [measured(DENSE, plain, data, dense=True), measured(AS_IT_COMES, plain, data)]
    rows += [measured(name, file, data) for name, file in others.items()]
    rows.append(conv)
    if given.network == "resnet20" and importlib.util.find_spec("onnxruntime") is not None:
        rows.append(of_onnx(conv, data.shape))
    places = [(row, kind) for row in rows for kind in row.calls]
    for (row, kind), seconds in zip(
        places, best([row.calls[kind] for row, kind in places]), strict=True
    ):
        row.times[kind] = 1e6 * seconds
    return rows


def table(rows: Sequence[Row]) -> str:
    """Speedups are over the adders as they come."""
    kinds = (F32, INT8)
    base = next(row.times for row in rows if row.name == AS_IT_COMES)
    heads = [f"{kind} {what}" for kind in kinds for what in ("accuracy", "us", "speedup")]
    lines = [f"| network | taps above zero | {' | '.join(heads)} |", f"|---|{'---:|' * 7}"]
    for row in rows:
        cells = [row.name, "" if row.above is None else f"{row.above:.2f}"]
        for kind in kinds:
            if kind not in row.times:
                cells += [""] * 3
                continue
            time = row.times[kind]
            cells += [f"{row.accuracy[kind]:.4f}", f"{time:.1f}", f"{base[kind] / time:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[Row], title: str) -> Any:
    """Accuracy over microseconds: adders as curves, convolutions as single points."""
    figure = pictures.new_figure(7.0, 4.6)
    axis = figure.subplots()
    curves = (
        (AS_IT_COMES, F32, pictures.BLUE, 6), (AS_IT_COMES, INT8, pictures.GREEN, -13),
        (CENTERED, F32, pictures.PURPLE, 6), (CENTERED, INT8, pictures.ORANGE, -13),
    )  # fmt: skip
    for name, kind, color, above in curves:
        adders = [row for row in rows if row.name.startswith(name)]
        x, y = [row.times[kind] for row in adders], [row.accuracy[kind] for row in adders]
        axis.plot(x, y, "o-", color=color, label=f"{name}, {kind}")
        for row, *place in zip(adders, x, y, strict=True):
            axis.annotate(
                f"{row.above:.2f}", place, fontsize=8, color=color, ha="center",
                xytext=(0, above), textcoords="offset points",
            )  # fmt: skip
    alone = [(row, kind) for row in rows if row.above is None for kind in row.times]
    for (row, kind), marker in zip(alone, "sDX", strict=False):
        axis.plot(
            row.times[kind], row.accuracy[kind], marker, color=pictures.VERMILION,
            label=f"{row.name}, {kind}", markersize=7,
        )  # fmt: skip
    axis.margins(0.08)
    axis.set_xscale("log")
    axis.minorticks_on()
    axis.xaxis.set_minor_formatter("{x:.0f}")
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.tick_params(which="both", labelsize=8)
    axis.set(xlabel="one image, one thread (us)", ylabel="test accuracy", title=title)
    axis.grid(alpha=0.25, linewidth=0.6, which="both")
    axis.legend(fontsize=8)
    return figure


def is_fast(rows: Sequence[Row]) -> bool:
    base = next(row for row in rows if row.name == AS_IT_COMES)
    return any(
        base.times[F32] >= REQUIRED * row.times[F32]
        and row.accuracy[F32] >= base.accuracy[F32] - LOST
        for row in rows
        if "sparsity" in row.name
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", required=True, metavar="NAME[:PATH]", help="with a test part")
    parser.add_argument("--network", default="small-adder", help="a built-in one of adders")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--centered", type=float, nargs="*", default=[0, 0.7, 0.8, 0.9])
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of training; all processors")
    parser.add_argument("--output", type=Path, default=Path("build/sparsity"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    pictures.require_picture(given.output / "pareto.svg")
    rows = all_rows(given, load(given.data))
    text = table(rows)
    print(text)
    (given.output / "table.md").write_text(text)
    title = f"{given.network} on {given.data.partition(':')[0]}, {given.epochs} epochs"
    pictures.save(
        picture(rows, f"{title}; beside the points: taps above zero"), given.output / "pareto.svg"
    )
    return int(not is_fast(rows))


if __name__ == "__main__":
    sys.exit(main())
