"""The ordered list of passes, and the runner that checks and tells observers after each of them.

Every pass is a function `Graph -> Graph`: valid in, valid out, same meaning; inputs and outputs
keep their types and order. Training graphs are differentiated (`train_step`) before they come here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from addergraph.errors import (
    AdderGraphError,
    CodegenError,
    GraphError,
    PassError,
    UnsupportedError,
)
from addergraph.ir import Graph, Value
from addergraph.ir.check import check

from .canonicalize import canonicalize
from .eliminate import eliminate
from .fold_batch_norm import fold_batch_norm
from .fuse import fuse
from .lowering import LOWERING, Kernels, Lowering, Step
from .quantize.forget_scales import forget_scales
from .ranges import ranges

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Lowering, Lowering, float], None]
"""Called after each checked pass or step: (its name, what was before, after, seconds it took)."""

PIPELINE: tuple[Pass, ...] = (
    canonicalize,  # one form for what can be written in several ways, so that later passes see one
    fold_batch_norm,  # before ranges and fuse: they see a multiplication and an addition
    ranges,  # before fuse: what it proves of an input is an attribute of the contraction
    eliminate,  # before fuse: a dead reader would keep a value from being fused
    forget_scales,  # before fuse: bodies that differ in them alone become one kernel
    fuse,  # last: no pass but memory planning looks into fused bodies
)


def run(
    graph: Graph, passes: Sequence[Pass] = PIPELINE, observers: Sequence[Observer] = ()
) -> Graph:
    """`graph` after each of `passes` in turn, checked after every one; errors as of `advance`."""
    return advance(Lowering(graph, graph), [OnMain(p) for p in passes], observers).main


def lower(
    graph: Graph,
    kernels: Kernels,
    observers: Sequence[Observer] = (),
    passes: Sequence[Pass] = PIPELINE,
    blocks: Sequence[int] = (1,),
    batch: int | None = None,
) -> Lowering:
    """`graph` after `passes` and every step of LOWERING; errors as of `advance`.

    `blocks`, `batch`: of an open graph, as `Lowering` has them.
    """
    road: list[Step] = [*(OnMain(p) for p in passes), *LOWERING]
    return advance(Lowering(graph, graph, kernels, blocks, batch), road, observers)


@dataclass(frozen=True)
class OnMain:
    """A pass as a step."""

    of: Pass

    def __call__(self, at: Lowering) -> Lowering:
        main = self.of(at.main)
        return at if main is at.main else replace(at, main=main)


def advance(at: Lowering, steps: Sequence[Step], observers: Sequence[Observer] = ()) -> Lowering:
    """`at` after each of `steps` in turn, checked after every one.

    Raises PassError, naming the step and showing what was before and after, when a step fails or
    its result is not well formed or changes what it may not: inputs, types of outputs, parameters
    (unused ones may go, those of `source` and what `setup` computes may come), which parameters are
    updated. What code generation says of a graph (CodegenError, UnsupportedError) passes as it is.
    """
    checked: Graph | None = None
    for step in steps:
        name, start = step_name(step), time.perf_counter()
        after: Lowering | None = None
        try:
            after = step(at)
            seconds = time.perf_counter() - start
            if after.main is not checked:  # many passes find nothing to do
                _check(at, after)
        except (CodegenError, UnsupportedError):
            raise
        except AdderGraphError as error:
            result = "" if after is None else f"\nafter:\n{after}"
            raise PassError(f'pass "{name}": {error}\nbefore:\n{at}{result}') from error
        for observe in observers:
            observe(name, at, after, seconds)
        at, checked = after, after.main
    return at


def step_name(step: Pass | Step) -> str:
    """The name of a pass or step: of the function, or of the class of one with options."""
    if isinstance(step, OnMain):
        return step_name(step.of)
    return getattr(step, "__name__", type(step).__name__)


def _check(before: Lowering, after: Lowering) -> None:
    """GraphError unless the graphs of `after` are well formed and can stand where before's did."""
    check(after.main)
    if after.setup is not None and after.setup is not before.setup:
        check(after.setup)
    binds = 0 if after.batched is None or before.batched is not None else after.samples
    old, new = before.main, after.main
    for what, was, now in (
        ("inputs", _declared(old, binds), _declared(new)),
        ("output types", _output_types(old, binds), _output_types(new)),
        ("updated parameters", _updated(old), _updated(new)),
    ):
        if was != now:
            raise GraphError(f"changed the {what} from ({was}) to ({now})")
    computed = {v.name for v in after.setup.outputs} if after.setup is not None else set()
    known = {*old.parameters, *after.source.parameters}
    made = [p.name for p in new.parameters if p not in known and p.name not in computed]
    if made:
        raise GraphError(f"made new parameters: {', '.join(made)}")


def _declared(graph: Graph, bound: int = 0) -> str:
    return ", ".join(f"{v}: {_type(v, bound)}" for v in graph.inputs)


def _output_types(graph: Graph, bound: int = 0) -> str:
    return ", ".join(_type(v, bound) for v in graph.outputs)


def _type(value: Value, bound: int) -> str:
    """Of so many samples, where the batch is being bound."""
    return str(value.type.bind(bound) if bound else value.type)


def _updated(graph: Graph) -> str:
    return ", ".join(str(u.parameter) for u in graph.updates)
