"""The front door: a graph goes through the passes into native code.

The only module of this package that knows `passes` and `codegen`, and it imports them when called.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (see _import_compiler)
import functools
import importlib
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

from . import border
from .data import preprocessing
from .errors import DataError, GraphError, RangeWarning, ShapeError, nearest
from .ir import Array, Graph
from .ir.attributes import FULL_PRECISION
from .ir.network import Network, graph_and_weights, graph_of, require_weights
from .ir.state import State, initial_weights
from .ir.walk import computed, returning
from .settings import number_of_threads

if TYPE_CHECKING:
    from .codegen.emit.lowered import Kernels, Lowered
    from .codegen.export.aot import Exported
    from .codegen.inspect.census import Census
    from .codegen.inspect.certificate import Certificate
    from .codegen.kernels.schedule import Choice
    from .codegen.measure.profile import Profile
    from .codegen.measure.tune import Tuned
    from .codegen.run.cache import Usage
    from .codegen.run.jit import Built, Program
    from .codegen.run.native import NativeLibrary
    from .codegen.targets.target import Target
    from .ops.pointwise.fake_quantize import Rounding
    from .passes.lowering import Lowering
    from .passes.pipeline import Observer
    from .passes.quantize.calibrate import Engine, Report
    from .passes.train_step import Loss, Optimizer
    from .quantization import QuantizationSettings, Quantized
    from .report.findings import Finding

TUNE_SECONDS = 10.0
_importing = threading.RLock()
_held = ExitStack()  # over a fork


@functools.cache
def _import_compiler() -> None:
    """Imports all that compiling needs, which forks wait for: a child forked in the middle would
    wait for the importing thread, which it does not have, for ever. `concurrent.futures` is there
    before: it and `logging` handle forks, and must not begin to in the middle of one."""
    with _importing:
        importlib.import_module("platformdirs")
        from .codegen.inspect import limits, strict  # noqa: F401
        from .codegen.kernels import all_kernels  # noqa: F401
        from .codegen.measure import host  # noqa: F401
        from .codegen.run import jit  # noqa: F401
        from .passes import pipeline  # noqa: F401


def _before_fork() -> None:
    _held.enter_context(_importing)
    # Not a handler of its own: a fork that waits here runs none that is added meanwhile.
    if (llvm := sys.modules.get(f"{__package__}.codegen.llvm")) is not None:
        _held.enter_context(llvm.no_compilation())


if hasattr(os, "register_at_fork"):  # no other system forks
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_held.close,
        after_in_child=_held.close,
    )


def grad(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The gradient graph: `graph`'s inputs and an upstream gradient per output -> those of `wrt`.

    Adder layers use the paper's gradients (full precision for the filter, HardTanh for the input).
    """
    from .passes.autodiff import grad as differentiate

    return differentiate(graph_of(graph), border.plain(Sequence[str], "wrt", wrt, GraphError))


def train_step_graph(
    graph: Graph, loss: Loss, optimizer: Optimizer, *, gradient: str = FULL_PRECISION
) -> Graph:
    """One training step as one graph; see `passes/train_step.py`."""
    from .passes.train_step import train_step

    return train_step(graph, loss, optimizer, gradient=gradient)


def findings(graph: Graph) -> tuple[Finding, ...]:
    """What the ranges pass proves: dead layers, constants. `lints.lint` has all findings."""
    from .passes.ranges import findings as find

    return find(graph)


def optimize(graph: Graph, observers: Sequence[Observer] = ()) -> Graph:
    """`graph` after the pass pipeline, its batch still as it was."""
    from .passes.pipeline import run

    return run(graph, observers=observers)


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
    from .codegen.targets.lookup import target_named
    from .passes.lowering import LOWERING
    from .passes.pipeline import PIPELINE, step_name

    passes, steps = ({step_name(s): None for s in road} for road in (PIPELINE, LOWERING))
    known = passes | steps
    if name not in known:
        raise GraphError(f'unknown pass "{name}"{nearest(name, known)}; known: {", ".join(known)}')
    found: list[Lowering] = []

    def observe(at: str, before: Lowering, after: Lowering, seconds: float) -> None:
        found.extend([after] * (at == name))

    bound = graph if batch is None else graph.bind(batch)
    if name in passes:
        optimize(bound, [observe])
    else:
        lower(bound, target_named(target), [observe], weights)
    return found


