"""Libraries that learn, called from Python as C would call them."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from addergraph import Model, layers
from addergraph.codegen.export.library import Exported
from addergraph.ir import Array
from addergraph.ir.state import aligned_bytes


class Learner:
    """A library with a state and an arena of its own.

    `calls` are codes, `train` and `run` insist on 0.
    `caller` calls a function by its name; else the shared library is loaded.
    """

    def __init__(self, exported: Exported, caller: Callable[..., int] | None = None) -> None:
        self.facts = json.loads(exported.metadata.read_text())
        self.call = caller or _loaded(exported, self.facts["name"])
        self.state = aligned_bytes(self.facts["state_bytes"])
        self.arena = aligned_bytes(self.facts["arena_bytes"])
        assert self.call("init", self.state) == 0

    def train(self, inputs: Sequence[Array], answers: Sequence[Array], rate: float) -> np.float32:
        """One step; the loss."""
        loss = np.full(1, np.nan, np.float32)
        code = self.step(inputs, answers, rate, loss)
        assert code == 0, code
        return np.float32(loss[0])

    def step(
        self, inputs: Sequence[Array], answers: Sequence[Array], rate: float, loss: Array
    ) -> int:
        given = [np.ascontiguousarray(a) for a in (*inputs, *answers)]
        rates = np.array([rate], np.float32)
        return self.call("train", *given, rates, loss, self.state, self.arena)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs of one sample."""
        made = [
            np.empty([1, *end["shape"][1:]], end["dtype"].replace("f32", "float32"))
            for end in self.facts["outputs"]
        ]
        given = [np.ascontiguousarray(a) for a in inputs]
        assert self.call("run", *given, *made, self.state, self.arena) == 0
        return made

    def save(self) -> bytes:
        saved = np.zeros(self.facts["training"]["saved_bytes"], np.uint8)
        assert self.call("save", self.state, saved) == 0
        return saved.tobytes()

    def load(self, data: bytes) -> int:
        return self.call("load", self.state, np.frombuffer(data, np.uint8), len(data))

    @property
    def views(self) -> dict[str, Array]:
        """What the state holds, by the table in the metadata."""
        found = {}
        for one in self.facts["training"]["state"]:
            dtype = np.dtype({"f32": "f4", "i32": "i4"}[one["dtype"]])
            count = int(np.prod(one["shape"], dtype=int))
            raw = self.state[one["offset"] :][: count * dtype.itemsize]
            found[one["name"]] = raw.view(dtype).reshape(one["shape"])
        return found


def _loaded(exported: Exported, name: str) -> Callable[..., int]:
    """Calls a function of the shared library; arrays as pointers, None as NULL."""
    assert exported.shared is not None
    library = ctypes.CDLL(str(exported.shared))

    def call(function: str, *arguments: Any) -> int:
        given = [
            ctypes.c_void_p(a.ctypes.data)
            if isinstance(a, np.ndarray)
            else ctypes.c_void_p(None)
            if a is None
            else a
            for a in arguments
        ]
        return int(library[f"{name}_{function}"](*given))

    return call


def small_model(*more: layers.Layer, classes: int = 4, **options: Any) -> Model:
    """Images of 6 x 6; an adder layer, batch norm and a dense layer, in LLVM's second."""
    model = Model(input_shape=(6, 6, 1), name="small", **options)
    for layer in (
        layers.Adder(8, kernel_size=3, name="adder"),
        layers.BatchNorm(name="bn"),
        layers.Activation("relu", name="act"),
        layers.MaxPool(2, name="pool"),
        layers.Flatten(name="flatten"),
        *more,
        layers.Dense(classes, name="last"),
    ):
        model.add(layer)
    return model
