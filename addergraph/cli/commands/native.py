"""`addergraph compile`, `run` and `verify`."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import compiler
from ...data.npz import read_npz
from ...diagnostics import pictures, plots
from ...errors import DataError, StorageError, UnsupportedError
from ...files import storage
from ...ir import Array, Graph
from ...ir.interpreter import run_reference
from ...model.device import DeviceTraining
from ...settings import NOTHING, setting
from ...training.recipes import find
from ...training.settings import REFERENCE
from ...verification.layers import SAMPLES as LAYER_SAMPLES
from ...verification.layers import verify_layers
from ...verification.outputs import Runnable
from ...verification.outputs import verify as compare
from .. import options as shared
from .source import Source, open_source

SAMPLES = 100  # of the outputs, where the options do not say


@dataclass(frozen=True, kw_only=True)
class Library:
    """The options of `compile`."""

    file: str = shared.file()
    folder: str = setting(
        NOTHING,
        "Where the library goes; created if missing.",
        name="output",
        short="-o",
        metavar="FOLDER",
    )
    name: str | None = setting(None, "Name of the library and its functions.", unset="the graph's")
    weights: str | None = shared.weights()
    batch: int | None = shared.batch(
        "Samples that one call of the library computes; with --train, samples of a step.",
        "1; with --train the recipe's, else 16", 1,
    )  # fmt: skip
    target: str = shared.target()
    tune_for: str | None = setting(
        None,
        "Choose kernels for this machine: a CPU name, generic or host. The code runs on every "
        "machine of the target.",
        metavar="CPU",
        unset="host or the CPU that --target names, else generic",
    )
    multiplication_free: bool = setting(
        False,
        "Refuse a network that multiplies or divides; compute addresses by shifts and additions.",
    )
    board: str | None = shared.board("Compile for this board, and refuse what has no room there")
    flash: int | None = shared.flash()
    ram: int | None = shared.ram()
    package: str | None = setting(
        None,
        "Also write what this build system expects: arduino, cmake, esp-idf, platformio or zephyr.",
        metavar="SYSTEM",
        unset="header and libraries alone",
    )
    overwrite: bool = setting(
        False, "Replace what is in the folder, also another network's library and changed files."
    )
    train: bool = setting(
        False,
        "Write a library that learns: steps of training, their state, and what predicts by it.",
    )
    recipe: str | None = setting(
        None,
        "With --train: the optimizer, label smoothing and gradient of this recipe.",
        metavar="NAME|FILE.toml",
        unset="SGD",
    )
    freeze: Sequence[str] = setting(
        (),
        "With --train: these layers or parameters do not learn, as conv1 or 'block*'; may be given "
        "again.",
        kind=str,
        many=True,
        metavar="PATTERN",
        unset="what the model file says",
    )


def compile_library(options: Library) -> None:
    """Exports a C library and lists what was written."""
    _require_training(options)
    source = open_source(options.file, options.weights)
    known = source.model or source.quantized
    train = _training(options, source) if options.train else None
    exported = compiler.export(
        known or source.graph,
        options.folder,
        weights=None if known else source.required_weights(),
        batch=None if options.train else options.batch,
        target=options.target,
        tune_for=options.tune_for,
        name=options.name,
        multiplication_free=options.multiplication_free,
        overwrite=options.overwrite,
        package=options.package,
        board=options.board,
        flash=options.flash,
        ram=options.ram,
        train=train,
    )
    folder = exported.example and shlex.quote(str(exported.example.parent))
    described = [
        (exported.code, "code: kernels and entry points"),
        (exported.data, "data: weights, golden outputs, metadata"),
        (exported.archive, "static library of both"),
        (exported.shared, "shared library of both"),
        (exported.header, "C99 header"),
        (exported.metadata, "tensors, target, versions, digests"),
        (exported.example, f"a program that runs it; make -C {folder}"),
        (exported.module, "module of both, with the memory that a call needs"),
        (exported.script, "ES module that loads it: const net = await load()"),
        (exported.types, "its types"),
        *((path, f"for {options.package}") for path in exported.package),
    ]
    for path, what in described:
        if path is not None:
            print(f"{path.stat().st_size:>10,} bytes  {path}  {what}")
    facts = json.loads(exported.metadata.read_text())
    if options.name not in (None, facts["name"]):
        print(f'--name "{options.name}" is no name in C: the library is called "{facts["name"]}"')
    target = facts["target"]["name"]
    own = ", this machine's" * (options.target == "host" and options.board is None)
    print(f"target {target}{own}: the code runs on {compiler.cpus_of(target)}")
    if exported.shared is None and exported.module is None:
        what = "shared library" if exported.script is None else "module"
        print(f"no {what}: {facts['no_shared_library']}")
    if facts["multiplication_free"]:
        print("multiplication-free: no instruction multiplies or divides, addresses included")
    print(f"a call needs an arena of {facts['arena_bytes']:,} bytes{_learns(facts)}")


def _learns(facts: Mapping[str, Any]) -> str:
    """What metadata.json says of a library that learns."""
    if "training" not in facts:
        return ""
    known = facts["training"]
    return (
        f" and a state of {facts['state_bytes']:,}, which is {known['saved_bytes']:,} saved; a "
        f"step takes {known['batch']} samples"
    )


def _require_training(options: Library) -> None:
    """DataError for options that go with --train alone."""
    given = [f"--{name}" for name in ("recipe", "freeze") if getattr(options, name)]
    if given and not options.train:
        raise DataError(f"{given[0]} says how a library learns: give --train, too")


def _training(options: Library, source: Source) -> DeviceTraining:
    """How the library shall learn; freezes what shall not. UnsupportedError for the text of a
    graph, and for an integer network."""
    if source.model is None:
        what = (
            "an integer network has no gradients"
            if source.quantized
            else ("the text of a graph says nothing of its loss and batch statistics")
        )
        raise UnsupportedError(
            f'"{options.file}" cannot learn: {what}; give the float model file, or the name of a '
            "network"
        )
    if options.freeze:
        source.model.freeze(*options.freeze)
    if options.recipe is not None:
        return DeviceTraining.of_recipe(find(options.recipe), options.batch)
    return DeviceTraining() if options.batch is None else DeviceTraining(batch=options.batch)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The options of `run`."""

    file: str | None = setting(None, place=True)
    folder: str | None = setting(
        None,
        "Run the code of this exported library.",
        name="native",
        metavar="FOLDER",
        unset="compile FILE",
    )
    inputs: str = setting(
        NOTHING, "Arrays named as the inputs.", name="input", short="-i", metavar="X.npz"
    )
    output: str = setting(NOTHING, "Arrays named as the outputs.", short="-o", metavar="Y.npz")
    weights: str | None = shared.weights()
    engine: str = shared.engine()
    threads: int = shared.one_thread()


