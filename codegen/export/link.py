"""What loads, of an export: a shared library, by the C compiler of this system, or a module of
WebAssembly, by wasm-ld. Optional: where there is no such program, the objects have to do."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from addergraph.errors import StorageError, ToolchainError, UnsupportedError
from addergraph.files.storage import FilePieces, Pieces, pieces

from .. import llvm
from ..targets.lookup import host
from ..targets.target import Target
from . import web
from .interface import Linkable

LINK_FLAGS = (
    "-shared", "-nostdlib", "-Wl,-z,defs", "-Wl,-z,noexecstack", "-Wl,--build-id=none"
)  # fmt: skip
WASM_FLAGS = ("--no-entry", "--stack-first", "-z", f"stack-size={web.STACK_BYTES}")
_WASM_LD = "wasm-ld"
_GET = "LLVM's lld (Debian: apt-get install lld)"
_NO_SYSTEM = "the target has no operating system to load one"


def linked_name(prefix: str, target: Target) -> str:
    """The file that is linked."""
    return f"{prefix}.wasm" if target.in_engine else f"lib{prefix}.so"


def compiler_command(target: Target) -> list[str]:
    """What links for `target` as it is called here: $CC or cc for this machine, for others the
    cross compiler by its usual name; wasm-ld."""
    if target.in_engine:
        return [_WASM_LD]
    if sys.platform != "linux" or target.triple != host().triple:
        kind = "clang" if "android" in target.triple else "gcc"  # as the NDK has it
        usual = target.triple.replace("-unknown", "").replace("thumbv7", "arm")
        return [f"{usual}-{kind}"]
    named = os.environ.get("CC", "")
    try:
        return shlex.split(named) or ["cc"]
    except ValueError as error:
        raise ToolchainError(f"the environment's CC={named!r} is no command: {error}") from None


def find_compiler(target: Target, shared: bool | None) -> Sequence[str] | None:
    """What links the shared library or module, None for none.

    Raises UnsupportedError or ToolchainError where `shared` asks for one that cannot be.
    """
    if shared and not target.hosted and not target.in_engine:
        raise UnsupportedError(
            f'"{target.name}" gets no shared library: {why_none(target, None)}; '
            "link the static one, and pass shared=None or False"
        )
    if shared is False or not (target.hosted or target.in_engine):
        return None
    command = compiler_command(target)
    found = shutil.which(command[0])
    if shared and found is None:
        raise ToolchainError(
            f'no {_what(target)} for "{target.name}": looked for {command[0]} on the PATH; '
            f"install {_GET if target.in_engine else 'one'}, or pass shared=False"
        )
    return None if found is None else [found, *command[1:]]


def why_none(target: Target, shared: bool | None) -> str:
    """Why there is no shared library or module where `find_compiler` finds nothing."""
    if shared is False:
        return "not asked for"
    if target.in_engine:
        return f"there was no linker ({_WASM_LD}, of LLVM's lld) to make the module for engines"
    if target.format != "elf":
        return "shared libraries are linked for Linux alone; link the static one"
    if not target.hosted:
        return _NO_SYSTEM
    return f"there was no C compiler ({compiler_command(target)[0]}) to link it"


def why_no_library(target: Target, why_none: str | None) -> str | None:
    """What metadata.json says of a shared library: WebAssembly has none where its module is."""
    return _NO_SYSTEM if why_none is None and target.in_engine else why_none


def _what(target: Target) -> str:
    return "linker" if target.in_engine else "C compiler"


@contextmanager
def scratch_folder(where: Path) -> Iterator[Path]:
    """A folder to link in: in `where`, not in the one of temporary files, which need not be
    writable. StorageError where that cannot be written."""
    try:
        with tempfile.TemporaryDirectory(
            prefix=".link-", dir=where, ignore_cleanup_errors=True
        ) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise StorageError(f'cannot write "{where}": {error.strerror or error}') from None


def linked(
    compiler: Sequence[str], interface: Linkable, files: Mapping[str, bytes | Pieces],
    scratch: Path,
) -> FilePieces:  # fmt: skip
    """The shared library or module of the two objects, which exports the C interface alone, as long
    as there is the folder `scratch`. Raises ToolchainError where the compiler or linker fails."""
    prefix, target = interface.prefix, interface.target
    made, buffers = linked_name(prefix, target), f"{prefix}_memory.o"
    contents = {name: files[name] for name in (f"{prefix}.o", f"{prefix}_data.o")}
    flags = [*LINK_FLAGS, f"-Wl,-soname,{made}"]
    if target.in_engine:
        contents[buffers] = llvm.compile_object(web.memory_module(interface), target)
        flags = [*WASM_FLAGS, *(f"--export={name}" for name in web.exports(interface))]
    for name, content in contents.items():
        with open(scratch / name, "wb") as file:
            file.writelines(pieces(content))
    _run([*compiler, *flags, "-o", made, *contents], scratch, made, _what(target))
    return FilePieces(scratch / made)


def _run(command: Sequence[str], scratch: Path, made: str, what: str) -> None:
    """Runs the compiler in the folder `scratch`; ToolchainError unless it makes the file."""
    try:
        done = subprocess.run(
            command, cwd=scratch, env={**os.environ, "TMPDIR": os.path.abspath(scratch)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise ToolchainError(f"cannot run the {what} {command[0]}: {error}") from None
    if done.returncode != 0 or not (scratch / made).exists():
        raise ToolchainError(
            f"the {what} {command[0]} could not link {made} (exit status "
            f"{done.returncode}): {done.stderr.strip()}; repair it, or export with shared=False"
        )
