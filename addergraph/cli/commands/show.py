"""`addergraph summary` and `addergraph inspect`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from ... import compiler, zoo
from ...errors import RangeWarning
from ...report.lints import lint
from ...report.summary import summary_text, table_lines
from ...report.view import to_dot
from .source import open_source

HEADS = ("network", "input", "classes", "what it is")


def networks() -> None:
    """Prints the built-in networks: input, classes, and what they are."""
    rows = [
        [name, "x".join(map(str, one.input_shape)), str(one.classes), one.description]
        for name, one in zoo.NETWORKS.items()
    ]
    print("\n".join(table_lines(HEADS, rows, text=("network", "input", "what it is"))))


def summary(file: str, first: str | None = None, last: str | None = None) -> None:
    """Prints the tables of the network's layers, memory and arithmetic."""
    source = open_source(file, first=first, last=last)
    graph, weights = source.graph, source.weights
    arena = compiler.arena_bytes(graph, weights)
    print(summary_text(graph, lint(graph), weights, arena))


@dataclass(frozen=True)
class Inspection:
    """The options of `inspect`."""

    dot: bool
    passes: bool
    after: str | None
    plan: bool
    census: bool
    batch: int | None
    target: str


def inspect(file: str, options: Inspection) -> None:
    """Prints the graph before and after the pipeline, or the views that were asked for."""
    source = open_source(file)
    graph, batch, target = source.graph, options.batch, options.target
    if options.dot:
        print(to_dot(graph))
        return
    if not (options.passes or options.after or options.plan or options.census):
        print(f"# as declared\n{graph}\n\n# after the pipeline\n{compiler.optimize(graph)}")
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


def _print_pass(name: str, before: object, after: object, seconds: float) -> None:
    """An observer of the pipeline."""
    shown = "no change" if after == before else str(after)
    print(f"# after {name} ({1e3 * seconds:.1f} ms)\n{shown}\n")
