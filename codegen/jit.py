"""Compiled programs in this process: built or fetched from the cache, loaded, called on arrays."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from addergraph.errors import CodegenError, DataError, TargetError
from addergraph.interpreter import bind_inputs, run_reference
from addergraph.ir import Array
from addergraph.state import State, aligned_bytes, bind_weights

from . import cache, llvm
from .lowered import Lowered, ProgramFacts, WeightEntry, pack_weights
from .module import emit_program
from .target import runnable

if TYPE_CHECKING:
    from .aot import Exported

FORMAT = 1  # of cached facts and of the calling convention: bump when either changes


@dataclass(frozen=True)
class Built:
    """A lowered graph as an object file, and the facts of it."""

    lowered: Lowered
    facts: ProgramFacts
    code: bytes


def build(lowered: Lowered, *, use_cache: bool = True) -> Built:
    """The object of a lowered graph, from the cache if it is there."""
    from addergraph import __version__

    plan, target = lowered.plan, lowered.target
    key = cache.key_of(
        str(lowered.main), repr(plan), repr(target), repr(lowered.batched),
        repr(sorted(lowered.kept.items())), repr(sorted(lowered.choices.items())),
        f"{FORMAT} {__version__} {llvm.version()}",
    )  # fmt: skip
    found = cache.load(key) if use_cache else None
    if found is not None:
        return Built(lowered, _facts(found[0]), found[1])
    module, facts = emit_program(lowered)
    code = llvm.compile_object(str(module), target)
    if use_cache:
        cache.store(key, asdict(facts), code)
    return Built(lowered, facts, code)


def _facts(raw: Any) -> ProgramFacts:
    entries = tuple(WeightEntry(**entry) for entry in raw["weights"])
    return ProgramFacts(entries, raw["weights_bytes"], raw["kernels"])


def main_weights(lowered: Lowered, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The numbers of every parameter of `lowered.main`: those given and what `setup` computes.

    Raises DataError or ShapeError, naming the parameter, when `weights` do not fit the graph.
    """
    source = lowered.source
    numbers = bind_weights(f'graph "{source.name}"', source.parameters, weights)
    computed, _ = run_reference(lowered.setup, [], numbers)
    made = {v.name: a for v, a in zip(lowered.setup.outputs, computed, strict=True)}
    return {p.name: {**numbers, **made}[p.name] for p in lowered.main.parameters}


