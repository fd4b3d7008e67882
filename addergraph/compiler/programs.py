"""Programs in this process, libraries on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

from .. import border
from ..data import preprocessing
from ..errors import GraphError, ShapeError
from ..ir import Array, Graph
from ..ir.network import Network, graph_and_weights, require_weights
from ..ir.state import State, initial_weights
from ..ir.walk import computed, returning
from ..settings import number_of_threads
from .forks import import_compiler
from .learning import Learning, export_learning, require_learning
from .lowering import build, for_codegen, in_blocks, levels, road, without_range_warnings

if TYPE_CHECKING:
    from ..codegen.export.library import Exported
    from ..codegen.run.cache import Usage
    from ..codegen.run.jit import Built, Program
    from ..codegen.run.native import NativeLibrary
    from ..passes.pipeline import Observer


def compile(
    graph: Graph | Network,
    *,
    weights: Mapping[str, Array] | None = None,
    batch: int | None = None,
    target: str = "host",
    tune_for: str | None = None,
    threads: int = 1,
    state: State | None = None,
    cache: bool = True,
    tune: bool | float = False,
    multiplication_free: bool = False,
    observers: Sequence[Observer] = (),
) -> Program:
    """Native code for `graph` (or for a model's inference graph, with its weights).

    weights  the numbers of the graph's parameters; not needed for a model or with `state`
    batch    binds N: independent samples are computed in blocks that fit the cache; without it a
             graph of such samples runs any batch, many of them in blocks (`Program.prepare`)
    target   "host", a name that `addergraph.codegen.targets.lookup` lists, or a CPU name
    tune_for the machine that kernels are chosen for, where `target` leaves it open: a CPU
             name, "generic" or "host"; results keep their bits
    threads  threads of each call; results have the same bits for any number
    state    parameters that a program with updates shares with others (they change in place)
    tune     measure the kernels that could serve each contraction and keep the fastest: True, or
             about how many seconds to spend; results keep their bits
    multiplication_free  strict mode: no multiplication or division in the whole program,
             address arithmetic included, or UnsupportedError that names each layer that needs one

    Raises TargetError, ShapeError, DataError (missing weights) or CodegenError.
    """
    import_compiler()
    from ..codegen.run.jit import Program

    network, (graph, weights) = graph, graph_and_weights(graph, weights)
    known = preprocessing.declared_by(network)
    threads = number_of_threads(threads)
    built = build(
        graph, weights, batch=batch, target=target, tune_for=tune_for, cache=cache, tune=tune,
        multiplication_free=multiplication_free, observers=observers,
    )  # fmt: skip
    graph = built.lowered.source
    if not graph.updates:
        widen = partial(in_blocks, cache=cache)
        return Program(built, require_weights(graph, weights), None, threads, known, widen)
    if border.plain(State | None, "state", state) is None:
        state = State(graph.parameters)
        state.load(initial_weights(graph) if weights is None else weights)
    return Program(built, None, state, threads)


def compile_layers(
    graph: Graph | Network,
    *,
    weights: Mapping[str, Array] | None = None,
    target: str = "host",
    threads: int = 1,
) -> Program:
    """The compiled network with the value of every node as an output, for `ag.verify_layers`.

    `program.graph` is the graph after the passes: a fused node gives its last value only, and an
    open batch is 1. What depends on parameters alone is among its parameters; NumPy computes these
    numbers, as it does for `compile`. The kernels are those of `compile`; the memory plan is not,
    since values that are outputs keep a place of their own.

    Raises what `compile` raises, and GraphError for a graph with updates.
    """
    import_compiler()
    from ..codegen.emit.lowered import Kernels
    from ..codegen.run import jit
    from ..codegen.targets.lookup import target_named
    from ..passes import pipeline

    graph, weights = graph_and_weights(graph, weights)
    threads = number_of_threads(threads)
    if graph.updates:
        raise GraphError(f'graph "{graph.name}" updates parameters; compile its forward graph')
    kernels = Kernels(target_named(target), require_weights(graph, weights))
    with without_range_warnings():  # `compile` gives them
        whole = for_codegen(road(graph, kernels), kernels)
    # Outputs are never hoisted: what setup computes stays a parameter, and kernels the same.
    layers = returning(whole.main, computed(whole.main))
    lowered = for_codegen(pipeline.lower(layers, kernels, passes=()), kernels)
    numbers = jit.main_weights(whole, kernels.weights)
    return jit.Program(jit.build(lowered), numbers, None, threads)


def compile_as(program: Program, graph: Graph) -> Program:
    """Native code for a bound `graph` as it is, through no pass, by the kernels of `program`.

    Its parameters are those of the compiled graph of `program`, whose numbers they get.
    """
    from ..codegen.emit.lowered import Kernels
    from ..codegen.run import jit
    from ..passes import pipeline

    lowered = program.built.lowered
    numbers = main_weights(program, program.weights)
    kernels = Kernels(lowered.target, numbers, lowered.choices)
    made = for_codegen(pipeline.lower(graph, kernels, passes=()), kernels)
    return jit.Program(jit.build(made), numbers, None, program.threads)


def is_compiled(program: object) -> TypeGuard[Program]:
    """Whether it was compiled in this process, so that its nodes are known."""
    from ..codegen.run.jit import Program

    return isinstance(program, Program)


def main_weights(program: Program, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The numbers that `weights` make of the parameters of the compiled graph of `program`."""
    from ..codegen.run import jit

    return jit.main_weights(program.built.lowered, weights)


def without_weights(graph: Graph) -> Built:
    """What `load` takes: kernels that serve any numbers, so that like layers share one."""
    with without_range_warnings():  # `findings` has them
        return build(graph)


def load(built: Built, weights: Mapping[str, Array], threads: int) -> Program:
    """A compiled graph without updates, with these numbers."""
    from ..codegen.run.jit import Program

    return Program(built, weights, None, threads)


def export(
    graph: Graph | Network,
    folder: str | os.PathLike[str],
    *,
    weights: Mapping[str, Array] | None = None,
    batch: int | None = None,
    target: str = "host",
    tune_for: str | None = None,
    name: str | None = None,
    multiplication_free: bool = False,
    overwrite: bool = False,
    package: str | None = None,
    board: str | None = None,
    flash: int | None = None,
    ram: int | None = None,
    train: Learning | None = None,
) -> Exported:
    """A C library of `graph` for any target, also one that this machine cannot run. That of a model
    with a `preprocessing` says in its header what an image is, and its example reads pictures.

    `multiplication_free`: strict mode, as for `compile`; the library's entries are held to it, too.
    `tune_for`: the machine that kernels are chosen for, as for `compile`.
    `overwrite`: replace what is in the folder, also another network's library.
    `package`: the build system that is to find the library, too: "arduino", "cmake", "esp-idf",
    "platformio" or "zephyr".
    `board`: the name of one, which says the target and its memory; `flash`, `ram`: bytes of another
    one, or of what is left. UnsupportedError for a library that has no room there: before it is
    compiled where weights and arena alone are too large, else before a file is written.
    `train`: the library learns, too: a step of a model's training, the state that it changes, and
    what predicts by it, such as `ag.DeviceTraining(batch=16)`; see
    docs/device_training.md. UnsupportedError for targets that cannot, and for what is no model.

    See `codegen/export/aot.py`; `Program.export` does it for a program at hand. ShapeError for a
    batch of no sample.
    """
    from ..codegen.export import aot
    from ..codegen.targets.boards import board_of

    if batch is not None and border.integer("batch", batch) == 0:
        raise ShapeError("batch=0: a library computes at least one sample a call")
    place = board_of(target, board, flash, ram)
    if train is not None:
        others = {"weights": weights, "batch": batch, "package": package}
        require_learning(train, multiplication_free=multiplication_free, **others)
        return export_learning(
            train.step_of(graph), border.path("folder", folder), target=target, tune_for=tune_for,
            name=border.plain(str | None, "name", name),
            overwrite=border.flag("overwrite", overwrite), board=place,
            preprocessing=preprocessing.declared_by(graph),
        )  # fmt: skip
    target = target if place is None else place.targets[0]
    network, (graph, weights) = graph, graph_and_weights(graph, weights)
    known = preprocessing.declared_by(network)
    numbers = require_weights(graph, weights)
    lowered, *above = levels(graph, numbers, batch, target, tune_for, multiplication_free)
    return aot.export(
        lowered, numbers, folder, above=above, preprocessing=known, name=name, overwrite=overwrite,
        package=package, board=place,
    )  # fmt: skip


def load_native(folder: str | os.PathLike[str]) -> NativeLibrary:
    """Loads an exported shared library, which runs native code: only load what you trust."""
    from ..codegen.run.native import load

    return load(folder)


def cached(*, clear: bool = False) -> tuple[Usage, int]:
    """What the cache of compiled code holds, or held before it was cleared; and its limit in bytes.

    StorageError where its folder cannot be read, or not be cleared.
    """
    from ..codegen.run import cache

    return cache.clear() if clear else cache.usage(), cache.LIMIT


def channel_moments(values: Array) -> tuple[Array, Array]:
    """Mean and variance of every channel; see `codegen/run/moments.py`."""
    from ..codegen.run import moments

    return moments.channel_moments(values)


def has_native_code() -> bool:
    """Whether compiled code runs in this process."""
    from ..codegen.targets import lookup

    return lookup.has_native_code()
