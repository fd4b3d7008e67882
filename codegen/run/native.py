"""Exported libraries back in Python: `load(folder)` maps native code into this process.

That is as trusting as running a program. Damage is found first (metadata.json has a digest of the
library, which has a copy of the rest of it); malice is not.
"""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from addergraph.errors import (
    AdderGraphError,
    CodegenError,
    StorageError,
    UnsupportedError,
    VerificationError,
)
from addergraph.files.records import json_object, require_version
from addergraph.files.storage import read_bytes, user_path
from addergraph.ir import Array, Graph, Value
from addergraph.ir.interpreter import bind_inputs
from addergraph.ir.state import aligned_bytes
from addergraph.ir.types import TensorType, dtype_named

from ..export.folder import METADATA, require_exported_from, sha256
from ..export.interface import ABI_VERSION, CODES, OK
from ..export.library import FORMAT
from ..targets.lookup import require_runnable, target_named

_LIBRARY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")  # a C identifier and a part of a file name


class NativeLibrary:
    """A loaded library: call it on arrays, get arrays, like the Program that was exported.

    metadata  what metadata.json says
    graph     name, inputs and outputs of the graph; it has no nodes here

    It may be called from many Python threads at once.
    """

    def __init__(self, metadata: dict[str, Any], graph: Graph, code: bytes) -> None:
        self.metadata, self.graph = metadata, graph
        # Mapped from a copy in memory: what was verified is what runs, and the loader, which knows
        # libraries by their path, cannot take a new export for the old one. Its path stays open as
        # long as it is loaded.
        descriptor = os.memfd_create(f"lib{metadata['name']}.so")
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(code)
        try:
            library = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
        except OSError as error:
            os.close(descriptor)
            raise StorageError(f"the system cannot load the library: {error}") from None
        # At the end of the process other threads may be in it.
        weakref.finalize(self, _unload, library._handle, descriptor).atexit = False
        _require_own(metadata, library)
        prefix = metadata["name"]
        count = len(graph.inputs) + len(graph.outputs)
        self._run = library[f"{prefix}_run"]
        self._run.argtypes = [ctypes.c_void_p] * (count + 1)
        self._selftest = library[f"{prefix}_selftest"]
        self._selftest.argtypes = [ctypes.c_void_p]
        self._run.restype = self._selftest.restype = ctypes.c_int32
        self._arenas: list[Array] = []

    def __repr__(self) -> str:
        ends = (", ".join(str(v.type) for v in e) for e in (self.graph.inputs, self.graph.outputs))
        return f'<NativeLibrary "{self._named}": {" -> ".join(ends)}>'

    def __reduce__(self) -> tuple[Any, ...]:
        raise UnsupportedError(
            f'the loaded library "{self._named}" cannot be copied or pickled; load it once more: '
            "ag.load_native(folder)"
        )

    def __call__(self, *inputs: object) -> Array | tuple[Array, ...]:
        """The outputs for `inputs`: one array, or a tuple where the graph has several.

        Raises ShapeError or DataError when the inputs are not what the graph takes.
        """
        outputs = self.run(inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        """As a call, but always a tuple."""
        batch, arrays = bind_inputs(self.graph, inputs)
        samples = 1 if batch is None else batch
        types = [v.type.bind(samples) for v in self.graph.outputs]
        outputs = tuple(np.empty(t.sizes, t.dtype.numpy) for t in types)
        ends = (*self.graph.inputs, *self.graph.outputs)
        tensors = (*arrays, *outputs)
        steps = [v.type.bind(1).nbytes if v.type.is_open else 0 for v in ends]
        arena = self._take_arena()
        for sample in range(samples):
            pointers = [a.ctypes.data + sample * s for a, s in zip(tensors, steps, strict=True)]
            code = self._run(*pointers, arena.ctypes.data)
            if code != OK:
                raise CodegenError(f"{self._named}_run returned {code}: {_meaning(code)}")
        self._arenas.append(arena)
        return outputs

    def selftest(self) -> None:
        """Runs the library's own test.

        Raises VerificationError when it fails.
        """
        arena = self._take_arena()
        code = self._selftest(arena.ctypes.data)
        self._arenas.append(arena)
        if code != OK:
            raise VerificationError(f"{self._named}_selftest returned {code}: {_meaning(code)}")

    def require_exported_from(
        self, graph: Graph, weights: Mapping[str, Array], folder: str
    ) -> None:
        """DataError unless this is the code of `graph` with these weights; `folder` is named."""
        require_exported_from(self.metadata, graph, weights, folder)

    @property
    def _named(self) -> str:
        return str(self.metadata["name"])

    def _take_arena(self) -> Array:
        try:
            return self._arenas.pop()
        except IndexError:
            return aligned_bytes(int(self.metadata["arena_bytes"]))


def _unload(handle: int, descriptor: int) -> None:
    _ctypes.dlclose(handle)
    os.close(descriptor)


def load(folder: str | os.PathLike[str]) -> NativeLibrary:
    """The library that was exported into `folder`, verified and mapped into this process.

    Raises StorageError for a missing or damaged file or another format, UnsupportedError for an
    export without a shared library, TargetError for one that this machine cannot run.
    """
    path = user_path(folder) / METADATA
    metadata = _metadata(path)
    if "training" in metadata:
        raise UnsupportedError(
            f'"{folder}" holds a library that learns, which is called from C '
            "(docs/device_training.md); here, the model itself trains, and a library of "
            "`addergraph compile` without --train predicts"
        )
    try:
        graph = _graph(metadata)
        name, target = str(metadata["name"]), str(metadata["target"]["name"])
        if not _LIBRARY.fullmatch(name) or not 0 <= int(metadata["arena_bytes"]) < 1 << 48:
            raise ValueError(f"no library is called {name[:40]!r} or needs so much memory")
        digest = metadata["files"].get(f"lib{name}.so")
        reason = metadata["no_shared_library"]
    except (
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AdderGraphError
    ) as error:  # fmt: skip
        raise StorageError(f'"{path}" is damaged ({error!r}); export again') from None
    require_runnable(
        target_named(target), f'"{folder}" holds code for "{target}", which this machine cannot run'
    )
    if digest is None:
        raise UnsupportedError(
            f'"{folder}" has no shared library: {reason}; export again with shared=True'
        )
    code = read_bytes(path.with_name(f"lib{name}.so"))
    if sha256(code) != digest:
        raise StorageError(
            f'"{path.with_name(f"lib{name}.so")}" is damaged or of another export: its sha256 is '
            f"{sha256(code)[:12]}..., metadata.json says {str(digest)[:12]}...; export again"
        )
    return NativeLibrary(metadata, graph, code)


def _metadata(path: Path) -> dict[str, Any]:
    metadata = json_object(read_bytes(path), f'"{path}" is damaged: it')
    found = f"{metadata.get('format')} and ABI {metadata.get('abi_version')}"
    require_version(path, found, f"{FORMAT} and ABI {ABI_VERSION}", "export again")
    return metadata


def _require_own(metadata: dict[str, Any], library: ctypes.CDLL) -> None:
    """StorageError where metadata.json differs from what the library says of itself: sizes of
    buffers are taken from it."""
    describe = library[f"{metadata['name']}_metadata_json"]
    describe.restype = ctypes.c_char_p
    for key, value in json.loads(describe()).items():
        if metadata.get(key) != value:
            raise StorageError(
                f'metadata.json is damaged: its "{key}" is {metadata.get(key)!r}, the library says '
                f"{value!r}; export again"
            )


def _graph(metadata: dict[str, Any]) -> Graph:
    def values(key: str) -> tuple[Value, ...]:
        return tuple(
            Value(str(t["name"]), TensorType(dtype_named(t["dtype"]), tuple(t["shape"])))
            for t in metadata[key]
        )

    return Graph(str(metadata["graph"]), values("inputs"), (), (), values("outputs"))


def _meaning(code: int) -> str:
    return CODES[code][1] if code in CODES else "an unknown code"
