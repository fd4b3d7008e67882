"""One library for several levels of an instruction set: the code of each, and who chooses.

Every level has functions and packed weights of its own, in one object; LLVM compiles each function
for the CPU that it names. A call asks which level the CPU has. The answer, a number of one word, is
written once, atomically, by whoever asks first; several threads that do so write the same.

All levels multiply and add f32 in two roundings, as the lowest has to: so they give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from addergraph.ir import Array
from addergraph.ir.plan import align

from ..emit.builder import I32, Emitter
from ..emit.lowered import Lowered, ProgramFacts, pack_weights
from ..emit.module import ModuleEmitter, emit_body, in_turn
from ..run.jit import main_weights
from .cpu import emit_asking, runs_everywhere

UNKNOWN = -1


@dataclass(frozen=True)
class Level:
    """The program of one level; its packed weights begin `offset` bytes behind the first one's."""

    lowered: Lowered
    facts: ProgramFacts
    offset: int


def emit_levels(made: ModuleEmitter, forms: Sequence[Lowered]) -> tuple[Any, tuple[Level, ...]]:
    """A function of the arguments of `emit_body`'s, and what it chooses from; `forms`: the same
    graph for each level, the lowest first, whose code `made` is for."""
    levels, bodies, offset = list[Level](), [], 0
    for lowered in forms:
        own = made if lowered is forms[0] else made.at_level(lowered.target)
        body, facts = emit_body(own, lowered)
        bodies.append(in_turn(own, body, lowered, lowered.arenas))
        levels.append(Level(lowered, facts, offset))
        offset += align(facts.weights_bytes)
    if len(bodies) == 1:
        return bodies[0], tuple(levels)
    return _emit_choice(made, bodies, levels), tuple(levels)


def _emit_choice(made: ModuleEmitter, bodies: Sequence[Any], levels: Sequence[Level]) -> Any:
    known = ir.GlobalVariable(made.module, I32, made.unique("level"))
    known.linkage, known.initializer = "internal", ir.Constant(I32, UNKNOWN)
    asks = _emit_first_call(made, known, [level.lowered.target for level in levels])
    function = made.function(made.unique("chosen"), [a.type for a in bodies[0].args])
    e = Emitter(function, made.target, made.wait)
    io, weights, *others = function.args
    found = e.b.load_atomic(known, ordering="monotonic", align=4)
    unknown = e.b.icmp_signed("==", found, ir.Constant(I32, UNKNOWN))
    (level,) = e.choose(unknown, lambda: [e.b.call(asks, [])], lambda: [found])
    for number in range(len(bodies) - 1, -1, -1):
        here = e.b.icmp_signed("==", level, ir.Constant(I32, number))
        with e.b.if_then(here):
            e.b.call(bodies[number], [io, e.at(weights, levels[number].offset), *others])
    e.b.ret_void()
    return function


def _emit_first_call(made: ModuleEmitter, known: Any, targets: Sequence[Any]) -> Any:
    """A function that asks for the highest level that this CPU has, notes and gives its number."""
    asks = [emit_asking(made, target) if target.needs else None for target in targets]
    function = made.function(made.unique("asks_level"), [], result=I32)
    runs_everywhere(made, function)
    e = Emitter(function, made.target, made.wait)
    level: Any = ir.Constant(I32, 0)
    for number, ask in enumerate(asks):
        if ask is not None:  # a CPU with a level has those below it
            has = e.b.icmp_signed("!=", e.b.call(ask, []), ir.Constant(I32, 0))
            level = e.b.select(has, ir.Constant(I32, number), level)
    e.b.store_atomic(level, known, ordering="monotonic", align=4)
    e.b.ret(level)
    return function


def packed_levels(levels: Sequence[Level], weights: Mapping[str, Array]) -> Array:
    """The packed weights of all levels, each aligned."""
    last = levels[-1]
    made = np.zeros(last.offset + last.facts.weights_bytes, np.uint8)
    for level in levels:
        own = pack_weights(level.facts, level.lowered, main_weights(level.lowered, weights))
        made[level.offset :][: own.size] = own
    return made
