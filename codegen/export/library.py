"""What all libraries are made of and how they are written, of networks that answer and of those
that also learn: code and data objects, their archive, the metadata, the folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from addergraph.errors import ToolchainError
from addergraph.files.storage import Pieces
from addergraph.ir import Array, Graph
from addergraph.ir.plan import ALIGNMENT
from addergraph.ir.types import TensorType

from .. import llvm
from ..emit.lowered import computed_by
from ..inspect import limits, strict
from ..inspect.size import size_of_archive
from ..inspect.stack import require_frames_below_a_page, stack_bytes
from ..targets.boards import Board
from ..targets.target import Target
from . import folder as folders
from . import link
from .archive import Member, archive, bsd_archive
from .attributes import passing_no_floats
from .data import data_object
from .entry import data_symbols
from .interface import ABI_VERSION, Argument, Described, Linkable
from .levels import Level

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
class Code:
    """A code object, the `functions` of C that it defines, and the bytes of `stack` that a call of
    one takes at most; None where that is not known."""

    data: bytes
    functions: tuple[str, ...]
    stack: int | None


def compiled(
    text: str, levels: Sequence[Level], prefix: str, functions: tuple[str, ...], target: Target
) -> Code:
    """The object of a module. UnsupportedError where it calls what the target lacks, multiplies
    where it may not, or takes more stack at once than Windows gives."""
    nodes = {k: n for level in levels for k, n in computed_by(level.facts).items()}
    provided = data_symbols(prefix)
    if target.multiplier:
        data, assembly = llvm.compile_both(text, target)
        if not target.hosted:  # there a linker asks
            limits.require_no_calls(data, target, nodes, provided)
    else:
        data, assembly = strict.compile_both(text, target, nodes, provided)
    if target.format == "coff":
        require_frames_below_a_page(assembly, target.triple)
    stack = stack_bytes(assembly, target.triple, functions)
    return Code(passing_no_floats(data), functions, stack)


def library_files(
    interface: Described, code: Code, weights: Array, golden: bytes, header: str,
    metadata: Mapping[str, Any], board: Board | None, package: str | None = None,
) -> dict[str, bytes | Pieces]:  # fmt: skip
    """Name -> content of what every library has; `weights`, u8, stand in the data object.
    UnsupportedError where the library has no room on the board."""
    prefix, target = interface.prefix, interface.target
    data = data_object(prefix, target, weights, golden, folders.canonical(metadata))
    both = _archived(prefix, target, code, data)
    if board is not None:
        size = size_of_archive(b"".join(both), f"lib{prefix}.a")
        board.require_room(prefix, size.flash, size.ram_of_a_call)
    # The file alone names the classes: in the library they would take flash, thousands of bytes.
    told: dict[str, Any] = {"classes": interface.classes} if interface.classes else {}
    told |= {} if package is None else {"package": package}
    return {
        f"{prefix}.o": code.data,
        f"{prefix}_data.o": data,
        f"lib{prefix}.a": both,
        f"{prefix}.h": header.encode(),
        folders.METADATA: folders.canonical({**metadata, **told}),
    }


def _archived(
    prefix: str, target: Target, code: Code, data: Sequence[bytes | memoryview]
) -> list[bytes | memoryview]:
    """The static library, in the format that the linkers of the target's system take."""
    parts = (
        (f"{prefix}.o", [code.data], code.functions),
        (f"{prefix}_data.o", data, data_symbols(prefix)),
    )
    members = [
        Member(name, content, tuple(target.c_prefix + symbol for symbol in symbols))
        for name, content, symbols in parts
    ]
    return bsd_archive(members) if target.format == "macho" else archive(members)


def metadata_of(
    interface: Described, graph: Graph, numbers: Mapping[str, Array], inputs: Sequence[Argument],
    weights: Array, stack: int | None, *, exact: bool, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What every library says of itself.

    graph, numbers  the network, by which it is known
    inputs          those of `run`
    weights         u8, as they stand in the data object
    exact, seed     whether the self-test expects the same bits, and of what its samples are drawn
    """
    from addergraph import __version__

    target = interface.target
    known = {} if interface.image is None else asdict(interface.image)
    image = {"image": {key: v for key, v in known.items() if v is not None}} if known else {}
    return {
        **folders.identity(graph, numbers),
        **image,
        "abi_version": ABI_VERSION,
        "arena_align": ALIGNMENT,
        "arena_bytes": interface.arena_bytes,
        "format": FORMAT,
        "golden": {"exact": exact, "seed": seed},
        "graph": interface.graph,
        "inputs": [described(a.c_name, a.name, a.source) for a in inputs],
        "multiplication_free": not target.multiplier,
        "name": interface.prefix,
        "outputs": [described(a.c_name, a.name, a.source) for a in interface.outputs],
        "stack_bytes": stack,
        "target": {
            "cpu": target.cpu,
            "features": target.features,
            "name": target.name,
            "triple": target.triple,
        },
        "versions": {"addergraph": __version__, "llvm": llvm.version()},
        "weights_bytes": weights.nbytes,
        "weights_sha256": folders.sha256(weights.data),
    }


def described(c_name: str, name: str, type: TensorType) -> dict[str, Any]:
    """A tensor in the metadata."""
    return {"c_name": c_name, "dtype": type.dtype.name, "name": name, "shape": list(type.shape)}


def write_library(
    folder: str | os.PathLike[str], interface: Described, graph: Graph,
    made: Callable[[], dict[str, bytes | Pieces]], *, shared: bool | None = None,
    overwrite: bool = False, beside: Sequence[str] = (), packaged: Sequence[str] = (),
) -> Exported:  # fmt: skip
    """Writes a library into `folder`, which is made if need be, with what is linked of it.

    graph     whose library the folder may hold already
    made      gives name -> content of all files but the linked one. It is asked when it is known
              that the folder can be written; an error then leaves the folder as it was
    beside    files in folders of their own; packaged: those of a package for a build system

    The rest, and what is raised, is as for `aot.export`.
    """
    prefix, target = interface.prefix, interface.target
    compiler = link.find_compiler(target, shared)
    if not overwrite:
        folders.require_replaceable(folder, prefix, folders.graph_digest(graph), packaged)
    with ExitStack() as until_written:
        where = until_written.enter_context(folders.made_folder(folder, [*beside, *packaged]))
        files = made()
        if compiler is None:
            why_none: str | None = link.why_none(target, shared)
        else:
            scratch = until_written.enter_context(link.scratch_folder(where))
            why_none = _linked_into(compiler, interface, files, scratch, shared)
        folders.write(where, prefix, files, link.why_no_library(target, why_none))
    return _exported(where, prefix, files, packaged)


def _linked_into(
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


def _exported(
    where: Path, prefix: str, files: Mapping[str, bytes | Pieces], packaged: Sequence[str]
) -> Exported:
    there = {name: where / name for name in files}
    code, data, both = (there[name] for name in folders.objects(prefix))
    return Exported(
        code, data, both, there.get(f"lib{prefix}.so"), there[f"{prefix}.h"],
        there[folders.METADATA], there.get("example/main.c"), there.get(f"{prefix}.wasm"),
        there.get(f"{prefix}.js"), there.get(f"{prefix}.d.ts"),
        tuple(there[name] for name in packaged),
    )  # fmt: skip
