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
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from addergraph.data import Preprocessing
from addergraph.errors import UnsupportedError
from addergraph.files.storage import Pieces, pieces
from addergraph.ir import Array
from addergraph.ir.plan import ALIGNMENT
from addergraph.ir.rounding import Rounded
from addergraph.ir.state import aligned_bytes
from addergraph.ir.steps import LearningStep
from addergraph.ir.types import TensorType
from addergraph.ir.walk import returning, upstream

from .. import llvm
from ..emit.lowered import Lowered, computed_by
from ..inspect import limits
from ..inspect.size import size_of_archive
from ..inspect.stack import stack_bytes
from ..run.jit import build, run_packed
from ..targets.boards import Board
from ..targets.lookup import runnable
from ..targets.target import Target
from . import folder as folders
from . import link, training_header, training_web
from .aot import FORMAT, Exported, linked_into
from .archive import Member, archive
from .attributes import passing_no_floats
from .data import data_object
from .entry import data_symbols
from .interface import ABI_VERSION
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
    if target.format not in ("elf", "wasm"):
        raise UnsupportedError(
            "libraries that train are made for Linux, boards and WebAssembly, not for "
            f"{target.name}; "
            "export the inference library, or train in Python"
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
    target, prefix = interface.target, interface.prefix
    if board is not None:
        least = {
            "constants": interface.constants_bytes,
            "self-test": training_golden_bytes(interface),
        }
        ram = {"arena": interface.arena_bytes, "state": interface.state_bytes}
        board.require_room(prefix, least, ram, known="at least ")
    compiler = link.find_compiler(target, None)
    if not overwrite:
        folders.require_replaceable(folder, prefix, folders.graph_digest(known.step))
    with ExitStack() as until_written:
        where = until_written.enter_context(folders.made_folder(folder, []))
        files = _files(known, steps, forwards, interface, board)
        why_none: str | None = link.why_none(target, None)
        if compiler is not None:
            scratch = until_written.enter_context(link.scratch_folder(where))
            why_none = linked_into(compiler, interface, files, scratch, None)
        folders.write(where, prefix, files, link.why_no_library(target, why_none))
    return _exported(where, interface, why_none is None)


def _exported(where: Path, interface: TrainingInterface, is_linked: bool) -> Exported:
    prefix, target = interface.prefix, interface.target
    linked = where / link.linked_name(prefix, target) if is_linked else None
    code, data, library = (where / name for name in folders.objects(prefix))
    common = (where / f"{prefix}.h", where / folders.METADATA)
    if not target.in_engine:
        return Exported(code, data, library, linked, *common, None)
    texts = where / f"{prefix}.js", where / f"{prefix}.d.ts"
    return Exported(code, data, library, None, *common, None, linked, *texts)


def _files(
    known: LearningStep, steps: Sequence[Lowered], forwards: Sequence[Lowered],
    interface: TrainingInterface, board: Board | None,
) -> dict[str, bytes | Pieces]:  # fmt: skip
    """Name -> content of everything but what is linked."""
    prefix, target = interface.prefix, interface.target
    golden = _golden(known, steps[0], interface)
    exact = golden.state is not None
    text, levels = emit_training(steps, forwards, interface, exact=exact)
    code_object, assembly = llvm.compile_both(text, target)
    if not target.hosted:
        nodes = {k: n for level in levels for k, n in computed_by(level.facts).items()}
        limits.require_no_calls(code_object, target, nodes, data_symbols(prefix))
    code_object = passing_no_floats(code_object)
    stack = stack_bytes(assembly, target.triple, training_symbols(prefix))
    constants = constant_bytes(known, interface)
    metadata = _metadata(known, interface, constants, exact, stack)
    names: dict[str, Any] = {"classes": interface.classes} if interface.classes else {}
    block = training_golden(constants, golden.given, golden.loss, golden.state, golden.allowed)
    data = data_object(prefix, target, constants, block, folders.canonical(metadata))
    members = [
        Member(f"{prefix}.o", [code_object], training_symbols(prefix)),
        Member(f"{prefix}_data.o", data, data_symbols(prefix)),
    ]
    files: dict[str, bytes | Pieces] = {
        f"{prefix}.o": code_object,
        f"{prefix}_data.o": data,
        f"lib{prefix}.a": archive(members),
        f"{prefix}.h": training_header.header(interface, exact=exact, stack=stack).encode(),
        folders.METADATA: folders.canonical(metadata | names),
    }
    if target.in_engine:
        identity = {key: metadata[key] for key in training_web.IDENTITY}
        files[f"{prefix}.js"] = training_web.script(interface, identity).encode()
        files[f"{prefix}.d.ts"] = training_web.declarations(interface).encode()
    if board is not None:
        size = size_of_archive(b"".join(pieces(files[f"lib{prefix}.a"])), f"lib{prefix}.a")
        board.require_room(prefix, size.flash, size.ram_of_a_call)
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
    from addergraph import __version__

    target = interface.target
    image = {} if interface.image is None else asdict(interface.image)
    shown = {"image": {key: v for key, v in image.items() if v is not None}} if image else {}
    return folders.identity(known.step, known.numbers) | shown | {
        "abi_version": ABI_VERSION,
        "arena_align": ALIGNMENT,
        "arena_bytes": interface.arena_bytes,
        "format": FORMAT,
        "golden": {"exact": exact, "seed": SEED},
        "graph": interface.graph,
        "inputs": [_described(a.c_name, a.name, a.source) for a in interface.samples],
        "multiplication_free": False,
        "name": interface.prefix,
        "outputs": [_described(a.c_name, a.name, a.source) for a in interface.outputs],
        "stack_bytes": stack,
        "state_bytes": interface.state_bytes,
        "target": {
            "cpu": target.cpu,
            "features": target.features,
            "name": target.name,
            "triple": target.triple,
        },
        "training": {
            "answers": [_described(a.c_name, a.c_name, a.given) for a in interface.answers],
            "batch": interface.batch,
            "fingerprint": interface.fingerprint.hex(),
            "saved_bytes": interface.saved_bytes,
            "state": [
                {**_described(b.name, b.name, b.type), "offset": b.offset} for b in interface.state
            ],
            "state_version": STATE_VERSION,
        },
        "versions": {"addergraph": __version__, "llvm": llvm.version()},
        "weights_bytes": constants.nbytes,
        "weights_sha256": folders.sha256(constants.data),
    }  # fmt: skip


def _described(c_name: str, name: str, type: TensorType) -> dict[str, Any]:
    return {"c_name": c_name, "dtype": type.dtype.name, "name": name, "shape": list(type.shape)}
