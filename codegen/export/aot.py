"""Ahead of time: a built graph becomes a C library in a folder.

    net.o              code: the kernels and the C entry points (see entry.py)
    net_data.o         data: weights, golden outputs, metadata
    libnet.a           both
    libnet.so          both, linked, where there is a C compiler
    net.h              the C99 header
    metadata.json      what the library is, with the SHA-256 of every file
    example/main.c     a program that runs it, and its Makefile
    and what the package of another build system has beside (see package.py)

For WebAssembly, instead of shared library and example, a module and its script: see `web.py`.

The bytes of every file follow from the graph, its weights, the target and the versions of
AdderGraph and LLVM (and for the shared library from the linker): no dates, no paths.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from addergraph import border
from addergraph.data import Preprocessing
from addergraph.errors import UnsupportedError
from addergraph.files.storage import Pieces
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.rounding import Rounded
from addergraph.ir.types import TensorType
from addergraph.settings import integer

from ..emit.lowered import Lowered
from ..inspect import limits
from ..run.jit import Built, build, run_packed
from ..targets.boards import Board
from ..targets.lookup import runnable
from . import example, header, library, web
from .entry import api_symbols, emit_library, golden_block, golden_bytes, tolerances
from .interface import Interface, interface_of
from .levels import packed_levels
from .library import Exported
from .package import package_files, paths_of, require_package


@dataclass(frozen=True)
class _Golden:
    """Inputs, and what the target gives for them: to the bit, where nothing is `allowed`, else as
    `entry.tolerances` says."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    allowed: tuple[Array, ...] = ()


def export(
    compiled: Built | Lowered,
    weights: Mapping[str, Array],
    folder: str | os.PathLike[str],
    *,
    above: Sequence[Lowered] = (),
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    seed: int = 0,
    shared: bool | None = None,
    overwrite: bool = False,
    package: str | None = None,
    board: Board | None = None,
) -> Exported:
    """Writes a graph with its weights as a C library into `folder`, which is made if need be.

    compiled the program of this machine, where there is one; else what one is made from
    weights  the numbers of the source graph's parameters
    above    the same graph for each of the target's higher levels, where it has some
    preprocessing  what images are, where the graph takes them: for header, metadata and example
    name     of the library, else the graph's; made a C identifier
    seed     of the inputs that the self-test runs on. It expects the same bits; of a float network
             where this machine cannot run the target, outputs within the rounding of NumPy's
    shared   whether to link a shared library, or a module of WebAssembly: True or an error; None
             where that can be done, else metadata.json says why there is none. The C compiler is
             $CC, or cc; wasm-ld links modules
    overwrite  replace what is in the folder, whatever it is; else only an earlier export of the
             same graph, with these weights or others
    package  the build system that is to find the library, too: a name of `package.PACKAGES`
    board    where the library has to have room

    Raises UnsupportedError for a graph with updates, levels that are missing, clashing names,
    names of classes that are not those of its scores, a package that cannot be for the target, or
    what has no room on the board; DataError or ShapeError for another package, or weights that do
    not fit; ToolchainError when the C compiler is asked for and missing, or fails; StorageError
    when the folder cannot be written, or holds another network's library or files that were
    changed.
    """
    seed, folder = integer("seed", seed, 0), border.path("folder", folder)
    name = border.plain(str | None, "name", name)
    shared = border.plain(bool | None, "shared", shared)
    overwrite = border.flag("overwrite", overwrite)
    package = border.plain(str | None, "package", package)
    lowered = _lowered_of(compiled)
    forms = (lowered, *above)
    _require_exportable(forms)
    interface = interface_of(lowered, name, preprocessing, above)
    _require_place(package, board, interface)
    return library.write_library(
        folder, interface, lowered.declared,
        partial(_files, compiled, forms, weights, interface, seed, package, board),
        shared=shared, overwrite=overwrite,
        beside=["example/main.c"] * (not lowered.target.in_engine),
        packaged=paths_of(package, lowered.target, interface.prefix),
    )  # fmt: skip


