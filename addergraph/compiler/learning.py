"""Networks that learn where there is no Python: their libraries on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ..data.preprocessing import Preprocessing
from ..errors import UnsupportedError
from ..ir import Array, Graph
from ..ir.steps import LearningStep
from .forks import import_compiler
from .lowering import for_codegen, without_range_warnings

if TYPE_CHECKING:
    from ..codegen.emit.lowered import Lowered
    from ..codegen.export.library import Exported
    from ..codegen.targets.boards import Board
    from ..codegen.targets.target import Target


class Learning(Protocol):
    """How a network shall learn: `ag.DeviceTraining` is one."""

    def step_of(self, network: object) -> LearningStep:
        """The step of this network, and the graph that predicts."""


def export_learning(
    known: LearningStep,
    folder: str,
    *,
    target: str,
    tune_for: str | None,
    name: str | None,
    overwrite: bool,
    board: Board | None,
    preprocessing: Preprocessing | None,
) -> Exported:
    """As `export` with `train`; of a board's targets the first one that trains."""
    import_compiler()
    from ..codegen.export import training
    from ..codegen.targets.lookup import target_named

    if board is not None:
        found = [target_named(one) for one in board.targets]
        target = next((t.name for t in found if t.floats and t.multiplier), found[0].name)
    machine = target_named(target, tune_for)
    training.require_trainable(machine)
    above = [replace(level, machine=machine.machine) for level in machine.above]
    kept = [p.name for p in known.state]
    with without_range_warnings():  # training and inference gave them
        steps = [_lowered(known.step, level, kept) for level in (machine, *above)]
        one = known.forward.bind(1)
        forwards = [_lowered(one, level, ()) for level in (machine, *above)]
    return training.export_training(
        known, steps, forwards, folder, preprocessing=preprocessing, name=name,
        overwrite=overwrite, board=board,
    )  # fmt: skip


def saved_state(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> dict[str, Array]:
    """What a state holds that the library in `folder` saved, by the names of the tensors; see
    `codegen/export/training_state.py`."""
    from ..codegen.export.training_state import read_state

    return read_state(folder, file)


def _lowered(graph: Graph, target: Target, kept: Sequence[str]) -> Lowered:
    """A bound graph ready for code generation, whose parameters but those `kept` are inputs.

    They become so behind the passes, which see what they see in a process: the bits are the same.
    """
    from ..codegen.emit.lowered import Kernels
    from ..codegen.inspect import limits
    from ..passes import pipeline
    from ..passes.as_inputs import as_inputs

    kernels = Kernels(target)
    made = as_inputs(pipeline.run(graph), kept)
    lowered = for_codegen(pipeline.lower(made, kernels, passes=()), kernels)
    limits.require_target(lowered)
    return lowered


def require_learning(train: object, **others: object) -> None:
    """UnsupportedError for a description of training that is none, and for options of `export` that
    do not go with it."""
    if not hasattr(type(train), "step_of"):
        raise UnsupportedError(
            "train= takes a description, such as ag.DeviceTraining(batch=16), found "
            f"{type(train).__name__}"
        )
    for option, value in others.items():
        if value:
            raise UnsupportedError(f"{option} does not go with training: {_WHY[option]}")


_WHY = {
    "multiplication_free": "a step multiplies gradients by rates; train, then quantize what was "
    "learned",
    "package": "a library that learns has no package for other build systems yet; add its archive "
    "and its header to yours",
    "weights": "a model brings its own",
    "batch": "DeviceTraining(batch=...) has the samples of a step",
}
