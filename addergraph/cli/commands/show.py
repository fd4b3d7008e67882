"""`addergraph summary` and `addergraph inspect`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from ... import compiler, zoo
from ...errors import RangeWarning, StorageError, TargetError
from ...files.storage import atomic_write
from ...report.drawing import to_svg
from ...report.lints import lint
from ...report.summary import summary_text
from ...report.view import to_dot
from ...settings import setting
from ...tables import Table
from .. import options as shared
from .source import Source, open_source

HEADS = ("network", "input", "classes", "what it is")


def networks() -> None:
    """Prints the built-in networks: input, classes, and what they are."""
    rows = [
        [name, "x".join(map(str, one.input_shape)), str(one.classes), one.description]
        for name, one in zoo.NETWORKS.items()
    ]
    table = Table(HEADS, rows, ("network", "input", HEADS[-1]), folds=HEADS[-1])
    print("\n".join(table.lines()))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The options of `summary`."""

    file: str | None = setting(None, place=True)
    first: str | None = shared.first()
    last: str | None = shared.last()


def summary(options: Summary) -> None:
    """Prints the tables of the network's layers, memory and arithmetic; without a file, the
    built-in networks."""
    if options.file is None:
        return networks()
    source = open_source(options.file, first=options.first, last=options.last)
    graph, weights = source.graph, source.weights
    arena, why_not = None, ""
    try:
        arena = compiler.arena_bytes(graph, weights)
    except TargetError as error:  # a system without native code
        why_not = f"\nnot compiled here: {error}"
    print(summary_text(graph, lint(graph), weights, arena, _training_only(source)) + why_not)


def _training_only(source: Source) -> list[str]:
    return [] if source.model is None else source.model.training_only()


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The options of `inspect`."""

    file: str = shared.file()
    passes: bool = setting(False, "Print the graph after each pass.")
    after: str | None = setting(
        None,
        "Print what is known after this pass, or step of lowering, as fuse, hoist or plan_memory.",
        metavar="PASS",
        unset="the graph as declared and as compiled",
    )
    plan: bool = setting(False, "Print the memory plan: offset and size of each tensor.")
    census: bool = setting(False, "Count the instructions of the kernels, by kind.")
    dot: bool = setting(False, "Print the declared graph in DOT, and nothing else.")
    svg: str | None = setting(
        None,
        "Draw the declared graph, or that after the pass of --after, and print nothing else.",
        unset="no picture",
        metavar="FILE.svg",
    )
    first: str | None = shared.first()
    last: str | None = shared.last()
    batch: int | None = shared.batch("Bind the batch N to this many samples.", "any number")
    target: str = shared.target()


def inspect(options: Inspection) -> None:
    """Prints the graph before and after the pipeline, or the views that were asked for."""
    if options.svg is not None and Path(options.svg).suffix != ".svg":
        raise StorageError(f'--svg "{options.svg}": the name of this picture ends in .svg')
    source = open_source(options.file, first=options.first, last=options.last)
    graph, batch, target = source.graph, options.batch, options.target
    if options.dot:
        print(to_dot(graph))
        return
    if options.svg is not None:
        return _draw(options.svg, source, options)
    if not (options.passes or options.after or options.plan or options.census):
        notes = "".join(f"# {line}\n" for line in _training_only(source))
        print(f"# as declared\n{notes}{graph}\n\n# after the pipeline\n{compiler.optimize(graph)}")
    if options.passes:
        print(f"# as declared\n{graph}\n")
        compiler.optimize(graph, [_print_pass])
    if options.after:
        points = compiler.points_after(
            graph, options.after, weights=source.weights, batch=batch, target=target
        )
        for point in points:
            print(f"# after {options.after}\n{point}\n")
    with warnings.catch_warnings():
        if options.passes or options.after:
            warnings.simplefilter("ignore", RangeWarning)  # shown above
        if options.plan:
            print(compiler.memory_plan_text(graph, batch=batch, target=target))
        if options.census:
            print(compiler.census(graph, batch=batch, target=target).render())


def _draw(file: str, source: Source, options: Inspection) -> None:
    """Writes the picture; of a pass that is run several times, that behind the last."""
    graph = source.graph if options.batch is None else source.graph.bind(options.batch)
    if options.after:
        points = compiler.points_after(
            graph, options.after, weights=source.weights, target=options.target
        )
        graph = points[-1].main
    atomic_write(file, to_svg(graph).encode())
    print("\n".join([f"{file}: {len(graph.nodes)} nodes", *_training_only(source)]))


def _print_pass(name: str, before: object, after: object, seconds: float) -> None:
    """An observer of the pipeline."""
    shown = "no change" if after == before else str(after)
    print(f"# after {name} ({1e3 * seconds:.1f} ms)\n{shown}\n")
