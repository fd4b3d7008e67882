"""The shared library of an export: optional, by the C compiler of this system."""

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

from ..targets.lookup import host
from ..targets.target import Target

LINK_FLAGS = (
    "-shared", "-nostdlib", "-Wl,-z,defs", "-Wl,-z,noexecstack", "-Wl,--build-id=none"
)  # fmt: skip


def compiler_command(target: Target) -> list[str]:
    """The C compiler for `target` as it is called here: $CC or cc for this machine, for others the
    cross compiler by its usual name."""
    if sys.platform != "linux" or target.triple != host().triple:
        kind = "clang" if "android" in target.triple else "gcc"  # as the NDK has it
        return [f"{target.triple.replace('-unknown', '')}-{kind}"]
    named = os.environ.get("CC", "")
    try:
        return shlex.split(named) or ["cc"]
    except ValueError as error:
        raise ToolchainError(f"the environment's CC={named!r} is no command: {error}") from None


def find_compiler(target: Target, shared: bool | None) -> Sequence[str] | None:
    """What links the shared library, None for no library.

    Raises UnsupportedError or ToolchainError where `shared` asks for one that cannot be.
    """
    if shared and not target.hosted:
        raise UnsupportedError(
            f'"{target.name}" has no operating system that could load a shared library; '
            "link the static one, and pass shared=None or False"
        )
    if shared is False or not target.hosted:
        return None
    command = compiler_command(target)
    found = shutil.which(command[0])
    if shared and found is None:
        raise ToolchainError(
            f'no C compiler for "{target.name}": looked for {command[0]} on the PATH; '
            "install one or pass shared=False"
        )
    return None if found is None else [found, *command[1:]]


def why_none(target: Target, shared: bool | None) -> str:
    """Why there is no shared library where `find_compiler` finds nothing."""
    if shared is False:
        return "not asked for"
    if not target.hosted:
        return "the target has no operating system to load one"
    return f"there was no C compiler ({compiler_command(target)[0]}) to link it"


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
    compiler: Sequence[str], prefix: str, files: Mapping[str, bytes | Pieces], scratch: Path
) -> FilePieces:
    """The shared library of the two objects, which exports the C interface alone, as long as there
    is the folder `scratch`. Raises ToolchainError where the compiler fails."""
    objects = [f"{prefix}.o", f"{prefix}_data.o"]
    made = f"lib{prefix}.so"
    for name in objects:
        with open(scratch / name, "wb") as file:
            file.writelines(pieces(files[name]))
    command = [*compiler, *LINK_FLAGS, f"-Wl,-soname,{made}", "-o", made, *objects]
    _run(command, scratch, made)
    return FilePieces(scratch / made)


def _run(command: Sequence[str], scratch: Path, made: str) -> None:
    """Runs the compiler in the folder `scratch`; ToolchainError unless it makes the file."""
    try:
        done = subprocess.run(
            command, cwd=scratch, env={**os.environ, "TMPDIR": os.path.abspath(scratch)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise ToolchainError(f"cannot run the C compiler {command[0]}: {error}") from None
    if done.returncode != 0 or not (scratch / made).exists():
        raise ToolchainError(
            f"the C compiler {command[0]} could not link {made} (exit status "
            f"{done.returncode}): {done.stderr.strip()}; repair it, or export with shared=False"
        )
