"""Compiled programs in this process: built or fetched from the cache, loaded, called on arrays."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from addergraph import border, display
from addergraph.data import Preprocessing
from addergraph.errors import DataError, MemoryLimitError
from addergraph.ir import Array, Value
from addergraph.ir.interpreter import bind_inputs, run_reference
from addergraph.ir.state import State, bind_weights
from addergraph.settings import integer
from addergraph.tables import Table

from .. import llvm
from ..emit import blocks
from ..emit.lowered import (
    KernelFacts,
    Lowered,
    ProgramFacts,
    WeightEntry,
    computed_by,
    pack_weights,
)
from ..emit.module import emit_program
from ..inspect import strict
from ..targets.lookup import require_runnable
from . import cache
from .workers import Workers

if TYPE_CHECKING:
    from ..export.library import Exported

FORMAT = 4  # of cached facts and of the calling convention: bump when either changes


SETUP_ANYWAY, SETUP_RATIO = 1 << 28, 32  # bytes from parameters alone; times their own
MOST_SEEN = 64  # shapes of inputs that a program remembers
_Results = Sequence[tuple[tuple[int, ...], Any]]
Widen = Callable[[Lowered, Mapping[str, Array]], "Built | None"]
"""An open program for blocks of samples, from that for one; None where they do not pay."""


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
        f"{lowered.samples} of {lowered.batch}", f"{FORMAT} {__version__} {llvm.version()}",
    )  # fmt: skip
    found = cache.load(key) if use_cache else None
    if found is not None:
        return Built(lowered, _facts(found[0]), found[1])
    module, facts = emit_program(lowered)
    if target.multiplier:
        code = llvm.compile_object(str(module), target)
    else:
        code = strict.compile_object(str(module), target, computed_by(facts))
    if use_cache:
        cache.store(key, asdict(facts), code)
    return Built(lowered, facts, code)


def _facts(raw: Any) -> ProgramFacts:
    entries = tuple(WeightEntry(**entry) for entry in raw["weights"])
    kernels = {node: KernelFacts(**kernel) for node, kernel in raw["kernels"].items()}
    return ProgramFacts(entries, raw["weights_bytes"], kernels)


def main_weights(lowered: Lowered, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The numbers of every parameter of `lowered.main`: those given and what `setup` computes.

    Raises DataError or ShapeError, naming the parameter, when `weights` do not fit the graph.
    """
    source = lowered.source
    numbers = bind_weights(f'graph "{source.name}"', source.parameters, weights)
    _require_setup(lowered)
    computed, _ = run_reference(lowered.setup, [], numbers)
    made = (v.name for v in lowered.setup.outputs)
    known = numbers | dict(zip(made, computed, strict=True))
    return {p.name: known[p.name] for p in lowered.main.parameters}


def _packed(built: Built, weights: Mapping[str, Array]) -> Array:
    """The read-only weights of a program, from the numbers of its source's parameters."""
    return pack_weights(built.facts, built.lowered, main_weights(built.lowered, weights))


def _require_setup(lowered: Lowered) -> None:
    """MemoryLimitError where what is computed from parameters alone is far larger than they are."""
    setup = lowered.setup
    made = sum(v.type.nbytes for node in setup.nodes for v in node.outputs)
    limit = max(SETUP_ANYWAY, SETUP_RATIO * sum(p.type.nbytes for p in setup.parameters))
    if made > limit:
        raise MemoryLimitError(
            f'graph "{lowered.source.name}" computes {made:,} bytes from its parameters alone, '
            f"at most {limit:,} are for parameters of this size; compute them beforehand, as "
            "parameters"
        )


class _Block:
    """Loaded code for `samples` of an open batch at a time."""

    def __init__(self, built: Built, threads: int) -> None:
        self.built, self.samples = built, built.lowered.samples
        self.workers = _loaded(built, threads)


class _Numbers:
    """The parameters of a program: as they were given, and packed for its two bodies."""

    def __init__(self, given: Mapping[str, Array], packed: Array) -> None:
        self.given, self.packed = given, packed
        self._of_block: Array | None = None

    def of(self, block: _Block) -> Array:
        if self._of_block is None:
            self._of_block = _packed(block.built, self.given)
        return self._of_block


