"""Ahead of time: a network that learns becomes a C library in a folder.

    net.o            code: kernels and C entry points (see training_entry.py)
    net_data.o       data: the first state, constants, golden numbers, metadata
    libnet.a         both
    libnet.so        both, linked, where there is a C compiler
    net.h            the C99 header
    metadata.json    what the library is, with the SHA-256 of every file

For WebAssembly, instead of the shared library, a module and its script: see `training_web.py`.
Bytes are reproducible, as those of `aot.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from addergraph.data import Preprocessing
from addergraph.errors import UnsupportedError
from addergraph.files.storage import Pieces
from addergraph.ir import Array
from addergraph.ir.rounding import Rounded
from addergraph.ir.state import aligned_bytes
from addergraph.ir.steps import LearningStep
from addergraph.ir.types import TensorType
from addergraph.ir.walk import returning, upstream

from ..emit.lowered import Lowered
from ..run.jit import build, run_packed
from ..targets.boards import Board
from ..targets.lookup import runnable
from ..targets.target import Target
from . import library, training_header, training_web
from .library import Exported, described
from .training_entry import (
    emit_training,
    training_golden,
    training_golden_bytes,
    training_symbols,
)
from .training_interface import (
    STATE_VERSION,
    TrainingInterface,
    constant_bytes,
    initial_bytes,
    training_interface,
)

RATE = 0.125  # of the self-test's step
SEED = 0  # of its samples


@dataclass(frozen=True)
class _Golden:
    """A step of the self-test: what it is given, its loss, and the state behind it or, where this
    machine cannot run the code, what the loss may be off."""

    given: tuple[Array, ...]
    loss: Array
    state: Array | None
    allowed: float


def require_trainable(target: Target) -> None:
    """UnsupportedError for a target whose code cannot train."""
    if not target.multiplier:
        raise UnsupportedError(
            f"training multiplies (gradients by rates, batch norms), and code for {target.name} "
            "may not: train for another target, and quantize what was learned"
        )
    if not target.floats:
        raise UnsupportedError(
            f"training computes with floats, and {target.name} has no float instructions: take a "
            'core with a float unit, as "thumbv7em-f32" of Cortex-M4F and M7'
        )


def export_training(
    known: LearningStep,
    steps: Sequence[Lowered],
    forwards: Sequence[Lowered],
    folder: str,
    *,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    overwrite: bool = False,
    board: Board | None = None,
) -> Exported:
    """Writes a network that learns as a C library into `folder`, which is made if need be.

    steps, forwards  the two graphs of `known` for each level of the target, their parameters but
                     those of the state as inputs (`passes/as_inputs.py`)

    The rest, and what is raised, is as for `aot.export`.
    """
    interface = training_interface(known, steps, forwards, name, preprocessing)
    if board is not None:
        least = {
            "constants": interface.constants_bytes,
            "self-test": training_golden_bytes(interface),
        }
        ram = {"arena": interface.arena_bytes, "state": interface.state_bytes}
        board.require_room(interface.prefix, least, ram, known="at least ")
    return library.write_library(
        folder, interface, known.step,
        partial(_files, known, steps, forwards, interface, board), overwrite=overwrite,
    )  # fmt: skip


def _files(
    known: LearningStep, steps: Sequence[Lowered], forwards: Sequence[Lowered],
    interface: TrainingInterface, board: Board | None,
) -> dict[str, bytes | Pieces]:  # fmt: skip
    """Name -> content of everything but what is linked."""
    prefix, target = interface.prefix, interface.target
    golden = _golden(known, steps[0], interface)
    exact = golden.state is not None
    text, levels = emit_training(steps, forwards, interface, exact=exact)
    code = library.compiled(text, levels, prefix, training_symbols(prefix), target)
    constants = constant_bytes(known, interface)
    metadata = _metadata(known, interface, constants, exact, code.stack)
    block = training_golden(constants, golden.given, golden.loss, golden.state, golden.allowed)
    told = training_header.header(interface, exact=exact, stack=code.stack)
    files = library.library_files(interface, code, constants, block, told, metadata, board)
    if target.in_engine:
        identity = {key: metadata[key] for key in training_web.IDENTITY}
        files[f"{prefix}.js"] = training_web.script(interface, identity).encode()
        files[f"{prefix}.d.ts"] = training_web.declarations(interface).encode()
    return files


def _golden(known: LearningStep, step: Lowered, interface: TrainingInterface) -> _Golden:
    """Of samples drawn from SEED. Where this machine cannot run the code, the loss is NumPy's."""
    rng = np.random.default_rng(SEED)
    inputs = [_drawn(rng, type) for type in interface.inputs]
    given, targets = [*inputs], []
    for answer in interface.answers:
        if answer.labelled:
            labels = rng.integers(0, answer.classes, answer.given.sizes, np.int32)
            given.append(labels)
            targets.append(np.eye(answer.classes, dtype=np.float32)[labels])
        else:
            values = rng.random(answer.given.sizes, np.float32)
            given.append(values)
            targets.append(values)
    rate = np.asarray(RATE, np.float32)
    given.append(rate)
    arrays = [*inputs, *targets, rate]
    if not runnable(interface.target):
        bare = returning(known.step, known.step.outputs[:1])
        forward = tuple(upstream(bare.nodes, bare.outputs))  # NumPy's gradients take long
        rounded = Rounded(replace(bare, nodes=forward), arrays, known.numbers, rng)
        (loss,), (off,) = rounded.outputs, rounded.allowed()
        return _Golden(tuple(given), loss, None, float(np.nextafter(np.float32(off), np.inf)))
    state, first = aligned_bytes(interface.state_bytes), initial_bytes(known)
    state[: first.size] = first
    beside = [_numbers(known, block, own) for own, block in interface.step_reads]
    loss = run_packed(build(step), state, [*arrays, *beside])[0]
    return _Golden(tuple(given), loss, state, 0.0)


def _numbers(known: LearningStep, block: Any, own: bool) -> Array:
    assert not own, "a step reads its state as such"
    return np.ascontiguousarray(known.numbers[block.name])


def _drawn(rng: np.random.Generator, type: TensorType) -> Array:
    if type.dtype.name == "f32":
        return rng.standard_normal(type.sizes, np.float32)
    return rng.integers(0, 256, type.sizes, np.uint8)


def _metadata(
    known: LearningStep, interface: TrainingInterface, constants: Array, exact: bool,
    stack: int | None,
) -> dict[str, Any]:  # fmt: skip
    """What the library says of itself."""
    common = library.metadata_of(
        interface, known.step, known.numbers, interface.samples, constants, stack,
        exact=exact, seed=SEED,
    )  # fmt: skip
    return common | {
        "state_bytes": interface.state_bytes,
        "training": {
            "answers": [described(a.c_name, a.c_name, a.given) for a in interface.answers],
            "batch": interface.batch,
            "fingerprint": interface.fingerprint.hex(),
            "saved_bytes": interface.saved_bytes,
            "state": [
                {**described(b.name, b.name, b.type), "offset": b.offset} for b in interface.state
            ],
            "state_version": STATE_VERSION,
        },
    }
