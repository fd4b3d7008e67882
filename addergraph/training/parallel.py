"""One training step whose batch is in several parts, which processes share.

    each part      losses, predictions, gradients g_p and new running statistics, of its samples
    exchange       g = sum over the parts of share_p g_p: one vector f32[n], in buckets
    every process  the optimizer's update by g, to the same bits

Losses are in the vector, too. The norms that clip gradients and adapt rates are those of g, and all
processes have the same state at any time: no weights are exchanged. Running statistics become the
mean of the parts' own. Buckets that are complete move while the others are computed (`buckets.py`).

Batch norms take the statistics of their part, as those who train on several devices mostly do, or,
`synchronize`, of the whole batch: the part's program is then cut where these, and their gradients,
are exchanged (`passes/replicas.py`), and all parts of a process go through a segment before the
next one begins. The running variance has the factor M / (M - 1) of the part's M values then, too;
`statistics.py` estimates both before they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import compiler
from ..errors import DataError, GraphError
from ..ir import Array, Graph, Value
from ..ir.interpreter import run_reference
from ..ir.state import aligned_bytes, parameter_offsets
from .buckets import BUCKET, MOST_BUCKETS, Bucket, Sending, Vector, spans_of
from .memory import BATCHES, STATE_COPIES, Need
from .replicas import Replicas
from .settings import NATIVE
from .step import TrainStep, compile_silently

if TYPE_CHECKING:
    from ..compiler.graphs import Announced, Halves, Segment

Run = Callable[[Sequence[Array], tuple[Array, ...]], object]  # inputs; where outputs go


class _Segment:
    """Compiled code between two exchanges, and the memory of what it gives, part by part."""

    def __init__(self, segment: Segment, run: Run) -> None:
        self.segment, self.run = segment, run
        self._given: dict[int, tuple[Array, ...]] = {}

    def __call__(self, slot: int, known: dict[str, Array], ends: Mapping[str, Array]) -> None:
        """Adds what it gives to `known`, the values of the part in `slot`; those called in `ends`
        are written there."""
        names = self.segment.gives
        if slot not in self._given:
            made = zip(names, self.segment.graph.outputs, strict=True)
            self._given[slot] = tuple(ends[n] if n in ends else _empty(v) for n, v in made)
        outputs = self._given[slot]
        if outputs:
            self.run([known[name] for name in self.segment.reads], outputs)
        known.update(zip(names, outputs, strict=True))

    def nbytes(self, ends: Container[str]) -> int:
        """Of what it keeps of a part: all that it gives but `ends`."""
        made = zip(self.segment.gives, self.segment.graph.outputs, strict=True)
        return sum(value.type.nbytes for name, value in made if name not in ends)


def _empty(value: Value) -> Array:
    raw = aligned_bytes(value.type.nbytes)
    return raw.view(value.type.dtype.numpy).reshape(value.type.sizes)


def _sent(halves: Halves) -> list[Value]:
    """What is exchanged of the backward half: all that it gives but predictions."""
    outputs = halves.backward.outputs
    return [*outputs[: halves.losses], *outputs[halves.losses + halves.predictions :]]


class ParallelStep(TrainStep):
    """As `TrainStep`, of which it has the interface, for the parts of `replicas`."""

    def __init__(
        self, *arguments: Any, replicas: Replicas, synchronize: bool, bucket: int = BUCKET,
        **named: Any,
    ) -> None:  # fmt: skip
        self.replicas, self.synchronize, self.bucket = replicas, synchronize, bucket
        self._halves: dict[int, Halves] = {}
        self._segments: dict[int, list[_Segment]] = {}
        self._flagged: dict[int, Announced] = {}
        self._compiled: dict[str, Run] = {}
        self._arena = 0
        self._update: Callable[..., Any] | None = None
        super().__init__(*arguments, **named)
        replicas.share(self.state.blob)  # weights that were given to process 1 alone, too

    def halves(self, samples: int) -> Halves:
        """The two graphs for a part of so many samples. ShapeError, naming the layer, where the
        batch statistics of a part would be of one value."""
        if samples not in self._halves:
            graph = self.model.graph(training=True, batch=samples)
            compiler.require_statistics(graph)
            self._halves[samples] = compiler.train_halves(
                graph,
                *self._minimizing(),
                gradient=self.gradient,
                synchronize=self.synchronize,
            )
        return self._halves[samples]

    def graph(self, batch: int) -> Graph:
        """The update, which all batches share; `batch` has to be one that can be cut into parts.

        DataError for fewer samples than parts, ShapeError for batch statistics of one value."""
        if batch < self.replicas.parts:
            raise DataError(
                f"a batch of {batch} samples cannot be cut into {self.replicas.parts} parts, one "
                "for each process at least: use larger batches, also for the last one of an epoch "
                "(samples modulo batch size), or fewer processes"
            )
        sizes = sorted({int(size) for size in np.diff(self.replicas.bounds(batch))})
        made = [self.halves(size) for size in sizes]
        return made[0].update

    def run(
        self,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        learning_rate: float,
        whole: int | None = None,
    ) -> tuple[list[float], list[Array]]:
        """The losses of the whole batch, of `whole` samples, and the predictions for those of this
        process, which are the ones that are given."""
        self._take_weights()
        replicas = self.replicas
        whole = len(inputs[0]) if whole is None else whole
        sizes, shares = replicas.sizes(whole), replicas.shares(whole)
        slots = list(range(len(sizes)))
        values = [self._given(slot, sizes, inputs, targets) for slot in slots]
        programs = [self._part(size) for size in sizes]
        ends = [self._ends(size, slot) for slot, size in enumerate(sizes)]
        ends[-1] |= self._flags  # the last part of this process is the one to wait for
        for flag in self._flags.values():
            flag[...] = 0
        sending = Sending(replicas, self._buckets, self._vectors, shares, self._reduced)
        for at in range(len(programs[0])):

            def compute(at: int = at) -> None:
                for slot, known in zip(slots, values, strict=True):
                    programs[slot][at](slot, known, ends[slot])

            sending.beside(compute)
            self._exchange(programs[0][at].segment.means, values, shares)
            sending.begin_behind(at, partial(self._complete, sizes=sizes, values=values))
        sending.finish()
        found, rate = self._reduced.views, np.asarray(learning_rate, np.float32)
        losses = [float(found[f"loss {i}"]) for i in range(self._any.losses)]
        assert self._update is not None
        self._update(*(found[f"exchanged {name}"] for name in self._any.exchanged), rate)
        return losses, self._predictions(sizes, values)

    def need(self, batches: Sequence[int]) -> Need:
        """Bytes of a run with such batches. Between two exchanges every part waits for the others
        with all that its backward pass reads: in the arena of no program, but part of it here."""
        parts = {part for batch in batches for part in enumerate(self.replicas.sizes(batch))}
        kept = sum(
            segment.nbytes(self._ends(size, slot))
            for slot, size in parts
            for segment in self._part(size)
        )
        state = parameter_offsets(self._any.update.parameters)[1]
        own = max(sum(self.replicas.sizes(batch)) for batch in batches)
        a_sample = sum(v.type.nbytes for v in self.model.graph(training=True, batch=1).inputs)
        vectors = (len(self._vectors) + 1) * self._reduced.whole.nbytes
        return Need(self._arena + kept + vectors, STATE_COPIES * state, BATCHES * own * a_sample)

    # --- what a part computes -----------------------------------------------------------------

    def _given(
        self, slot: int, sizes: Sequence[int], inputs: Sequence[Array], targets: Sequence[Array]
    ) -> dict[str, Array]:
        """The inputs of a part's program, by name."""
        start = sum(sizes[:slot])
        rows = slice(start, start + sizes[slot])
        halves = self.halves(sizes[slot])
        arrays = [np.ascontiguousarray(x[rows], np.float32) for x in (*inputs, *targets)]
        names = [v.name for v in halves.backward.inputs]
        state = {name: self.state.views[name] for name in halves.read}
        for name in state.keys() & self._counters.keys():
            state[name] = self._counter(name, slot)
        return dict(zip(names, [*arrays, *state.values()], strict=True))

    def _counter(self, name: str, slot: int) -> Array:
        """The number of the step for the dropouts of a part: each part leaves out others."""
        first, now = self._counters[name], int(self.state.views[name])
        number = first + (now - first) * self.replicas.parts + self.replicas.own[slot]
        return np.array(number, np.int32)

    def _exchange(
        self, means: Sequence[tuple[str, str]], values: Sequence[dict[str, Array]], shares: Array
    ) -> None:
        """Adds to the values of every part the means over all parts."""
        if not means:
            return
        vectors = [
            np.concatenate([known[name].reshape(-1) for name, _ in means]) for known in values
        ]
        shared, end = np.empty_like(vectors[0]), 0
        self.replicas.mean(vectors, shares, shared)
        for name, called in means:
            like, start = values[0][name], end
            end = start + like.size
            for known in values:
                known[called] = shared[start:end].reshape(like.shape)

    def _ends(self, size: int, slot: int) -> dict[str, Array]:
        """Where a part writes what goes into the exchange, by the name of the value."""
        halves, views = self.halves(size), self._vectors[slot].views
        names = [v.name for v in halves.backward.outputs]
        wanted = dict(zip(names, self._places(halves), strict=True))
        return {name: views[place] for name, place in wanted.items() if place is not None}

    def _complete(
        self, wanted: Container[str], sizes: Sequence[int], values: Sequence[dict[str, Array]]
    ) -> None:
        """Copies what the programs could not write into these places of the vectors themselves: a
        value that is there twice, and one that was not computed. No bucket with a flag has such."""
        for slot, (size, known) in enumerate(zip(sizes, values, strict=True)):
            halves, views = self.halves(size), self._vectors[slot].views
            ends = zip(halves.backward.outputs, self._places(halves), strict=True)
            for value, place in ends:
                if place is None or place not in wanted:
                    continue
                if known[value.name] is not views[place]:
                    views[place][...] = known[value.name]

    def _places(self, halves: Halves) -> list[str | None]:
        """How the vector calls each output of the backward half; predictions are not in it."""
        losses = [f"loss {i}" for i in range(halves.losses)]
        return [
            *losses, *[None] * halves.predictions, *(f"exchanged {n}" for n in halves.exchanged)
        ]  # fmt: skip

    def _predictions(self, sizes: Sequence[int], values: Sequence[dict[str, Array]]) -> list[Array]:
        found = []
        for i in range(self._any.predictions):
            outputs = (self.halves(n).backward.outputs[self._any.losses + i] for n in sizes)
            parts = [known[v.name] for v, known in zip(outputs, values, strict=True)]
            found.append(np.concatenate(parts))
        return found

    # --- programs -----------------------------------------------------------------------------

    @property
    def _any(self) -> Halves:
        """The halves for some size: what is exchanged, and the update, are those of all."""
        return next(iter(self._halves.values()))

    def _program(self, batch: int) -> Callable[..., Any]:
        """Compiles what a batch of so many samples needs."""
        for size in {*self.replicas.sizes(batch)}:
            self._part(size)
        if self._update is None:
            self._update = self._build(self._any.update)
            known = {v.name: v.type.sizes for v in self._any.update.inputs[:-1]}
            shapes = {f"loss {i}": () for i in range(self._any.losses)} | {
                f"exchanged {name}": shape
                for name, shape in zip(self._any.exchanged, known.values(), strict=True)
            }
            # All processes lay out by the largest part, whatever the sizes of their own are.
            self._lay_out(-(-batch // self.replicas.parts), shapes)
        return self._update

    def _lay_out(self, size: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """The vectors, in the order in which a part of so many samples completes their values, and
        the buckets: one for each flag and the rest, or what segments give that is enough."""
        halves, flagged = self.halves(size), self._with_flags(size)
        events = flagged.buckets or [one.gives for one in compiler.segments(flagged.graph)]
        number = {name: event for event, names in enumerate(events) for name in names}
        ends = zip(halves.backward.outputs, self._places(halves), strict=True)
        behind = {end: number.get(v.name, len(events) - 1) for v, end in ends if end is not None}
        ordered = {place: shapes[place] for place in sorted(shapes, key=behind.__getitem__)}
        self._vectors = [Vector(ordered) for _ in self.replicas.own]
        self._reduced = Vector(ordered)
        flags = flagged.graph.outputs[len(halves.backward.outputs) :]
        self._flags = {flag.name: _empty(flag) for flag in flags}
        if flagged.buckets:
            spans = spans_of(self._reduced, behind, 0).values()
            every = zip(spans, [*self._flags.values(), None], strict=True)
            self._buckets = [Bucket(*span, 0, flag) for span, flag in every]
        else:
            found = spans_of(self._reduced, behind, self._least(halves))
            self._buckets = [Bucket(*span, segment, None) for segment, span in found.items()]

    def _least(self, halves: Halves) -> int:
        """The bytes of a bucket."""
        whole = sum(v.type.nbytes for v in _sent(halves))
        return max(self.bucket, -(-whole // MOST_BUCKETS))

    def _with_flags(self, size: int) -> Announced:
        """The backward half for a part of so many samples; it has no flags where it is cut."""
        if size not in self._flagged:
            halves = self.halves(size)
            sent = [] if self.synchronize else _sent(halves)
            made = compiler.announced(halves.backward, sent, self._least(halves))
            self._flagged[size] = made
            known = next(iter(self._flagged.values()))
            if (made.buckets, made.flags) != (known.buckets, known.flags):
                raise GraphError(
                    f'"{halves.backward.name}" computes its gradients in another order for {size} '
                    f"samples than for {next(iter(self._flagged))}: parts of a batch cannot be "
                    "exchanged so. Use batches that can be cut into equal parts"
                )
        return self._flagged[size]

    def _part(self, size: int) -> list[_Segment]:
        if size not in self._segments:
            cut = compiler.segments(self._with_flags(size).graph)
            self._segments[size] = [_Segment(one, self._code(one.graph)) for one in cut]
        return self._segments[size]

    def _code(self, graph: Graph) -> Run:
        """Code for a graph without parameters; equal graphs share it."""
        key = str(graph)
        if key not in self._compiled:
            is_native = self.engine == NATIVE and graph.outputs
            self._compiled[key] = self._native(graph) if is_native else _numpy(graph)
        return self._compiled[key]

    def _native(self, graph: Graph) -> Run:
        program = compile_silently(graph, threads=self.threads)
        self._arena += program.arena_bytes
        return program.run_into  # type: ignore[no-any-return]


def _numpy(graph: Graph) -> Run:
    def run(inputs: Sequence[Array], outputs: tuple[Array, ...]) -> None:
        found, _ = run_reference(graph, inputs, {})
        for mine, array in zip(outputs, found, strict=True):
            mine[...] = array

    return run
