"""What a library that learns calls things: C names, sizes, places and codes, as plain data.

    state      the parameters that a step changes, raw, each at a 64-byte boundary
    constants  what `init` puts there, without the zeros at its end; behind it other parameters

A saved state is a head of 64 bytes and the state. The numbers of the head are little-endian:

    0   8 bytes  "AGSTATE" and a 0
    8   u32      version of this format
    12  u32      bytes of the state
    16  32 bytes SHA-256 that says of which network it is, see `fingerprint`
    48  2 u32    sums over the words of the state, as of the weights of a library
    56  8 bytes  zeros
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from addergraph.data import Preprocessing
from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Value
from addergraph.ir.plan import ALIGNMENT, align
from addergraph.ir.state import bind_weights, parameter_offsets
from addergraph.ir.steps import LearningStep
from addergraph.ir.types import TensorType, f32, i32

from ..emit.lowered import Lowered
from ..targets.target import Target
from .interface import (
    BAD_THREAD,
    C_TYPES,
    CODES,
    DAMAGED_WEIGHTS,
    MISALIGNED_ARENA,
    WRONG_BITS,
    Argument,
    Image,
    identifier,
    images_of,
    prefix_of,
)

BAD_LABEL, BAD_RATE, NO_STATE, OTHER_VERSION, OTHER_NETWORK, WRONG_SIZE, DAMAGED_STATE = range(
    8, 15
)
TRAINING_CODES: dict[int, tuple[str, str]] = {
    **{number: told for number, told in CODES.items() if number != BAD_THREAD},
    MISALIGNED_ARENA: ("ERROR_ARENA", f"arena or state is not aligned to {ALIGNMENT} bytes"),
    DAMAGED_WEIGHTS: ("ERROR_WEIGHTS", "selftest: the constants differ from their checksum"),
    WRONG_BITS: ("ERROR_BITS", "selftest: a step gave another loss or another state"),
    BAD_LABEL: ("ERROR_LABEL", "a label is not 0 <= label < number of classes"),
    BAD_RATE: ("ERROR_RATE", "the learning rate is negative, infinite or NaN"),
    NO_STATE: ("ERROR_SAVED", "the bytes do not begin as a saved state"),
    OTHER_VERSION: ("ERROR_VERSION", "the state was saved by another version"),
    OTHER_NETWORK: ("ERROR_NETWORK", "the state is that of another network"),
    WRONG_SIZE: ("ERROR_SIZE", "bytes are missing, or too many"),
    DAMAGED_STATE: (
        "ERROR_DAMAGED",
        "the state differs from its checksum, or its head does not end in zeros",
    ),
}
MAGIC, STATE_VERSION = b"AGSTATE\0", 1
# Of a saved state; where its checksum begins, and the zeros behind it.
HEAD_BYTES, CHECKED, ZEROS = 64, 48, 56
FUNCTIONS = (
    "init", "train", "run", "save", "load", "selftest", "metadata_json", "supported"
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A tensor in the state or in the constants, `offset` bytes behind their start."""

    name: str
    type: TensorType
    offset: int


@dataclass(frozen=True)
class Answer:
    """What training is told of one output: labels i32[N], or f32 values.

    target  the rows f32[N,T] that the step takes
    given   what the caller gives
    """

    c_name: str
    target: TensorType
    given: TensorType

    @property
    def labelled(self) -> bool:
        return self.given.dtype == i32

    @property
    def classes(self) -> int:
        return self.target.sizes[-1]

    @property
    def c_type(self) -> str:
        return C_TYPES[self.given.dtype.name]