def lower(
    graph: Graph,
    target: Target,
    observers: Sequence[Observer] = (),
    weights: Mapping[str, Array] | None = None,
    choices: Mapping[str, Choice] | None = None,
) -> Lowered:
    """The graph ready for code generation: all of PIPELINE, then of LOWERING (`passes/`).

    `choices`: kernels that were chosen by measuring, by node name (`tune`).
    `weights`, where known, let constant filters choose between dense and sparse kernels.

    Raises ShapeError when the batch is open and the graph is not a loop over samples.
    """
    _import_compiler()
    from .codegen.emit.lowered import Kernels

    kernels = Kernels(target, weights or {}, choices or {})
    return _lowered(_road(graph, kernels, observers), kernels)


def _road(graph: Graph, kernels: Kernels, observers: Sequence[Observer] = ()) -> Lowering:
    from .passes import pipeline

    if graph.is_open and not graph.per_sample:
        raise ShapeError(
            f'graph "{graph.name}" does not compute its samples one by one ({_mixing(graph)}); '
            "bind the batch: ag.compile(graph, batch=64)"
        )
    return pipeline.lower(graph, kernels, observers)


def _lowered(done: Lowering, kernels: Kernels) -> Lowered:
    """What code generation takes of the end of the road."""
    from .codegen.emit.lowered import Lowered

    assert done.setup is not None and done.plan is not None
    return Lowered(
        done.source, done.setup, done.main, done.plan, kernels.target, done.batched, done.kept,
        kernels.choices,
    )  # fmt: skip


def _mixing(graph: Graph) -> str:
    """Why the graph is not per sample."""
    for node in graph.nodes:
        if not node.op.per_sample and any(v.type.is_open for v in node.inputs):
            return f"{node.label} mixes them"
    return "it updates parameters, or an output has no batch"


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
    batch    binds N; without it a graph whose samples are independent runs any batch
    target   "host", a name that `addergraph.codegen.targets.lookup` lists, or an x86 CPU name
    tune_for the machine that kernels are chosen for, where `target` leaves it open: an x86 CPU
             name, "generic" or "host"; results keep their bits
    threads  threads of each call; results have the same bits for any number
    state    parameters that a program with updates shares with others (they change in place)
    tune     measure the kernels that could serve each contraction and keep the fastest: True, or
             about how many seconds to spend; results keep their bits
    multiplication_free  strict mode: no multiplication or division in the whole program,
             address arithmetic included, or UnsupportedError that names each layer that needs one

    Raises TargetError, ShapeError, DataError (missing weights) or CodegenError.
    """
    _import_compiler()
    from .codegen.run.jit import Program

    network, (graph, weights) = graph, graph_and_weights(graph, weights)
    known = preprocessing.declared_by(network)
    threads = number_of_threads(threads)
    built = build(
        graph, weights, batch=batch, target=target, tune_for=tune_for, cache=cache, tune=tune,
        multiplication_free=multiplication_free, observers=observers,
    )  # fmt: skip
    graph = built.lowered.source
    if not graph.updates:
        return Program(built, require_weights(graph, weights), None, threads, known)
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
    _import_compiler()
    from .codegen.emit.lowered import Kernels
    from .codegen.run import jit
    from .codegen.targets.lookup import target_named
    from .passes import pipeline

    graph, weights = graph_and_weights(graph, weights)
    threads = number_of_threads(threads)
    if graph.updates:
        raise GraphError(f'graph "{graph.name}" updates parameters; compile its forward graph')
    kernels = Kernels(target_named(target), require_weights(graph, weights))
    with _without_range_warnings():  # `compile` gives them
        whole = _lowered(_road(graph, kernels), kernels)
    # Outputs are never hoisted: what setup computes stays a parameter, and kernels the same.
    layers = returning(whole.main, computed(whole.main))
    lowered = _lowered(pipeline.lower(layers, kernels, passes=()), kernels)
    numbers = jit.main_weights(whole, kernels.weights)
    return jit.Program(jit.build(lowered), numbers, None, threads)


def is_compiled(program: object) -> TypeGuard[Program]:
    """Whether it was compiled in this process, so that its nodes are known."""
    from .codegen.run.jit import Program

    return isinstance(program, Program)


def main_weights(program: Program, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The numbers that `weights` make of the parameters of the compiled graph of `program`."""
    from .codegen.run import jit

    return jit.main_weights(program.built.lowered, weights)


def compile_as(program: Program, graph: Graph) -> Program:
    """Native code for a bound `graph` as it is, through no pass, by the kernels of `program`.

    Its parameters are those of the compiled graph of `program`, whose numbers they get.
    """
    from .codegen.emit.lowered import Kernels
    from .codegen.run import jit
    from .passes import pipeline

    lowered = program.built.lowered
    numbers = main_weights(program, program.weights)
    kernels = Kernels(lowered.target, numbers, lowered.choices)
    made = _lowered(pipeline.lower(graph, kernels, passes=()), kernels)
    return jit.Program(jit.build(made), numbers, None, program.threads)


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
    _import_compiler()
    from .codegen.run import jit

    lowered = _planned(
        graph, weights, batch, target, tune_for, tune, multiplication_free, observers
    )
    return jit.build(lowered, use_cache=border.flag("cache", cache))


