"""Graph + memory plan -> one LLVM module.

    @<kernel>(operands..., results..., workspace, barrier, thread, threads)   one per distinct call
    @body(io, weights, arena, thread, threads)    every kernel in graph order, a barrier after each;
                                                  long ones call the first parts of it, @body_part
    @run(io, weights, arena, n, thread, threads)
    @run_part(io, weights, arena, thread, threads)
    @work, @lead, @dismiss                        `run` for threads that stay: see entry_threads.py;
                                                  not where the target has one thread only

`io` points at pointers: the graph's inputs, then its outputs. In a program whose batch is open, the
body computes a block of samples; `run` gives each thread a share of n blocks and each thread brings
its own arena; `run_part` splits the inside of one block and all threads share one arena. In a bound
program both do the latter, and n is ignored; where its batch has several blocks (`blocks.py`), the
arena is one for each thread, side by side (`in_turn`). The caller brings the threads. The arena's
first 64 bytes are the barrier's: arrived count, generation, and a nullable `void relax(void)` that
a long wait calls (waiting.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import llvmlite.ir as ir

from addergraph.ir import Halo, Node, Value
from addergraph.ir.plan import Placement, align

from ..kernels import Call, Kernel, Operand, kernel_for
from ..kernels.movement import CopyKernel, emit_zero_halo
from ..targets.target import Target
from .builder import I32, POINTER, Emitter, Index, attribute
from .entry_threads import THREAD_ENTRIES, emit_thread_entries
from .lowered import (
    KernelFacts,
    Lowered,
    ProgramFacts,
    WeightEntry,
    is_constant,
    operand_place,
    planned_call,
)
from .waiting import emit_wait

VOID = ir.VoidType()
MOST_CALLS = 256  # of kernels in one function: LLVM takes time that grows with the square of them


class ModuleEmitter:
    """Holds the module and the kernels emitted so far.

    `callbacks`: whether a long wait calls what the barrier's block names.
    """

    def __init__(self, name: str, target: Target, *, callbacks: bool = True) -> None:
        self.target, self.callbacks = target, callbacks
        # A context of its own: identical modules then get identical text, whatever came before.
        self.module = ir.Module(name, context=ir.Context())
        self.module.triple = target.triple
        self._kernels: dict[tuple[object, Call], Any] = {}
        self._zeroing: dict[Operand, Any] = {}
        self._names: set[str] = set()
        self._barrier: Any = None

    def at_level(self, target: Target) -> ModuleEmitter:
        """An emitter into the same module, for another level of the instruction set."""
        other = ModuleEmitter(self.module.name, target, callbacks=self.callbacks)
        other.module, other._names = self.module, self._names
        return other

    @property
    def word(self) -> Any:
        """The type of indices."""
        return ir.IntType(self.target.word)

    def function(
        self, name: str, arguments: Sequence[Any], *, exported: bool = False, result: Any = VOID
    ) -> Any:
        """An empty function."""
        made = ir.Function(self.module, ir.FunctionType(result, arguments), name)
        if not exported:
            made.linkage = "internal"
        attribute(made, self.target)
        return made

    def unique(self, name: str) -> str:
        count, found = 1, name
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    # -- kernels ---------------------------------------------------------------------------------

    def kernel(self, call: Call, kernel: Kernel | None = None) -> Any:
        """The function that computes `call`, emitted at its first use."""
        key = call.op.key, call
        if key not in self._kernels:
            self._kernels[key] = self._emit_kernel(kernel or kernel_for(call))
        return self._kernels[key]

    def _emit_kernel(self, kernel: Kernel) -> Any:
        ins, outs = len(kernel.call.inputs), len(kernel.call.outputs)
        types = [POINTER] * (ins + outs + 2) + [self.word, self.word]
        function = self.function(self.unique(kernel.name), types)
        if not kernel.in_place:
            for argument in function.args[: ins + outs]:
                argument.add_attribute("noalias")
        e = self._emitter(function)
        pointers = function.args
        kernel.emit(e, pointers[:ins], pointers[ins : ins + outs], pointers[ins + outs])
        e.b.ret_void()
        return function

    def zero_halo(self, operand: Operand) -> Any:
        """The function that writes the zeros around a buffer."""
        if operand not in self._zeroing:
            shape = "x".join(map(str, operand.layout.padded))
            function = self.function(
                self.unique(f"zero_halo_{shape}"), [POINTER, POINTER, self.word, self.word]
            )
            e = self._emitter(function)
            emit_zero_halo(e, operand, function.args[0])
            e.b.ret_void()
            self._zeroing[operand] = function
        return self._zeroing[operand]

    def _emitter(self, function: Any) -> Emitter:
        """An emitter for a function whose last arguments are barrier, thread, threads."""
        e = Emitter(function, self.target, self.wait)
        e.shared_by(*function.args[-2:])
        return e

    # -- the barrier -----------------------------------------------------------------------------

    def wait(self, e: Emitter) -> None:
        """Emits a wait for all threads, in a function made by `_emitter`."""
        if not self.target.atomics:
            return  # one thread
        if self._barrier is None:
            self._barrier = self._emit_barrier()
        e.b.call(self._barrier, [e.function.args[-3], e.function.args[-1]])

    def _emit_barrier(self) -> Any:
        """A generation barrier: the last to arrive resets the count and advances the generation."""
        function = self.function(self.unique("barrier"), [POINTER, self.word])
        state, threads = function.args
        e = Emitter(function, self.target, self.wait)
        b, one = e.b, ir.Constant(I32, 1)
        with b.if_then(b.icmp_signed("<=", threads, e.index(1))):
            b.ret_void()
        generation = e.at(state, 4)
        seen = b.load_atomic(generation, "acquire", 4, typ=I32)
        arrived = b.atomic_rmw("add", state, one, "acq_rel")
        last = b.icmp_signed("==", b.add(arrived, one), b.trunc(threads, I32))
        with b.if_then(last):
            b.atomic_rmw("xchg", state, ir.Constant(I32, 0), "monotonic")
            b.atomic_rmw("add", generation, one, "release")
            b.ret_void()
        emit_wait(e, generation, seen, e.load_pointer(state, 8) if self.callbacks else None)
        b.ret_void()
        return function


# -- whole programs ------------------------------------------------------------------------------


class BodyEmitter:
    """Emits @body: the kernels of a graph in order.

    `emit_node` emits one node's kernel with the copies and zeros that its operands need; whoever
    wants something around each of them overrides it. After `emit`: `entries` are the blocks of the
    `weights_bytes` that the program's blob takes, `kernels` the function of each node by its name.
    """

    def __init__(self, made: ModuleEmitter, lowered: Lowered) -> None:
        self.made, self.lowered = made, lowered
        self.graph, self.plan = lowered.main, lowered.plan
        self.entries: dict[tuple[Any, ...], WeightEntry] = {}
        self.weights_bytes = 0
        self.kernels: dict[str, KernelFacts] = {}

    def emit(self, name: str) -> Any:
        nodes = (node for node in self.graph.nodes if not self._is_alias(node))
        steps: list[Callable[[], None]] = [partial(self.emit_node, node) for node in nodes]
        steps += self._copies()
        parts = []
        while len(steps) > MOST_CALLS:
            now, steps = steps[:MOST_CALLS], steps[MOST_CALLS:]
            parts.append(self._emit_steps(self.made.unique(f"{name}_part"), now))
        calls = [partial(self._call_part, part) for part in parts]
        return self._emit_steps(name, [*calls, *steps])

    def _emit_steps(self, name: str, steps: Sequence[Callable[[], None]]) -> Any:
        """A function (io, weights, arena, barrier, thread, threads) of some steps."""
        word = self.made.word
        function = self.made.function(name, [*[POINTER] * 4, word, word])
        self.io, self.weights, self.arena, _, _, _ = function.args
        self.e = Emitter(function, self.made.target, self.made.wait)
        self.e.shared_by(*function.args[-2:])
        for emit in steps:
            emit()
        self.e.b.ret_void()
        return function

    def _call_part(self, part: Any) -> None:
        self.e.b.call(part, self.e.function.args)

    def emit_node(self, node: Node) -> None:
        places = [operand_place(self.plan, node, i) for i in range(len(node.inputs))]
        for i, v in enumerate(node.inputs):
            if (node.name, i) in self.plan.staged:
                self._emit_copy(v, self.plan.placements[v.name], places[i])
        call = planned_call(self.lowered, node)
        kernel = kernel_for(call)
        function = self.made.kernel(call, kernel)
        self.kernels[node.name] = KernelFacts(function.name, kernel.kind)
        pointers = [
            self._packed(v, node.name, i, call, kernel)
            if i in kernel.packs
            else self._pointer(v, place)
            for i, (v, place) in enumerate(zip(node.inputs, places, strict=True))
        ]
        pointers += [self._pointer(v, self.plan.placements[v.name]) for v in node.outputs]
        workspace = self.e.at(self.arena, self.plan.workspaces.get(node.name, 0))
        for operand, pointer in zip(call.outputs, pointers[len(call.inputs) :], strict=True):
            self._emit_zero_halo(operand, pointer)
        self._call(function, [*pointers, workspace])
        self._wait()

    def _emit_copy(self, v: Value, source: Placement, into: Placement) -> None:
        """A staged operand: a copy with a halo of its own."""
        operand = Operand(v.type, into.layout)
        call = CopyKernel.staging(Operand(v.type, source.layout), operand, self.made.target)
        pointer = self._pointer(v, into)
        self._emit_zero_halo(operand, pointer)
        function = self.made.kernel(call, CopyKernel(call))
        self._call(function, [self._pointer(v, source), pointer, self.arena])
        self._wait()

    def _copies(self) -> Iterator[Callable[[], None]]:
        """Of updates whose value could not be computed in place."""
        values = {v.name: v for v in self.graph.values()}
        places = self.plan.placements
        for value, parameter in self.plan.copies:
            yield partial(self._emit_copy, values[value], places[value], places[parameter])

    def _emit_zero_halo(self, operand: Operand, pointer: Any) -> None:
        if operand.layout.halo != Halo() and operand.layout.extent:
            self._call(self.made.zero_halo(operand), [pointer])

    def _call(self, function: Any, pointers: Sequence[Any]) -> None:
        barrier, thread, threads = self.e.function.args[-3:]
        self.e.b.call(function, [*pointers, barrier, thread, threads])

    def _wait(self) -> None:
        self.made.wait(self.e)

    def _is_alias(self, node: Node) -> bool:
        """A reshape that the planner gave its operand's own buffer."""
        if node.op.aliases is None:
            return False
        operand = node.inputs[node.op.aliases]
        a, b = (self.plan.placements[v.name] for v in (operand, node.outputs[0]))
        same = (a.space, a.index, a.offset) == (b.space, b.index, b.offset)
        return same and a.layout.dense and b.layout.dense

    def _pointer(self, v: Value, place: Placement) -> Any:
        """Pointer to element (0, ..., 0)."""
        origin = place.layout.origin * v.type.dtype.itemsize
        if place.space == "arena":
            return self.e.at(self.arena, place.offset + origin)
        if place.space == "weights":
            if not is_constant(self.graph, v):
                return self.e.at(self.weights, place.offset + origin)
            return self.e.at(self.weights, self._entry((v.name,), v, v.type.nbytes).offset + origin)
        slot = place.index + (len(self.graph.inputs) if place.space == "output" else 0)
        return self.e.at(self.e.load_pointer(self.io, slot * self.e.target.pointer_bytes), origin)

    def _packed(self, v: Value, node: str, operand: int, call: Call, kernel: Kernel) -> Any:
        nbytes = kernel.packs[operand].nbytes
        entry = self._entry((v.name, call, operand), v, nbytes, node, operand)
        return self.e.at(self.weights, entry.offset)

    def _entry(
        self, key: tuple[Any, ...], v: Value, nbytes: int, node: str | None = None, operand: int = 0
    ) -> WeightEntry:
        """The block for `key`: equal calls on one parameter share it."""
        if key not in self.entries:
            self.entries[key] = WeightEntry(v.name, self.weights_bytes, nbytes, node, operand)
            self.weights_bytes += align(nbytes)
        return self.entries[key]


