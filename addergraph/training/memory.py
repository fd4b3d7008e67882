"""The memory that a training run needs, and a refusal where the machine has less.

    need = training_need([step.graph(64)])
    print(need)              # 1.20 MiB: arena 1.02 MiB, state 156 KiB, batches 32.0 KiB
    require_memory(need)     # MemoryLimitError where that is more than there is

The arena is all that forward, loss, backward and update hold between their kernels, as
`passes/plan_memory.py` lays it out. Without the refusal a run that does not fit would start, and
be ended by the kernel when its first step touches the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import compiler
from ..errors import MemoryLimitError
from ..ir import Graph
from ..ir.state import parameter_offsets
from ..memory import Available
from ..memory import available_memory as available_memory  # for those who ask before a run
from ..report.summary import size_text

STATE_COPIES = 4  # the state, those of the step before and the last good epoch, the best weights
BATCHES = 4  # in use, being made, and two that wait (`data.Loader`)


@dataclass(frozen=True)
class Need:
    """Bytes that a training run takes beside the data set and what the process has already.

    arena    working memory of the compiled steps, one for each batch size
    state    weights and the optimizer's state, with the copies that a run keeps
    batches  prefetched samples and their targets
    """

    arena: int
    state: int
    batches: int

    @property
    def total(self) -> int:
        return self.arena + self.state + self.batches

    def __str__(self) -> str:
        parts = ("arena", self.arena), ("state", self.state), ("batches", self.batches)
        listed = ", ".join(f"{name} {size_text(count)}" for name, count in parts)
        return f"{size_text(self.total)}: {listed}"


def training_need(
    steps: Sequence[Graph],
    arenas: Sequence[int] | None = None,
    *,
    batches: int = BATCHES,
    copies: int = STATE_COPIES,
) -> Need:
    """The need of a run with these training steps (`TrainStep.graph`), one for each batch size,
    which share one state.

    `arenas`: `Program.arena_bytes` of each, where they are compiled already. Otherwise they are
    planned here, which takes as long as compiling without its last part (seconds for ResNet-20).
    """
    state = max(parameter_offsets(step.parameters)[1] for step in steps)
    inputs = max(sum(v.type.nbytes for v in step.inputs) for step in steps)
    arenas = arenas or [compiler.arena_bytes(step) for step in steps]
    return Need(sum(arenas), copies * state, batches * inputs)


def require_memory(need: Need, available: Available | None = None) -> None:
    """MemoryLimitError where `need` exceeds what is available, `available_memory()` unless given.

    Where the system does not tell (it has no /proc), nothing is refused.
    """
    available = available or available_memory()
    if available is None or need.total <= available.nbytes:
        return
    raise MemoryLimitError(
        f"the training needs {need}; available are {size_text(available.nbytes)} "
        f"({available.limit}). Use a smaller batch, free memory, or raise the limit"
    )
