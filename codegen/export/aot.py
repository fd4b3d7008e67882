"""Ahead of time: a built graph becomes a C library in a folder.

    net.o              code: the kernels and the C entry points (see entry.py)
    net_data.o         data: weights, golden outputs, metadata
    libnet.a           both
    libnet.so          both, linked, where there is a C compiler
    net.h              the C99 header
    metadata.json      what the library is, with the SHA-256 of every file
    example/main.c     a program that runs it, and its Makefile

The bytes of every file follow from the graph, its weights, the target and the versions of
AdderGraph and LLVM (and for the shared library from the linker): no dates, no paths.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addergraph import border
from addergraph.errors import StorageError, ToolchainError, UnsupportedError
from addergraph.files.storage import atomic_write
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.plan import ALIGNMENT
from addergraph.ir.types import TensorType
from addergraph.settings import integer

from .. import llvm
from ..emit.lowered import Lowered, computed_by, pack_weights
from ..inspect import limits, strict
from ..run.jit import Built, Program, build, main_weights
from ..targets.lookup import host, runnable
from ..targets.target import Target
from . import header
from .archive import Member, archive
from .entry import api_symbols, data_module, data_symbols, emit_library, golden_block
from .interface import ABI_VERSION, Argument, Interface, interface_of

FORMAT = 1  # of metadata.json
LINK_FLAGS = (
    "-shared", "-nostdlib", "-Wl,-z,defs", "-Wl,-z,noexecstack", "-Wl,--build-id=none"
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """Where the files of an exported library are. No shared library without a C compiler."""

    code: Path
    data: Path
    archive: Path
    shared: Path | None
    header: Path
    metadata: Path
    example: Path


@dataclass(frozen=True)
class _Golden:
    """Inputs drawn from `seed`, and the bits that the target gives for them."""

    seed: int
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def export(
    compiled: Built | Lowered,
    weights: Mapping[str, Array],
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    seed: int = 0,
    shared: bool | None = None,
) -> Exported:
    """Writes a graph with its weights as a C library into `folder`, which is made if need be.

    compiled the program of this machine, where there is one; else what one is made from
    weights  the numbers of the source graph's parameters
    name     of the library, else the graph's; made a C identifier
    seed     of the inputs that the self-test runs on; for a float network where this machine
             cannot run the target there are none, and the self-test says so
    shared   whether to link a shared library: None if there is a C compiler, True or an error

    Raises UnsupportedError for a graph with updates or clashing names, DataError or ShapeError for
    weights that do not fit, ToolchainError when the C compiler is asked for and missing, or fails,
    StorageError when the folder cannot be written.
    """
    seed, folder = integer("seed", seed, 0), border.path("folder", folder)
    name = border.plain(str | None, "name", name)
    shared = border.plain(bool | None, "shared", shared)
    lowered = _lowered_of(compiled)
    if lowered.main.updates:
        raise UnsupportedError(
            f'graph "{lowered.source.name}" updates its parameters, which an exported library '
            "holds read-only; export the inference graph, for example model.graph(training=False)"
        )
    interface = interface_of(lowered, name)
    where = _made_folder(folder)
    compiler = _compiler(lowered.target, shared)
    golden = _golden(compiled, weights, interface, seed)
    files = _files(lowered, weights, interface, golden)
    library = f"lib{interface.prefix}.so"
    if compiler is not None:
        files[library] = _linked(compiler, interface.prefix, files)
    _write(where, interface, files, _why_not_shared(lowered.target, shared, compiler))
    p = interface.prefix
    return Exported(
        where / f"{p}.o", where / f"{p}_data.o", where / f"lib{p}.a",
        where / library if compiler is not None else None,
        where / f"{p}.h", where / "metadata.json", where / "example" / "main.c",
    )  # fmt: skip


def _files(
    lowered: Lowered, weights: Mapping[str, Array], interface: Interface, golden: _Golden | None
) -> dict[str, bytes]:
    """Name -> content of everything but the shared library and metadata.json."""
    prefix = interface.prefix
    text, facts = emit_library(lowered, interface, golden=golden is not None)
    numbers = main_weights(lowered, weights)
    packed = pack_weights(facts, lowered, numbers)
    ends = (golden.inputs, golden.outputs) if golden else ((), ())
    metadata = _canonical(_metadata(lowered.target, interface, packed, golden))
    data = data_module(prefix, packed, golden_block(packed, *ends), metadata)
    if lowered.target.multiplier:
        code_object = llvm.compile_object(text, lowered.target)
    else:
        nodes, provided = computed_by(facts), data_symbols(prefix)
        code_object = strict.compile_object(text, lowered.target, nodes, provided)
    data_object = llvm.compile_object(data, lowered.target)
    members = [
        Member(f"{prefix}.o", code_object, api_symbols(prefix)),
        Member(f"{prefix}_data.o", data_object, data_symbols(prefix)),
    ]
    return {
        f"{prefix}.o": code_object,
        f"{prefix}_data.o": data_object,
        f"lib{prefix}.a": archive(members),
        f"{prefix}.h": header.header(interface, golden=golden is not None).encode(),
        "example/main.c": header.example(interface).encode(),
        "example/Makefile": header.makefile(interface).encode(),
        "metadata.json": metadata,
    }


def _golden(
    compiled: Built | Lowered, weights: Mapping[str, Array], interface: Interface, seed: int
) -> _Golden | None:
    """None where this machine cannot know the bits: for floats, it has to run the code itself."""
    lowered, rng = _lowered_of(compiled), np.random.default_rng(seed)
    inputs = tuple(_drawn(rng, a.type) for a in interface.inputs)
    if runnable(lowered.target):
        built = compiled if isinstance(compiled, Built) else build(lowered)
        return _Golden(seed, inputs, Program(built, weights, None, 1).run(inputs))
    if limits.floats_of(lowered.main):
        return None
    outputs, _ = run_reference(lowered.main, inputs, main_weights(lowered, weights))
    return _Golden(seed, inputs, tuple(outputs))


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
    target: Target, interface: Interface, packed: Array, golden: _Golden | None
) -> dict[str, Any]:
    """What the library says of itself."""
    from addergraph import __version__

    return {
        "abi_version": ABI_VERSION,
        "arena_align": ALIGNMENT,
        "arena_bytes": interface.arena_bytes,
        "format": FORMAT,
        "golden": None if golden is None else {"seed": golden.seed},
        "graph": interface.graph,
        "inputs": [_described(a) for a in interface.inputs],
        "multiplication_free": not target.multiplier,
        "name": interface.prefix,
        "outputs": [_described(a) for a in interface.outputs],
        "target": {
            "cpu": target.cpu,
            "features": target.features,
            "name": target.name,
            "triple": target.triple,
        },
        "versions": {"addergraph": __version__, "llvm": llvm.version()},
        "weights_bytes": packed.nbytes,
        "weights_sha256": sha256(packed.tobytes()),
    }


def _described(argument: Argument) -> dict[str, Any]:
    return {
        "c_name": argument.c_name,
        "dtype": argument.source.dtype.name,
        "name": argument.name,
        "shape": list(argument.source.shape),
    }


def _canonical(metadata: Mapping[str, Any]) -> bytes:
    return json.dumps(metadata, sort_keys=True, indent=2).encode() + b"\n"


def sha256(data: bytes) -> str:
    """The digest by which metadata.json knows a file."""
    return hashlib.sha256(data).hexdigest()


# -- the folder ----------------------------------------------------------------------------------


def _made_folder(folder: str | os.PathLike[str]) -> Path:
    where = Path(folder)
    try:
        (where / "example").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f'cannot write into the folder "{folder}": {error.strerror or error}; '
            "name another one or change its permissions"
        ) from None
    return where


def _write(
    where: Path, interface: Interface, files: Mapping[str, bytes], no_shared: str | None
) -> None:
    """Writes all files, metadata.json last: until then the old one's digests do not fit."""
    contents = dict(files)
    described = json.loads(contents.pop("metadata.json"))
    described["files"] = {name: sha256(data) for name, data in contents.items()}
    described["no_shared_library"] = no_shared
    for name, data in contents.items():
        atomic_write(where / name, data)
    stale = where / f"lib{interface.prefix}.so"
    if stale.name not in contents:
        stale.unlink(missing_ok=True)  # of another graph or target, from an earlier export
    atomic_write(where / "metadata.json", _canonical(described))