class Program:
    """A compiled graph: call it on arrays, get arrays.

    graph    the source graph; inputs, dtypes and shapes are checked against it
    state    the parameters of a program with updates, changed by each call; None otherwise
    threads  how many threads a call uses

    A program without updates may be called from many Python threads at once. Calls of a program
    with updates take turns. Floating-point modes are the caller's: flush-to-zero changes bits.
    """

    def __init__(
        self, built: Built, weights: Mapping[str, Array] | None, state: State | None, threads: int
    ) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise CodegenError(f"threads={threads!r} must be an integer of at least 1")
        lowered = built.lowered
        if not runnable(lowered.target):
            raise TargetError(
                f'this machine cannot run code for "{lowered.target.name}"; '
                "export it instead, or compile for the host"
            )
        self.built, self.graph, self.state, self.threads = built, lowered.source, state, threads
        self.arena_bytes = max(64, lowered.plan.arena_bytes)
        self.weights: dict[str, Array] = {}
        if state is None:
            self.set_weights(weights or {})
        else:
            _require_layout(state, lowered)
            self.weights, self._weights = state.views, state.blob
        self._loaded = llvm.LoadedObject(built.code, lowered.target)
        pointers = [ctypes.c_void_p] * 3
        integers = [ctypes.c_int64] * 3
        self._run = ctypes.CFUNCTYPE(None, *pointers, *integers)(self._loaded.address("run"))
        self._arenas: list[Array] = []
        self._turn = threading.Lock()
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """New numbers for the parameters, without compiling again; copied.

        Calls that are running may still use the old ones. Raises DataError for missing names or a
        program with updates, whose weights live in its state, and ShapeError for wrong shapes.
        """
        if self.state is not None:
            raise DataError("a program with updates keeps its weights in program.state")
        built, lowered = self.built, self.built.lowered
        numbers = main_weights(lowered, weights)
        self._weights = pack_weights(built.facts, lowered, numbers)
        self.weights = {p.name: weights[p.name].copy() for p in lowered.source.parameters}

    def __call__(self, *inputs: object) -> Array | tuple[Array, ...]:
        """The outputs for `inputs`: one array, or a tuple where the graph has several.

        Raises ShapeError or DataError when the inputs are not what the graph takes.
        """
        outputs = self.run(inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        seed: int = 0,
        shared: bool | None = None,
    ) -> Exported:
        """Writes this program and its weights as a C library; see `aot.export`."""
        from .aot import export

        return export(self.built, self.weights, folder, name=name, seed=seed, shared=shared)

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        """As a call, but always a tuple."""
        batch, arrays = bind_inputs(self.graph, inputs)
        outputs = tuple(
            np.empty((v.type if batch is None else v.type.bind(batch)).sizes, v.type.dtype.numpy)
            for v in self.graph.outputs
        )
        io = (ctypes.c_void_p * (len(arrays) + len(outputs)))(
            *(a.ctypes.data for a in (*arrays, *outputs))
        )
        samples = 1 if batch is None else batch
        if self.built.lowered.batched is not None:
            self._run_samples(io, samples)
            return outputs
        # Threads of one call share an arena and meet at barriers: two such calls must not
        # compete for the same workers, and updates must not interleave.
        with self._turn:
            self._run_together(io)
        return outputs

    def _run_samples(self, io: Any, samples: int) -> None:
        """Each thread runs its share of the samples in an arena of its own."""
        threads = max(1, min(self.threads, samples))
        arenas = [self._take_arena() for _ in range(threads)]
        weights = self._weights  # all threads take the same, and keep them: set_weights may come
        self._on_threads(
            [(io, weights, arena, samples, t, threads) for t, arena in enumerate(arenas)]
        )
        self._arenas.extend(arenas)

    def _run_together(self, io: Any) -> None:
        arena, weights = self._take_arena(), self._weights
        self._on_threads([(io, weights, arena, 1, t, self.threads) for t in range(self.threads)])
        self._arenas.append(arena)

    def _on_threads(self, calls: list[tuple[Any, Array, Array, int, int, int]]) -> None:
        waiting: list[Future[None]] = []
        if self._pool is not None:
            waiting = [self._pool.submit(self._enter, *call) for call in calls[1:]]
        self._enter(*calls[0])
        for future in waiting:
            future.result()

    def _enter(
        self, io: Any, weights: Array, arena: Array, samples: int, thread: int, threads: int
    ) -> None:
        self._run(io, weights.ctypes.data, arena.ctypes.data, samples, thread, threads)

    def _take_arena(self) -> Array:
        try:
            return self._arenas.pop()
        except IndexError:
            arena = aligned_bytes(self.arena_bytes)
            # The barrier's third word: what a long wait calls. The GIL is not held in there.
            arena[8:16].view(np.uint64)[0] = _sched_yield()
            return arena


def _require_layout(state: State, lowered: Lowered) -> None:
    """DataError unless `state` has the program's parameters in its order: offsets are fixed."""
    ends = zip_longest(state.parameters, lowered.main.parameters)
    for number, (found, expected) in enumerate(ends):
        ours, theirs = (f"{p}: {p.type}" if p else "none" for p in (found, expected))
        if ours != theirs:
            raise DataError(
                f'the state for graph "{lowered.source.name}" does not fit: its parameter number '
                f"{number} is {ours}, expected {theirs}; make it with State(graph.parameters)"
            )


def _sched_yield() -> int:
    """Address of the C library's sched_yield, or 0 (spin on) where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0
