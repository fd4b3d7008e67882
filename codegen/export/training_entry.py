"""The C entry points of a library that learns, as LLVM IR; see `training_interface.py`.

    int32_t net_init(void *state)
    int32_t net_train(inputs..., answers..., const float *rate, float *loss, void *state,
                      void *arena)
    int32_t net_run(inputs..., outputs..., const void *state, void *arena)
    int32_t net_save(const void *state, void *bytes)
    int32_t net_load(void *state, const void *bytes, uint32_t size)
    int32_t net_selftest(void *state, void *arena)
    int32_t net_supported(void)
    const char *net_metadata_json(void)

The learning rate is read from memory: an object that passes no float by value links with programs
of every float ABI. One thread computes a call.

`net_data_golden` holds the checksum of the constants, the inputs, answers and learning rate of one
step, the loss that it gives, and then what says how exact that is: the checksum of the state after
it, or what the loss may be off; each aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.ir.plan import ALIGNMENT, align
from addergraph.ir.types import f32, i32

from ..emit.builder import I1, I8, I32, POINTER, Emitter, Index
from ..emit.hidden import hidden
from ..emit.lowered import Lowered
from ..emit.module import ModuleEmitter
from .cpu import emit_supported, runs_everywhere
from .entry import data_symbols
from .entry_parts import Entries, checksum, code, near, require
from .interface import DAMAGED_WEIGHTS, OK, WRONG_BITS, WRONG_CPU
from .levels import Level, emit_levels
from .training_interface import (
    BAD_LABEL,
    BAD_RATE,
    CHECKED,
    DAMAGED_STATE,
    FUNCTIONS,
    HEAD_BYTES,
    MAGIC,
    NO_STATE,
    OTHER_NETWORK,
    OTHER_VERSION,
    WRONG_SIZE,
    ZEROS,
    Answer,
    Block,
    TrainingInterface,
)

# Of a saved state's head: from where to where it has the bytes that `save` writes, else which code.
PARTS = (
    (0, len(MAGIC), NO_STATE),
    (8, 12, OTHER_VERSION),
    (12, CHECKED, OTHER_NETWORK),
    (ZEROS, HEAD_BYTES, DAMAGED_STATE),
)
LINE = ALIGNMENT  # bytes of a part of the golden block that is a few numbers


def training_symbols(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{name}" for name in FUNCTIONS)


def emit_training(
    steps: Sequence[Lowered],
    forwards: Sequence[Lowered],
    interface: TrainingInterface,
    *,
    exact: bool,
) -> tuple[str, tuple[Level, ...]]:
    """The code object as IR text, and the programs in it.

    `steps`, `forwards`: either graph for each level of the target, the lowest first. `exact`:
    whether the golden loss and state are the very bits that the code gives.
    """
    made = ModuleEmitter(interface.prefix, steps[0].target, callbacks=False)
    names = dict(zip(FUNCTIONS, map(made.unique, training_symbols(interface.prefix)), strict=True))
    asks = emit_supported(made, names["supported"])
    step, levels = emit_levels(made, steps)
    forward, others = emit_levels(made, forwards)
    entries = _TrainingEntries(made, interface, step, forward)
    entries.init(names["init"])
    entries.train(names["train"])
    entries.run(names["run"])
    entries.save(names["save"])
    entries.load(names["load"])
    entries.selftest(names["selftest"], asks, exact)
    entries.metadata(names["metadata_json"])
    return str(made.module), (*levels, *others)


def training_golden(
    constants: Array, given: Sequence[Array], loss: Array, state: Array | None, allowed: float
) -> bytes:
    """The bytes of `net_data_golden`: `state` after the step, or what the loss may be off."""

    end = checksum(state) if state is not None else np.float32(allowed).tobytes()
    parts = [checksum(constants), *(a.tobytes() for a in given), loss.tobytes(), end]
    return b"".join(part.ljust(align(len(part)), b"\0") for part in parts)


def training_golden_bytes(interface: TrainingInterface) -> int:
    """How many these are."""
    return sum(align(t.nbytes) for t in interface.golden) + 3 * LINE


class _TrainingEntries(Entries):
    """Emits the entry points around the bodies of a step and of the graph that predicts."""

    def __init__(
        self, made: ModuleEmitter, interface: TrainingInterface, step: Any, forward: Any
    ) -> None:
        super().__init__(made)
        self.interface, self.step, self.forward = interface, step, forward
        names = data_symbols(interface.prefix)
        self.constants, self.golden, self.described = map(self.external, names)
        self.head = _bytes(made, "state_head", interface.head)

    def init(self, name: str) -> None:
        e, (state,) = self.function(name, 1)
        self.check_pointers(e, [], [state])
        self._start(e, state)
        e.b.ret(code(OK))

    def train(self, name: str) -> None:
        known = self.interface
        e, arguments = self.function(name, len(known.inputs) + len(known.answers) + 4)
        *given, loss, state, arena = arguments
        self.check_pointers(e, [*given, loss], [state, arena])
        self._step(e, given, loss, state, arena)
        e.b.ret(code(OK))

    def run(self, name: str) -> None:
        known = self.interface
        e, arguments = self.function(name, len(known.samples) + len(known.outputs) + 2)
        *ends, state, arena = arguments
        self.check_pointers(e, ends, [state, arena])
        inputs, outputs = ends[: len(known.samples)], ends[len(known.samples) :]
        pointers = [*inputs, *self._beside(e, known.run_reads, state), *outputs]
        self.call(e, self.forward, pointers, state, arena, e.index(0), e.index(1))
        e.b.ret(code(OK))

    def save(self, name: str) -> None:
        e, (state, saved) = self.function(name, 2)
        self.check_pointers(e, [saved], [state])
        _copy(e, self.head, saved, HEAD_BYTES)
        for word, total in enumerate(self.sums(e, state, self.interface.state_bytes)):
            e.b.store(total, e.at(saved, CHECKED + 4 * word), align=1)
        _copy(e, state, e.at(saved, HEAD_BYTES), self.interface.state_bytes)
        e.b.ret(code(OK))

    def load(self, name: str) -> None:
        """The state stays as it is unless all of the bytes are right."""
        e, (state, saved, size) = self.function(name, 2, integers=1)
        self.check_pointers(e, [saved], [state])
        require(e, e.b.icmp_unsigned(">=", size, code(HEAD_BYTES)), WRONG_SIZE)
        for start, stop, wrong in PARTS:
            require(e, _equal(e, saved, self.head, start, stop), wrong)
        whole = code(self.interface.saved_bytes)
        require(e, e.b.icmp_unsigned("==", size, whole), WRONG_SIZE)
        content = e.at(saved, HEAD_BYTES)
        for word, total in enumerate(self.sums(e, content, self.interface.state_bytes, align=1)):
            stored = e.b.load(e.at(saved, CHECKED + 4 * word), typ=I32, align=1)
            require(e, e.b.icmp_signed("==", total, stored), DAMAGED_STATE)
        _copy(e, content, state, self.interface.state_bytes)
        e.b.ret(code(OK))

    def selftest(self, name: str, asks: Any, exact: bool) -> None:
        """The CPU; the constants against their checksum; a step on built-in samples against its
        loss and, where bits are known, the state behind it. Ends with the state of `init`."""
        e, (state, arena) = self.function(name, 2)
        runs_everywhere(self.made, e.function)
        self.check_pointers(e, [], [state, arena])
        if asks is not None:
            require(e, e.b.icmp_signed("!=", e.b.call(asks, []), code(0)), WRONG_CPU)
        constants = self.sums(e, self.constants, self.interface.constants_bytes)
        self._require_sums(e, constants, self.golden, DAMAGED_WEIGHTS)
        self._start(e, state)
        offset, given = LINE, []
        for type in self.interface.golden:
            given.append(e.at(self.golden, offset))
            offset += align(type.nbytes)
        loss = e.at(arena, self.interface.loss_at)
        self._step(e, given, loss, state, arena)
        expected, end = e.at(self.golden, offset), e.at(self.golden, offset + LINE)
        if exact:
            require(e, _equal(e, loss, expected, 0, 4), WRONG_BITS)
            found = self.sums(e, state, self.interface.state_bytes)
            self._require_sums(e, found, end, WRONG_BITS)
        else:
            wrong = near(e, loss, expected, end)
            require(e, e.b.icmp_signed("==", wrong, ir.Constant(I8, 0)), WRONG_BITS)
        self._start(e, state)
        e.b.ret(code(OK))

    def metadata(self, name: str) -> None:
        function = self.made.function(name, [], exported=True, result=POINTER)
        ir.IRBuilder(function.append_basic_block("entry")).ret(self.described)

    # -- pieces ----------------------------------------------------------------------------------

    def _start(self, e: Emitter, state: Any) -> None:
        """The state before the first step."""
        drawn, size = self.interface.init_bytes, self.interface.state_bytes
        _copy(e, self.constants, state, drawn, 4)
        if drawn == size:
            return
        with e.loop(drawn, size, 4) as offset:
            e.store(code(0), e.at(state, offset), i32)

    def _step(self, e: Emitter, given: Sequence[Any], loss: Any, state: Any, arena: Any) -> None:
        """One step; `given`: inputs, answers and the rate. Returns a code, and changes nothing,
        where an answer or the rate cannot be."""
        known, count = self.interface, len(self.interface.inputs)
        inputs, answers, rate = given[:count], given[count:-1], given[-1]
        for answer, pointer in zip(known.answers, answers, strict=True):
            if answer.labelled:
                require(e, _are_classes(e, answer, pointer), BAD_LABEL)
        number, zero = e.load(rate), ir.Constant(ir.FloatType(), 0.0)
        infinity = ir.Constant(ir.FloatType(), float("inf"))
        require(e, e.b.fcmp_ordered(">=", number, zero), BAD_RATE)
        require(e, e.b.fcmp_ordered("<", number, infinity), BAD_RATE)
        targets = []
        for answer, pointer, place in zip(known.answers, answers, known.rows, strict=True):
            rows = pointer if place < 0 else e.at(arena, place)
            if answer.labelled:
                _write_rows(e, answer, pointer, rows)
            targets.append(rows)
        beside = self._beside(e, known.step_reads, state)
        extras = [e.at(arena, place) for place in known.extras]
        pointers = [*inputs, *targets, rate, *beside, loss, *extras]
        self.call(e, self.step, pointers, state, arena, e.index(0), e.index(1))

    def _beside(self, e: Emitter, reads: Sequence[tuple[bool, Block]], state: Any) -> list[Any]:
        """Pointers to the parameters that a body reads as inputs."""
        constants = hidden(e.b, self.constants)  # kernels stay as the census counts them
        return [e.at(state if own else constants, block.offset) for own, block in reads]

    def _require_sums(self, e: Emitter, found: Sequence[Any], stored: Any, wrong: int) -> None:
        for word, total in enumerate(found):
            expected = e.load(e.at(stored, 4 * word), i32)
            require(e, e.b.icmp_signed("==", total, expected), wrong)


def _are_classes(e: Emitter, answer: Answer, labels: Any) -> Any:
    """An i1: whether all labels are below the number of classes, and none is negative."""
    most = code(answer.classes)

    def step(offset: Index, seen: list[Any]) -> list[Any]:
        label = e.load(e.at(labels, offset), i32)
        return [e.b.and_(seen[0], e.b.icmp_unsigned("<", label, most))]

    return e.carry(0, answer.given.nbytes, 4, [ir.Constant(I1, 1)], step)[0]


def _write_rows(e: Emitter, answer: Answer, labels: Any, rows: Any) -> None:
    """A row of zeros and a one for each label."""
    one, zero = (ir.Constant(ir.FloatType(), value) for value in (1.0, 0.0))
    with e.loop(0, answer.given.elements) as sample:
        label = e.load(e.at(labels, e.mul(sample, 4)), i32)
        row = e.at(rows, e.mul(sample, 4 * answer.classes))
        with e.loop(0, answer.classes) as number:
            index = e.index(number) if isinstance(number, int) else number
            index = index if index.type == I32 else e.b.trunc(index, I32)
            here = e.b.icmp_signed("==", label, index)
            e.store(e.b.select(here, one, zero), e.at(row, e.mul(number, 4)), f32)


def _copy(e: Emitter, source: Any, into: Any, nbytes: int, align: int = 1) -> None:
    """Copies words, of memory that may stand anywhere unless `align` says more."""
    if not nbytes:
        return
    with e.loop(0, nbytes, 4) as offset:
        word = e.b.load(e.at(source, offset), typ=I32, align=align)
        e.b.store(word, e.at(into, offset), align=align)


def _equal(e: Emitter, found: Any, expected: Any, start: int, stop: int) -> Any:
    """An i1: whether these bytes are equal, by words."""

    def step(offset: Index, seen: list[Any]) -> list[Any]:
        a, b = (e.b.load(e.at(p, offset), typ=I32, align=1) for p in (found, expected))
        return [e.b.or_(seen[0], e.b.xor(a, b))]

    return e.b.icmp_signed("==", e.carry(start, stop, 4, [code(0)], step)[0], code(0))


def _bytes(made: ModuleEmitter, name: str, content: bytes) -> Any:
    """A constant of the module."""
    type = ir.ArrayType(I8, len(content))
    constant = ir.GlobalVariable(made.module, type, made.unique(name))
    constant.linkage, constant.global_constant = "internal", True
    constant.initializer, constant.align = ir.Constant(type, bytearray(content)), ALIGNMENT
    return constant