def _planned(
    graph: Graph,
    weights: Mapping[str, Array] | None,
    batch: int | None,
    target: str,
    tune_for: str | None,
    tune: bool | float,
    multiplication_free: bool,
    observers: Sequence[Observer],
) -> Lowered:
    """The graph ready for code generation, after the questions that strict code is asked."""
    from .codegen.emit.lowered import Kernels
    from .codegen.inspect import limits, strict
    from .codegen.targets.lookup import target_named

    batch = border.plain(int | None, "batch", batch, ShapeError)
    tune = border.plain(bool | float, "tune", tune)
    if not 0.0 <= tune < math.inf:
        raise DataError(f"tune={tune} must be True, False, or a number of seconds of at least 0")
    observers = border.plain(Sequence[Callable[..., None]], "observers", observers)
    multiplication_free = border.flag("multiplication_free", multiplication_free)
    machine = target_named(target, tune_for)
    if multiplication_free or not machine.multiplier:
        strict.require_layers(graph, machine)
        machine = strict.without_multiplier(machine)
    kernels = Kernels(machine, weights or {})
    done = _road(graph if batch is None else graph.bind(batch), kernels, observers)
    if tune:
        from .codegen.measure import tune as tuning
        from .passes import lowering, pipeline

        measured = tuning.tune(_lowered(done, kernels), TUNE_SECONDS if tune is True else tune)
        kernels = replace(kernels, choices={found.node: found.choice for found in measured})
        done = pipeline.advance(replace(done, kernels=kernels), lowering.PLANNING, observers)
    lowered = _lowered(done, kernels)
    limits.require_target(lowered)
    return lowered


def tune_graph(
    graph: Graph,
    weights: Mapping[str, Array] | None = None,
    *,
    batch: int | None = None,
    target: str = "host",
    seconds: float = TUNE_SECONDS,
) -> tuple[Tuned, ...]:
    """What measuring finds for each contraction of `graph`; see `codegen/measure/tune.py`."""
    from .codegen.measure.tune import tune
    from .codegen.targets.lookup import target_named

    bound = graph if batch is None else graph.bind(batch)
    return tune(lower(bound, target_named(target), weights=weights), seconds)


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
) -> Exported:
    """A C library of `graph` for any target, also one that this machine cannot run. That of a model
    with a `preprocessing` says in its header what an image is, and its example reads pictures.

    `multiplication_free`: strict mode, as for `compile`; the library's entries are held to it, too.
    `tune_for`: the machine that kernels are chosen for, as for `compile`.
    `overwrite`: replace what is in the folder, also another network's library.

    See `codegen/export/aot.py`; `Program.export` does it for a program at hand.
    """
    from .codegen.export import aot

    network, (graph, weights) = graph, graph_and_weights(graph, weights)
    known = preprocessing.declared_by(network)
    lowered = _planned(graph, None, batch, target, tune_for, False, multiplication_free, ())
    numbers = require_weights(graph, weights)
    return aot.export(lowered, numbers, folder, preprocessing=known, name=name, overwrite=overwrite)


def cpus_of(target: str) -> str:
    """In words, which CPUs run the code of the target of this name."""
    from .codegen.targets.lookup import target_named

    return target_named(target).cpus


def memory_plan_text(graph: Graph, *, batch: int | None = None, target: str = "host") -> str:
    """The memory plan of the compiled graph as a table; see `passes/plan_memory.py`."""
    from .codegen.targets.lookup import target_named
    from .passes.plan_memory import render

    lowered = lower(graph if batch is None else graph.bind(batch), target_named(target))
    return render(lowered.plan, lowered.main)


def arena_bytes(
    graph: Graph, weights: Mapping[str, Array] | None = None, *, target: str = "host"
) -> int:
    """Bytes of working memory that the compiled graph needs, for one sample if its batch is open.

    `weights`, where known, choose between dense and sparse kernels.
    """
    from .codegen.targets.lookup import target_named

    bound = graph.bind(1) if graph.is_open and not graph.per_sample else graph
    with _without_range_warnings():  # `findings` has them
        return lower(bound, target_named(target), weights=weights).plan.arena_bytes