# -- the C compiler ------------------------------------------------------------------------------


def _compiler_name(target: Target) -> str:
    """What the C compiler for `target` is called here."""
    native = sys.platform == "linux" and target.triple == host().triple
    return "cc" if native else f"{target.triple.replace('-unknown', '')}-gcc"


def _compiler(target: Target, shared: bool | None) -> str | None:
    """The C compiler that links the shared library, None for no library."""
    if shared and not target.hosted:
        raise UnsupportedError(
            f'"{target.name}" has no operating system that could load a shared library; '
            "link the static one, and pass shared=None or False"
        )
    if shared is False or not target.hosted:
        return None
    found = shutil.which(_compiler_name(target))
    if shared and found is None:
        raise ToolchainError(
            f'no C compiler for "{target.name}": looked for '
            f"{_compiler_name(target)} on the PATH; install one or pass shared=False"
        )
    return found


def _why_not_shared(target: Target, shared: bool | None, compiler: str | None) -> str | None:
    if compiler is not None:
        return None
    if shared is False:
        return "not asked for"
    if not target.hosted:
        return "the target has no operating system to load one"
    return f"there was no C compiler ({_compiler_name(target)}) to link it"


def _linked(compiler: str, prefix: str, files: Mapping[str, bytes]) -> bytes:
    """The shared library of the two objects, which exports the C interface alone."""
    objects = [f"{prefix}.o", f"{prefix}_data.o"]
    made = f"lib{prefix}.so"
    with tempfile.TemporaryDirectory() as scratch:
        for name in objects:
            (Path(scratch) / name).write_bytes(files[name])
        command = [compiler, *LINK_FLAGS, f"-Wl,-soname,{made}", "-o", made, *objects]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ToolchainError(f"cannot run the C compiler {compiler}: {error}") from None
        if done.returncode != 0:
            raise ToolchainError(
                f"the C compiler {compiler} could not link {made} (exit status "
                f"{done.returncode}): {done.stderr.strip()}; "
                "repair it, or export with shared=False"
            )
        return (Path(scratch) / made).read_bytes()