def _require_exportable(forms: Sequence[Lowered]) -> None:
    """UnsupportedError for a graph with updates, and for levels of its target that are missing."""
    lowered, *above = forms
    if lowered.main.updates:
        raise UnsupportedError(
            f'graph "{lowered.source.name}" updates its parameters, which an exported library '
            "holds read-only; export the inference graph, for example model.graph(training=False)"
        )
    if [form.target.name for form in above] != [t.name for t in lowered.target.above]:
        raise UnsupportedError(
            f'a program runs one level of "{lowered.target.name}"; ag.export makes a library of all'
        )


def _require_place(package: str | None, board: Board | None, interface: Interface) -> None:
    """UnsupportedError for a package or a board that the target cannot have."""
    if package is not None:
        require_package(package, interface.target, interface.prefix)
    if board is not None and interface.target.in_engine:
        raise UnsupportedError(
            f'"{interface.target.name}" runs in an engine, on no board: leave out board, flash and '
            "ram"
        )


def _files(
    compiled: Built | Lowered, forms: Sequence[Lowered], weights: Mapping[str, Array],
    interface: Interface, seed: int, package: str | None, board: Board | None,
) -> dict[str, bytes | Pieces]:  # fmt: skip
    """Name -> content of everything but what is linked. The weights are there twice: as they
    were given, and packed."""
    prefix, lowered = interface.prefix, forms[0]
    exact = _is_known(lowered)
    text, levels = emit_library(forms, interface, exact=exact)
    packed = packed_levels(levels, weights)
    if board is not None:
        least = {"weights": packed.nbytes, "self-test": golden_bytes(interface)}
        board.require_room(prefix, least, {"arena": interface.arena_bytes}, known="at least ")
    golden = _golden(compiled, weights, packed, interface, seed)
    code = library.compiled(text, levels, prefix, api_symbols(prefix), lowered.target)
    metadata = library.metadata_of(
        interface, lowered.declared, weights, interface.inputs, packed, code.stack,
        exact=not golden.allowed, seed=seed,
    )  # fmt: skip
    block = golden_block(packed, golden.inputs, golden.outputs, golden.allowed)
    told = header.header(interface, exact=exact, stack=code.stack)
    files = library.library_files(
        interface, code, packed, block, told, metadata, board, package
    ) | _texts(interface, metadata)
    return files | ({} if package is None else package_files(package, interface, files))


def _texts(interface: Interface, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Name -> content of what runs the library: an example, or the script of a module."""
    if interface.target.in_engine:
        known = {key: metadata[key] for key in web.IDENTITY}
        return {
            f"{interface.prefix}.js": web.script(interface, known).encode(),
            f"{interface.prefix}.d.ts": web.declarations(interface).encode(),
        }
    return {
        "example/main.c": example.program(interface).encode(),
        "example/Makefile": example.makefile(interface).encode(),
    }


def _is_known(lowered: Lowered) -> bool:
    """Whether this machine can know the bits: of floats, only by running the code itself."""
    return runnable(lowered.target) or not limits.floats_of(lowered.main)


def _golden(
    compiled: Built | Lowered, weights: Mapping[str, Array], packed: Array, interface: Interface,
    seed: int,
) -> _Golden:  # fmt: skip
    lowered, rng = _lowered_of(compiled), np.random.default_rng(seed)
    inputs = tuple(_drawn(rng, a.type) for a in interface.inputs)
    if runnable(lowered.target):
        built = compiled if isinstance(compiled, Built) else build(lowered)
        return _Golden(inputs, run_packed(built, packed, inputs))
    if _is_known(lowered):
        return _Golden(inputs, tuple(run_reference(lowered.declared, inputs, weights)[0]))
    known = Rounded(lowered.declared, inputs, weights, rng)
    outputs = tuple(known.outputs)
    return _Golden(inputs, outputs, tolerances(outputs, known.allowed()))


def _lowered_of(compiled: Built | Lowered) -> Lowered:
    return compiled.lowered if isinstance(compiled, Built) else compiled


def _drawn(rng: np.random.Generator, type: TensorType) -> Array:
    match type.dtype.name:
        case "f32":
            return rng.standard_normal(type.sizes, np.float32)
        case "bool":
            return rng.integers(0, 2, type.sizes).astype(np.bool_)
        case _:
            limits = np.iinfo(str(type.dtype.numpy))
            low, high = max(limits.min, -128), min(limits.max, 255)
            return rng.integers(low, high, type.sizes, type.dtype.numpy, endpoint=True)