def emit_program(lowered: Lowered) -> tuple[Any, ProgramFacts]:
    """The llvmlite module of a planned graph (see the module's docstring).

    Raises CodegenError when an op has no kernel.
    """
    made = ModuleEmitter(lowered.main.name, lowered.target)
    run, run_part = made.unique("run"), made.unique("run_part")
    # Threads are those of this process, which has 64 bits.
    many = lowered.target.atomics and lowered.target.word == 64
    threaded = [made.unique(name) for name in THREAD_ENTRIES] if many else []
    body, facts = emit_body(made, lowered)
    body = in_turn(made, body, lowered)
    _emit_run_part(made, body, run_part)
    whole = _emit_run(made, body, run, lowered)
    if threaded:
        emit_thread_entries(made, threaded, whole)
    return made.module, facts


def emit_body(made: ModuleEmitter, lowered: Lowered) -> tuple[Any, ProgramFacts]:
    """The function `body(io, weights, arena, barrier, thread, threads)` of one block of samples."""
    emitter = BodyEmitter(made, lowered)
    body = emitter.emit(made.unique("body"))
    weights = tuple(emitter.entries.values())
    return body, ProgramFacts(weights, emitter.weights_bytes, emitter.kernels)


def in_turn(made: ModuleEmitter, body: Any, lowered: Lowered, arenas: int | None = None) -> Any:
    """`body`, or a function of the same arguments for all blocks of a bound batch.

    Each thread has as many blocks, in an arena of its own, side by side; then they split the inside
    of those that are left. More threads than `arenas`, where there are not as many as threads,
    split the inside of all.
    """
    if lowered.blocks is None:
        return body
    function = made.function(made.unique("blocks"), [a.type for a in body.args])
    e = Emitter(function, made.target, made.wait)
    whole, weights, arena, barrier, thread, threads = function.args
    io, count = (whole, _ends(e, lowered)), e.index(len(lowered.blocks))
    each = e.div(count, threads)
    if arenas is not None:
        few = e.b.icmp_signed("<=", threads, e.index(arenas))
        each = e.b.select(few, each, e.index(0))
    first, shared = e.mul(each, thread), e.mul(each, threads)
    own = e.at(arena, e.mul(thread, lowered.arena_bytes))
    alone = [weights, own, own, e.index(0), e.index(1)]
    _emit_loop(e, body, (first, e.add(first, each)), lowered, io, alone)
    made.wait(e)  # for thread 0, whose arena is the one that they share
    together = [weights, arena, barrier, thread, threads]
    _emit_loop(e, body, (shared, count), lowered, io, together)
    e.b.ret_void()
    return function