def run(options: Run) -> None:
    """Reads arrays named as the graph's inputs, writes arrays named as its outputs."""
    if (options.file is None) == (options.folder is None):
        raise DataError("give either FILE or --native FOLDER: what shall run?")
    graph, compute = _computation(options)
    output = options.output
    arrays = read_npz(options.inputs, *(v.name for v in graph.inputs))
    results = compute(arrays)
    made = {v.name: array for v, array in zip(graph.outputs, results, strict=True)}
    _write_npz(output, made)
    shapes = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in made.items())
    print(f"wrote {output}: {shapes}")


Computation = Callable[[Sequence[object]], tuple[Array, ...]]


def _computation(options: Run) -> tuple[Graph, Computation]:
    """A graph, for its inputs and outputs, and what computes these from those."""
    if options.folder is not None:
        library = compiler.load_native(options.folder)
        return library.graph, library.run
    source = open_source(str(options.file), options.weights)
    numbers = source.required_weights()
    if options.engine == REFERENCE:
        return source.graph, lambda arrays: run_reference(source.graph, arrays, numbers)[0]
    return source.graph, compiler.compile(
        source.graph, weights=numbers, threads=options.threads
    ).run


def _write_npz(path: str, arrays: Mapping[str, Array]) -> None:
    if Path(path).suffix != ".npz":
        raise StorageError(f'--output "{path}": the name of an archive of arrays ends in .npz')
    data = io.BytesIO()
    # np.savez takes names as keywords: an array called "file" would be its first argument.
    with zipfile.ZipFile(data, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    storage.atomic_write(path, data.getvalue())


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The options of `verify`."""

    file: str = shared.file()
    weights: str | None = shared.weights()
    folder: str | None = setting(
        None,
        "Check the code of this exported library.",
        name="native",
        metavar="FOLDER",
        unset="compile FILE",
    )
    inputs: str | None = setting(
        None, "Samples to compare on.", name="input", metavar="X.npz", unset="random ones"
    )
    samples: int | None = setting(
        None,
        "Random samples.",
        kind=int,
        least=1,
        unset=f"{SAMPLES} for the outputs, {LAYER_SAMPLES} for --layers",
    )
    seed: int = setting(0, "Of the random samples.", least=0)
    batch: int | None = shared.batch("Samples of a call.", "any number")
    target: str = shared.target()
    threads: int = shared.one_thread()
    layers: bool = setting(False, "Also compare each layer, on its own native inputs.")
    plot: str | None = setting(
        None, "Draw the error of each layer.", metavar="FILE.png", unset="no picture"
    )


@dataclass(frozen=True)
class _Exported:
    """An exported library as `verify` takes it: what it was made from brings the weights."""

    run: Computation
    weights: Mapping[str, Array]


def verify(options: Verification) -> bool:
    """Prints the report, by layers if asked for; whether all is within its bound.

    DataError for options that do not go together.
    """
    _require_fitting(options)
    source = open_source(options.file, options.weights)
    graph = source.graph if options.batch is None else source.graph.bind(options.batch)
    program: Runnable
    if options.folder is not None:
        library = compiler.load_native(options.folder)
        numbers, note = source.required_weights(), ""
        library.require_exported_from(graph, numbers, options.folder)
        program = _Exported(library.run, numbers)
    else:
        numbers, note = source.some_weights(options.seed)
        program = compiler.compile(
            source.graph, weights=numbers, batch=options.batch, target=options.target,
            threads=options.threads,
        )  # fmt: skip
    if note:
        print(note)
    given = None
    if options.inputs is not None:
        given = read_npz(options.inputs, *(v.name for v in graph.inputs))
    samples = SAMPLES if options.samples is None else options.samples
    report = compare(graph, program, samples, options.seed, inputs=given, verbose=1)
    print(report)
    if not options.layers:
        return report.ok
    return _verify_layers(graph, program.weights, given, options, report.ok)


def _require_fitting(options: Verification) -> None:
    if options.plot is not None:
        if not options.layers:
            raise DataError("--plot draws the error of each layer: give --layers, too")
        pictures.require_picture(options.plot)
    if options.layers and options.folder is not None:
        raise DataError(
            "--layers compiles the network with every layer as an output, which an exported "
            "library does not have: leave out --native"
        )


def _verify_layers(
    graph: Graph,
    weights: Mapping[str, Array],
    given: Sequence[object] | None,
    options: Verification,
    outputs_ok: bool,
) -> bool:
    program = compiler.compile_layers(
        graph, weights=weights, target=options.target, threads=options.threads
    )
    samples = LAYER_SAMPLES if options.samples is None else options.samples
    report = verify_layers(graph, program, samples, options.seed, inputs=given, verbose=1)
    print(report)
    if report.ok and not outputs_ok:
        print(
            "every layer is right by itself, but the outputs are not: the passes "
            "(see inspect --passes) or the memory plan (inspect --plan) are wrong"
        )
    if options.plot is not None:
        pictures.save(plots.plot_layer_errors(report), options.plot)
        print(f"wrote {options.plot}")
    return report.ok and outputs_ok
