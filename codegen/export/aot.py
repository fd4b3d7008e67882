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
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addergraph import border
from addergraph.data import Preprocessing
from addergraph.errors import ToolchainError, UnsupportedError
from addergraph.files.storage import Pieces, pieces
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.plan import ALIGNMENT
from addergraph.ir.rounding import Rounded
from addergraph.ir.types import TensorType
from addergraph.settings import integer

from .. import llvm
from ..emit.lowered import Lowered, computed_by
from ..inspect import limits, strict
from ..inspect.size import size_of_archive
from ..inspect.stack import stack_bytes
from ..run.jit import Built, build, run_packed
from ..targets.boards import Board
from ..targets.lookup import runnable
from . import example, header, link, web
from . import folder as folders
from .archive import Member, archive, bsd_archive
from .attributes import passing_no_floats
from .data import data_object
from .entry import api_symbols, data_symbols, emit_library, golden_block, golden_bytes, tolerances
from .interface import ABI_VERSION, Argument, Interface, Linkable, interface_of
from .levels import packed_levels
from .package import package_files, paths_of, require_package

FORMAT = 1  # of metadata.json


@dataclass(frozen=True)
class Exported:
    """Where the files of an exported library are. No shared library without a C compiler; module,
    script and its types where the target is WebAssembly, and there no example; nor is there one of
    a library that learns."""

    code: Path
    data: Path
    archive: Path
    shared: Path | None
    header: Path
    metadata: Path
    example: Path | None
    module: Path | None = None
    script: Path | None = None
    types: Path | None = None
    package: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Golden:
    """Inputs drawn from `seed`, and what the target gives for them: to the bit, where nothing is
    `allowed`, else as `entry.tolerances` says."""

    seed: int
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
    target, prefix = lowered.target, interface.prefix
    compiler = link.find_compiler(target, shared)
    _require_place(package, board, interface)
    packaged = paths_of(package, target, prefix)
    if not overwrite:
        digest = folders.graph_digest(lowered.declared)
        folders.require_replaceable(folder, prefix, digest, packaged)
    written = [*["example/main.c"] * (not target.in_engine), *packaged]
    with ExitStack() as until_written:
        where = until_written.enter_context(folders.made_folder(folder, written))
        files = _files(compiled, forms, weights, interface, seed, package, board)
        if compiler is None:
            why_none: str | None = link.why_none(target, shared)
        else:
            scratch = until_written.enter_context(link.scratch_folder(where))
            why_none = linked_into(compiler, interface, files, scratch, shared)
        folders.write(where, prefix, files, link.why_no_library(target, why_none))
    return _exported(where, interface, why_none is None, packaged)


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


def _exported(
    where: Path, interface: Interface, is_linked: bool, packaged: Sequence[str]
) -> Exported:
    prefix, target = interface.prefix, interface.target
    linked = where / link.linked_name(prefix, target) if is_linked else None
    code, data, library = (where / name for name in folders.objects(prefix))
    common = (where / f"{prefix}.h", where / folders.METADATA)
    if target.in_engine:
        texts = where / f"{prefix}.js", where / f"{prefix}.d.ts"
        return Exported(code, data, library, None, *common, None, linked, *texts)
    packed = tuple(where / name for name in packaged)
    main = where / "example" / "main.c"
    return Exported(code, data, library, linked, *common, main, package=packed)