@dataclass(frozen=True)
class TrainingInterface:
    """The C interface of one library that learns.

    samples    the inputs of one sample, `outputs` its answers: what `run` takes and gives
    inputs     those of a batch
    extra      bytes of each output of a step behind the loss: other losses, predictions
    reads      of the step and of `run`: the blocks of what their code reads beside these, in order;
               of a block, whether it stands in the state
    step_bytes, run_bytes  what the code of the two needs of the arena
    """

    prefix: str
    graph: str
    batch: int
    samples: tuple[Argument, ...]
    inputs: tuple[TensorType, ...]
    answers: tuple[Answer, ...]
    outputs: tuple[Argument, ...]
    extra: tuple[int, ...]
    state: tuple[Block, ...]
    constants: tuple[Block, ...]
    step_reads: tuple[tuple[bool, Block], ...]
    run_reads: tuple[tuple[bool, Block], ...]
    init_bytes: int
    step_bytes: int
    run_bytes: int
    fingerprint: bytes
    target: Target
    image: Image | None = None
    classes: tuple[str, ...] = ()

    @property
    def macro(self) -> str:
        return self.prefix.upper()

    @property
    def state_bytes(self) -> int:
        return sum(align(b.type.nbytes) for b in self.state)

    @property
    def saved_bytes(self) -> int:
        return HEAD_BYTES + self.state_bytes

    @property
    def constants_bytes(self) -> int:
        return self.init_bytes + sum(align(b.type.nbytes) for b in self.constants)

    @property
    def rows(self) -> tuple[int, ...]:
        """Where in the arena the one-hot rows of each answer stand; -1 of values."""
        places, end = [], self.step_bytes
        for answer in self.answers:
            places.append(end if answer.labelled else -1)
            end += align(answer.target.nbytes) * answer.labelled
        return tuple(places)

    @property
    def extras(self) -> tuple[int, ...]:
        """Where in the arena a step puts each of `extra`."""
        hot = (align(a.target.nbytes) for a in self.answers if a.labelled)
        places, end = [], self.step_bytes + sum(hot)
        for size in self.extra:
            places.append(end)
            end += align(size)
        return tuple(places)

    @property
    def loss_at(self) -> int:
        """Where in the arena the self-test has the loss of its step."""
        return align(self.extras[-1] + self.extra[-1])

    @property
    def arena_bytes(self) -> int:
        return max(self.loss_at + align(4), self.run_bytes)

    @property
    def golden(self) -> tuple[TensorType, ...]:
        """What a step of the self-test takes, in order."""
        scalar = TensorType(f32, ())
        return (*self.inputs, *(a.given for a in self.answers), scalar)

    @property
    def head(self) -> bytes:
        """Of a saved state, but for the checksum."""
        numbers = struct.pack("<II", STATE_VERSION, self.state_bytes)
        return (MAGIC + numbers + self.fingerprint).ljust(HEAD_BYTES, b"\0")

    @property
    def functions(self) -> tuple[str, ...]:
        """What a module of WebAssembly shows, beside its memory and buffers."""
        names = (name for name in FUNCTIONS if name != "supported")
        return tuple(f"{self.prefix}_{name}" for name in names)

    @property
    def buffers(self) -> dict[str, int]:
        """The buffers that a module of WebAssembly has for calls, and their bytes."""
        sizes = {"arena": self.arena_bytes, "state": self.state_bytes}
        sizes |= {"saved": self.saved_bytes, "rate": 4, "loss": 4}
        sizes |= {f"input_{i}": t.nbytes for i, t in enumerate(self.inputs)}
        sizes |= {f"answer_{i}": a.given.nbytes for i, a in enumerate(self.answers)}
        sizes |= {f"output_{i}": a.type.nbytes for i, a in enumerate(self.outputs)}
        return {f"{self.prefix}_{name}": size for name, size in sizes.items()}


def training_interface(
    known: LearningStep,
    steps: Sequence[Lowered],
    forwards: Sequence[Lowered],
    name: str | None,
    preprocessing: Preprocessing | None,
) -> TrainingInterface:
    """The C interface of a network that learns, called `name` or else as the network is; each form
    once for every level of the target.

    Raises UnsupportedError for names that coincide in C, and for names of classes that are not one
    for each score.
    """
    forward, step = known.forward, known.step
    fixed, count = len(known.labelled) + 1, len(forward.inputs)
    targets = step.inputs[count : count + len(known.labelled)]
    offsets, _ = parameter_offsets(known.state)
    state = tuple(Block(p.name, p.type, offsets[p.name]) for p in known.state)
    init = initial_bytes(known)
    reads = [_beside(steps[0], count + fixed), _beside(forwards[0], count)]
    constants = _constants(reads, {b.name for b in state}, known.stands, align(init.size))
    blocks = {b.name: (False, b) for b in constants} | {b.name: (True, b) for b in state}
    step_reads, run_reads = (
        tuple(blocks[known.stands.get(v.name, v.name)] for v in of) for of in reads
    )
    image, classes = images_of(forward, preprocessing)
    step_bytes, run_bytes = (max(one.arena_bytes for one in forms) for forms in (steps, forwards))
    made = TrainingInterface(
        prefix=prefix_of(name or forward.name),
        graph=forward.name,
        batch=step.inputs[0].type.sizes[0],
        samples=_arguments(forward.inputs),
        inputs=tuple(v.type for v in step.inputs[:count]),
        answers=_answers(targets, known.labelled),
        outputs=_arguments(forward.outputs),
        extra=tuple(v.type.nbytes for v in step.outputs[1:]),
        state=state,
        constants=constants,
        step_reads=step_reads,
        run_reads=run_reads,
        init_bytes=align(init.size),
        step_bytes=step_bytes,
        run_bytes=run_bytes,
        fingerprint=_fingerprint(known, state, constants),
        target=steps[0].target,
        image=image,
        classes=classes,
    )
    _require_distinct(made)
    return made


