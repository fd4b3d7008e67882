"""Exported modules of WebAssembly, run by wasmtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from addergraph.codegen.export.library import Exported
from addergraph.ir import Array, Graph

wasmtime: Any = pytest.importorskip("wasmtime", reason="pip install wasmtime")


class Module:
    """One instance of the module of an export."""

    def __init__(self, made: Exported) -> None:
        assert made.module is not None
        config = wasmtime.Config()
        config.cranelift_opt_level = "none"  # the bits are the same
        engine = wasmtime.Engine(config)
        self.store = wasmtime.Store(engine)
        module = wasmtime.Module(engine, made.module.read_bytes())
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.facts = json.loads(made.metadata.read_text())
        self.name: str = self.facts["name"]

    def address(self, name: str) -> int:
        return int(self.exports[f"{self.name}_{name}"].value(self.store))

    def call(self, function: str, *names: str) -> int:
        called = self.exports[f"{self.name}_{function}"]
        return int(called(self.store, *map(self.address, (*names, "arena"))))

    def run(self, graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """The outputs, one sample a call where the batch is open."""
        opened = [v.type.is_open for v in graph.inputs]
        count = next((len(a) for a, o in zip(inputs, opened, strict=True) if o), 1)
        memory = self.exports["memory"]
        made: list[list[Array]] = [[] for _ in graph.outputs]
        ins = [f"input_{i}" for i in range(len(inputs))]
        outs = [f"output_{i}" for i in range(len(graph.outputs))]
        for sample in range(count):
            for name, array, o in zip(ins, inputs, opened, strict=True):
                part = array[sample : sample + 1] if o else array
                memory.write(self.store, part.tobytes(), self.address(name))
            assert self.call("run", *ins, *outs) == 0
            for name, value, parts in zip(outs, graph.outputs, made, strict=True):
                type, at = value.type.bind(1), self.address(name)
                data = memory.read(self.store, at, at + type.nbytes)
                parts.append(np.frombuffer(data, type.dtype.numpy))
        types = [v.type.bind(count) for v in graph.outputs]
        return tuple(
            np.concatenate(parts).reshape(t.sizes) if parts else np.zeros(t.sizes, t.dtype.numpy)
            for t, parts in zip(types, made, strict=True)
        )