def linked_into(
    compiler: Sequence[str], interface: Linkable, files: dict[str, bytes | Pieces],
    scratch: Path, shared: bool | None,
) -> str | None:  # fmt: skip
    """Adds the shared library or module to `files`, or says why there is none."""
    name = link.linked_name(interface.prefix, interface.target)
    try:
        files[name] = link.linked(compiler, interface, files, scratch)
    except ToolchainError as error:
        if shared:
            raise
        return str(error)
    return None


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
    nodes = {k: n for level in levels for k, n in computed_by(level.facts).items()}
    provided = data_symbols(prefix)
    if lowered.target.multiplier:
        code_object, assembly = llvm.compile_both(text, lowered.target)
        if not lowered.target.hosted:  # there a linker asks
            limits.require_no_calls(code_object, lowered.target, nodes, provided)
    else:
        code_object, assembly = strict.compile_both(text, lowered.target, nodes, provided)
    code_object = passing_no_floats(code_object)
    stack = stack_bytes(assembly, lowered.target.triple, api_symbols(prefix))
    metadata = _metadata(lowered, weights, interface, packed, golden, stack)
    # The file alone names the classes: in the library they would take flash, thousands of bytes.
    names: dict[str, Any] = {"classes": interface.classes} if interface.classes else {}
    names |= {} if package is None else {"package": package}
    told = folders.canonical(metadata)
    block = golden_block(packed, golden.inputs, golden.outputs, golden.allowed)
    data = data_object(prefix, lowered.target, packed, block, told)
    c_prefix = lowered.target.c_prefix
    members = [
        Member(f"{prefix}.o", [code_object], tuple(c_prefix + s for s in api_symbols(prefix))),
        Member(f"{prefix}_data.o", data, tuple(c_prefix + s for s in data_symbols(prefix))),
    ]
    files: dict[str, bytes | Pieces] = {
        f"{prefix}.o": code_object,
        f"{prefix}_data.o": data,
        f"lib{prefix}.a": (bsd_archive if lowered.target.format == "macho" else archive)(members),
        f"{prefix}.h": header.header(interface, exact=exact, stack=stack).encode(),
        folders.METADATA: folders.canonical(metadata | names),
        **_texts(interface, metadata),
    }
    if board is not None:
        size = size_of_archive(b"".join(pieces(files[f"lib{prefix}.a"])), f"lib{prefix}.a")
        board.require_room(prefix, size.flash, size.ram_of_a_call)
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
        return _Golden(seed, inputs, run_packed(built, packed, inputs))
    if _is_known(lowered):
        return _Golden(seed, inputs, tuple(run_reference(lowered.declared, inputs, weights)[0]))
    known = Rounded(lowered.declared, inputs, weights, rng)
    outputs = tuple(known.outputs)
    return _Golden(seed, inputs, outputs, tolerances(outputs, known.allowed()))


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


# -- metadata ------------------------------------------------------------------------------------


def _metadata(
    lowered: Lowered,
    weights: Mapping[str, Array],
    interface: Interface,
    packed: Array,
    golden: _Golden,
    stack: int | None,
) -> dict[str, Any]:
    """What the library says of itself."""
    from addergraph import __version__

    target = lowered.target
    known = {} if interface.image is None else asdict(interface.image)
    image = {"image": {key: v for key, v in known.items() if v is not None}} if known else {}
    return (
        folders.identity(lowered.declared, weights)
        | image
        | {
            "abi_version": ABI_VERSION,
            "arena_align": ALIGNMENT,
            "arena_bytes": interface.arena_bytes,
            "format": FORMAT,
            "golden": {"exact": not golden.allowed, "seed": golden.seed},
            "graph": interface.graph,
            "inputs": [_described(a) for a in interface.inputs],
            "multiplication_free": not target.multiplier,
            "name": interface.prefix,
            "outputs": [_described(a) for a in interface.outputs],
            "stack_bytes": stack,
            "target": {
                "cpu": target.cpu,
                "features": target.features,
                "name": target.name,
                "triple": target.triple,
            },
            "versions": {"addergraph": __version__, "llvm": llvm.version()},
            "weights_bytes": packed.nbytes,
            "weights_sha256": folders.sha256(packed.data),
        }
    )


def _described(argument: Argument) -> dict[str, Any]:
    return {
        "c_name": argument.c_name,
        "dtype": argument.source.dtype.name,
        "name": argument.name,
        "shape": list(argument.source.shape),
    }