def initial_bytes(known: LearningStep) -> Array:
    """The state before the first step, without the lines of 64 zeros at its end."""
    offsets, size = parameter_offsets(known.state)
    made = np.zeros(size, np.uint8)
    for name, array in _numbers(known).items():
        if name in offsets:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            made[offsets[name] :][: raw.size] = raw
    used = np.flatnonzero(made)
    return made[: align(int(used[-1]) + 1) if used.size else 0]


def constant_bytes(known: LearningStep, interface: TrainingInterface) -> Array:
    """All constants: see the head of this file."""
    made, init = np.zeros(interface.constants_bytes, np.uint8), initial_bytes(known)
    made[: init.size] = init
    for block in interface.constants:
        raw = np.ascontiguousarray(known.numbers[block.name]).reshape(-1).view(np.uint8)
        made[block.offset :][: raw.size] = raw
    return made


def _numbers(known: LearningStep) -> dict[str, Array]:
    """The numbers of the step's parameters, checked."""
    return bind_weights(f'graph "{known.step.name}"', known.step.parameters, known.numbers)


def _beside(form: Lowered, own: int) -> tuple[Value, ...]:
    """The inputs that were parameters, which stand behind its own."""
    return form.main.inputs[own:]


def _constants(
    reads: Iterable[Iterable[Value]], state: set[str], stands: Mapping[str, str], end: int
) -> tuple[Block, ...]:
    found: dict[str, Block] = {}
    for v in (v for of in reads for v in of):
        name = stands.get(v.name, v.name)
        if name not in state and name not in found:
            found[name] = Block(name, v.type, end)
            end += align(v.type.nbytes)
    return tuple(found.values())


def _arguments(values: Sequence[Value]) -> tuple[Argument, ...]:
    """Tensors of one sample."""
    return tuple(Argument(v.name, identifier(v.name), v.type, v.type.bind(1), None) for v in values)


def _answers(targets: Sequence[Value], labelled: Sequence[bool]) -> tuple[Answer, ...]:
    made = []
    for v, is_label in zip(targets, labelled, strict=True):
        given = TensorType(i32, v.type.sizes[:1]) if is_label else v.type
        name = v.name.removesuffix("targets") + "labels" if is_label else v.name
        made.append(Answer(identifier(name), v.type, given))
    return tuple(made)


def _fingerprint(known: LearningStep, state: Sequence[Block], constants: Sequence[Block]) -> bytes:
    """SHA-256 of what a state has to fit: the graph that predicts, the places of the state, and the
    numbers that no step changes. Not of the target, nor of the batch: a state may move."""
    digest = hashlib.sha256(str(known.forward).encode())
    for block in state:
        digest.update(f"{block.name}: {block.type} at {block.offset}\n".encode())
    for block in constants:
        digest.update(f"{block.name}: {block.type}\n".encode())
        digest.update(np.ascontiguousarray(known.numbers[block.name]).tobytes())
    return digest.digest()


def _require_distinct(interface: TrainingInterface) -> None:
    taken: dict[str, str] = {}
    names = [(a.c_name, "what training is told") for a in interface.answers]
    names += [(a.c_name, f"%{a.name}") for a in (*interface.samples, *interface.outputs)]
    for c_name, what in names:
        made = c_name.lower()  # macros are in capitals
        if made in taken:
            raise UnsupportedError(
                f'graph "{interface.graph}": {what} would be called "{c_name}" in C, which clashes '
                f"with {taken[made]}; rename it before you export"
            )
        taken[made] = what
