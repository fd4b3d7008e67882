"""The road from a graph to what code generation takes: one record, an ordered list of steps.

    PIPELINE (`pipeline.py`)   passes: Graph -> Graph, of the record's `main`
    LOWERING                   steps: Lowering -> Lowering, which add what is no graph

Steps ask code generation what only it knows (`Kernels`); no pass imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from addergraph.ir import Graph
from addergraph.ir.plan import MemoryPlan
from addergraph.ir.taps import Taps

from . import plan_memory as memory
from .hoist import hoist as split


class Kernels(Protocol):
    """What code generation answers about the kernels that will serve a graph."""

    def share_kept(self, graph: Graph) -> Mapping[str, Taps]:
        """The taps of each constant filter that may run sparse."""

    def workspaces(self, graph: Graph, kept: Mapping[str, Taps]) -> Mapping[str, int]:
        """Bytes of scratch memory by node name, where the kernel of a node wants some."""

    def room(self, graph: Graph) -> int:
        """Bytes that the arena of a block of samples may have."""


@dataclass(frozen=True)
class Lowering:
    """A graph on its way to code. `str` shows all that is known of it.

    source      the graph as it was given (its batch may be open)
    main        what will run natively; after `bind_batch` its batch is bound
    kernels     whom the steps ask
    blocks      how many samples of an open batch main may compute, those to try first in front
    batch       how many a call of the program has; None leaves that to the call
    setup       what depends on parameters alone, after `hoist`
    samples     how many main computes, after `bind_batch`; the loop over blocks of so many is
                outside of it
    batched     which of main's inputs and outputs advance from block to block, where the batch of
                `source` is open, after `bind_batch`
    kept        the taps of constant filters that may run sparse
    workspaces  bytes of scratch memory by node
    plan        where main's values live
    """

    source: Graph
    main: Graph
    kernels: Kernels | None = field(default=None, compare=False, repr=False)
    blocks: Sequence[int] = (1,)
    batch: int | None = None
    setup: Graph | None = None
    samples: int = 1
    batched: tuple[bool, ...] | None = None
    kept: Mapping[str, Taps] = field(default_factory=dict)
    workspaces: Mapping[str, int] = field(default_factory=dict)
    plan: MemoryPlan | None = None

    def __str__(self) -> str:
        parts = [str(self.main)]
        if self.batched is not None:
            ends = (*self.main.inputs, *self.main.outputs)
            # Not strict: what a wrong step made is shown, too.
            own = (str(v) for v, advances in zip(ends, self.batched, strict=False) if advances)
            parts.append(f"advance with the sample: {_listed(own)}")
        if self.batch is not None and self.batched is not None:
            parts.append(f"blocks of {self.samples} of {self.batch} samples")
        if self.setup is not None and self.setup.outputs:
            parts.append(f"computed once for given weights:\n{self.setup}")
        if self.kept:
            shares = (
                f"%{name} {taps.above}/8"
                + f" and {taps.saturated}/8 saturated" * bool(taps.saturated)
                for name, taps in self.kept.items()
            )
            parts.append(f"elements above zero: {_listed(shares)}")
        if self.workspaces:
            sizes = (f"{name} {size}" for name, size in self.workspaces.items())
            parts.append(f"bytes of scratch memory: {_listed(sizes)}")
        if self.plan is not None:
            parts.append(memory.render(self.plan, self.main))
        return "\n\n".join(parts)


Step = Callable[[Lowering], Lowering]


def bind_batch(at: Lowering) -> Lowering:
    """Binds an open batch to a block of samples: the first of `blocks` that has room in the cache,
    else the last."""
    if not at.main.is_open:
        return at
    batched = tuple(v.type.is_open for v in (*at.main.inputs, *at.main.outputs))

    def block(samples: int) -> Lowering:
        return replace(at, main=at.main.bind(samples), samples=samples, batched=batched)

    *larger, smallest = at.blocks
    return next(filter(has_room, map(block, larger)), None) or block(smallest)


def normalize_outputs(at: Lowering) -> Lowering:
    """Gives each output a buffer of its own."""
    main = memory.normalize_outputs(at.main)
    return at if main is at.main else replace(at, main=main)


def hoist(at: Lowering) -> Lowering:
    """Splits off what depends on parameters alone."""
    setup, main = split(at.main)
    return replace(at, setup=setup, main=main)


def keep_parameters(at: Lowering) -> Lowering:
    """Takes back the parameters that passes dropped from a program with updates.

    Programs that share a state agree on its layout, so none may lack a parameter.
    """
    if not at.main.updates or at.main.parameters == at.source.parameters:
        return at
    return replace(at, main=replace(at.main, parameters=at.source.parameters))


def share_kept(at: Lowering) -> Lowering:
    """Asks how sparse the constant filters are: kernels are chosen by it."""
    return replace(at, kept=_asked(at).share_kept(at.main))


def workspaces(at: Lowering) -> Lowering:
    """Asks for the scratch memory of each node's kernel."""
    return replace(at, workspaces=_asked(at).workspaces(at.main, at.kept))


def plan_memory(at: Lowering) -> Lowering:
    """Places every value."""
    return replace(at, plan=memory.plan_memory(at.main, at.workspaces))


def has_room(bound: Lowering) -> bool:
    """Whether the arena of a block of samples is not larger than code generation allows."""
    # The values alone first: which kernels will serve takes a hundred times as long to ask.
    for step in (normalize_outputs, hoist, share_kept, plan_memory, *PLANNING):
        bound = step(bound)
        if bound.plan is not None and bound.plan.arena_bytes > _asked(bound).room(bound.main):
            return False
    return True


PLANNING: tuple[Step, ...] = (workspaces, plan_memory)  # again where other kernels are chosen
LOWERING: tuple[Step, ...] = (
    bind_batch,  # first: buffers, shapes and workspaces are those of bound types
    normalize_outputs,  # before hoist: what an output copies stays in main
    hoist,  # before share_kept: it makes parameters of what is computed from parameters
    keep_parameters,  # after hoist, which drops what main does not read
    share_kept,  # before workspaces: a sparse kernel's scratch memory is another
    *PLANNING,
)


def _asked(at: Lowering) -> Kernels:
    assert at.kernels is not None, "lowering asks code generation: pass its answers as `kernels`"
    return at.kernels


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items) or "nothing"