def _ends(e: Emitter, lowered: Lowered) -> Any:
    """Memory for the `io` of one block; at the start of a function, where its size is known."""
    ends = len(lowered.main.inputs) + len(lowered.main.outputs)
    return e.b.alloca(POINTER, size=e.index(ends))


def _emit_loop(
    e: Emitter, body: Any, span: tuple[Index, Index], lowered: Lowered, io: tuple[Any, Any],
    others: Sequence[Any],
) -> None:  # fmt: skip
    """Calls `body` for a span of blocks, with the `others`; `io`: of all, and where one's goes."""
    assert lowered.batched is not None
    ends = (*lowered.main.inputs, *lowered.main.outputs)
    steps = [v.type.nbytes if b else 0 for v, b in zip(ends, lowered.batched, strict=True)]
    size = e.target.pointer_bytes
    with e.loop(*span) as block:
        for slot, step in enumerate(steps):
            offset = e.mul(block, step)
            if lowered.blocks is not None:
                offset = e.minimum(offset, step // lowered.samples * lowered.blocks[-1])
            e.b.store(
                e.at(e.load_pointer(io[0], slot * size), offset),
                e.at(io[1], slot * size),
                align=size,
            )
        e.b.call(body, [io[1], *others])


def _emit_run_part(made: ModuleEmitter, body: Any, name: str) -> None:
    types = [*[POINTER] * 3, made.word, made.word]
    function = made.function(name, types, exported=True)
    io, weights, arena, thread, threads = function.args
    e = Emitter(function, made.target, made.wait)
    e.b.call(body, [io, weights, arena, arena, thread, threads])
    e.b.ret_void()


def _emit_run(made: ModuleEmitter, body: Any, name: str, lowered: Lowered) -> Any:
    types = [*[POINTER] * 3, *[made.word] * 3]
    function = made.function(name, types, exported=True)
    io, weights, arena, n, thread, threads = function.args
    e = Emitter(function, made.target, made.wait)
    if lowered.is_open:
        local = _ends(e, lowered)
        e.shared_by(thread, threads)
        alone = [weights, arena, arena, e.index(0), e.index(1)]
        _emit_loop(e, body, e.share(n), lowered, (io, local), alone)
    else:
        e.b.call(body, [io, weights, arena, arena, thread, threads])
    e.b.ret_void()
    return function


def standalone(call: Call, kernel: Kernel | None = None) -> str:
    """A module with one exported kernel, for tests and benchmarks of single kernels:

    `kernel(operand pointers..., result pointers..., workspace, barrier, thread, threads)`

    `kernel` overrides the one that would be chosen for the call.
    """
    made = ModuleEmitter("standalone", call.target)
    inner = made.kernel(call, kernel)
    function = made.function("kernel", [a.type for a in inner.args], exported=True)
    e = Emitter(function, call.target, made.wait)
    e.b.call(inner, function.args)
    e.b.ret_void()
    return str(made.module)
