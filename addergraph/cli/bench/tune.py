"""`addergraph bench --tune`: how far the model's choice of kernels is from what a search finds.

The search times every kernel that could serve a contraction and keeps what it finds in the cache,
from where `ag.compile(tune=True)` takes it. A ratio is what the model's choice takes over what the
fastest one takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ... import compiler
from ...errors import DataError
from ...files.storage import atomic_write
from ...ir import Array, Graph
from ...tables import Table
from .graphs import arranged, layers_graph, weights_of
from .layers import BATCHES, LayerBench, chosen_layers, describe_machine, progress, target_name
from .report import geometric_mean
from .timing import pinned

HEADS = ["layer", "model's choice", "us", "search's choice", "us", "ratio", "kernels timed"]
WORDS = ("layer", "model's choice", "search's choice")


@dataclass(frozen=True)
class Found:
    """What the search found for one layer; `choice` and `model` are keys of `seconds`.

    Choices are text here, as tables and JSON have them.
    """

    layer: str
    choice: str
    model: str
    seconds: Mapping[str, float]
    ratio: float

    @property
    def cells(self) -> list[str]:
        us = {name: f"{1e6 * s:.1f}" for name, s in self.seconds.items()}
        return [
            self.layer, self.model, us[self.model], self.choice, us[self.choice],
            f"{self.ratio:.3f}", str(len(self.seconds)),
        ]  # fmt: skip


def tune_network(
    graph: Graph, weights: Mapping[str, Array], batch: int | None, target: str, seconds: float
) -> None:
    """Prints what the search finds for each contraction of a network."""
    with pinned(1):
        tuned = compiler.tune_graph(graph, weights, batch=batch, target=target, seconds=seconds)
    images = f"batch {batch}" if batch else "one image"
    print(f"{graph.name}, {images}, {target_name(target)}, one thread")
    _print([Found(t.node, str(t.choice), str(t.model), _named(t.seconds), t.loss) for t in tuned])


def tune_layers(options: LayerBench, seconds: float) -> None:
    """The same for the layers of `bench --layers`, each in both batches and of each kind, within
    about `seconds` for all of them; prints the table and writes the files asked for.

    DataError for operands other than f32, or where `only` leaves no layer.
    """
    if options.dtype != "f32":
        raise DataError(
            f"--tune searches f32 layers, found --dtype {options.dtype}; int8 layers in a "
            "network of your own: addergraph bench FILE --tune SECONDS"
        )
    found = search(options, seconds)
    print(f"{describe_machine()}; {time.strftime('%Y-%m-%d')}; {target_name(options.target)}")
    _print(found)
    if options.json is not None:
        rows = [asdict(one) for one in found]
        everything = {
            "target": target_name(options.target), "machine": describe_machine(),
            "date": time.strftime("%Y-%m-%d"), "rows": rows,
        }  # fmt: skip
        atomic_write(options.json, f"{json.dumps(everything, indent=1)}\n".encode())


def search(options: LayerBench, seconds: float) -> list[Found]:
    """What the search finds for these layers."""
    with pinned(1):
        found = list(_search(options, seconds))
    progress("")
    return found


def _search(options: LayerBench, seconds: float) -> Iterator[Found]:
    asked = [
        (batch, layer, kind)
        for batch in BATCHES
        for layer in chosen_layers(options.only, options.own)
        for kind in options.kinds
    ]
    for batch, layer, kind in asked:
        what = f"{layer}; batch {batch}, {kind} of the taps"
        progress(what)
        graph = layers_graph(arranged(layer, kind), 1, kind)
        weights = weights_of(layer, kind, options.filters_of(layer))
        tuned = compiler.tune_graph(
            graph, {p.name: weights[p.name] for p in graph.parameters},
            batch=None if batch == 1 else batch, target=options.target,
            seconds=seconds / len(asked),
        )  # fmt: skip
        for t in tuned:
            yield Found(what, str(t.choice), str(t.model), _named(t.seconds), t.loss)


def _named(seconds: Mapping[Any, float]) -> dict[str, float]:
    return {str(choice): time for choice, time in seconds.items()}


def _print(found: Sequence[Found]) -> None:
    if not found:
        print("no contraction has more than one kernel that serves it")
        return
    print("\n".join(table(found).lines()))
    print(summary(found))


def table(found: Sequence[Found]) -> Table:
    """A row a layer."""
    return Table(HEADS, [one.cells for one in found], WORDS)


def summary(found: Sequence[Found]) -> str:
    ratios = [one.ratio for one in found]
    worst = max(found, key=lambda one: one.ratio)
    same = sum(one.choice == one.model for one in found)
    return (
        f"the model's choice takes {geometric_mean(ratios):.3f} times as long as the search's in "
        f"the geometric mean, {worst.ratio:.3f} times at most ({worst.layer}); they agree on "
        f"{same} of {len(found)}"
    )