class Program:
    """A compiled graph: call it on arrays, get arrays.

    graph    the source graph; inputs, dtypes and shapes are checked against it
    state    the parameters of a program with updates, changed by each call; None otherwise
    threads  how many threads a call uses
    preprocessing  what images are to the network that it was compiled from, where that says so

    A program without updates may be called from many Python threads at once: the first call takes
    the worker threads, one that finds them busy runs on its caller's thread alone. Calls of a
    program with updates take turns. All programs of a process share its worker threads, as many as
    the largest `threads` so far: the first call that needs them starts them, and they end when
    every program that used them is closed or collected. Idle ones sleep; a forked child starts
    its own. Floating-point modes are the calling thread's, and a worker's those of the thread that
    started it: flush-to-zero changes bits.

    Calls of many samples of an open batch run in blocks of up to 16 samples, where that is faster:
    their code is compiled after such calls have taken a tenth of a second, or by `prepare`.
    """

    def __init__(
        self,
        built: Built,
        weights: Mapping[str, Array] | None,
        state: State | None,
        threads: int,
        preprocessing: Preprocessing | None = None,
        widen: Widen | None = None,
    ) -> None:
        lowered = built.lowered
        require_runnable(
            lowered.target,
            f'this machine cannot run code for "{lowered.target.name}"; '
            "export it instead, or compile for the host",
        )
        self.built, self.graph, self.state, self.threads = built, lowered.declared, state, threads
        self.preprocessing = preprocessing
        self.arena_bytes = lowered.arena_bytes
        self.weights: dict[str, Array] = {}
        self._widen = widen
        self._block: _Block | None = None
        self._spent, self._undecided = 0.0, widen is not None and lowered.is_open
        self._large: float = blocks.SIZES[0] * threads if self._undecided else math.inf
        self._seen: dict[Any, tuple[int | None, _Results]] = {}
        if state is None:
            self.set_weights(weights or {})
        else:
            _require_layout(state, lowered)
            self.weights, self._numbers = state.views, _Numbers(state.views, state.blob)
        self._workers = _loaded(built, threads)

    def __repr__(self) -> str:
        ends = (", ".join(str(v.type) for v in e) for e in (self.graph.inputs, self.graph.outputs))
        target = self.built.lowered.target.name
        return f'<Program "{self.graph.name}" for {target}: {" -> ".join(ends)}>'

    def _repr_html_(self) -> str:
        rows = [(what, f"%{v.name}", str(v.type)) for what, v in self._ends()]
        rows += [("threads", "", str(self.threads)), ("arena", "", f"{self.arena_bytes:,} bytes")]
        heads = ("", "name", "is")
        known = "" if self.preprocessing is None else display.text(str(self.preprocessing))
        return display.head(self) + display.table(Table(heads, rows, heads)) + known

    def _ends(self) -> Iterator[tuple[str, Value]]:
        yield from (("input", value) for value in self.graph.inputs)
        yield from (("output", value) for value in self.graph.outputs)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, by `copy` or pickle, has weights of its own and is compiled again, which the
        cache saves; only the shallow copy of a program with updates shares its state."""
        given = {} if self.state is not None else self.weights
        return _again, (
            self.built.lowered, given, self.state, self.threads, self.preprocessing, self._widen
        )  # fmt: skip

    def close(self) -> None:
        """Gives up the worker threads, after the call that uses them; they end where no other
        program of this process uses them. A later call takes them up again.

        CodegenError from a signal handler or finalizer that interrupted a call on this thread.
        """
        self._workers.close()
        if self._block is not None:
            self._block.workers.close()

    def prepare(self, samples: int) -> None:
        """Compiles now what calls of so many samples would compile after a while; for a program
        whose batch is bound, and for few samples, nothing. DataError for a number below 0."""
        if integer("samples", samples, 0) >= self._large and self._undecided:
            self._decide()

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """New numbers for the parameters, without compiling again; copied.

        Calls that are running may still use the old ones. Raises DataError for missing names or a
        program with updates, whose weights live in its state, and ShapeError for wrong shapes.
        """
        if self.state is not None:
            raise DataError("a program with updates keeps its weights in program.state")
        source = self.built.lowered.source
        weights = bind_weights(f'graph "{source.name}"', source.parameters, weights)
        given = {p.name: weights[p.name].copy() for p in source.parameters}
        self._numbers = _Numbers(given, _packed(self.built, given))
        self.weights = given

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
        overwrite: bool = False,
    ) -> Exported:
        """Writes this program and its weights as a C library; see `aot.export`."""
        from ..export.aot import export

        return export(
            self.built, self.weights, folder, preprocessing=self.preprocessing, name=name,
            seed=seed, shared=shared, overwrite=overwrite,
        )  # fmt: skip

    def run(self, inputs: Sequence[object]) -> tuple[Array, ...]:
        """As a call, but always a tuple."""
        return self.run_into(inputs, None)

    def run_into(
        self, inputs: Sequence[object], outputs: tuple[Array, ...] | None
    ) -> tuple[Array, ...]:
        """As `run`, in the memory of outputs that an earlier call gave, where they are as large."""
        batch, arrays, results = self._bound(inputs)
        samples = 1 if batch is None else batch
        in_turn = self.state is not None  # updates must not interleave
        if not _fit(outputs, results):
            outputs = tuple(np.empty(shape, dtype) for shape, dtype in results)
        if samples >= self._large:
            self._run_large(arrays, outputs, samples)
        else:
            packed = self._numbers.packed
            _run(self._workers, packed, arrays, outputs, samples, in_turn=in_turn)
        return outputs

    def _run_large(self, arrays: Sequence[Array], outputs: tuple[Array, ...], samples: int) -> None:
        """A call of so many samples that blocks may pay: as many for each thread, then the rest."""
        numbers, block, done = self._numbers, self._block, 0
        if block is not None:
            count = samples // (block.samples * self.threads) * self.threads
            _run(block.workers, numbers.of(block), arrays, outputs, count, in_turn=False)
            done = count * block.samples
        if done == samples:
            return
        start, advances = time.perf_counter(), self.built.lowered.batched
        ends = zip((*arrays, *outputs), advances or (), strict=True)
        rest = [a[done:] if own else a for a, own in ends]
        _run(self._workers, numbers.packed, rest, (), samples - done, in_turn=False)
        if self._undecided:
            self._spent += time.perf_counter() - start
            if self._spent > blocks.PATIENCE:
                self._decide()

    def _decide(self) -> None:
        """Compiles the code for blocks, if they pay. Calls on other threads go on without."""
        large, self._large, self._undecided = self._large, math.inf, False
        assert self._widen is not None
        try:
            built = self._widen(self.built.lowered, self.weights)
        except BaseException:  # an interrupt, too
            self._large, self._undecided = large, True
            raise
        if built is not None:
            self._block = _Block(built, self.threads)
            self._large = self._block.samples * self.threads

    def _bound(self, inputs: Sequence[object]) -> tuple[int | None, Sequence[Array], _Results]:
        """The batch, the inputs as arrays, and shape and dtype of each output.

        Small networks run for less time than it takes to check their inputs: arrays of shapes that
        were seen before, and needed no conversion, are not checked again.
        """
        if not isinstance(inputs, list | tuple):
            inputs = border.plain(Sequence[object], "inputs", inputs)
        key = tuple((a.shape, a.dtype) if _is_plain(a) else None for a in inputs)  # type: ignore[union-attr]
        if (known := self._seen.get(key)) is not None:
            return known[0], inputs, known[1]  # type: ignore[return-value]
        batch, arrays = bind_inputs(self.graph, inputs)
        types = [v.type if batch is None else v.type.bind(batch) for v in self.graph.outputs]
        results = [(t.sizes, t.dtype.numpy) for t in types]
        if all(a is b for a, b in zip(arrays, inputs, strict=True)) and len(self._seen) < MOST_SEEN:
            self._seen[key] = batch, results
        return batch, arrays, results


def run_packed(built: Built, packed: Array, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """The outputs of a program without updates for the inputs of one call (of one sample, where the
    batch is open), on this thread, with weights as `pack_weights` makes them: a `Program` has them
    once more, as they were given."""
    types = [v.type.bind(built.lowered.samples) for v in built.lowered.declared.outputs]
    results = [(t.sizes, t.dtype.numpy) for t in types]
    outputs = tuple(np.empty(shape, dtype) for shape, dtype in results)
    _run(_loaded(built, 1), packed, inputs, outputs, 1, in_turn=False)
    return outputs


def _loaded(built: Built, threads: int) -> Workers:
    lowered = built.lowered
    code = llvm.LoadedObject(built.code, lowered.target)
    arenas = 1 if lowered.blocks is None else threads  # side by side
    return Workers(code, threads, arenas * lowered.arena_bytes, shared=not lowered.is_open)


def _run(
    workers: Workers, weights: Array, arrays: Sequence[Array], outputs: Sequence[Array],
    samples: int, *, in_turn: bool,
) -> None:  # fmt: skip
    """`weights` are kept for the whole call: `set_weights` may come."""
    io = (ctypes.c_void_p * (len(arrays) + len(outputs)))(
        *(a.ctypes.data for a in (*arrays, *outputs))
    )
    workers.run(io, weights.ctypes.data, samples, in_turn=in_turn)


def _fit(outputs: object, results: _Results) -> TypeGuard[tuple[Array, ...]]:
    """Whether emitted code can write these results there."""
    if type(outputs) is not tuple or len(outputs) != len(results):
        return False
    return all(
        _is_plain(a) and a.flags.writeable and (a.shape, a.dtype) == result
        for a, result in zip(outputs, results, strict=True)
    )


def _again(lowered: Lowered, *rest: Any) -> Program:
    """A program like one that was pickled. TargetError where this machine cannot run it."""
    return Program(build(lowered), *rest)


def _is_plain(given: object) -> bool:
    """Whether emitted code can read an array as it is, if shape and dtype are right."""
    return type(given) is np.ndarray and (flags := given.flags).c_contiguous and flags.aligned


def _require_layout(state: State, lowered: Lowered) -> None:
    """DataError unless `state` has the program's parameters in its order: offsets are fixed."""
    ends = zip_longest(state.parameters, lowered.main.parameters)
    for number, (found, expected) in enumerate(ends):
        ours, theirs = (f"{p}: {p.type}" if p else "none" for p in (found, expected))
        if ours != theirs:
            raise DataError(
                f'the state for graph "{lowered.source.name}" does not fit: its parameter number '
                f"{number} is {ours}, expected {theirs}; take that of a program of this network"
            )
