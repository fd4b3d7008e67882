"""What can be said of a graph's code: memory, instructions, time, multiplications."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..ir import Array, Graph
from ..ir.network import Network, graph_of
from .lowering import TUNE_SECONDS, lower, without_range_warnings

if TYPE_CHECKING:
    from ..codegen.inspect.census import Census
    from ..codegen.inspect.certificate import Certificate
    from ..codegen.inspect.size import Size
    from ..codegen.measure.profile import Profile
    from ..codegen.measure.tune import Tuned
    from ..codegen.targets.boards import Board


def tune_graph(
    graph: Graph,
    weights: Mapping[str, Array] | None = None,
    *,
    batch: int | None = None,
    target: str = "host",
    seconds: float = TUNE_SECONDS,
) -> tuple[Tuned, ...]:
    """What measuring finds for each contraction of `graph`; see `codegen/measure/tune.py`."""
    from ..codegen.measure.tune import tune
    from ..codegen.targets.lookup import target_named

    return tune(lower(graph, target_named(target), weights=weights, batch=batch), seconds)


def profile(
    graph: Graph,
    weights: Mapping[str, Array],
    *,
    batch: int | None = None,
    target: str = "host",
    seconds: float = 2.0,
) -> Profile:
    """What each kernel takes inside the network and alone; see `codegen/measure/profile.py`."""
    from ..codegen.measure import profile as codegen
    from ..codegen.targets.lookup import target_named

    lowered = lower(graph, target_named(target), weights=weights, batch=batch)
    return codegen.profile(lowered, weights, seconds)


def measure_peak(form: str = "product", target: str = "host", threads: int = 1) -> float:
    """G terms/s that so many threads reach in registers; see `codegen/measure/peak.py`.

    Raises TargetError where this machine cannot run the target's code.
    """
    from ..codegen.measure import peak
    from ..codegen.targets.lookup import require_runnable, target_named

    machine = target_named(target)
    require_runnable(machine, f'this machine cannot run code for "{machine.name}"')
    return peak.measure_peak(form, machine, threads=threads)


def census(graph: Graph | Network, *, batch: int | None = None, target: str = "host") -> Census:
    """The instructions that are emitted for `graph`, by kind; see `codegen/inspect/census.py`."""
    from ..codegen.inspect.census import census as count
    from ..codegen.targets.lookup import target_named

    return count(lower(graph_of(graph), target_named(target), batch=batch))


def certify(path: str | os.PathLike[str]) -> Certificate:
    """Whether compiled code multiplies, read off its bytes: `codegen/inspect/certificate.py`."""
    from ..codegen.inspect import certificate

    return certificate.certify(path)


def size_of(path: str | os.PathLike[str]) -> Size:
    """Flash, RAM and stack of an exported library; see `codegen/inspect/size.py`."""
    from ..codegen.inspect import size

    return size.size_of(path)


def board_of(target: str, name: str | None, flash: int | None, ram: int | None) -> Board | None:
    """The board of this name, or with this memory; see `codegen/targets/boards.py`."""
    from ..codegen.targets import boards

    return boards.board_of(target, name, flash, ram)


def require_linker(target: str) -> None:
    """ToolchainError, which says how to get it, unless there is what links libraries for `target`;
    UnsupportedError for one that loads none."""
    from ..codegen.export.link import find_compiler
    from ..codegen.targets.lookup import target_named

    find_compiler(target_named(target), True)


def memory_plan_text(graph: Graph, *, batch: int | None = None, target: str = "host") -> str:
    """The memory plan of the compiled graph as a table; see `passes/plan_memory.py`."""
    from ..codegen.targets.lookup import target_named
    from ..passes.plan_memory import render

    lowered = lower(graph, target_named(target), batch=batch)
    return render(lowered.plan, lowered.main)


def arena_bytes(
    graph: Graph, weights: Mapping[str, Array] | None = None, *, target: str = "host"
) -> int:
    """Bytes of working memory that the compiled graph needs, for one sample if its batch is open.

    `weights`, where known, choose between dense and sparse kernels.
    """
    from ..codegen.targets.lookup import target_named

    bound = graph.bind(1) if graph.is_open and not graph.per_sample else graph
    with without_range_warnings():  # `findings` has them
        return lower(bound, target_named(target), weights=weights).plan.arena_bytes


def cpus_of(target: str) -> str:
    """In words, which CPUs run the code of the target of this name."""
    from ..codegen.targets.lookup import target_named

    return target_named(target).cpus
