"""The road from a graph to an object file: passes, lowering, code generation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import border
from ..errors import DataError, GraphError, RangeWarning, ShapeError, nearest
from ..ir import Array, Graph
from .forks import import_compiler

if TYPE_CHECKING:
    from ..codegen.emit.lowered import Kernels, Lowered
    from ..codegen.kernels.schedule import Choice
    from ..codegen.run.jit import Built
    from ..codegen.targets.target import Target
    from ..passes.lowering import Lowering
    from ..passes.pipeline import Observer

TUNE_SECONDS = 10.0


def lower(
    graph: Graph,
    target: Target,
    observers: Sequence[Observer] = (),
    weights: Mapping[str, Array] | None = None,
    choices: Mapping[str, Choice] | None = None,
    batch: int | None = None,
) -> Lowered:
    """The graph ready for code generation: all of PIPELINE, then of LOWERING (`passes/`).

    `choices`: kernels that were chosen by measuring, by node name (`tune`). `batch` binds N.
    `weights`, where known, let constant filters choose between dense and sparse kernels.

    Raises ShapeError when the batch is open and the graph is not a loop over samples.
    """
    import_compiler()
    from ..codegen.emit.lowered import Kernels

    kernels = Kernels(target, weights or {}, choices or {})
    return for_codegen(road(graph, kernels, observers, batch=batch), kernels)


def road(
    graph: Graph,
    kernels: Kernels,
    observers: Sequence[Observer] = (),
    *,
    blocks: Sequence[int] = (1,),
    batch: int | None = None,
) -> Lowering:
    """`blocks`: of samples, for an open program. A `batch` of independent samples gets its own."""
    from ..codegen.emit.blocks import of_batch
    from ..passes import pipeline

    if batch is not None:
        bound = graph.bind(batch)
        if batch > 1 and graph.is_open and graph.per_sample:
            blocks = of_batch(batch)
        else:
            graph, batch = bound, None
    if graph.is_open and not graph.per_sample:
        raise ShapeError(
            f'graph "{graph.name}" does not compute its samples one by one ({_mixing(graph)}); '
            "bind the batch: ag.compile(graph, batch=64)"
        )
    return pipeline.lower(graph, kernels, observers, blocks=blocks, batch=batch)


def for_codegen(done: Lowering, kernels: Kernels) -> Lowered:
    """What code generation takes of the end of the road."""
    from ..codegen.emit.lowered import Lowered

    assert done.setup is not None and done.plan is not None
    return Lowered(
        done.source, done.setup, done.main, done.plan, kernels.target, done.batched, done.kept,
        kernels.choices, done.samples, done.batch,
    )  # fmt: skip


def _mixing(graph: Graph) -> str:
    """Why the graph is not per sample."""
    for node in graph.nodes:
        if not node.op.per_sample and any(v.type.is_open for v in node.inputs):
            return f"{node.label} mixes them"
    return "it updates parameters, or an output has no batch"


def build(
    graph: Graph,
    weights: Mapping[str, Array] | None = None,
    *,
    batch: int | None = None,
    target: str = "host",
    tune_for: str | None = None,
    cache: bool = True,
    tune: bool | float = False,
    multiplication_free: bool = False,
    observers: Sequence[Observer] = (),
) -> Built:
    """The object file of a graph and its facts, for a machine that need not be this one.

    `weights`, where known, choose between dense and sparse kernels; the object has none of them.
    """
    import_compiler()
    from ..codegen.run import jit

    lowered = planned(graph, weights, batch, target, tune_for, tune, multiplication_free, observers)
    return jit.build(lowered, use_cache=border.flag("cache", cache))


def in_blocks(one: Lowered, weights: Mapping[str, Array], *, cache: bool) -> Built | None:
    """The open program of `one` for blocks of samples, where they pay (`emit/blocks.py`)."""
    from ..codegen.emit import blocks
    from ..codegen.emit.lowered import Kernels
    from ..codegen.run import jit

    kernels = Kernels(one.target, weights)
    sizes = blocks.of_calls(one.main, one.plan, one.target.machine)
    if not sizes:
        return None
    with without_range_warnings():  # `compile` gave them
        block = for_codegen(road(one.source, kernels, blocks=sizes), kernels)
    if block.plan.arena_bytes > kernels.room(block.main):
        return None
    return jit.build(block, use_cache=cache)


def levels(
    graph: Graph,
    weights: Mapping[str, Array] | None,
    batch: int | None,
    target: str,
    tune_for: str | None,
    multiplication_free: bool,
) -> list[Lowered]:
    """`planned` for a target and each of its higher levels, which are tuned for its machine."""
    first = planned(graph, weights, batch, target, tune_for, False, multiplication_free, ())
    above = [replace(level, machine=first.target.machine) for level in first.target.above]
    with without_range_warnings():  # which the first gave
        return [first, *(
            planned(graph, weights, batch, level, None, False, multiplication_free, ())
            for level in above
        )]  # fmt: skip


def planned(
    graph: Graph,
    weights: Mapping[str, Array] | None,
    batch: int | None,
    target: str | Target,
    tune_for: str | None,
    tune: bool | float,
    multiplication_free: bool,
    observers: Sequence[Observer],
) -> Lowered:
    """The graph ready for code generation, after the questions that strict code is asked."""
    from ..codegen.emit.lowered import Kernels
    from ..codegen.inspect import limits, strict
    from ..codegen.targets.lookup import target_named
    from ..codegen.targets.target import Target

    batch = border.plain(int | None, "batch", batch, ShapeError)
    tune = border.plain(bool | float, "tune", tune)
    if not 0.0 <= tune < math.inf:
        raise DataError(f"tune={tune} must be True, False, or a number of seconds of at least 0")
    observers = border.plain(Sequence[Callable[..., None]], "observers", observers)
    multiplication_free = border.flag("multiplication_free", multiplication_free)
    machine = target if isinstance(target, Target) else target_named(target, tune_for)
    if multiplication_free or not machine.multiplier:
        strict.require_layers(graph, machine)
        machine = strict.without_multiplier(machine)
    kernels = Kernels(machine, weights or {})
    done = road(graph, kernels, observers, batch=batch)
    if tune:
        from ..codegen.measure import tune as tuning
        from ..passes import lowering, pipeline

        measured = tuning.tune(for_codegen(done, kernels), TUNE_SECONDS if tune is True else tune)
        kernels = replace(kernels, choices={found.node: found.choice for found in measured})
        done = pipeline.advance(replace(done, kernels=kernels), lowering.PLANNING, observers)
    lowered = for_codegen(done, kernels)
    limits.require_target(lowered)
    return lowered


def points_after(
    graph: Graph,
    name: str,
    *,
    weights: Mapping[str, Array] | None = None,
    batch: int | None = None,
    target: str = "host",
) -> list[Lowering]:
    """The graph on its way to code, after each pass of PIPELINE or step of LOWERING of this name.

    Raises GraphError for an unknown name, and what `lower` raises where `name` is a step's.
    """
    from ..codegen.targets.lookup import target_named
    from ..passes.lowering import LOWERING
    from ..passes.pipeline import PIPELINE, run, step_name

    passes, steps = ({step_name(s): None for s in road} for road in (PIPELINE, LOWERING))
    known = passes | steps
    if name not in known:
        raise GraphError(f'unknown pass "{name}"{nearest(name, known)}; known: {", ".join(known)}')
    found: list[Lowering] = []

    def observe(at: str, before: Lowering, after: Lowering, seconds: float) -> None:
        found.extend([after] * (at == name))

    if name in passes:
        run(graph if batch is None else graph.bind(batch), observers=[observe])
    else:
        lower(graph, target_named(target), [observe], weights, batch=batch)
    return found


@contextmanager
def without_range_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        yield