def census(graph: Graph | Network, *, batch: int | None = None, target: str = "host") -> Census:
    """The instructions that are emitted for `graph`, by kind; see `codegen/inspect/census.py`."""
    from .codegen.inspect.census import census as count
    from .codegen.targets.lookup import target_named

    source = graph_of(graph)
    bound = source if batch is None else source.bind(batch)
    return count(lower(bound, target_named(target)))


def certify(path: str | os.PathLike[str]) -> Certificate:
    """Whether compiled code multiplies, read off its bytes: `codegen/inspect/certificate.py`."""
    from .codegen.inspect import certificate

    return certificate.certify(path)


def measure_peak(form: str = "product", target: str = "host", threads: int = 1) -> float:
    """G terms/s that so many threads reach in registers; see `codegen/measure/peak.py`.

    Raises TargetError where this machine cannot run the target's code.
    """
    from .codegen.measure import peak
    from .codegen.targets.lookup import require_runnable, target_named

    machine = target_named(target)
    require_runnable(machine, f'this machine cannot run code for "{machine.name}"')
    return peak.measure_peak(form, machine, threads=threads)


def profile(
    graph: Graph,
    weights: Mapping[str, Array],
    *,
    batch: int | None = None,
    target: str = "host",
    seconds: float = 2.0,
) -> Profile:
    """What each kernel takes inside the network and alone; see `codegen/measure/profile.py`."""
    from .codegen.measure import profile as codegen
    from .codegen.targets.lookup import target_named

    bound = graph if batch is None else graph.bind(batch)
    return codegen.profile(lower(bound, target_named(target), weights=weights), weights, seconds)


def quantized(
    graph: Graph | Network,
    calibration: object,
    settings: QuantizationSettings,
    engine: Engine,
    *,
    weights: Mapping[str, Array] | None = None,
    levels: Array | None = None,
    report: Report,
) -> Quantized:
    """A trained network as an int8 model; see `passes/quantize/quantize.py`."""
    from .passes.quantize.quantize import quantize

    graph, weights = graph_and_weights(graph, weights)
    weights = require_weights(graph, weights)
    return quantize(graph, weights, calibration, settings, engine, levels, report)


def roundings(
    graph: Graph,
    weights: Mapping[str, Array],
    calibration: object,
    levels: Array | None,
    engine: Engine,
    *,
    bits: int,
    quantile: float,
) -> Mapping[str, Rounding]:
    """What `quantization_aware_graph` takes, from the ranges of values on calibration data."""
    from .passes.quantize.quantize import roundings as calibrated

    return calibrated(graph, weights, calibration, bits, quantile, engine, levels)


def quantization_aware_graph(graph: Graph, rounded: Mapping[str, Rounding]) -> Graph:
    """`graph` with the roundings of `rounded`; see `passes/quantize/rounded.py`."""
    from .passes.quantize.rounded import quantization_aware

    return quantization_aware(graph, rounded)


def without_weights(graph: Graph) -> Built:
    """What `load` takes: kernels that serve any numbers, so that like layers share one."""
    with _without_range_warnings():  # `findings` has them
        return build(graph)


def load(built: Built, weights: Mapping[str, Array], threads: int) -> Program:
    """A compiled graph without updates, with these numbers."""
    from .codegen.run.jit import Program

    return Program(built, weights, None, threads)


def channel_moments(values: Array) -> tuple[Array, Array]:
    """Mean and variance of every channel; see `codegen/run/moments.py`."""
    from .codegen.run import moments

    return moments.channel_moments(values)


def has_native_code() -> bool:
    """Whether compiled code runs in this process."""
    from .codegen.targets import lookup

    return lookup.has_native_code()


@contextmanager
def _without_range_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        yield


def cached(*, clear: bool = False) -> tuple[Usage, int]:
    """What the cache of compiled code holds, or held before it was cleared; and its limit in bytes.

    StorageError where its folder cannot be read, or not be cleared.
    """
    from .codegen.run import cache

    return cache.clear() if clear else cache.usage(), cache.LIMIT


def load_native(folder: str | os.PathLike[str]) -> NativeLibrary:
    """Loads an exported shared library, which runs native code: only load what you trust."""
    from .codegen.run.native import load

    return load(folder)


__all__ = [
    "arena_bytes", "build", "cached", "census", "certify", "compile", "compile_as",
    "compile_layers", "export", "findings", "grad", "is_compiled", "load_native", "lower",
    "main_weights", "measure_peak", "memory_plan_text", "optimize", "points_after", "profile",
    "quantization_aware_graph", "quantized", "roundings", "train_step_graph", "tune_graph",
]  # fmt: skip
